"""The local Service Bus server, byte by byte: connections, sessions and links in their smaller rules."""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterator

import pytest
from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._content import BATCH, section
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._frames import AMQP_HEADER, EMPTY, SASL_HEADER, frame
from eventkit_servicebus._local._types import Described, Symbol, Uint, Ulong

from tests.adapters.servicebus.local_support import Bus, Peer, data, local_bus, peer_of

ABANDON = Described(Ulong(0x27), [True, False])
DEFER = Described(Ulong(0x27), [True, True])


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with local_bus(lock=30.0, max_deliveries=3) as bus:
        yield bus


@pytest.fixture
async def peer(bus: Bus) -> AsyncIterator[Peer]:
    async with peer_of(bus.place) as peer:
        await peer.open()
        yield peer


async def closed_for(peer: Peer, condition: str) -> bool:
    """Whether the server closes the connection for this reason, and hangs up."""
    close, _ = await peer.hear(p.Close)
    assert close.error is not None
    assert close.error.value[0] == condition
    return await peer.ended()


# -- connections -----------------------------------------------------------------------------------


async def test_another_protocol_is_told_which_one_is_spoken(bus: Bus) -> None:
    """As AMQP has it, for whoever speaks an older one."""
    async with peer_of(bus.place) as peer:
        peer.write(b"AMQP\x00\x00\x09\x01")
        assert await peer.reader.read(100) == AMQP_HEADER
        assert await peer.ended()


async def test_a_frame_larger_than_was_agreed_is_not_waited_for(peer: Peer) -> None:
    """Whoever says four gigabytes must not be given them."""
    peer.write(struct.pack(">IBBH", 65_537, 2, 0, 0))
    assert await closed_for(peer, "amqp:decode-error")


async def test_a_head_may_be_longer_than_it_has_to_be(peer: Peer) -> None:
    """Nobody does so; AMQP lets them."""
    body = p.written(p.Begin(next_outgoing_id=0, incoming_window=1, outgoing_window=1))
    peer.write(struct.pack(">IBBH", len(body) + 16, 4, 0, 3) + bytes(8) + body)
    begin, _ = await peer.hear(p.Begin)
    assert begin.remote_channel == 3


@pytest.mark.parametrize(
    "bad",
    [
        frame(0, p.written(p.SaslInit(Symbol("ANONYMOUS"), b"")), sasl=True),
        frame(0, p.written(p.Open("again"))),
        frame(0, p.written(p.Begin(next_outgoing_id=0, incoming_window=1, outgoing_window=1))),
        frame(256, p.written(p.Begin(next_outgoing_id=0, incoming_window=1, outgoing_window=1))),
        frame(7, p.written(p.End())),
        frame(7, p.written(p.Flow(0, 1, 0, 1))),
    ],
    ids=["sasl", "open", "begin twice", "a channel too high", "end", "flow"],
)
async def test_what_cannot_be_said_now_ends_the_connection(peer: Peer, bad: bytes) -> None:
    """And says that it is the client's fault."""
    peer.write(bad)
    assert await closed_for(peer, "amqp:not-allowed")


@pytest.mark.parametrize("bad", [p.Begin(), p.Close(), p.Flow(0, 1, 0, 1)])
async def test_nothing_is_said_before_open(bus: Bus, bad: p.Performative) -> None:
    """Nor answered: to whom?"""
    async with peer_of(bus.place) as peer:
        peer.write(AMQP_HEADER + frame(0, p.written(bad)))
        assert await peer.reader.read(100) == AMQP_HEADER
        assert await peer.ended()


async def test_a_client_says_who_it_is_in_frames_for_that(bus: Bus) -> None:
    """In any others, it is not believed."""
    async with peer_of(bus.place) as peer:
        peer.write(SASL_HEADER + frame(0, p.written(p.SaslInit(Symbol("ANONYMOUS"), b""))))
        assert await peer.reader.readexactly(8) == SASL_HEADER
        await peer.hear(p.SaslMechanisms)
        with pytest.raises(EOFError):
            await peer.hear(p.SaslOutcome)


