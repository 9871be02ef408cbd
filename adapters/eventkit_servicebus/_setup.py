"""What the way in which a queue or subscription is set up means for a worker. Pure: see `_managed` for the facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from eventkit.errors import TransientAdapterError
from eventkit.spi import Demand
from eventkit_servicebus._config import Place
from eventkit_servicebus._managed import Facts
from eventkit_servicebus._wire import ANSWER_WITHIN

SHORTEST_LOCK: Final = 1.5 * ANSWER_WITHIN
"""Seconds of a lock that is kept even if an extension takes as long as it may: it is sent after a third of them."""
_UNITS: Final = ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min"))
_CLOSED: Final = ("Disabled", "ReceiveDisabled")


def problems(facts: Facts, demand: Demand, place: Place) -> Iterator[str]:
    """What cannot work, each with what to do."""
    if facts.forwards_to is not None and not place.dead_letters:
        yield (
            f"{place.address} forwards its messages to {facts.forwards_to}, and cannot be received from: receive from "
            f"{facts.forwards_to}, or take its ForwardTo away"
        )
    if facts.sessions and not demand.ordered:
        yield (
            f'{place.address} requires sessions, and a session queue needs ordering="key": write ordering = "key", or '
            "receive from one without sessions"
        )


def unavailable(facts: Facts, place: Place) -> TransientAdapterError | None:
    """The error to raise for what will work when somebody has enabled it again; None if it is enabled.

    Dead letters may be open all the same: a receiver finds out.
    """
    if facts.status not in _CLOSED or place.dead_letters:
        return None
    return TransientAdapterError(
        f"{place.address} is disabled (its status is {facts.status}), and cannot be received from: enable it again, "
        "status Active"
    )


def warnings(facts: Facts, demand: Demand, place: Place) -> Iterator[str]:
    """What works, and will surprise."""
    if demand.ordered and not facts.sessions:
        yield (
            f"{place.address} has no sessions: the service keeps no order per key, nor does it for a retry; create it "
            "again with RequiresSession, which cannot be changed later"
        )
    if facts.lock < SHORTEST_LOCK:
        yield (
            f"{place.address}: its locks last {span(facts.lock)}, and one extension may take {span(ANSWER_WITHIN)}: "
            f"leases are lost when the service is slow; raise its LockDuration to {span(SHORTEST_LOCK)} or more, the "
            "default is 1 min"
        )
    yield from _losses(facts, place)


def _losses(facts: Facts, place: Place) -> Iterator[str]:
    if place.dead_letters and facts.forwards_to is not None:
        yield (
            f"{place.address}: its dead letters are forwarded to {facts.forwards_to} (ForwardDeadLetteredMessagesTo), "
            "and nothing new arrives here: receive from there"
        )
    if facts.status == "SendDisabled" and not place.dead_letters and place.subscription is None:
        yield (
            f"{place.address} takes no messages (its status is SendDisabled): nothing new comes, and what is to be "
            "retried later waits in the worker, under its lock"
        )
    if facts.ttl is not None and not facts.dead_letters_expired:
        yield (
            f"{place.address}: a message that waits longer than {span(facts.ttl)} (DefaultMessageTimeToLive) is gone, "
            "and nobody is told: switch DeadLetteringOnMessageExpiration on"
        )
    if facts.duplicates is not None:
        yield (
            f"{place.address} detects duplicates: what is published again within {span(facts.duplicates)} with the "
            "same id, source and body is dropped, and told as published; the copies by which retries are delayed are "
            "not, each has an id of its own"
        )


def unread(place: Place, why: str, *, denied: bool) -> str:
    """The warning for facts that are None; `why` and `denied` are those of `Managed`."""
    mend = "grant these credentials Azure Service Bus Data Owner (Manage) to have them looked at" if denied else why
    return (
        f"{place.address}: its settings cannot be read, so that MaxDeliveryCount, time to live and lock duration are "
        f"not checked: {mend}"
    )


def span(seconds: float) -> str:
    """So many seconds, for people: `10 min`."""
    for unit, name in _UNITS:
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {'day' if seconds == 86_400.0 else name}"
    return f"{seconds:g} s"
