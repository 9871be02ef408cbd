"""The local Service Bus server, byte by byte: what the SDK never says, or cannot show."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._content import HEADER
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._frames import AMQP_HEADER, EMPTY, SASL_HEADER, frame
from eventkit_servicebus._local._types import Array, Described, Int, Long, Symbol, Uint, Ulong

from tests.adapters.servicebus.local_support import Bus, Peer, data, local_bus, peer_of


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with local_bus(lock=30.0, max_deliveries=3) as bus:
        yield bus


@pytest.fixture
async def peer(bus: Bus) -> AsyncIterator[Peer]:
    async with peer_of(bus.place) as peer:
        yield peer


async def test_no_more_is_sent_than_there_is_credit_for(peer: Peer) -> None:
    """The receiver's word is kept to the message; a grant counts from what the client has seen."""
    await peer.open()
    await peer.send(b"a", b"b", b"c", b"d")
    await peer.attach()
    assert await peer.silent()
    peer.grant(2)
    first, payload = await peer.hear(p.Transfer)
    assert payload.endswith(data(b"a"))
    assert (first.delivery_id, first.settled, first.more) == (0, False, False)
    assert first.delivery_tag is not None
    assert len(first.delivery_tag) == 16
    await peer.hear(p.Transfer)
    assert await peer.silent()
    peer.grant(2, count=1)  # one of which it has not seen yet
    third, _ = await peer.hear(p.Transfer)
    assert third.delivery_id == 2
    assert await peer.silent()


async def test_a_drain_is_answered_with_what_there_is_and_no_credit(peer: Peer) -> None:
    """The count goes up by what is left, as the protocol has it, or a client would wait for ever."""
    await peer.open()
    await peer.send(b"a")
    await peer.attach()
    peer.grant(10, drain=True)
    await peer.hear(p.Transfer)
    flow, _ = await peer.hear(p.Flow)
    assert (flow.handle, flow.delivery_count, flow.link_credit, flow.drain) == (0, 10, 0, True)


async def test_the_window_of_a_session_is_kept(peer: Peer) -> None:
    """The client opened with 100; a flow without a handle starts it again."""
    await peer.open()
    await peer.send(*[b"x"] * 103)
    await peer.attach()
    peer.grant(1_000)
    for _ in range(100):
        await peer.hear(p.Transfer)
    assert await peer.silent()
    peer.say(p.Flow(100, 2, 0, 100))
    await peer.hear(p.Transfer)
    await peer.hear(p.Transfer)
    assert await peer.silent()


async def test_a_message_is_cut_to_the_frames_that_the_client_takes(peer: Peer) -> None:
    """512 bytes is the least that a client may say."""
    await peer.open(max_frame_size=Uint(512))
    body = random.Random(1).randbytes(2_000)
    await peer.send(body)
    await peer.attach()
    peer.grant(1)
    whole = b""
    for _ in range(20):
        part, payload = await peer.hear(p.Transfer)
        assert len(p.written(part)) + len(payload) + 8 <= 512
        assert part.delivery_id == 0
        whole += payload
        if not part.more:
            break
    assert whole.endswith(data(body))


async def test_released_means_never_delivered(peer: Peer) -> None:
    """Settled by the client without waiting, as the SDK does with what it has buffered; a range counts for all."""
    await peer.open()
    await peer.send(b"a", b"b")
    await peer.attach()
    for start in (0, 2):
        peer.grant(2, count=start)
        for _ in range(2):
            _, payload = await peer.hear(p.Transfer)
            assert payload.startswith(encode(Described(Ulong(HEADER), [None, None, None, None, Uint(0)])))
        peer.say(p.Disposition(receiver=True, first=start, last=start + 1, settled=True, state=p.RELEASED))


async def test_a_range_that_has_no_end_costs_nothing(bus: Bus, peer: Peer) -> None:
    """Four thousand million deliveries, of which two are there: each is confirmed for itself."""
    await peer.open()
    await peer.send(b"a", b"b")
    await peer.attach()
    peer.grant(2)
    for _ in range(2):
        await peer.hear(p.Transfer)
    peer.say(p.Disposition(receiver=True, first=0, last=2**32 - 1, state=p.ACCEPTED))
    for number in range(2):
        answer, _ = await peer.hear(p.Disposition)
        assert (answer.receiver, answer.first, answer.settled, answer.state) == (False, number, True, p.ACCEPTED)
    assert bus.place.counts().acked == 2


