"""The local Service Bus server, byte by byte: what faults do to a call, a link, a connection."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from eventkit_servicebus._local import (
    AmqpError,
    AnswerLost,
    Call,
    ConnectionClosed,
    ConnectionDropped,
    Faults,
    LinkDetached,
)
from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._types import Array, Int, Long

from tests.adapters.servicebus.local_support import Bus, Peer, data, local_bus, peer_of


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with local_bus(lock=30.0) as bus:
        yield bus


@pytest.fixture
async def peer(bus: Bus) -> AsyncIterator[Peer]:
    async with peer_of(bus.place) as peer:
        await peer.open()
        yield peer


class Once(Faults):
    """What happens to the next call of one operation."""

    def __init__(self, operation: str, failure: Exception, *, after: bool = False) -> None:
        self.operation = operation
        self.failure: Exception | None = failure
        self.after_it = after

    async def before(self, call: Call) -> None:
        if not self.after_it:
            self._fail(call)

    async def after(self, call: Call) -> None:
        if self.after_it:
            self._fail(call)

    def _fail(self, call: Call) -> None:
        failure = self.failure
        if call.operation == self.operation and failure is not None:
            self.failure = None
            raise failure


class Gate(Faults):
    """Holds up one operation until it is opened."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.opened = asyncio.Event()

    async def before(self, call: Call) -> None:
        if call.operation == self.operation:
            await self.opened.wait()


async def do_send(peer: Peer) -> None:
    peer.say(p.Transfer(9, 50, b"0", 0), data(b"again"))


async def do_settle(peer: Peer) -> None:
    peer.settle(0, p.ACCEPTED)


async def do_schedule(peer: Peer) -> None:
    await peer.manage("schedule-message", {"messages": [{"message": data(b"later")}]})


async def do_renew(peer: Peer) -> None:
    assert peer.tag is not None
    await peer.manage("renew-lock", {"lock-tokens": Array(0x98, (uuid.UUID(bytes_le=peer.tag),))})


async def do_peek(peer: Peer) -> None:
    await peer.manage("peek-message", {"from-sequence-number": Long(1), "message-count": Int(1)})


CALLS: dict[str, tuple[Callable[[Peer], Any], int]] = {
    "send": (do_send, 9),
    "settle": (do_settle, 0),
    "schedule-message": (do_schedule, 21),
    "renew-lock": (do_renew, 21),
    "peek-message": (do_peek, 21),
}
"""How to make a call, and the handle of the link that it goes by."""


async def with_one(peer: Peer) -> None:
    """A sender, a receiver that holds a message, and a management node."""
    await peer.send(b"x")
    await peer.attach()
    peer.grant(1)
    await peer.hear(p.Transfer)
    await do_peek(peer)
    await peer.hear(p.Transfer)


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("after", [False, True])
async def test_an_answer_can_be_lost_and_nothing_else(bus: Bus, peer: Peer, operation: str, after: bool) -> None:
    """Before or after it was done: the link is well, and says nothing; the next call is answered."""
    await with_one(peer)
    before = bus.place.counts()
    bus.place.faults = Once(operation, AnswerLost(), after=after)
    call, _ = CALLS[operation]
    await call(peer)
    assert await peer.silent(0.03)
    counts = bus.place.counts()
    done = counts.published - before.published + counts.acked
    assert done == (1 if after and operation in {"send", "settle", "schedule-message"} else 0)
    await do_peek(peer)
    await peer.hear(p.Transfer)


@pytest.mark.parametrize("operation", CALLS)
async def test_a_link_can_be_detached_at_a_call(bus: Bus, peer: Peer, operation: str) -> None:
    """Instead of an answer; the session goes on."""
    await with_one(peer)
    bus.place.faults = Once(operation, LinkDetached("amqp:link:detach-forced", "moved"), after=True)
    call, handle = CALLS[operation]
    await call(peer)
    detach, _ = await peer.hear(p.Detach)
    assert detach.error is not None
    assert (detach.handle, detach.closed) == (handle, True)
    assert detach.error.value[:2] == ["amqp:link:detach-forced", "moved"]
    assert (await peer.attach(handle=7)).source is not None


