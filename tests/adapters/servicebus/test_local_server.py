"""The local Service Bus server: faults on demand, its start and its end."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from azure.servicebus.exceptions import (
    MessageLockLostError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusError,
    ServiceBusServerBusyError,
)
from eventkit_servicebus._local import AmqpError, Call, ConnectionDropped, Faults, serve
from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._types import Described, Ulong

from eventkit.errors import ConfigurationError
from eventkit.spi import LocalPlace
from tests.adapters.servicebus.local_support import Bus, local_bus, messages, peer_of, take, text


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with local_bus(lock=30.0) as bus:
        yield bus


class Refuse(Faults):
    """One operation fails, before it is done."""

    def __init__(self, operation: str, failure: Exception, *, after: bool = False) -> None:
        self.operation = operation
        self.failure = failure
        self.is_after = after
        self.calls: list[Call] = []

    async def before(self, call: Call) -> None:
        self.calls.append(call)
        if call.operation == self.operation and not self.is_after:
            raise self.failure

    async def after(self, call: Call) -> None:
        if call.operation == self.operation and self.is_after:
            raise self.failure


BUSY = AmqpError("com.microsoft:server-busy", "The request was terminated because the entity is being throttled.")


async def test_a_fault_answers_in_place_of_the_queue(bus: Bus) -> None:
    """Throttling cannot be had otherwise; the call is not done, and the link goes on."""
    sender = await bus.sender()
    faults = bus.place.faults = Refuse("send", BUSY)
    with pytest.raises(ServiceBusServerBusyError):
        await sender.send_messages(messages("x", "y"))
    [call] = [call for call in faults.calls if call.operation == "send"]
    assert (call.entity, call.detail) == ("orders", 2)
    assert bus.place.counts().published == 0
    bus.place.faults = None
    await sender.send_messages(messages("x"))


async def test_a_link_can_be_refused_or_detached_by_throttling(bus: Bus) -> None:
    """At the attach, and when something is delivered: that link is dead, the message is back after its lock."""
    (sender, receiver), other = await asyncio.gather(bus.both(), bus.receiver())
    await sender.send_messages(messages("x"))
    bus.place.faults = Refuse("attach", AmqpError("amqp:unauthorized-access", "no claim for it"))
    refused = await asyncio.gather(bus.sender(), bus.receiver(), return_exceptions=True)
    assert [type(each) for each in refused] == [ServiceBusAuthorizationError] * 2
    bus.place.faults = Refuse("deliver", BUSY)
    with pytest.raises(ServiceBusServerBusyError):
        await receiver.receive_messages(1, max_wait_time=2)
    bus.place.faults = None
    bus.skip(31)
    [message] = await take(other, 1)
    assert message.delivery_count == 1


async def test_a_token_can_be_refused(bus: Bus) -> None:
    """Wrong key, or none: before any link is there."""
    bus.place.faults = Refuse("put-token", AmqpError("amqp:unauthorized-access", "InvalidSignature: on purpose"))
    with pytest.raises(ServiceBusAuthenticationError):
        await bus.receiver()


async def test_a_lost_confirmation_of_a_send_leaves_two(bus: Bus) -> None:
    """The connection ends after the message was stored: whoever sends again, stores it again."""
    sender, receiver = await bus.both()
    bus.place.faults = Refuse("send", ConnectionDropped(), after=True)
    with pytest.raises(ServiceBusError):
        await sender.send_messages(messages("x"))
    bus.place.faults = None
    await sender.send_messages(messages("x"))
    assert [text(message) for message in await take(receiver, 2)] == ["x", "x"]


async def test_a_lost_confirmation_of_a_settlement_may_be_done(bus: Bus) -> None:
    """The message is completed, whatever its receiver is told."""
    sender, receiver = await bus.both()
    await sender.send_messages(messages("x", "y"))
    first, second = await take(receiver, 2)
    bus.place.faults = Refuse("settle", ConnectionDropped(), after=True)
    with pytest.raises(ServiceBusError):
        await receiver.complete_message(first)
    assert bus.place.counts().acked == 1
    assert text(second) == "y"


async def test_a_settlement_can_be_refused(bus: Bus) -> None:
    """As when the service has failed over, and forgotten its locks."""
    sender, receiver = await bus.both()
    await sender.send_messages(messages("x"))
    [message] = await take(receiver, 1)
    bus.place.faults = Refuse("settle", AmqpError("com.microsoft:message-lock-lost", "on purpose"))
    with pytest.raises(MessageLockLostError):
        await receiver.complete_message(message)
    assert bus.place.counts().acked == 0


async def test_links_can_be_detached_now(bus: Bus) -> None:
    """For any reason: what the SDK makes of it is its own affair, and another link works."""
    sender, receiver = await bus.both()
    await sender.send_messages(messages("x"))
    [message] = await take(receiver, 1)
    assert bus.place.detach_links("com.microsoft:server-busy", entity="bills.sessions") == 0
    assert bus.place.detach_links("com.microsoft:server-busy", "too much", entity="orders") == 2
    sent, got = await asyncio.gather(
        sender.send_messages(messages("y")), receiver.receive_messages(1, max_wait_time=2), return_exceptions=True
    )
    assert isinstance(sent, ServiceBusError)
    assert isinstance(got, ServiceBusServerBusyError)
    assert "too much" in str(got)
    other = await bus.receiver()
    await other.complete_message(message)
    assert bus.place.counts().acked == 1


async def test_a_lost_answer_to_a_schedule_leaves_it_scheduled(bus: Bus) -> None:
    """Whoever schedules again has scheduled twice."""
    sender = await bus.sender()
    bus.place.faults = Refuse("schedule-message", ConnectionDropped(), after=True)
    with pytest.raises(ServiceBusError):
        await sender.schedule_messages(messages("x"), datetime.now(UTC) + timedelta(seconds=60))
    assert bus.place.counts().published == 1


async def test_a_server_whose_clock_is_wrong_says_so_everywhere(bus: Bus) -> None:
    """Five minutes ahead, its locks seem long; behind, the SDK takes them for lost, and does not even ask."""
    bus.clock.skew = 300.0
    sender, receiver = await bus.both()
    session = await bus.receiver("bills.sessions", session_id="a")
    for skew in (300.0, -300.0):
        bus.clock.skew = skew
        wall = bus.clock.wall()
        await sender.send_messages(messages("x"))
        [message] = await take(receiver, 1)
        enqueued, until = message.enqueued_time_utc, message.locked_until_utc
        assert enqueued is not None
        assert until is not None
        assert enqueued.timestamp() == pytest.approx(wall, abs=1)
        assert until.timestamp() == pytest.approx(wall + 30, abs=1)
        assert (await receiver.renew_message_lock(message)).timestamp() == pytest.approx(wall + 30, abs=1)
        assert (await session.session.renew_lock()).timestamp() == pytest.approx(wall + 30, abs=1)
        if skew > 0:
            await receiver.complete_message(message)
            continue
        with pytest.raises(MessageLockLostError):
            await receiver.complete_message(message)
    assert bus.place.counts().acked == 1


async def test_connections_can_be_closed_as_for_an_update(bus: Bus) -> None:
    """The service does so now and then: both ends open again."""
    sender, receiver = await bus.both()
    await sender.send_messages(messages("x"))
    bus.place.close_connections()
    failed = await asyncio.gather(
        sender.send_messages(messages("y")), receiver.receive_messages(1, max_wait_time=2), return_exceptions=True
    )
    assert all(isinstance(each, ServiceBusError) for each in failed)
    _, found = await asyncio.gather(sender.send_messages(messages("y")), take(receiver, 2))
    assert [text(message) for message in found] == ["x", "y"]


# -- its start and its end -------------------------------------------------------------------------


async def test_a_place_says_how_to_find_it(bus: Bus) -> None:
    """What a test sets in the environment is all that an adapter needs; the key is nobody's."""
    place: LocalPlace = bus.place
    assert place.endpoint.startswith("sb://127.0.0.1:")
    assert place.address("orders") == "servicebus://eventkit-local/orders"
    assert place.dead_letters("orders") == "servicebus://eventkit-local/orders/$DeadLetterQueue"
    assert place.environment == {
        "SERVICEBUS_CONNECTION_STRING": (
            f"Endpoint={place.endpoint};SharedAccessKeyName=local;SharedAccessKey=local;UseDevelopmentEmulator=true"
        )
    }


