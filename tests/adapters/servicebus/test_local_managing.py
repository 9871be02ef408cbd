"""The local Service Bus server, by the unmodified SDK: what goes through the management node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusMessageState, ServiceBusReceiveMode
from azure.servicebus.exceptions import MessageLockLostError, MessageNotFoundError, ServiceBusError

from tests.adapters.servicebus.local_support import Bus, local_bus, messages, nothing, take, text


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with local_bus(lock=30.0, max_deliveries=3) as bus:
        yield bus


async def test_a_lock_can_be_renewed_until_it_is_over(bus: Bus) -> None:
    """Each renewal is for the whole length of a lock, from now."""
    sender, receiver = await bus.both()
    await sender.send_messages(messages("x"))
    [message] = await take(receiver, 1)
    for _ in range(3):
        bus.skip(20)
        until = await receiver.renew_message_lock(message)
        assert until.timestamp() == pytest.approx(bus.clock.wall() + 30, abs=1)
    await receiver.complete_message(message)

    await sender.send_messages(messages("y"))
    [message] = await take(receiver, 1)
    bus.skip(31)
    with pytest.raises(MessageLockLostError):
        await receiver.renew_message_lock(message)


async def test_peeking_shows_everything_and_takes_nothing(bus: Bus) -> None:
    """Active, locked, deferred and scheduled alike, from a number on."""
    sender, receiver = await bus.both()
    assert await receiver.peek_messages() == []
    await sender.send_messages(messages("locked", "deferred", "active"))
    locked, deferred = await take(receiver, 2)
    await receiver.defer_message(deferred)
    await sender.schedule_messages(messages("scheduled"), datetime.now(UTC) + timedelta(hours=1))

    seen = await receiver.peek_messages(10, sequence_number=1)
    assert [(text(message), message.sequence_number, message.state) for message in seen] == [
        ("locked", 1, ServiceBusMessageState.ACTIVE),
        ("deferred", 2, ServiceBusMessageState.DEFERRED),
        ("active", 3, ServiceBusMessageState.ACTIVE),
        ("scheduled", 4, ServiceBusMessageState.SCHEDULED),
    ]
    assert [message.delivery_count for message in seen] == [0, 0, 0, 0]
    assert [text(message) for message in await receiver.peek_messages(1, sequence_number=3)] == ["active"]
    await receiver.complete_message(locked)


async def test_a_scheduled_message_comes_when_it_is_due_or_never(bus: Bus) -> None:
    """It gets a new number then; one that is cancelled never comes, and cannot be cancelled twice."""
    sender, receiver = await bus.both()
    when = datetime.now(UTC) + timedelta(seconds=60)
    numbers = await sender.schedule_messages(messages("a", "b"), when)
    assert numbers == [1, 2]
    await sender.cancel_scheduled_messages([numbers[0]])
    with pytest.raises(ServiceBusError):
        await sender.cancel_scheduled_messages([numbers[0]])
    await sender.send_messages(messages("now"))
    await sender.send_messages(ServiceBusMessage("by annotation", scheduled_enqueue_time_utc=when))
    [message] = await take(receiver, 1)
    assert text(message) == "now"
    await receiver.complete_message(message)
    assert await nothing(receiver)

    bus.skip(61)
    found = await take(receiver, 2)
    assert [text(message) for message in found] == ["b", "by annotation"]
    assert [message.enqueued_sequence_number for message in found] == [2, 4]
    assert [message.sequence_number for message in found] == [5, 6]


async def test_a_deferred_message_comes_only_to_who_names_it(bus: Bus) -> None:
    """It settles through the management node; abandoned, it is deferred as before."""
    sender, receiver = await bus.both()
    await sender.send_messages(messages("x"))
    [message] = await take(receiver, 1)
    await receiver.defer_message(message)
    assert await nothing(receiver)

    [deferred] = await receiver.receive_deferred_messages(1)
    assert (text(deferred), deferred.delivery_count) == ("x", 0)
    with pytest.raises(MessageNotFoundError):
        await receiver.receive_deferred_messages([1])
    await receiver.abandon_message(deferred)
    [deferred] = await receiver.receive_deferred_messages([1])
    assert deferred.delivery_count == 1
    bus.skip(31)
    [deferred] = await receiver.receive_deferred_messages([1])
    assert deferred.delivery_count == 2
    await receiver.complete_message(deferred)
    with pytest.raises(MessageNotFoundError):
        await receiver.receive_deferred_messages([1])
    assert await receiver.peek_messages() == []


async def test_a_deferred_message_can_die(bus: Bus) -> None:
    """By its reader's word, or because it failed too often."""
    (sender, receiver), letters = await asyncio.gather(
        bus.both(), bus.receiver(sub_queue="deadletter", receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE)
    )
    await sender.send_messages(messages("x", "y"))
    for message in await take(receiver, 2):
        await receiver.defer_message(message)
    [first] = await receiver.receive_deferred_messages([1])
    await receiver.dead_letter_message(first, reason="why")
    for _ in range(3):
        [second] = await receiver.receive_deferred_messages([2])
        await receiver.abandon_message(second)

    found = await take(letters, 2)
    assert [(text(each), each.dead_letter_reason) for each in found] == [
        ("x", "why"),
        ("y", "MaxDeliveryCountExceeded"),
    ]


async def test_a_message_can_be_settled_after_its_connection_was_lost(bus: Bus) -> None:
    """A lock belongs to its token, not to the link: the SDK settles through the management node then."""
    sender, receiver = await bus.both()
    await sender.send_messages(messages("x", "y", "z"))
    first, second = await take(receiver, 2)
    bus.place.drop_connections()
    with pytest.raises(ServiceBusError):
        await take(receiver, 1)
    await take(receiver, 1)  # it opens again, which takes its time
    await receiver.complete_message(first)
    await receiver.dead_letter_message(second, reason="why")
    counts = bus.place.counts()
    assert (counts.acked, counts.dead) == (1, 1)
