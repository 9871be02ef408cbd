"""The local Service Bus server: what its management nodes answer, without a wire, and how a message goes out."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from eventkit_servicebus._local import AmqpError, serve
from eventkit_servicebus._local._content import BATCH, DATA, Content, batch
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._management import Request, manage
from eventkit_servicebus._local._names import node
from eventkit_servicebus._local._queue import LocalQueue
from eventkit_servicebus._local._server import Server
from eventkit_servicebus._local._stored import Taken
from eventkit_servicebus._local._types import Array, Described, Int, Long, Symbol, Timestamp, Uint, Ulong

from tests.adapters.servicebus.local_support import Clock, data

LOCK = 30.0
BILLS = "bills.sessions"


class Nobody:
    """Holds a session."""

    waits_until = 0.0

    def granted(self, session: str, until: float) -> None:
        pass

    def lost(self) -> None:
        pass

    def waited(self) -> None:
        pass


class Office:
    """A server, and its management nodes."""

    def __init__(self, server: Server, clock: Clock) -> None:
        self.server = server
        self.clock = clock

    def queue(self, name: str = "orders") -> LocalQueue:
        return self.server.namespace.queue(node(name))

    def ask(self, operation: str, body: dict[str, Any], name: str = "orders") -> dict[str, Any] | None:
        return manage(self.server, node(f"{name}/$management"), operation, Request("id", {}, body))

    def send(self, number: int = 1, name: str = "orders", session: str | None = None) -> None:
        sections = encode(Described(Ulong(0x73), [*[None] * 10, session])) + data(b"x")
        self.queue(name).accept([Content.read(sections)] * number, self.clock.now())

    def take(self, number: int = 1) -> list[Taken]:
        return self.queue().take(number, self.clock.now())

    def tokens(self, *taken: Taken) -> Array:
        return Array(0x98, tuple(uuid.UUID(bytes_le=self.server.tag(each.receipt)) for each in taken))

    def hold(self, session: str) -> None:
        self.server.namespace.sessions(self.queue(BILLS)).accept(session, Nobody(), self.clock.now())


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    clock = Clock()
    async with serve(["orders", BILLS], lock=LOCK, clock=clock.now, wall=clock.wall) as place:
        yield Office(place._server, clock)


def annotations_of(message: bytes) -> dict[str, Any]:
    return {str(name): value for name, value in Content.read(message).annotations.items()}


async def test_locks_are_renewed_even_beside_one_that_is_lost(office: Office) -> None:
    """Whoever renews many and is refused, has most of them still."""
    office.send(2)
    kept, done = office.take(2)
    office.queue().complete(done.receipt, office.clock.now())
    office.clock.skip(20)
    answer = office.ask("renew-lock", {"lock-tokens": office.tokens(kept)})
    assert answer is not None
    [until] = answer["expirations"].items
    assert until / 1000 == pytest.approx(office.clock.wall() + LOCK, abs=0.5)
    office.clock.skip(20)
    with pytest.raises(AmqpError, match="lock supplied is invalid"):
        office.ask("renew-lock", {"lock-tokens": office.tokens(kept, done)})
    office.clock.skip(20)
    assert office.queue().complete(kept.receipt, office.clock.now())


async def test_a_token_of_another_server_locks_nothing(office: Office) -> None:
    """It may be one of yesterday's, with a number that is used again."""
    office.send()
    [taken] = office.take()
    other = uuid.UUID(bytes_le=bytes(8) + taken.receipt.to_bytes(8))
    with pytest.raises(AmqpError, match="lock supplied is invalid"):
        office.ask("update-disposition", {"disposition-status": "completed", "lock-tokens": Array(0x98, (other,))})
    assert office.queue().tally().acked == 0


async def test_settling_several_says_if_one_is_lost(office: Office) -> None:
    """The others are settled."""
    office.send(2)
    one, other = office.take(2)
    office.queue().complete(one.receipt, office.clock.now())
    with pytest.raises(AmqpError, match="lock supplied is invalid"):
        office.ask("update-disposition", {"disposition-status": "abandoned", "lock-tokens": office.tokens(one, other)})
    [again] = office.take()
    assert again.failures == 1
    settled = office.ask("update-disposition", {"disposition-status": "completed", "lock-tokens": office.tokens(again)})
    assert settled == {}


async def test_settling_under_a_session_says_that_its_lock_is_lost(office: Office) -> None:
    """Held by somebody, but the message is not."""
    office.hold("a")
    body = {
        "disposition-status": "completed",
        "lock-tokens": Array(0x98, (uuid.UUID(int=1),)),
        "session-id": "a",
    }
    with pytest.raises(AmqpError, match="session lock has expired"):
        office.ask("update-disposition", body, BILLS)


async def test_peeking_is_bounded_and_nothing_is_no_list(office: Office) -> None:
    """The SDK cannot read an empty one."""
    body = {"from-sequence-number": Long(1), "message-count": Int(5_000)}
    assert office.ask("peek-message", body) is None
    office.send(1_100)
    answer = office.ask("peek-message", body)
    assert answer is not None
    assert len(answer["messages"]) == 1_000


