"""The local Service Bus server, by the unmodified SDK: topics, time to live, duplicate detection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.exceptions import ServiceBusError

from tests.adapters.servicebus.local_support import Bus, local_bus, messages, nothing, take, text


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with local_bus(lock=30.0, duplicates=60.0) as bus:
        yield bus


async def test_each_subscription_gets_a_message_of_its_own(bus: Bus) -> None:
    """What one does with it is nothing to the other, down to the dead letters."""
    sender, audit, mail, letters = await asyncio.gather(
        bus.sender("news"),
        bus.receiver("news/audit"),
        bus.receiver("news/mail"),
        bus.receiver("news/audit", sub_queue="deadletter"),
    )
    await sender.send_messages(messages("x"))
    [one], [other] = await take(audit, 1), await take(mail, 1)
    await audit.dead_letter_message(one, reason="no")
    await mail.complete_message(other)

    [letter] = await take(letters, 1)
    assert (text(letter), letter.dead_letter_source) == ("x", "news/audit")
    counts = bus.place.counts()
    assert (counts.published, counts.delivered, counts.acked, counts.dead) == (2, 2, 1, 1)


async def test_a_topic_is_sent_to_and_a_subscription_received_from(bus: Bus) -> None:
    """The other way round there is nothing, and the error says so."""
    topic, sports = await asyncio.gather(bus.receiver("news"), bus.receiver("news/sports"), return_exceptions=True)
    assert isinstance(topic, ServiceBusError)
    assert "is a topic" in str(topic)
    assert isinstance(sports, ServiceBusError)
    assert "could not be found" in str(sports)


async def test_what_has_outlived_its_time_is_dead(bus: Bus) -> None:
    """It is never delivered, and its dead letter says why."""
    sender, receiver, letters = await bus.three()
    await sender.send_messages(messages("short", time_to_live=timedelta(seconds=10)))
    await sender.send_messages(messages("long", time_to_live=timedelta(seconds=1000)))
    bus.skip(11)
    [message] = await take(receiver, 1)
    assert text(message) == "long"

    [letter] = await take(letters, 1)
    assert (text(letter), letter.dead_letter_reason) == ("short", "TTLExpiredException")
    assert letter.time_to_live == timedelta(seconds=10)


async def test_a_second_message_with_the_same_id_is_accepted_and_dropped(bus: Bus) -> None:
    """In the window; a message without a word about its id gets one from the SDK."""
    sender, receiver = await bus.both()
    for _ in range(2):
        await sender.send_messages(ServiceBusMessage("x", message_id="same"))
        await sender.send_messages([ServiceBusMessage("y", message_id="other"), ServiceBusMessage("z")])
    found = await take(receiver, 4)
    assert [text(message) for message in found] == ["x", "y", "z", "z"]
    for message in found:
        await receiver.complete_message(message)
    bus.skip(61)
    await sender.send_messages(ServiceBusMessage("x", message_id="same"))
    assert [text(message) for message in await take(receiver, 1)] == ["x"]
    assert await nothing(receiver)
