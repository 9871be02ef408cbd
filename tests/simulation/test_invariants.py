"""The ledger notices each way in which a core could be wrong, under the name of the promise that it breaks.

Most stories are told to it by hand; that it is told the truth is seen by running whole worlds around a wrong core.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from eventkit import Event
from eventkit._pipeline.inflight import InFlight
from eventkit._pipeline.judge import Judge
from eventkit._pipeline.settler import LETTER_ATTRIBUTE
from eventkit._telemetry.records import BatchBisected, GateClosed
from eventkit._worker import Worker
from eventkit.spi import Delivery, Letter, Outgoing
from eventkit.testing.memory import Change, Kind
from eventkit.testing.simulation import _loop, _sweep
from eventkit.testing.simulation._calls import Call
from eventkit.testing.simulation._ledger import Ledger
from eventkit.testing.simulation._life import Life
from eventkit.testing.simulation._plan import Plan, expand
from eventkit.testing.simulation._play import Play
from eventkit.testing.simulation._ports import QUEUE
from eventkit.testing.simulation._run import run
from eventkit.testing.simulation._switches import CALM
from eventkit.testing.simulation._witness import INVARIANTS, Fate
from eventkit.testing.simulation._world import World

PLAN = replace(
    expand(0, "small"),
    broker="sqs",
    workers=1,
    keys=0,
    handlers="single",
    concurrency=2,
    batch_size=2,
    ordering="none",
    on_key_failure="block",
    attempts=2,
    lease=10.0,
    drain=8.0,
    in_flight=4,
    in_flight_bytes=300,
    parked=1,
    faults={},
)
"""A world in which nothing goes wrong: there, the ledger is at its strictest."""

BATCHES: dict[str, Any] = {"handlers": "batch"}
KEYS: dict[str, Any] = {"broker": "fifo", "ordering": "key", "keys": 1}


class Desk:
    """A ledger, its clock, and one worker; `found` is what it has noticed."""

    def __init__(self, **changes: Any) -> None:
        plan = replace(PLAN, **changes)
        world = World(plan, lambda world: Play(world, plan))
        self.now = 0.0
        self.messages: list[tuple[str, str]] = []
        self.ledger = Ledger(plan, lambda name, message: self.messages.append((name, message)), lambda: self.now)
        self.life = Life(world, 1)
        self.life.source = 1
        self.life.worker = world.worker(self.life)
        self._receipts = count(1)

    @property
    def found(self) -> set[str]:
        return {name for name, _ in self.messages}

    # -- the story ---------------------------------------------------------------------------------

    def accept(self, index: int = 0, role: str = "ok", *, key: str | None = None, size: int = 100) -> Fate:
        fate = Fate(index, role, key, size, good=role == "ok", bad=role == "poison")
        self.ledger.accepted(f"m{index}", fate, body(index))
        return fate

    def deliver(self, index: int = 0, *, attempt: int = 1, until: float = 10.0) -> Event[Any]:
        receipt = next(self._receipts)
        self.change(Kind.DELIVERED, index, receipt, until=until, source=self.life.source)
        delivery = Delivery(receipt=receipt, body=body(index), message_id=f"m{index}", leased_until=until)
        self.ledger.received(self.life, [delivery])
        return Event(delivery, f"m{index}", "", "", None, attempt=attempt)

    def change(self, kind: Kind, index: int, receipt: Any = 0, **more: Any) -> None:
        self.ledger.changed(
            Change(kind=kind, at=self.now, queue=QUEUE, message_id=f"m{index}", receipt=receipt, **more)
        )

    def call(self, *events: Event[Any]) -> Call:
        return self.ledger.called(self.life, events)

    def handle(self, *events: Event[Any]) -> None:
        call = self.call(*events)
        for event in events:
            self.ledger.succeeded(call, event)
        self.ledger.returned(call)

    def fail(self, event: Event[Any]) -> None:
        call = self.call(event)
        self.ledger.failed(event)
        self.ledger.returned(call)

    def ack(self, event: Event[Any]) -> None:
        self.change(Kind.ACKED, number(event), event.delivery.receipt)

    def nack(self, event: Event[Any]) -> None:
        self.change(Kind.NACKED, number(event), event.delivery.receipt)

    def bury(self, event: Event[Any], *, reason: str = "attempts", id: str = "stable") -> None:
        receipt = event.delivery.receipt
        self.ledger.letters_sent([Letter(receipt=receipt, reason=reason, detail=detail(reason, id))])
        self.change(Kind.DEAD, number(event), receipt, reason=reason)

    def store(self, content: bytes, *, reason: str = "attempts", id: str = "stable") -> None:
        attributes = {LETTER_ATTRIBUTE: detail(reason, id)}
        self.ledger.letters_stored([Outgoing(body=content, attributes=attributes)])


def body(index: int) -> bytes:
    return b"body of %d" % index


def number(event: Event[Any]) -> int:
    return int(event.message_id[1:])


def detail(reason: str, id: str) -> str:
    return msgspec.json.encode({"reason": reason, "id": id}).decode()


# -- nothing wrong -------------------------------------------------------------------------------


async def test_an_orderly_story_breaks_nothing() -> None:
    """Otherwise what follows would prove nothing."""
    desk = Desk()
    for index in range(2):
        desk.accept(index)
        event = desk.deliver(index)
        desk.handle(event)
        desk.ack(event)
    desk.accept(2, "poison")
    first = desk.deliver(2, attempt=1)
    desk.fail(first)
    desk.nack(first)
    last = desk.deliver(2, attempt=2)
    desk.fail(last)
    desk.bury(last)
    desk.ledger.drained(desk.life, 7.0, None)
    desk.ledger.left(desk.life)
    desk.ledger.closed()

    assert desk.messages == []
    assert desk.ledger.open == 0


# -- I1, I2, I3 ----------------------------------------------------------------------------------


async def test_an_event_that_nobody_settled_is_lost() -> None:
    """A worker that forgets what it holds."""
    desk = Desk()
    desk.accept()
    desk.handle(desk.deliver())
    desk.ledger.closed()

    assert desk.found == {"I1"}


async def test_an_event_that_the_broker_dropped_is_lost() -> None:
    """One that was kept until it was too old."""
    desk = Desk()
    desk.accept()
    desk.change(Kind.DROPPED, 0)

    assert desk.found == {"I1"}


async def test_an_ack_before_the_handler_is_done_is_noticed() -> None:
    """The worst there is: a kill in between, and the event is gone without a trace."""
    desk = Desk()
    desk.accept()
    event = desk.deliver()
    desk.call(event)
    desk.ack(event)

    assert desk.found == {"I2"}


async def test_an_ack_before_the_dead_letter_is_stored_is_noticed() -> None:
    """The same, for what is published elsewhere: it must be confirmed first."""
    desk = Desk()
    desk.accept(0, "poison")
    event = desk.deliver()
    desk.fail(event)
    desk.ack(event)

    assert desk.found == {"I2"}


async def test_a_good_event_that_was_acked_by_what_happened_to_another_was_never_handled() -> None:
    """A skip that hits the wrong event of a batch looks like an orderly ack."""
    desk = Desk()
    fate = desk.accept()
    fate.acked = True
    desk.ledger.closed()

    assert desk.found == {"I3"}


# -- I6, I7 --------------------------------------------------------------------------------------


async def test_a_bad_event_that_was_acked_is_noticed() -> None:
    """A failure that was taken for a success."""
    desk = Desk()
    desk.accept(0, "poison")
    event = desk.deliver()
    desk.handle(event)
    desk.ack(event)
    desk.ledger.closed()

    assert desk.found == {"I6"}


async def test_a_good_event_among_the_dead_letters_is_noticed_at_once_and_at_the_end() -> None:
    """Nobody has said that it is bad: an inference, a cancellation or an outage counted as a failure."""
    desk = Desk()
    desk.accept()
    event = desk.deliver()
    desk.ledger.returned(desk.call(event))
    desk.bury(event, reason="by inference")
    assert desk.found == {"I7"}

    desk.ledger.closed()
    assert desk.found == {"I6", "I7"}


async def test_a_dead_letter_without_a_call_is_noticed() -> None:
    """Such as one for a high delivery count at receive."""
    desk = Desk()
    desk.accept(0, "poison")
    desk.store(body(0), reason="count")

    assert desk.found == {"I7"}


@pytest.mark.parametrize("ids", [("one", "another"), ("",)])
async def test_dead_letters_of_one_event_and_reason_have_one_id(ids: Sequence[str]) -> None:
    """A letter whose answer was lost is sent again, and can be told by its id, unless that is random or missing."""
    desk = Desk(faults={"letter_lost": 0.5})
    desk.accept(0, "poison")
    desk.fail(desk.deliver())
    for id in ids:
        desk.store(body(0), id=id)

    assert desk.found == {"I6"}


async def test_one_dead_letter_is_enough_where_every_answer_arrives() -> None:
    """Twice under the same id is one too many if nothing was lost."""
    desk = Desk(attempts=1)
    desk.accept(0, "poison")
    desk.fail(desk.deliver())
    desk.store(body(0))
    assert desk.found == set()

    desk.store(body(0))
    assert desk.found == {"I6"}


async def test_a_dead_letter_has_the_body_of_its_event() -> None:
    """To the byte, or it cannot be put back."""
    desk = Desk()
    desk.accept()
    desk.store(b"something else")

    assert desk.found == {"I6"}


# -- I8 ------------------------------------------------------------------------------------------


async def test_an_event_that_overtakes_an_undecided_one_of_its_key_is_noticed() -> None:
    """The head has failed and waits; its follower runs."""
    desk = Desk(**KEYS)
    desk.accept(0, key="k")
    desk.accept(1, key="k")
    head, follower = desk.deliver(0), desk.deliver(1)
    desk.fail(head)
    desk.call(follower)

    assert desk.found == {"I8"}


async def test_two_events_of_one_key_side_by_side_are_noticed() -> None:
    """Also where a failed head is passed over."""
    desk = Desk(**KEYS, on_key_failure="skip")
    desk.accept(0, key="k")
    desk.accept(1, key="k")
    desk.call(desk.deliver(0))
    assert desk.found == set()

    desk.call(desk.deliver(1))
    assert desk.found == {"I8"}


async def test_events_of_one_key_in_one_batch_are_in_order() -> None:
    """A batch may hold several, one after the other, and not the other way round."""
    desk = Desk(**KEYS, **BATCHES)
    for index in range(2):
        desk.accept(index, key="k")
    first, second = desk.deliver(0), desk.deliver(1)
    desk.ledger.returned(desk.call(first, second))
    assert desk.found == set()

    desk.call(second, first)
    assert desk.found == {"I8"}


# -- I9 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [0, 1, 3])
async def test_an_attempt_that_is_not_one_more_than_the_failures_is_noticed(attempt: int) -> None:
    """A release that was counted, or a failure that was not."""
    desk = Desk()
    desk.accept(0, "poison")
    event = desk.deliver()
    desk.fail(event)
    desk.nack(event)
    desk.call(desk.deliver(attempt=attempt))

    assert desk.found == {"I9"}


async def test_an_event_that_is_given_up_too_early_is_noticed() -> None:
    """After one failure of two."""
    desk = Desk()
    desk.accept(0, "poison")
    event = desk.deliver()
    desk.fail(event)
    desk.bury(event)

    assert desk.found == {"I9"}


async def test_an_event_that_fails_more_often_than_configured_is_noticed() -> None:
    """Also among faults, as long as no delivery was lost."""
    desk = Desk(faults={"settle_slow": 0.1, "lease_lost": 0.1})
    desk.accept(0, "poison")
    for _ in range(2):
        event = desk.deliver()
        desk.fail(event)
        desk.nack(event)
    desk.call(desk.deliver())

    assert desk.found == {"I9"}


async def test_a_delivery_that_was_lost_may_cost_one_attempt_more() -> None:
    """The worker could not tell the broker that it had failed."""
    desk = Desk(faults={"lease_lost": 0.1})
    desk.accept(0, "poison")
    for kind in (Kind.NACKED, Kind.EXPIRED):
        event = desk.deliver()
        desk.fail(event)
        desk.change(kind, 0, event.delivery.receipt)
    desk.call(desk.deliver())

    assert desk.found == set()


# -- I11 -----------------------------------------------------------------------------------------


async def test_an_event_that_is_handled_twice_for_no_reason_is_noticed() -> None:
    """A success that was not settled."""
    desk = Desk()
    desk.accept()
    first = desk.deliver()
    desk.handle(first)
    desk.nack(first)
    desk.handle(desk.deliver())
    assert desk.found == {"I11"}

    desk.ledger.closed()
    assert desk.found == {"I1", "I11"}


@pytest.mark.parametrize("fault", sorted({"kill", "lease_lost", "duplicate", "settle_lost"}))
async def test_an_event_may_be_handled_twice_among_faults(fault: str) -> None:
    """At least once is all that a worker without a store can promise."""
    assert fault not in CALM
    desk = Desk(faults={fault: 0.1})
    desk.accept()
    desk.handle(desk.deliver())
    event = desk.deliver()
    desk.handle(event)
    desk.ack(event)
    desk.ledger.closed()

    assert desk.found == set()


async def test_more_calls_than_a_search_needs_are_noticed() -> None:
    """Each event alone, and half of them once more, is the most; and nothing but failures ends a search sooner."""
    desk = Desk(**BATCHES)
    events = [arrived(desk, index) for index in range(4)]
    call = desk.call(*events)
    desk.ledger.succeeded(call, events[0])
    for _ in range(5):
        desk.ledger.returned(call)
        call = desk.call(events[1])
    assert desk.found == set()

    desk.ledger.returned(call)
    desk.call(events[1])
    assert desk.found == {"I11"}


async def test_a_search_in_which_everything_fails_is_cut_short() -> None:
    """What fails in every company fails for another reason than the events."""
    desk = Desk(**BATCHES, in_flight=40, in_flight_bytes=10_000)
    events = [arrived(desk, index) for index in range(16)]
    for _ in range(10):
        desk.ledger.returned(desk.call(*events))
    assert desk.found == set()

    desk.call(*events)
    assert desk.found == {"I11"}


async def test_each_batch_has_its_own_calls() -> None:
    """Two slots search side by side, and one after the other."""
    desk = Desk(**BATCHES)
    events = [arrived(desk, index) for index in range(2)]
    for _ in range(5):
        desk.ledger.returned(desk.call(*events))
        desk.ledger.told(desk.life, BatchBisected(handler="", events=2, failed=0, calls=1))

    assert desk.found == set()


def arrived(desk: Desk, index: int) -> Event[Any]:
    desk.accept(index, size=1)
    return desk.deliver(index)


@pytest.mark.parametrize("kind", [Kind.EXPIRED, Kind.STALE])
async def test_a_lease_that_ended_or_a_stale_receipt_is_noticed_where_it_is_calm(kind: Kind) -> None:
    """A keeper that sleeps too long is made up for by the next delivery, and would never be found."""
    desk = Desk()
    desk.accept()
    event = desk.deliver()
    desk.handle(event)
    desk.ack(event)
    desk.change(kind, 0, 77, reason="ack")
    desk.ledger.closed()

    assert desk.found == {"I11"}


# -- I12, I13 ------------------------------------------------------------------------------------


async def test_more_events_in_hand_than_the_limit_are_noticed() -> None:
    """Four in flight and one parked."""
    desk = Desk()
    for index in range(5):
        arrived(desk, index)
    assert desk.found == set()

    arrived(desk, 5)
    assert desk.found == {"I12"}


async def test_a_receive_with_the_bytes_at_their_limit_is_noticed() -> None:
    """Three bodies of a hundred bytes fill a limit of three hundred."""
    desk = Desk()
    for index in range(3):
        desk.ledger.receiving(desk.life, 1)
        desk.accept(index, size=100)
        desk.deliver(index)
    assert desk.found == set()

    desk.ledger.receiving(desk.life, 1)
    assert desk.found == {"I12"}


async def test_a_handler_that_starts_after_the_signal_is_noticed() -> None:
    """It would be cut in the middle."""
    desk = Desk()
    desk.accept()
    event = desk.deliver()
    desk.now, desk.life.signalled_at = 5.0, 4.0
    desk.call(event)

    assert desk.found == {"I13"}


async def test_a_worker_that_stood_still_may_start_what_it_was_about_to() -> None:
    """A signal reaches a stopped process when it goes on."""
    desk = Desk()
    desk.accept()
    event = desk.deliver()
    desk.now, desk.life.signalled_at, desk.life.stood_still = 5.0, 4.0, 1.0
    desk.call(event)

    assert desk.found == set()


async def test_a_drain_beyond_its_budget_is_noticed() -> None:
    """The platform would have killed it by then; five seconds are for settling."""
    desk = Desk()
    desk.ledger.drained(desk.life, 12.9, 4.9)
    assert desk.found == set()

    desk.ledger.drained(desk.life, 13.1, None)
    assert desk.found == {"I13"}


async def test_a_second_signal_that_is_not_obeyed_is_noticed() -> None:
    """Whoever asks twice wants an end now, whatever is left of the budget."""
    desk = Desk()
    desk.ledger.drained(desk.life, 7.0, 5.1)
    assert desk.found == {"I13"}


async def test_a_gate_that_closes_for_no_reason_is_noticed() -> None:
    """It closes for ten transient failures in a row; poison must not close it."""
    desk = Desk()
    desk.ledger.told(desk.life, GateClosed(reason="transient", delay=5.0, detail=""))

    assert desk.found == {"I11"}


async def test_a_gate_that_lets_events_through_is_noticed() -> None:
    """Closed, it lets one event through at a time, when it said it would."""
    desk = Desk()
    desk.accept()
    event = desk.deliver(until=100.0)
    desk.ledger.told(desk.life, GateClosed(reason="bisector", delay=5.0, detail=""))
    desk.now = 4.0
    desk.ledger.returned(desk.call(event))
    assert desk.found == {"I11"}

    desk.messages.clear()
    desk.now = 5.5
    desk.call(event)
    assert desk.found == set()


async def test_a_drain_that_keeps_events_is_noticed() -> None:
    """They would wait for the end of their leases, for no reason."""
    desk = Desk()
    desk.accept()
    event = desk.deliver()
    desk.ledger.left(desk.life)
    assert desk.found == {"I13"}

    desk.messages.clear()
    desk.nack(event)
    desk.ledger.left(desk.life)
    assert desk.found == set()


# -- whole worlds around a wrong core ------------------------------------------------------------


WORLD = replace(PLAN, events=4, heal_at=5.0)


def test_the_world_of_these_tests_is_green_around_the_core_as_it_is() -> None:
    """So what follows is noticed for what is patched."""
    assert run(WORLD).violations == []


def broken(plan: Plan) -> str:
    """The invariant that ends this run."""
    violations = run(plan).violations
    assert violations
    return violations[0].invariant


def test_a_core_that_gives_up_what_was_handled_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger is told of real dead letters."""

    def handled(judge: Judge, entries: Sequence[InFlight]) -> None:
        for entry in entries:
            judge.rejected(entry, "by mistake")

    monkeypatch.setattr(Judge, "handled", handled)

    assert broken(WORLD) == "I7"