async def test_a_deferred_message_is_locked_or_deleted(office: Office) -> None:
    """As the receiver's mode says; a lock has an end, and a token."""
    office.send(2)
    for taken in office.take(2):
        office.queue().defer(taken.receipt, office.clock.now())
    answer = office.ask("receive-by-sequence-number", {"sequence-numbers": Array(0x81, (Long(1),))})
    assert answer is not None
    [found] = answer["messages"]
    said = annotations_of(found["message"])
    assert said["x-opt-locked-until"] / 1000 == pytest.approx(office.clock.wall() + LOCK, abs=0.5)
    assert said["x-opt-message-state"] == 1
    settled = {"disposition-status": "completed", "lock-tokens": Array(0x98, (found["lock-token"],))}
    assert office.ask("update-disposition", settled) == {}
    body = {"sequence-numbers": Array(0x81, (Long(2),)), "receiver-settle-mode": Uint(0)}
    answer = office.ask("receive-by-sequence-number", body)
    assert answer is not None
    assert "x-opt-locked-until" not in annotations_of(answer["messages"][0]["message"])
    assert office.queue().tally().acked == 2


@pytest.mark.parametrize("numbers", [(), tuple(map(Long, range(1_001)))])
async def test_so_many_numbers_are_too_few_or_too_many(office: Office, numbers: tuple[Long, ...]) -> None:
    """A request is to say something, and can be as large as a message."""
    for operation in ("receive-by-sequence-number", "cancel-scheduled-message"):
        with pytest.raises(AmqpError, match="cannot be understood: sequence-numbers"):
            office.ask(operation, {"sequence-numbers": Array(0x81, numbers)})


async def test_sessions_are_listed_page_by_page(office: Office) -> None:
    """The answer says where the next one begins; after the last there is none."""
    for session in "abcde":
        office.send(1, BILLS, session)
    pages = []
    skip = 0
    while True:
        body = {"last-updated-time": Timestamp(0), "skip": Int(skip), "top": Int(2)}
        answer = office.ask("get-message-sessions", body, BILLS)
        if answer is None:
            break
        pages.append("".join(answer["sessions-ids"].items))
        skip = answer["skip"]
    assert pages == ["ab", "cd", "e"]


async def test_the_state_of_a_session_is_for_who_holds_it(office: Office) -> None:
    """It is kept, replaced, and taken away."""
    for operation in ("get-session-state", "set-session-state", "renew-session-lock"):
        with pytest.raises(AmqpError, match="session lock has expired"):
            office.ask(operation, {"session-id": "a"}, BILLS)
    office.hold("a")
    for state in (b"1", b"2", None):
        office.ask("set-session-state", {"session-id": "a", "session-state": state}, BILLS)
        assert office.ask("get-session-state", {"session-id": "a"}, BILLS) == {"session-state": state}
    answer = office.ask("renew-session-lock", {"session-id": "a"}, BILLS)
    assert answer is not None
    assert answer["expiration"] / 1000 == pytest.approx(office.clock.wall() + LOCK, abs=0.5)


# -- how a message goes out ------------------------------------------------------------------------


async def test_a_message_says_what_the_queue_knows_of_it(office: Office) -> None:
    """Active, scheduled, dead: number, first number, age, state, where it came from."""
    when = Timestamp((office.clock.wall() + 60) * 1000)
    scheduled = encode(Described(Ulong(0x72), {Symbol("x-opt-scheduled-enqueue-time"): when})) + data(b"x")
    office.queue().accept([Content.read(scheduled)], office.clock.now())
    [shown] = office.queue().peek(0, 9, None, office.clock.now())
    assert annotations_of(shown.message.outgoing(0, None))["x-opt-message-state"] == 2
    office.clock.skip(61)
    [taken] = office.take()
    said = annotations_of(taken.message.outgoing(0, 5.0))
    assert said == {
        "x-opt-scheduled-enqueue-time": when,
        "x-opt-sequence-number": 2,
        "x-opt-enqueue-sequence-number": 1,
        "x-opt-enqueued-time": pytest.approx(int(when), abs=1),
        "x-opt-message-state": 0,
        "x-opt-locked-until": 5_000,
    }
    office.queue().dead_letter(taken.receipt, "why", "", office.clock.now())
    [letter] = office.queue("orders/$DeadLetterQueue").take(1, office.clock.now())
    said = annotations_of(letter.message.outgoing(1, None))
    assert (said["x-opt-deadletter-source"], said["x-opt-sequence-number"]) == ("orders", 1)
    assert "x-opt-locked-until" not in said


def test_an_envelope_may_say_something_of_its_own() -> None:
    """The SDK repeats the id and the session of the first message there: only what is inside counts."""
    assert BATCH == 0x80013700
    first, second = data(b"a"), data(b"b")
    envelope = encode(Described(Ulong(0x70), [])) + encode(Described(Ulong(0x73), ["id"]))
    inside = [encode(Described(Ulong(DATA), each)) for each in (first, second)]
    assert batch(envelope + b"".join(inside)) == [first, second]
