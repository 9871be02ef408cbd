"""What can be learned at start without the right to manage, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from eventkit.errors import (
    AccessDenied,
    ConfigurationError,
    ConnectionLost,
    PermanentAdapterError,
    SourceNotFound,
)
from eventkit.spi import Demand, Limits, Traits
from eventkit_servicebus._config import Place
from eventkit_servicebus._errors import condition_of
from eventkit_servicebus._managed import Facts, Managed
from eventkit_servicebus._setup import unread
from eventkit_servicebus._setup import warnings as of_setup
from eventkit_servicebus._wire import unreachable

_PER_RECEIVER: Final = 1_000
"""Events in hand for which one receiver is enough."""
_MOST_RECEIVERS: Final = 8
_BESIDE: Final = 8 * 1024
"""Bytes of a message that a body leaves for what stands beside it."""
_LEASE_TOTAL: Final = 900.0
"""Seconds for which a lock was seen to be renewed: https://github.com/Azure/azure-service-bus/issues/685"""


def receivers_for(demand: Demand) -> int:
    """How many receivers bring so many events."""
    return min(max(math.ceil(demand.events / _PER_RECEIVER), 1), _MOST_RECEIVERS)


def limits(*, receives: int = 1, most: int) -> Limits:
    """A call settles one message: so many are in flight at a time. A message may have `most` bytes."""
    return Limits(receive=100, concurrent_receives=receives, settle=100, extend=100, publish=500, body=most - _BESIDE)


def traits(facts: Facts | None, *, delays: bool, sessions: bool) -> Traits:
    """The differences of this source from others; `delays` says that a copy of a message can be sent to it.

    A delayed retry, which is a new message, starts the service's own count of deliveries anew.
    """
    return Traits(
        delivery_count="exact",
        confirms_ack=True,
        max_retry_delay=None if delays else 0.0,
        lease_fixed=True,
        lease_total_max=_LEASE_TOTAL,
        key_release="hold" if sessions else "none",
        native_receive_limit=None if facts is None else facts.receive_limit,
        retention=None if facts is None else facts.ttl,
    )


def warnings(
    place: Place, demand: Demand, facts: Facts | None, *, managed: Managed, denied: AccessDenied | None
) -> Iterator[str]:
    """What works, and will surprise."""
    if denied is not None:
        yield (
            f"{place.address}: these credentials may not send to it, so what is to be retried later waits in the "
            "worker, under its lock; grant them Azure Service Bus Data Sender (Send) on the queue"
        )
    if place.prefetch:
        yield (
            f"{place.address}: of what is fetched ahead (prefetch={place.prefetch}) nobody extends the locks; keep it "
            "below what is handled within one"
        )
    if facts is None:
        yield unread(place, managed.why, denied=managed.denied)
    else:
        yield from of_setup(facts, demand, place)


def requires_sessions(exc: BaseException) -> bool:
    """Whether a receiver was refused because it asked for no session."""
    return condition_of(exc.__cause__) == "amqp:not-allowed" and "requires sessions" in str(exc.__cause__)


@contextmanager
def opening(place: Place) -> Iterator[None]:
    """Say what to do about a receiver or sender that cannot be opened."""
    try:
        yield
    except SourceNotFound as exc:
        raise SourceNotFound(
            f"there is no {place.shown} in {place.host}: create it, or correct {place.address} (a source is a queue "
            "or a subscription as in servicebus://NAMESPACE/TOPIC/SUBSCRIPTION; a sink is a queue or a topic)"
        ) from exc.__cause__
    except ConnectionLost as exc:
        raise unreachable(place, exc) from exc.__cause__
    except AccessDenied:
        raise
    except PermanentAdapterError as exc:
        if condition_of(exc.__cause__) != "amqp:not-allowed":
            raise
        text = str(exc.__cause__)
        if requires_sessions(exc):
            raise ConfigurationError(
                f'{place.address} requires sessions, which are taken whole and in order: write ordering = "key", or '
                "receive from one without sessions"
            ) from exc.__cause__
        if "topic" in text.lower() and place.subscription is None:
            raise ConfigurationError(
                f"{place.address} is a topic: events are received from a subscription, {place.address}/SUBSCRIPTION"
            ) from exc.__cause__
        raise ConfigurationError(f"{place.address} cannot be opened ({text})") from exc.__cause__