def test_a_core_that_never_settles_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the end of its leases, or of patience."""
    monkeypatch.setattr(Judge, "handled", lambda judge, entries: None)

    assert broken(WORLD) in {"I1", "I3", "I11"}


def test_a_worker_that_falls_over_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one would take its place, and nothing would be lost."""

    async def fall(*_: object, **__: object) -> None:
        raise LookupError("no such thing")

    monkeypatch.setattr(Worker, "run", fall)
    [violation, *_] = run(WORLD).violations

    assert violation.invariant == "I15"
    assert "LookupError: no such thing" in violation.message


def test_a_livelock_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its seed and its trace, not an exception that ends the sweep."""
    monkeypatch.setattr(_loop, "MOST_TURNS", 2000)

    async def spin(*_: object, **__: object) -> None:
        while True:
            await checkpoint()

    monkeypatch.setattr(Worker, "run", spin)
    violations = run(WORLD).violations

    assert {violation.invariant for violation in violations} == {"I15"}
    assert "Livelock: 2000 turns of the loop at 0 s" in [violation.message for violation in violations]


def test_an_escape_from_a_worker_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the core asks for a thread, it must be one that is handed to it."""

    async def escape(*_: object, **__: object) -> None:
        await anyio.to_thread.run_sync(int)

    monkeypatch.setattr(Worker, "run", escape)
    violation = run(WORLD).violations[0]

    assert violation.invariant == "I15"
    assert "Escaped: a thread was started" in violation.message


def test_a_trace_that_is_another_one_elsewhere_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nobody could look at a failure again."""
    monkeypatch.setattr(_sweep, "digests_elsewhere", lambda seeds, *_: dict.fromkeys(seeds, "another"))
    [found] = _sweep.sweep(range(100, 101), size="small", jobs=1).violations

    assert (found.invariant, found.seed) == ("I17", 100)
    assert "another in another process" in found.message


def test_every_invariant_is_explained() -> None:
    """A report shows the sentence beside the name."""
    assert list(INVARIANTS) == sorted(INVARIANTS, key=lambda name: int(name[1:]))
    assert all(INVARIANTS.values())
