"""The local Service Bus server, by the unmodified SDK: sending, receiving, settling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.exceptions import MessageLockLostError, ServiceBusError

from tests.adapters.servicebus.local_support import Bus, local_bus, messages, nothing, shut, take, text


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with local_bus(lock=30.0, max_deliveries=3) as bus:
        yield bus


async def test_a_message_arrives_as_it_was_sent(bus: Bus) -> None:
    """Everything that a sender can say, a receiver can read."""
    sender, receiver = await bus.both()
    sent = ServiceBusMessage(
        b"\x00\xff",
        application_properties={"text": "\u00e9", "number": 5, "yes": True, "half": 0.5, "raw": b"\x01"},
        message_id="m-1",
        content_type="application/json",
        subject="placed",
        correlation_id="c-1",
        reply_to="there",
        to="here",
    )
    await sender.send_messages(sent)
    [message] = await take(receiver, 1)

    assert b"".join(message.body) == b"\x00\xff"
    assert message.application_properties == {
        b"text": "\u00e9".encode(),
        b"number": 5,
        b"yes": True,
        b"half": 0.5,
        b"raw": b"\x01",
    }
    assert (message.message_id, message.content_type, message.subject) == ("m-1", "application/json", "placed")
    assert (message.correlation_id, message.reply_to, message.to) == ("c-1", "there", "here")
    assert (message.delivery_count, message.sequence_number, message.enqueued_sequence_number) == (0, 1, 1)
    enqueued, until = message.enqueued_time_utc, message.locked_until_utc
    assert enqueued is not None
    assert until is not None
    assert until - enqueued == pytest.approx(timedelta(seconds=30), abs=timedelta(seconds=1))


async def test_batches_and_large_messages_arrive_one_by_one(bus: Bus) -> None:
    """A batch is an envelope of the wire; a message may take several frames either way."""
    sender, receiver = await bus.both()
    large = "x" * 200_000
    await sender.send_messages(messages("a", "b", "c"))
    await sender.send_messages(ServiceBusMessage(large))

    found = await take(receiver, 4)
    assert [text(message) for message in found] == ["a", "b", "c", large]
    assert [message.sequence_number for message in found] == [1, 2, 3, 4]


async def test_each_settlement_does_what_it_says(bus: Bus) -> None:
    """Complete ends, abandon brings back and counts, dead-letter moves with its reason."""
    sender, receiver, letters = await bus.three()
    await sender.send_messages(messages("done", "again", "dead"))
    done, again, dead = await take(receiver, 3)
    await receiver.complete_message(done)
    await receiver.abandon_message(again)
    await receiver.dead_letter_message(dead, reason="no good", error_description="at all")

    [message] = await take(receiver, 1)
    assert (text(message), message.delivery_count, message.sequence_number) == ("again", 1, 2)
    await receiver.complete_message(message)
    assert await nothing(receiver)

    [letter] = await take(letters, 1)
    assert (text(letter), letter.dead_letter_source) == ("dead", "orders")
    assert (letter.dead_letter_reason, letter.dead_letter_error_description) == ("no good", "at all")
    await letters.complete_message(letter)
    counts = bus.place.counts()
    assert (counts.published, counts.delivered, counts.acked, counts.nacked, counts.dead) == (3, 4, 2, 1, 1)


async def test_a_lock_that_is_over_settles_nothing(bus: Bus) -> None:
    """The message is somebody else's by then, and its delivery counts."""
    sender, receiver = await bus.both()
    await sender.send_messages(messages("x"))
    [first] = await take(receiver, 1)
    bus.skip(31)
    with pytest.raises(MessageLockLostError):
        await receiver.complete_message(first)

    [second] = await take(receiver, 1)
    assert second.delivery_count == 1
    await receiver.complete_message(second)
    assert bus.place.counts().expired == 1


async def test_what_failed_too_often_is_dead(bus: Bus) -> None:
    """`max_deliveries` is 3 here; abandoned or expired is the same."""
    sender, receiver, letters = await bus.three()
    await sender.send_messages(messages("x"))
    for _ in range(2):
        [message] = await take(receiver, 1)
        await receiver.abandon_message(message)
    await take(receiver, 1)
    bus.skip(31)
    assert await nothing(receiver)

    [letter] = await take(letters, 1)
    assert (letter.dead_letter_reason, letter.delivery_count) == ("MaxDeliveryCountExceeded", 3)
    assert bus.place.counts().dead == 1


async def test_receive_and_delete_holds_nothing(bus: Bus) -> None:
    """It is gone as it is sent."""
    sender, receiver = await bus.both(receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE)
    await sender.send_messages(messages("a", "b"))
    assert [text(message) for message in await take(receiver, 2)] == ["a", "b"]
    counts = bus.place.counts()
    assert (counts.delivered, counts.acked) == (2, 2)


async def test_prefetched_messages_go_back_when_their_receiver_closes(bus: Bus) -> None:
    """The SDK drains, and releases what nobody has asked for: it was never looked at, and does not count."""
    (sender, receiver), other = await asyncio.gather(bus.both(prefetch_count=10), bus.receiver())
    await sender.send_messages(messages("a", "b", "c"))
    [first] = await take(receiver, 1)
    await receiver.complete_message(first)
    await shut(receiver)

    found = await take(other, 2)
    assert [(text(message), message.delivery_count) for message in found] == [("b", 0), ("c", 0)]


async def test_many_messages_pass_with_prefetch(bus: Bus) -> None:
    """More than a window, and more than the credit of a link either way."""
    sender, receiver = await bus.both(
        prefetch_count=500, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE, socket_timeout=0.02
    )
    for _ in range(15):
        await sender.send_messages(messages(*map(str, range(100))))
    for number in range(1_100):
        await sender.send_messages(ServiceBusMessage(str(number)))
    assert len(await take(receiver, 2_600)) == 2_600


async def test_an_entity_that_is_not_there_is_named(bus: Bus) -> None:
    """A typing error in the configuration must be told from an outage."""
    with pytest.raises(ServiceBusError, match="'order' could not be found"):
        async with bus.client.get_queue_sender("order") as sender:
            await sender.send_messages(ServiceBusMessage("x"))