async def test_a_client_hears_something_in_time(bus: Bus) -> None:
    """At least twice in what it calls idle."""
    async with peer_of(bus.place) as peer:
        await peer.open(idle_time_out=Uint(300))
        began = time.monotonic()
        heard = b"".join([await peer.reader.read(100) for _ in range(2)])
        assert heard == EMPTY * 2
        assert time.monotonic() - began < 0.8


async def test_a_close_and_an_end_are_answered_and_free_what_was_held(bus: Bus, peer: Peer) -> None:
    """A session that is locked through a link, by the AMQP session or the connection that ends."""
    async with peer_of(bus.place) as other:
        await other.open()
        for end in (p.End(), p.Close()):
            assert (await peer.attach("bills.sessions", session="a")).source is not None
            assert (await other.attach("bills.sessions", session="a")).source is None
            await other.hear(p.Detach)
            peer.say(end)
            await peer.hear(type(end))
            if isinstance(end, p.End):
                peer.say(p.Begin(next_outgoing_id=0, incoming_window=100, outgoing_window=100))
                await peer.hear(p.Begin)
        assert (await other.attach("bills.sessions", session="a")).source is not None


# -- sessions and links ----------------------------------------------------------------------------


@pytest.mark.parametrize("handle", [0, 256])
async def test_a_handle_is_one_links_and_not_too_high(peer: Peer, handle: int) -> None:
    """The server has said how high."""
    await peer.attach()
    peer.say_attach(handle=handle)
    assert await closed_for(peer, "amqp:session:handle-in-use")


async def test_a_sender_is_let_go_on_before_its_credit_ends(bus: Bus, peer: Peer) -> None:
    """A client that keeps to it would stand still for ever."""
    await peer.attach(receiver=False)
    for number in range(500):
        peer.say(p.Transfer(0, number, b"0", 0, settled=True), data(b"x"))
    flow, _ = await peer.hear(p.Flow)
    assert (flow.handle, flow.delivery_count, flow.link_credit) == (0, 500, 1_000)
    assert flow.next_incoming_id == 500
    assert bus.place.counts().published == 500


async def test_a_message_that_is_aborted_was_never_sent(bus: Bus, peer: Peer) -> None:
    """What had come of it is forgotten; what comes next is a message of its own."""
    await peer.attach(receiver=False)
    peer.say(p.Transfer(0, 0, b"0", 0, more=True), data(b"half")[:5])
    peer.say(p.Transfer(0, 0, b"0", 0, more=True, aborted=True))
    peer.say(p.Transfer(0, 1, b"1", 0), data(b"whole"))
    answer, _ = await peer.hear(p.Disposition)
    assert (answer.first, answer.state) == (1, p.ACCEPTED)
    assert bus.place.counts().published == 1


async def test_a_message_may_come_in_parts(peer: Peer) -> None:
    """Only the first has to say which one it is."""
    await peer.attach(handle=9, receiver=False)
    whole = data(b"in parts")
    peer.say(p.Transfer(9, 0, b"0", 0, more=True), whole[:4])
    peer.say(p.Transfer(9, more=True), whole[4:5])
    peer.say(p.Transfer(9), whole[5:])
    answer, _ = await peer.hear(p.Disposition)
    assert answer.first == 0
    await peer.attach()
    peer.grant(1)
    _, payload = await peer.hear(p.Transfer)
    assert payload.endswith(whole)


async def test_a_flow_that_asks_is_answered(peer: Peer) -> None:
    """With the link as it stands."""
    await peer.send(b"x")
    await peer.attach()
    peer.grant(3)
    await peer.hear(p.Transfer)
    peer.say(p.Flow(1, 100, 1, 100, handle=0, delivery_count=0, link_credit=5, echo=True))
    flow, _ = await peer.hear(p.Flow)
    assert (flow.handle, flow.delivery_count, flow.link_credit) == (0, 1, 4)
    peer.say(p.Flow(1, 100, 1, 100, handle=0, echo=True))
    assert await peer.silent(0.03)


async def test_credit_that_is_less_than_what_is_on_its_way_is_none(peer: Peer) -> None:
    """A client that takes back what it has granted, while it is used."""
    await peer.send(b"a", b"b", b"c", b"d")
    await peer.attach()
    peer.grant(3)
    for _ in range(3):
        await peer.hear(p.Transfer)
    peer.grant(1)  # counted from the first, of which it has not heard
    assert await peer.silent(0.03)
    peer.grant(4)
    await peer.hear(p.Transfer)