async def test_leaving_ends_connections_and_what_a_fault_holds_up() -> None:
    """At once: a test that has found its error should not wait for clients."""

    class Hold(Faults):
        async def before(self, call: Call) -> None:
            await asyncio.Event().wait()

    async with serve(["orders"], faults=Hold()) as place, peer_of(place) as peer:
        await peer.open()
        peer.say(p.Attach("x", 0, receiver=True, source=Described(Ulong(0x28), ["orders"])))
        assert await peer.silent()
        began = time.monotonic()
    assert time.monotonic() - began < 0.2
    assert await peer.ended()


async def test_a_port_that_is_taken_is_named() -> None:
    """Two servers at one port would share its connections, were they allowed to."""
    async with serve(["orders"]) as place:
        port = int(place.endpoint.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=rf"port {port} .* is taken.*--port"):
            async with serve(["orders"], port=port):
                pass
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
    with pytest.raises(ConfigurationError, match="cannot be used"):
        async with serve(["orders"], port=70_000):
            pass


@pytest.mark.parametrize("name", ["", "a b", "a/b/c", "/a", "a/", "$cbs", "-a", "a" * 300])
async def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    """All problems at once, by name."""
    with pytest.raises(ConfigurationError) as caught:
        async with serve([name, "good", "bad name"]):
            pass
    assert repr(name) in str(caught.value)
    assert "'bad name'" in str(caught.value)


async def test_names_that_collide_are_refused() -> None:
    """Names are compared without case, and a topic is no queue."""
    with pytest.raises(ConfigurationError) as caught:
        async with serve(["orders", "Orders", "news", "news/audit"]):
            pass
    assert "'orders': twice" in str(caught.value)
    assert "'news': there is a topic" in str(caught.value)
