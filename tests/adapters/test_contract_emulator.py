"""The contract at Google's own Pub/Sub emulator, where it is: a real worker, and a server that others wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from eventkit_pubsub import adapter
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

from eventkit.testing import FaultProxy
from tests.adapters.contract.cases import CASES
from tests.adapters.contract.lines import ProxyLine
from tests.adapters.contract.results import Case, Report
from tests.adapters.contract.run import run
from tests.adapters.contract.variant import Place, Variant
from tests.conformance.pubsub_emulator import emulator, why_not

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

PROJECT = "contract"
_DEAD_STREAM = "it goes on delivering to a stream whose connection was reset, and brings that again ten seconds later"
DEVIATIONS = {
    "a_connection_lost_in_receive_heals": _DEAD_STREAM,
    "a_connection_lost_in_handling_heals": _DEAD_STREAM,
    "a_connection_lost_in_settling_heals": _DEAD_STREAM,
}
"""Name of a case that the emulator lets fail -> what it does that Pub/Sub does not."""


def places(endpoint: str, *, exactly_once: bool) -> Callable[[Path], AbstractAsyncContextManager[Place]]:
    """A topic, its dead letters, and a subscription to each, at the emulator."""
    upstream, numbers = urlsplit(endpoint), count()

    @asynccontextmanager
    async def place(_: Path) -> AsyncIterator[Place]:
        name = f"orders-{'once' if exactly_once else 'plain'}-{next(numbers)}"
        async with grpc.aio.insecure_channel(upstream.netloc) as channel:
            publisher = PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=channel))
            subscriber = SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel))
            topics = {each: f"projects/{PROJECT}/topics/{each}" for each in (name, f"{name}-dlq")}
            for topic in topics.values():
                await publisher.create_topic(name=topic)
            policy = {"dead_letter_topic": topics[f"{name}-dlq"], "max_delivery_attempts": 100}
            for each, more in ((name, {"dead_letter_policy": policy}), (f"{name}-dlq", {})):
                request: dict[str, Any] = {
                    "name": f"projects/{PROJECT}/subscriptions/{each}",
                    "topic": topics[each],
                    **more,
                }
                request |= {"enable_exactly_once_delivery": exactly_once and each == name}
                await subscriber.create_subscription(request=request)
        assert upstream.hostname is not None, "an endpoint is a URL"
        assert upstream.port is not None, "on a port of its own"
        async with FaultProxy(upstream.hostname, upstream.port) as proxy:
            beside = f"pubsub://{PROJECT}/{name}?endpoint={endpoint}"
            yield Place(
                adapter=adapter,
                source=f"pubsub://{PROJECT}/{name}?endpoint=http://{proxy.host}:{proxy.port}",
                sink=beside,
                beside=beside,
                dead_letters=f"pubsub://{PROJECT}/{name}-dlq?endpoint={endpoint}",
                line=ProxyLine(proxy),  # which cannot lose single answers
            )

    return place


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The emulator, as a process of its own."""
    with emulator() as endpoint:
        yield endpoint


@cache
def report_of(endpoint: str, kind: str) -> Report:
    """All cases at one kind of subscription."""
    place = places(endpoint, exactly_once=kind == "exactly-once")
    return run(Variant(name=f"emulator {kind}", place=place, lease=2.0, repeats=True))


@pytest.mark.parametrize("kind", ["plain", "exactly-once"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_contract_holds_at_the_emulator(endpoint: str, kind: str, case: Case) -> None:
    """Order is not tried: after a nack the emulator brings one message again, where Pub/Sub brings all after it."""
    result = report_of(endpoint, kind)[case]
    if case.name in DEVIATIONS:
        assert result.error is not None, f"the emulator does it now; it did not: {DEVIATIONS[case.name]}"
    else:
        result.require()