async def test_the_window_counts_from_what_the_client_has_seen(peer: Peer) -> None:
    """As credit does."""
    await peer.send(b"a", b"b", b"c")
    await peer.attach()
    peer.grant(1)
    await peer.hear(p.Transfer)
    peer.say(p.Flow(0, 2, 0, 100, handle=0, delivery_count=1, link_credit=5))
    await peer.hear(p.Transfer)  # two from number 0 on, of which one was sent
    assert await peer.silent(0.03)
    peer.say(p.Flow(2, 2, 0, 100))
    await peer.hear(p.Transfer)


async def test_each_outcome_is_confirmed_as_itself_and_only_where_that_is_asked_for(bus: Bus, peer: Peer) -> None:
    """The SDK takes another outcome for a refusal."""
    await peer.send(*[b"x"] * 6)
    await peer.attach()
    peer.grant(6)
    for _ in range(6):
        await peer.hear(p.Transfer)
    for number, state in enumerate((p.ACCEPTED, p.rejected(None), p.RELEASED, ABANDON, DEFER)):
        peer.settle(number, state)
        answer, _ = await peer.hear(p.Disposition)
        assert answer.state is not None
        assert state.descriptor == answer.state.descriptor
        assert (answer.receiver, answer.first, answer.settled) == (False, number, True)
    peer.say(p.Disposition(receiver=False, first=5, state=p.ACCEPTED))  # of what it has sent itself
    assert await peer.silent(0.03)
    assert bus.place.counts().acked == 1
    peer.settle(5, p.ACCEPTED, settled=True)
    peer.settle(5, p.ACCEPTED)  # nobody has it any more
    assert await peer.silent(0.03)
    counts = bus.place.counts()
    assert (counts.acked, counts.dead, counts.nacked) == (2, 1, 2)


@pytest.mark.parametrize("state", [None, p.RELEASED, Described(Ulong(0x27), []), Described(Ulong(0x27), [False])])
async def test_what_is_given_back_without_a_failure_does_not_count(peer: Peer, state: Described | None) -> None:
    """Settled without an outcome, released, or modified, but not failed."""
    await peer.send(b"x")
    await peer.attach()
    for count in range(4):
        peer.grant(1, count=count)
        _, payload = await peer.hear(p.Transfer)
        assert payload.startswith(encode(Described(Ulong(0x70), [None, None, None, None, Uint(0)])))
        peer.say(p.Disposition(receiver=True, first=count, settled=True, state=state))


async def test_an_outcome_that_is_none_is_no_settlement(bus: Bus, peer: Peer) -> None:
    """`received` only says how far a client has read."""
    await peer.send(b"x")
    await peer.attach()
    peer.grant(1)
    await peer.hear(p.Transfer)
    peer.settle(0, Described(Ulong(0x23), [Uint(0), Ulong(0)]))
    assert await peer.silent(0.03)
    peer.settle(0, p.ACCEPTED)
    await peer.hear(p.Disposition)
    assert bus.place.counts().acked == 1


async def test_receivers_take_turns(bus: Bus, peer: Peer) -> None:
    """One with much credit must not starve the others; what one has no more credit for is another's."""
    async with peer_of(bus.place) as other:
        await other.open()
        for each, credit in ((peer, 100), (other, 20)):
            await each.attach()
            each.grant(credit)
        await peer.attach(handle=9, receiver=False)
        peer.say(p.Transfer(9, 0, b"0", BATCH, settled=True), data(data(b"x")) * 60)
        for each, number in ((peer, 40), (other, 20)):
            for _ in range(number):
                await each.hear(p.Transfer)
        assert await other.silent(0.03)
        assert bus.place.counts().delivered == 60


async def test_time_that_a_test_skips_is_seen_by_who_waits(bus: Bus, peer: Peer) -> None:
    """Nobody asks for anything: a lock is over, and there is credit."""
    await peer.send(b"x")
    await peer.attach()
    peer.grant(2)
    await peer.hear(p.Transfer)
    assert await peer.silent(0.03)
    bus.skip(31)
    await peer.hear(p.Transfer)