@pytest.mark.parametrize("role", ["sender", "receiver"])
async def test_a_link_that_is_detached_at_its_attach_is_refused(bus: Bus, peer: Peer, role: str) -> None:
    """There is no link to detach yet."""
    bus.place.faults = Once("attach", LinkDetached("com.microsoft:server-busy", "later"))
    answer = await peer.attach(receiver=role == "receiver")
    assert (answer.source, answer.target) == (None, None)
    detach, _ = await peer.hear(p.Detach)
    assert detach.error is not None
    assert detach.error.value[0] == "com.microsoft:server-busy"


async def test_a_session_may_be_lost_as_it_is_granted(bus: Bus, peer: Peer) -> None:
    """After it was locked: the link is there, and is detached, and the session is free."""
    bus.place.faults = Once("attach", AmqpError("com.microsoft:server-busy", "later"), after=True)
    assert (await peer.attach("bills.sessions", session="a")).source is not None
    detach, _ = await peer.hear(p.Detach)
    assert detach.error is not None
    assert detach.error.value[0] == "com.microsoft:server-busy"
    assert (await peer.attach("bills.sessions", session="a")).source is not None


@pytest.mark.parametrize("operation", CALLS)
async def test_a_connection_can_be_closed_or_dropped_at_a_call(bus: Bus, peer: Peer, operation: str) -> None:
    """With a reason, or without a word."""
    await with_one(peer)
    call, _ = CALLS[operation]
    bus.place.faults = Once(operation, ConnectionClosed("amqp:connection:forced", "an update"))
    await call(peer)
    close, _ = await peer.hear(p.Close)
    assert close.error is not None
    assert close.error.value[:2] == ["amqp:connection:forced", "an update"]
    assert await peer.ended()

    async with peer_of(bus.place) as other:
        await other.open()
        await other.attach(handle=9, receiver=False)
        bus.place.faults = Once("send", ConnectionDropped())
        await do_send(other)
        assert await other.ended()
    assert bus.place.counts().published == 1


async def test_links_can_be_detached_now_and_nodes_go_on(bus: Bus, peer: Peer) -> None:
    """Those that send to a queue and receive from it; what was locked can be settled all the same."""
    await with_one(peer)
    assert bus.place.detach_links("amqp:link:detach-forced", "moved", entity="bills.sessions") == 0
    assert bus.place.detach_links("amqp:link:detach-forced", "moved") == 2
    for _ in range(2):
        detach, _ = await peer.hear(p.Detach)
        assert detach.error is not None
        assert detach.error.value[:2] == ["amqp:link:detach-forced", "moved"]
    await do_renew(peer)
    _, payload = await peer.hear(p.Transfer)
    assert b"expirations" in payload


async def test_throttling_refuses_a_call_and_its_link_goes_on(bus: Bus, peer: Peer) -> None:
    """Each in its own way: a message is rejected, a request answered with a status."""
    await with_one(peer)
    busy = AmqpError("com.microsoft:server-busy", "too much")
    for operation in ("send", "settle"):
        bus.place.faults = Once(operation, busy)
        await CALLS[operation][0](peer)
        answer, _ = await peer.hear(p.Disposition)
        assert answer.state == p.rejected(busy)
    for operation in ("schedule-message", "renew-lock", "peek-message"):
        bus.place.faults = Once(operation, busy)
        await CALLS[operation][0](peer)
        _, payload = await peer.hear(p.Transfer)
        assert b"com.microsoft:server-busy" in payload
    await peer.send(b"y", handle=8)


# -- what is held up -------------------------------------------------------------------------------


