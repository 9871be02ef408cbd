"""The local Service Bus server, by the unmodified SDK: sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusMessage
from azure.servicebus.aio import ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import (
    OperationTimeoutError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from tests.adapters.servicebus.local_support import Bus, local_bus, messages, nothing, shut, take, text

BILLS = "bills.sessions"


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with local_bus(lock=30.0, max_deliveries=3) as bus:
        yield bus


async def session(bus: Bus, id: object = NEXT_AVAILABLE_SESSION, wait: float = 2.0) -> ServiceBusReceiver:
    return await bus.receiver(BILLS, session_id=id, max_wait_time=wait)


async def both(bus: Bus, id: object = "a") -> tuple[ServiceBusSender, ServiceBusReceiver]:
    """A sender, and a receiver at a session."""
    sender, receiver = await asyncio.gather(bus.sender(BILLS), session(bus, id))
    return sender, receiver


async def test_a_session_is_one_receivers_and_in_order(bus: Bus) -> None:
    """The others' messages are not seen, and what comes back comes in its place."""
    sender, a = await both(bus)
    await sender.send_messages(messages("a1", "a2", session_id="a"))
    await sender.send_messages(messages("b1", session_id="b"))
    taken, b = await asyncio.gather(session(bus, "a"), session(bus), return_exceptions=True)
    assert isinstance(taken, SessionCannotBeLockedError)
    first, second = await take(a, 2)
    assert (first.session_id, a.session.session_id) == ("a", "a")
    await a.abandon_message(first)
    [first] = await take(a, 1)
    assert (text(first), first.delivery_count) == ("a1", 1)
    await a.complete_message(first)
    await a.complete_message(second)
    assert await nothing(a)

    assert isinstance(b, ServiceBusReceiver)
    assert b.session.session_id == "b"
    assert [text(message) for message in await take(b, 1)] == ["b1"]


async def test_next_available_is_one_that_has_something(bus: Bus) -> None:
    """With none, the receiver gives up as it said it would."""
    sender, none = await asyncio.gather(bus.sender(BILLS), session(bus, wait=0.2), return_exceptions=True)
    assert isinstance(sender, ServiceBusSender)
    assert isinstance(none, OperationTimeoutError)
    await sender.send_messages(ServiceBusMessage("x", session_id="late"))
    receiver = await session(bus)
    assert receiver.session.session_id == "late"


async def test_a_session_that_is_left_is_free_at_once_and_nothing_counts(bus: Bus) -> None:
    """A worker that stops has failed nothing."""
    sender, first = await both(bus)
    await sender.send_messages(messages("x", session_id="a"))
    await take(first, 1)
    await shut(first)
    second = await session(bus)
    [message] = await take(second, 1)
    assert message.delivery_count == 0


async def test_a_deferred_message_of_a_session_is_the_sessions(bus: Bus) -> None:
    """It is settled under the session's lock, and goes back with it."""
    sender, first = await both(bus)
    await sender.send_messages(messages("x", session_id="a"))
    [message] = await take(first, 1)
    number = message.sequence_number
    assert number is not None
    await first.defer_message(message)
    [message] = await first.receive_deferred_messages(number)
    await first.abandon_message(message)
    [message] = await first.receive_deferred_messages(number)
    await shut(first)
    second = await session(bus, "a")
    [message] = await second.receive_deferred_messages(number)
    assert message.delivery_count == 1
    await second.complete_message(message)
    assert bus.place.counts().acked == 1


async def test_a_session_whose_lock_is_over_is_lost(bus: Bus) -> None:
    """What it held counts as failed, and nothing can be settled any more."""
    sender, first = await both(bus)
    await sender.send_messages(messages("x", session_id="a"))
    [message] = await take(first, 1)
    bus.skip(20)
    until = await first.session.renew_lock()
    assert until.timestamp() == pytest.approx(bus.clock.wall() + 30, abs=1)
    bus.skip(31)
    with pytest.raises(SessionLockLostError):
        await first.complete_message(message)
    second = await session(bus, "a")
    [message] = await take(second, 1)
    assert message.delivery_count == 1
    assert bus.place.counts().expired == 1


async def test_a_session_remembers_its_state(bus: Bus) -> None:
    """Bytes of the application's, until it takes them back."""
    receiver = await session(bus, "a")
    assert await receiver.session.get_state() is None
    await receiver.session.set_state(b"\x00here")
    assert await receiver.session.get_state() == b"\x00here"
    await receiver.session.set_state(None)
    assert await receiver.session.get_state() is None


async def test_a_queue_of_sessions_is_used_with_sessions_only(bus: Bus) -> None:
    """Neither a message without one, nor a receiver without one."""
    sender, refused = await asyncio.gather(bus.sender(BILLS), bus.receiver(BILLS), return_exceptions=True)
    assert isinstance(sender, ServiceBusSender)
    assert isinstance(refused, ServiceBusError)
    assert "requires sessions" in str(refused)
    with pytest.raises(ServiceBusError, match="no session id"):
        await sender.send_messages(ServiceBusMessage("x"))
    assert bus.place.counts().published == 0