async def test_a_session_whose_connection_is_lost_is_free_at_once_and_nothing_counts(bus: Bus, peer: Peer) -> None:
    """Nobody has to wait for the end of its lock."""
    await to_bills(peer)
    async with peer_of(bus.place) as first:
        await first.open()
        await first.attach("bills.sessions", session="a")
        first.grant(1)
        await first.hear(p.Transfer)
    answer = await peer.attach("bills.sessions", session="")
    assert answer.source is not None
    peer.grant(1)
    _, payload = await peer.hear(p.Transfer)
    assert payload.startswith(encode(Described(Ulong(0x70), [None, None, None, None, Uint(0)])))


async def test_a_session_whose_lock_a_test_lets_pass_is_lost_at_once(bus: Bus, peer: Peer) -> None:
    """Its receiver says nothing, and is told."""
    await peer.attach("bills.sessions", session="a")
    bus.skip(31)
    detach, _ = await peer.hear(p.Detach)
    assert detach.error is not None
    assert detach.error.value[0] == "com.microsoft:session-lock-lost"


async def test_time_that_passes_by_itself_is_seen_too() -> None:
    """A lock that ends while nobody says a word."""
    async with local_bus(lock=0.1) as bus, peer_of(bus.place) as peer:
        await peer.open()
        await peer.send(b"x")
        await peer.attach()
        peer.grant(2)
        for _ in range(2):
            await peer.hear(p.Transfer)


async def test_answers_wait_for_credit(peer: Peer) -> None:
    """A client that asks for more than it can hear gets the rest later."""
    await peer.attach("bills.sessions/$management", 22)
    peer.grant(10, handle=22)
    await peer.attach("orders/$management", 20)
    await peer.attach("orders/$management", 21, receiver=False)
    request = encode(Described(Ulong(0x73), ["1"])) + encode(Described(Ulong(0x74), {"operation": "fly"}))
    for _ in range(2):
        peer.say(p.Transfer(21, 0, b"0", 0), request)
        answer, _ = await peer.hear(p.Disposition)
        assert answer.state == p.ACCEPTED
    assert await peer.silent(0.03)
    peer.grant(1, handle=20)
    reply, _ = await peer.hear(p.Transfer)
    assert reply.handle == 20
    assert await peer.silent(0.03)
    peer.grant(2, handle=20)
    await peer.hear(p.Transfer)


async def to_bills(peer: Peer) -> None:
    """Send a message of the session `a`."""
    await peer.attach("bills.sessions", 9, receiver=False)
    sections = Described(Ulong(0x73), [*[None] * 10, "a"])
    peer.say(p.Transfer(9, 0, b"0", 0), encode(sections) + data(b"x"))
    await peer.hear(p.Disposition)


@pytest.mark.parametrize("asked", ["a", ""], ids=["by name", "next available"])
async def test_a_session_is_granted_with_its_name_and_the_end_of_its_lock(bus: Bus, peer: Peer, asked: str) -> None:
    """The address is the client's own, letter by letter, which it compares; the end is in ticks since the year 1."""
    await to_bills(peer)
    answer = await peer.attach("amqps://h/Bills.Sessions", session=asked)
    assert answer.source is not None
    address, *_, filters = answer.source.value
    assert (address, filters) == ("amqps://h/Bills.Sessions", {Symbol("com.microsoft:session-filter"): "a"})
    assert answer.properties is not None
    ticks = answer.properties["com.microsoft:locked-until-utc"]
    assert ticks / 10_000_000 - 62_135_596_800 == pytest.approx(bus.clock.wall() + 30, abs=1)


async def test_whoever_waits_for_a_session_waits_as_long_as_it_says(peer: Peer) -> None:
    """And is refused then, as the service does it."""
    began = time.monotonic()
    answer = await peer.attach("bills.sessions", session="", properties={Symbol("com.microsoft:timeout"): Uint(50)})
    assert time.monotonic() - began < 5
    assert answer.source is None
    detach, _ = await peer.hear(p.Detach)
    assert detach.error is not None
    assert detach.error.value[0] == "com.microsoft:timeout"