async def test_what_is_held_up_uses_credit_and_a_drain_waits_for_it(bus: Bus, peer: Peer) -> None:
    """A client that grants again in the meantime gets no more than it asked for."""
    await peer.send(b"a", b"b", b"c", b"d")
    gate = bus.place.faults = Gate("deliver")
    await peer.attach()
    peer.grant(2)
    assert await peer.silent(0.03)
    peer.grant(2)
    peer.grant(3, drain=True)
    assert await peer.silent(0.03)
    gate.opened.set()
    for _ in range(3):
        await peer.hear(p.Transfer)
    flow, _ = await peer.hear(p.Flow)
    assert (flow.delivery_count, flow.link_credit, flow.drain) == (3, 0, True)
    assert bus.place.counts().delivered == 3


async def test_a_call_can_be_held_up_and_others_go_on(bus: Bus, peer: Peer) -> None:
    """A slow management node beside a queue that is well."""
    await with_one(peer)
    gate = bus.place.faults = Gate("renew-lock")
    await do_renew(peer)
    await do_send(peer)
    answer, _ = await peer.hear(p.Disposition)
    assert answer.state == p.ACCEPTED
    assert await peer.silent(0.03)
    gate.opened.set()
    _, payload = await peer.hear(p.Transfer)
    assert b"expirations" in payload


async def test_messages_are_stored_in_their_order_with_faults_too(bus: Bus, peer: Peer) -> None:
    """Faults make a task of each call; those that do not wait keep their order."""
    bus.place.faults = Faults()
    await peer.attach(handle=9, receiver=False)
    for number in range(20):
        peer.say(p.Transfer(9, number, b"0", 0, settled=True), data(b"%d" % number))
    await peer.attach()
    peer.grant(20)
    for number in range(20):
        _, payload = await peer.hear(p.Transfer)
        assert payload.endswith(data(b"%d" % number))
        peer.settle(number, p.ACCEPTED)
    for number in range(20):
        answer, _ = await peer.hear(p.Disposition)
        assert answer.first == number


async def test_a_delivery_that_is_lost_is_locked_and_its_credit_is_free(bus: Bus, peer: Peer) -> None:
    """As if the message had been received by somebody who died."""
    await peer.send(b"a", b"b")
    bus.place.faults = Once("deliver", AnswerLost())
    await peer.attach()
    peer.grant(1)
    _, payload = await peer.hear(p.Transfer)
    assert payload.endswith(data(b"b"))
    bus.skip(31)
    peer.grant(1, count=1)
    _, payload = await peer.hear(p.Transfer)
    assert payload.endswith(data(b"a"))


@pytest.mark.parametrize("address", ["orders", "bills.sessions"])
async def test_a_link_that_is_given_up_before_it_is_granted_is_gone(bus: Bus, peer: Peer, address: str) -> None:
    """Nothing is said of it any more, and no session is locked for it."""
    gate = bus.place.faults = Gate("attach")
    peer.say_attach(address, session="a" if address != "orders" else None)
    peer.say(p.Detach(handle=0, closed=True))
    await peer.hear(p.Detach)
    gate.opened.set()
    assert await peer.silent(0.03)
    answer = await peer.attach(address, 1, session="a" if address != "orders" else None)
    assert answer.source is not None


async def test_what_was_settled_before_a_detach_is_settled(bus: Bus, peer: Peer) -> None:
    """The SDK says both in one breath as it closes; a fault may make a task of the first."""
    await peer.send(b"x")
    await peer.attach()
    peer.grant(1)
    await peer.hear(p.Transfer)
    bus.place.faults = Faults()
    peer.settle(0, p.ACCEPTED)
    peer.say(p.Detach(handle=0, closed=True))
    await peer.hear(p.Detach)
    assert bus.place.counts().acked == 1


async def test_what_is_delivered_too_late_goes_to_nobody(bus: Bus, peer: Peer) -> None:
    """Its link is gone: a transfer on it would end the client's session."""
    await peer.send(b"x")
    gate = bus.place.faults = Gate("deliver")
    await peer.attach()
    peer.grant(1)
    assert await peer.silent(0.03)
    peer.say(p.Detach(handle=0, closed=True))
    await peer.hear(p.Detach)
    gate.opened.set()
    assert await peer.silent(0.03)
    bus.skip(31)
    await peer.attach(handle=1)
    peer.grant(1, handle=1)
    await peer.hear(p.Transfer)