@pytest.mark.parametrize(
    ("address", "receiver"),
    [
        *[(address, True) for address in ("", "nowhere", "news", "bills.sessions", "$cbs/x", "a/b/c")],
        *[(address, False) for address in ("", "nowhere", "news/audit", "orders/$DeadLetterQueue", "x/$management")],
    ],
)
async def test_a_link_that_cannot_be_is_refused_as_the_protocol_has_it(
    peer: Peer, address: str, receiver: bool
) -> None:
    """From nowhere to nowhere, and gone, whoever would send: other links go on."""
    await peer.open()
    await peer.attach()
    answer = await peer.attach(address, 1, receiver=receiver)
    assert (answer.source, answer.target) == (None, None)
    assert answer.initial_delivery_count == (0 if receiver else None)
    detach, _ = await peer.hear(p.Detach)
    assert (detach.handle, detach.closed) == (1, True)
    assert detach.error is not None
    assert len(detach.error.value) == 3
    await peer.send(b"x")
    peer.grant(1)
    await peer.hear(p.Transfer)


async def test_names_are_compared_without_case_and_may_be_uris(peer: Peer) -> None:
    """As the SDK writes them."""
    await peer.open()
    for handle, address in enumerate(
        ["amqps://127.0.0.1:1/ORDERS", "orders/$DeadLetterQueue", "news/Subscriptions/Mail"]
    ):
        assert (await peer.attach(address, handle)).source is not None


async def test_a_message_that_is_too_large_ends_its_link(peer: Peer) -> None:
    """The service's words, and the connection goes on."""
    await peer.open()
    await peer.attach(handle=1, receiver=False)
    for _ in range(5):
        peer.say(p.Transfer(1, 0, b"0", 0, more=True), bytes(60_000))
    detach, _ = await peer.hear(p.Detach)
    assert detach.error is not None
    assert detach.error.value[0] == "amqp:link:message-size-exceeded"
    await peer.send(b"x", handle=2)


@pytest.mark.parametrize(
    "bad", [b"\x00\x53\x99", b"\x40", data(b"x")[:-1], data(b"x") + encode(Described(Ulong(HEADER), []))]
)
async def test_a_message_that_is_none_is_rejected(bus: Bus, peer: Peer, bad: bytes) -> None:
    """It must not be stored: whoever received it could not read it."""
    await peer.open()
    await peer.attach(handle=1, receiver=False)
    peer.say(p.Transfer(1, 0, b"0", 0), bad)
    answer, _ = await peer.hear(p.Disposition)
    assert answer.state is not None
    assert answer.state.descriptor == 0x25
    assert bus.place.counts().published == 0


async def test_a_request_that_makes_no_sense_is_answered(peer: Peer) -> None:
    """Each with a status; what has no id cannot be, and nobody waits for it."""
    await peer.open()
    bodies = [
        None,
        {},
        {"lock-tokens": Uint(5)},
        {"lock-tokens": [uuid.UUID(int=1)]},
        {"sequence-numbers": Uint(1)},
        {"session-id": "a"},
        {"disposition-status": "lost", "lock-tokens": Array(0x98, (uuid.UUID(int=1),))},
        {"sequence-numbers": Array(0x81, (Long(1), Long(1)))},
        {"from-sequence-number": Long(-1), "message-count": Int(-1)},
        {"skip": Int(-5), "top": Int(-5)},
        {"messages": [{"message": b"\xff"}]},
        {"messages": [Uint(5)]},
    ]
    names = ["renew-lock", "update-disposition", "peek-message", "receive-by-sequence-number", "schedule-message"]
    names += ["cancel-scheduled-message", "renew-session-lock", "get-session-state", "get-message-sessions", "fly", ""]
    for name in names:
        for body in bodies:
            await peer.manage(name, body)
            _, payload = await peer.hear(p.Transfer)
            assert b"statusCode" in payload


@pytest.mark.parametrize("seed", range(8))
async def test_garbage_ends_its_connection_and_no_other(bus: Bus, peer: Peer, seed: int) -> None:
    """At each stage of a connection, a client may go mad."""
    rng = random.Random(seed)
    await peer.open()
    async with peer_of(bus.place) as mad:
        if seed >= 6:
            await mad.open()
            await mad.attach()
            await mad.attach(handle=1, receiver=False)
        elif seed >= 4:
            mad.write(AMQP_HEADER)
        elif seed >= 2:
            mad.write(SASL_HEADER)
        body = rng.randbytes(100)
        mad.write(rng.randbytes(40) if seed % 2 else frame(0, body))
        mad.writer.write_eof()
        assert await mad.ended()
    await peer.send(b"x")