async def test_a_session_that_is_lost_settles_nothing(bus: Bus, peer: Peer) -> None:
    """The lock is over though nobody has looked: its link ends, and what it held is the next one's."""
    await to_bills(peer)
    await peer.attach("bills.sessions", session="a")
    peer.grant(1)
    _, payload = await peer.hear(p.Transfer)
    assert b"x-opt-locked-until" not in payload
    bus.clock.skip(31)
    peer.settle(0, p.ACCEPTED)
    detach, _ = await peer.hear(p.Detach)
    answer, _ = await peer.hear(p.Disposition)
    for error in (detach.error, answer.state and answer.state.value[0]):
        assert error is not None
        assert error.value[0] == "com.microsoft:session-lock-lost"
    assert bus.place.counts().acked == 0


async def test_a_queue_without_sessions_has_none_to_give(peer: Peer) -> None:
    """A receiver that asks for one would take every message for one of that session."""
    answer = await peer.attach(session="a")
    assert answer.source is None
    detach, _ = await peer.hear(p.Detach)
    assert detach.error is not None
    assert detach.error.value[0] == "amqp:not-allowed"


@pytest.mark.parametrize(("operation", "status"), [("put-token", 202), ("take-token", 400)])
async def test_a_token_is_put_and_nothing_else(peer: Peer, operation: str, status: int) -> None:
    """Whatever it says; the answer has the id of the question, of the type that it had."""
    await peer.attach("$cbs", 20)
    await peer.attach("$cbs", 21, receiver=False)
    peer.grant(1, handle=20)
    sections = {0x73: [Ulong(7)], 0x74: {"operation": operation}, 0x77: "SharedAccessSignature sr=x"}
    request = b"".join(encode(Described(Ulong(code), value)) for code, value in sections.items())
    peer.say(p.Transfer(21, 0, b"0", 0, settled=True), request)
    _, payload = await peer.hear(p.Transfer)
    assert section(payload, 0x74)["status-code"] == status
    [*_, id] = section(payload, 0x73)
    assert (type(id), id) == (Ulong, 7)


async def test_an_address_may_be_quoted_and_nothing_is_ever_in_transfer(peer: Peer) -> None:
    """`$Transfer` holds what could not be forwarded, and there is no forwarding."""
    assert (await peer.attach("sb://h/bills%2Esessions/%24management", 0)).source is not None
    assert (await peer.attach("orders/$Transfer/$DeadLetterQueue", 1)).source is None


async def test_what_a_sender_says_for_the_server_is_dropped(peer: Peer) -> None:
    """Or it could make up a lock, a number or an age."""
    await peer.attach(handle=9, receiver=False)
    mine = {Symbol("x-opt-sequence-number"): Ulong(77), Symbol("x-mine"): "kept"}
    peer.say(p.Transfer(9, 0, b"0", 0), encode(Described(Ulong(0x72), mine)) + data(b"x"))
    await peer.hear(p.Disposition)
    await peer.attach()
    peer.grant(1)
    _, payload = await peer.hear(p.Transfer)
    assert b"x-mine" in payload
    assert payload.count(b"x-opt-sequence-number") == 1
    assert encode(Ulong(77)) not in payload


async def test_a_dead_letters_reason_is_the_last_ones(bus: Bus, peer: Peer) -> None:
    """What was dead once may carry an old one with it."""
    await peer.attach(handle=9, receiver=False)
    old = encode(Described(Ulong(0x74), {"DeadLetterReason": "old", "mine": "kept"}))
    peer.say(p.Transfer(9, 0, b"0", 0), old + data(b"x"))
    await peer.hear(p.Disposition)
    await peer.attach()
    peer.grant(1)
    await peer.hear(p.Transfer)
    info = {Symbol("DeadLetterReason"): "new"}
    error = Described(Ulong(0x1D), [Symbol("com.microsoft:dead-letter"), None, info])
    peer.settle(0, Described(Ulong(0x25), [error]))
    await peer.hear(p.Disposition)
    await peer.attach("orders/$DeadLetterQueue", 1)
    peer.grant(1, handle=1)
    _, payload = await peer.hear(p.Transfer)
    assert b"new" in payload
    assert b"kept" in payload
    assert b"old" not in payload
