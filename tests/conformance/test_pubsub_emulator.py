"""A second opinion: the adapter at Google's own emulator, where it is. Where that differs is listed, with reasons."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import grpc
import pytest
from eventkit_pubsub import adapter
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport
from google.pubsub_v1.types import ReceivedMessage

from eventkit.spi import Address, Demand
from eventkit.testing.conformance import Check, Place, Report, SinkConformance, SourceConformance, Status
from tests.conformance.pubsub_emulator import emulator, why_not

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

PROJECT = "projects/conformance"
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"dead_letter_policy": {"dead_letter_topic": f"{PROJECT}/topics/letters", "max_delivery_attempts": 100}},
    "ordered": {"enable_message_ordering": True},
    "exactly-once": {"enable_exactly_once_delivery": True},
}
_NEVER_LATE = "a lease that is over goes on for it until the message was delivered again; Pub/Sub says INVALID_ACK_ID"
DEVIATIONS = {
    ("ordered", "a_failed_head_comes_again_before_what_follows"): "it brings a nacked message again, and not what was "
    "delivered of its key after it, as Pub/Sub does",
    ("exactly-once", "settling_after_the_lease_is_an_answer"): _NEVER_LATE,
    ("exactly-once", "an_extend_after_the_lease_is_lost"): _NEVER_LATE,
}
"""Kind of subscription and name of a check that the emulator lets fail -> what it does that Pub/Sub does not."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The emulator, as a process of its own."""
    with emulator() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def suites(endpoint: str) -> dict[str, list[Report]]:
    """All checks of sources, then all of sinks, for each kind of subscription."""

    async def main() -> dict[str, list[Report]]:
        async with grpc.aio.insecure_channel(endpoint.removeprefix("http://")) as channel:
            publisher = PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=channel))
            subscriber = SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel))
            await publisher.create_topic(name=f"{PROJECT}/topics/letters")
            return {kind: await _run(endpoint, publisher, subscriber, kind) for kind in KINDS}

    return anyio.run(main)


async def _run(
    endpoint: str, publisher: PublisherAsyncClient, subscriber: SubscriberAsyncClient, kind: str
) -> list[Report]:
    numbers = count()

    @asynccontextmanager
    async def places() -> AsyncIterator[Place]:
        name = f"{kind}-{next(numbers)}"
        topic, subscription = f"{PROJECT}/topics/{name}", f"{PROJECT}/subscriptions/{name}"
        await publisher.create_topic(name=topic)
        await subscriber.create_subscription(request={"name": subscription, "topic": topic, **KINDS[kind]})
        address, missing = (Address.parse(f"pubsub://conformance/{it}?endpoint={endpoint}") for it in (name, "missing"))
        yield Place(source=address, sink=address, missing=missing, missing_sink=missing)

    # A stream leases for 10 s at least.
    terms: dict[str, Any] = {"lease": 10.0, "demand": Demand(wait=1.0), "raw": ReceivedMessage}
    source = SourceConformance(adapter, places, ordered=kind == "ordered", **terms)
    sink = SinkConformance(adapter, places, ordered=kind == "ordered", **terms)
    return [await source.run_all(side_by_side=25), await sink.run_all(side_by_side=25)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", [*SourceConformance.checks, *SinkConformance.checks], ids=str)
def test_the_adapter_conforms_at_the_emulator(suites: dict[str, list[Report]], check: Check, kind: str) -> None:
    """Where the emulator is listed to differ, it must: else the list is not true any more."""
    result = suites[kind][check in SinkConformance.checks][check.name]
    if deviation := DEVIATIONS.get((kind, check.name)):
        assert result.status is Status.FAILED, f"the emulator does it now; it did not, as {deviation}"
    else:
        result.require()