async def test_random_fields_in_every_performative_do_no_harm(bus: Bus, peer: Peer) -> None:
    """Right in form, wrong in sense: what is right of its type may still be no sense where it stands."""
    rng = random.Random(5)
    await peer.open()
    values: list[Any] = [
        None,
        True,
        False,
        Uint(0),
        Uint(1),
        Uint(2**32 - 1),
        b"",
        b"x" * 20,
        "orders",
        {},
        {Symbol("a"): None},
    ]
    values += [p.ACCEPTED, Described(Ulong(0x28), ["orders"]), Described(Ulong(0x29), ["orders"]), Ulong(3)]
    codes = [0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17]
    for _ in range(150):
        async with peer_of(bus.place) as mad:
            mad.write(AMQP_HEADER)
            mad.say(p.Open("mad"))
            mad.say(p.Begin(next_outgoing_id=0, incoming_window=100, outgoing_window=100))
            mad.say(p.Attach("l", 1, receiver=True, source=Described(Ulong(0x28), ["orders"])))
            mad.say(p.Attach("m", 0, receiver=False, target=Described(Ulong(0x29), ["orders"])))
            for _ in range(3):
                fields = [rng.choice(values) for _ in range(rng.randrange(12))]
                mad.write(frame(0, encode(Described(Ulong(rng.choice(codes)), fields))))
            mad.writer.write_eof()
            assert await mad.ended()
    await peer.attach()


async def test_a_client_that_is_silent_is_cut_off_and_one_that_is_idle_is_not() -> None:
    """An empty frame is enough to live on; the server sends its own where the client asks for it."""
    async with local_bus(idle=0.3) as bus, peer_of(bus.place) as silent, peer_of(bus.place) as idle:
        opened = await silent.open()
        assert opened.idle_time_out == 300
        await idle.open(idle_time_out=Uint(200))

        async def live() -> None:
            while True:
                idle.write(EMPTY)
                await asyncio.sleep(0.1)

        living = asyncio.create_task(live())
        closed, _ = await silent.hear(p.Close)
        assert closed.error is not None
        assert await silent.ended()
        await asyncio.sleep(0.3)
        living.cancel()
        await idle.send(b"x")


async def test_a_dead_letter_whose_properties_cannot_be_read_moves_as_it_is(bus: Bus, peer: Peer) -> None:
    """Nobody looked into them before: what must not be lost is not to stumble over them."""
    await peer.open()
    await peer.attach(handle=9, receiver=False)
    torn = b"\x00\x53\x74\xc1\x03\x02\x45\x41" + data(b"x")
    peer.say(p.Transfer(9, 0, b"0", 0), torn)
    await peer.hear(p.Disposition)
    await peer.attach()
    peer.grant(1)
    await peer.hear(p.Transfer)
    reason = Described(Ulong(0x1D), [Symbol("com.microsoft:dead-letter"), None, {Symbol("DeadLetterReason"): "bad"}])
    peer.say(p.Disposition(receiver=True, first=0, state=Described(Ulong(0x25), [reason])))
    answer, _ = await peer.hear(p.Disposition)
    assert answer.state == p.rejected(None)
    await peer.attach("orders/$DeadLetterQueue", 1)
    peer.grant(1, handle=1)
    _, payload = await peer.hear(p.Transfer)
    assert payload.endswith(torn)


async def test_what_waits_to_be_written_is_bounded(bus: Bus, peer: Peer) -> None:
    """A client with all the credit of the world that reads nothing: messages wait in the queue, not in buffers."""
    await peer.open()
    await peer.attach(handle=9, receiver=False)
    for number in range(300):
        peer.say(p.Transfer(9, number, b"0", 0), data(bytes(60_000)))
        await peer.hear(p.Disposition)
    async with peer_of(bus.place) as lazy:
        await lazy.open()
        await lazy.attach()
        lazy.say(p.Flow(0, 10_000, 0, 100, handle=0, delivery_count=0, link_credit=10_000))
        await asyncio.sleep(0.3)
        assert 0 < bus.place.counts().delivered < 250
        for _ in range(300):
            await lazy.hear(p.Transfer)
