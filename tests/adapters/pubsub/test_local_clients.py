"""The local Pub/Sub server under Google's own clients, which nobody here wrote."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.cloud import pubsub_v1  # type: ignore[import-untyped]

from tests.adapters.pubsub.local_support import Wire, local_pubsub, sub, topic

SUCCESS = pubsub_v1.subscriber.exceptions.AcknowledgeStatus.SUCCESS


@pytest.fixture
async def pubsub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    async with local_pubsub() as wire:
        for name, value in wire.place.environment.items():
            monkeypatch.setenv(name, value)
        yield wire


def publish(queue: str, bodies: list[bytes], key: str = "") -> list[str]:
    """With the batching client of threads."""
    ordering = pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
    client = pubsub_v1.PublisherClient(publisher_options=ordering)
    with client:
        return [client.publish(topic(queue), body, ordering_key=key).result(timeout=10) for body in bodies]


def subscribe(queue: str, number: int, handle: Callable[[Any], Any]) -> list[Any]:
    """With the streaming client of threads, until `handle` has been given so many messages."""
    results: list[Any] = []
    enough = threading.Event()

    def callback(message: Any) -> None:
        results.append(handle(message))
        if len(results) == number:
            enough.set()

    with pubsub_v1.SubscriberClient() as client:
        future = client.subscribe(sub(queue), callback)
        assert enough.wait(10)
        future.cancel()
        future.result(timeout=10)
    return results


async def test_googles_threaded_clients_publish_and_subscribe(pubsub: Wire) -> None:
    """Found by the environment alone: streams, leases, acks and their flow control work as they expect."""
    bodies = [str(number).encode() for number in range(50)]
    sent = await asyncio.to_thread(publish, "orders", bodies)
    assert len(set(sent)) == 50

    def handle(message: Any) -> bytes:
        message.ack()
        return bytes(message.data)

    assert sorted(await asyncio.to_thread(subscribe, "orders", 50, handle)) == sorted(bodies)
    assert pubsub.place.counts().acked == 50


async def test_googles_threaded_client_keeps_order_and_confirms_acks(pubsub: Wire) -> None:
    """With ordering and exactly-once delivery together, and the results of acks."""
    queue = "both.ordered.exactly-once"
    await asyncio.to_thread(publish, queue, [b"0", b"1", b"2"], "k")
    results = await asyncio.to_thread(subscribe, queue, 3, lambda message: (message.data, message.ack_with_response()))
    assert [data for data, _ in results] == [b"0", b"1", b"2"]
    for _, future in results:
        assert await asyncio.to_thread(future.result, 10) is SUCCESS


async def test_googles_threaded_client_gets_back_what_it_nacked(pubsub: Wire) -> None:
    """Once more, and with the results of both."""
    queue = "once.exactly-once"
    await asyncio.to_thread(publish, queue, [b"x"])

    def handle(message: Any) -> Any:
        if message.delivery_attempt == 1:
            return message.nack_with_response()
        return message.ack_with_response()

    nacked, acked = await asyncio.to_thread(subscribe, queue, 2, handle)
    for future in (nacked, acked):
        assert await asyncio.to_thread(future.result, 10) is SUCCESS
    counts = pubsub.place.counts()
    assert (counts.acked, counts.nacked) == (1, 1)
