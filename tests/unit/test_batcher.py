"""Gathering events into batches: by size, bytes, age and key."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eventkit._handler import Batching
from eventkit._pipeline.batcher import Batcher
from eventkit._pipeline.inflight import GONE, HELD, PARKED, RUNNING, InFlight, State, Table
from eventkit.spi import Delivery

TABLE = Table()
NUMBERS = itertools.count(1)


def entry(size: int = 1) -> InFlight:
    """An event in hand, whose body has `size` bytes."""
    number = next(NUMBERS)
    delivery = Delivery(receipt=number, body=b"x" * size, message_id=f"m{number}", leased_until=30.0)
    return TABLE.register(delivery, 0.0, 600.0)


def batcher(*, max_size: int = 100, max_wait: float = 1.0, max_bytes: int = 1_000_000) -> Batcher:
    return Batcher(Batching(max_size=max_size, max_wait=max_wait, max_bytes=max_bytes))


def test_a_batch_is_ready_as_soon_as_it_has_its_size() -> None:
    """A full batch does not wait for its age."""
    gatherer = batcher(max_size=3)
    entries = [entry() for _ in range(3)]
    for one in entries[:2]:
        gatherer.add(one, None, 0.0)
    assert gatherer.take(0.0) == []

    gatherer.add(entries[2], None, 0.0)
    assert gatherer.take(0.0) == entries


def test_a_batch_is_ready_at_the_age_of_its_first_event() -> None:
    """A slow queue must not keep an event waiting for company: `max_wait` counts from the first."""
    gatherer = batcher(max_wait=2.0)
    first, second = entry(), entry()
    gatherer.add(first, None, 10.0)
    gatherer.add(second, None, 11.9)

    assert gatherer.due == 12.0
    assert gatherer.take(11.99) == []
    assert gatherer.take(12.0) == [first, second]


def test_a_batch_is_ready_as_soon_as_it_has_its_bytes() -> None:
    """Large events make small batches."""
    gatherer = batcher(max_bytes=10)
    entries = [entry(5), entry(5)]
    for one in entries:
        gatherer.add(one, None, 0.0)

    assert gatherer.take(0.0) == entries


def test_an_event_that_does_not_fit_starts_the_next_batch() -> None:
    """A batch never holds more bytes than allowed, and nothing is left out or put before others."""
    gatherer = batcher(max_bytes=10)
    entries = [entry(6), entry(6), entry(3)]
    for one in entries:
        gatherer.add(one, None, 0.0)

    assert gatherer.take(0.0) == entries[:1]
    assert gatherer.take(0.0) == []
    assert gatherer.take(1.0) == entries[1:]


def test_whether_an_event_fits_is_told_before_it_is_added() -> None:
    """An event that must not run beside the others of its key may gather only where it fits."""
    gatherer = batcher(max_bytes=10)
    gathering = gatherer.add(entry(6), None, 0.0)

    assert [gatherer.fits(entry(size), gathering) for size in (0, 4, 5)] == [True, True, False]
    gatherer.take(1.0)
    assert not gatherer.fits(entry(0), gathering)


def test_an_event_taken_out_of_a_batch_makes_room_in_it() -> None:
    """Its bytes count no more, and its batch is without it."""
    gatherer = batcher(max_bytes=10)
    first, second, third = entry(5), entry(4), entry(5)
    gathering = gatherer.add(first, None, 0.0)
    gatherer.add(second, None, 0.0)
    gathering.remove(first)
    gatherer.add(third, None, 0.0)

    assert gatherer.take(1.0) == [second, third]


def test_an_event_larger_than_a_batch_may_be_is_a_batch_of_its_own() -> None:
    """It must be handled all the same, at once and without company."""
    gatherer = batcher(max_bytes=10)
    small, large, next_one = entry(1), entry(50), entry(1)
    for one in (small, large, next_one):
        gatherer.add(one, None, 0.0)

    assert [gatherer.take(0.0), gatherer.take(0.0), gatherer.take(0.0)] == [[small], [large], []]


def test_events_of_different_keys_gather_apart() -> None:
    """`batch_key` says what may be written in one call."""
    gatherer = batcher(max_size=2)
    a, b, a2 = entry(), entry(), entry()
    gatherer.add(a, "a", 0.0)
    gatherer.add(b, "b", 0.0)
    gatherer.add(a2, "a", 0.5)

    assert gatherer.take(0.5) == [a, a2]
    assert gatherer.take(1.0) == [b]


def test_batches_are_taken_in_the_order_in_which_they_became_ready() -> None:
    """First come first served, whatever made them ready."""
    gatherer = batcher(max_size=2, max_wait=1.0)
    old, full, full_too = entry(), entry(), entry()
    gatherer.add(old, "old", 0.0)
    gatherer.add(full, "full", 0.1)
    gatherer.add(full_too, "full", 0.2)

    assert [gatherer.take(1.0), gatherer.take(1.0)] == [[full, full_too], [old]]


def test_after_a_batch_was_taken_its_key_gathers_anew() -> None:
    """The next event of the key starts a batch with its own age."""
    gatherer = batcher(max_size=1)
    first, second = entry(), entry()
    one, other = gatherer.add(first, "k", 0.0), gatherer.add(second, "k", 5.0)

    assert one is not other
    assert [gatherer.take(5.0), gatherer.take(5.0)] == [[first], [second]]


def test_a_gathering_tells_that_it_is_closed() -> None:
    """Events of an ordering key may join a batch only while it gathers."""
    gatherer = batcher(max_size=2)
    gathering = gatherer.add(entry(), None, 0.0)
    assert not gathering.closed

    gatherer.add(entry(), None, 0.0)
    assert gathering.closed


def test_a_gathering_is_closed_by_its_age_when_batches_are_taken() -> None:
    """What joins after that would miss its batch."""
    gatherer = batcher()
    gathering = gatherer.add(entry(), None, 0.0)
    gatherer.take(1.0)

    assert gathering.closed


def test_an_event_added_alone_is_a_batch_at_once() -> None:
    """A probe, or an event left over from a failed batch, must not take others with it."""
    gatherer = batcher()
    together, alone, too = entry(), entry(), entry()
    gatherer.add(together, None, 0.0)
    gatherer.add_alone(alone)
    gatherer.add(too, None, 0.0)

    assert gatherer.take(0.0) == [alone]
    assert gatherer.take(1.0) == [together, too]


@pytest.mark.parametrize("state", [GONE, PARKED, RUNNING])
def test_an_event_withdrawn_while_it_gathered_is_left_out(state: State) -> None:
    """Its lease was lost, say: calling the handler with it would run it twice."""
    gatherer = batcher(max_size=3)
    entries = [entry() for _ in range(3)]
    for one in entries:
        gatherer.add(one, None, 0.0)
    entries[1].state = state

    assert gatherer.take(0.0) == [entries[0], entries[2]]


def test_a_batch_whose_events_were_all_withdrawn_is_passed_over() -> None:
    """An empty list means that nothing is ready; the batch behind it is."""
    gatherer = batcher(max_size=1)
    gone, held = entry(), entry()
    gatherer.add(gone, None, 0.0)
    gatherer.add(held, None, 0.0)
    gone.state = GONE

    assert gatherer.take(0.0) == [held]
    assert gatherer.take(0.0) == []


def test_draining_takes_everything_that_is_still_held_out_in_order() -> None:
    """What has not started goes back at once when a worker ends: full batches, then those that gather."""
    gatherer = batcher(max_size=2)
    entries = [entry() for _ in range(6)]
    for one in entries[:3]:
        gatherer.add(one, "a", 0.0)
    gatherer.add(entries[3], "b", 0.0)
    gatherer.add_alone(entries[4])
    gatherer.add(entries[5], "b", 0.0)
    entries[1].state = GONE

    assert gatherer.drain() == [entries[0], entries[4], entries[3], entries[5], entries[2]]
    assert gatherer.empty
    assert gatherer.take(math.inf) == []


def test_nothing_is_due_when_nothing_gathers() -> None:
    """A slot sleeps until it is woken, not until some past moment."""
    gatherer = batcher(max_size=1)
    assert gatherer.due == math.inf

    gatherer.add(entry(), None, 0.0)
    assert gatherer.due == math.inf


def test_a_batcher_is_empty_until_an_event_comes_and_after_the_last_was_taken() -> None:
    """A slot that suspends wakes another only when there is something to take."""
    gatherer = batcher(max_size=2)
    seen = [gatherer.empty]
    for _ in range(2):
        gatherer.add(entry(), None, 0.0)
        seen.append(gatherer.empty)
    gatherer.take(0.0)
    seen.append(gatherer.empty)

    assert seen == [True, False, False, True]


class BatcherMachine(RuleBasedStateMachine):
    """Events of several keys come, are withdrawn and are taken, while time goes forward."""

    @initialize(max_size=st.integers(1, 5), max_wait=st.sampled_from([0.0, 1.0]), max_bytes=st.integers(1, 40))
    def start(self, max_size: int, max_wait: float, max_bytes: int) -> None:
        self.options = Batching(max_size=max_size, max_wait=max_wait, max_bytes=max_bytes)
        self.batcher = Batcher(self.options)
        self.now = 0.0
        self.keys: dict[InFlight, str] = {}
        self.came: dict[InFlight, float] = {}
        self.waiting: list[InFlight] = []

    @rule(size=st.integers(0, 20), key=st.sampled_from("abc"))
    def come(self, size: int, key: str) -> None:
        one = entry(size)
        self.keys[one], self.came[one] = key, self.now
        self.waiting.append(one)
        self.batcher.add(one, key, self.now)

    @rule(seconds=st.floats(0.01, 1.5))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.waiting))
        one.state = GONE
        self.waiting.remove(one)

    @rule()
    def take(self) -> None:
        batch = self.batcher.take(self.now)
        if not batch:
            overdue = [one for one in self.waiting if self.came[one] + self.options.max_wait <= self.now]
            assert not overdue, "an event waits longer than max_wait"
            return
        key = self.keys[batch[0]]
        waiting = [one for one in self.waiting if self.keys[one] == key]
        assert batch == waiting[: len(batch)], "a batch is the first events of one key, in order"
        assert len(batch) <= self.options.max_size
        assert len(batch) == 1 or sum(one.size for one in batch) <= self.options.max_bytes
        self.waiting = [one for one in self.waiting if one not in batch]

    @rule()
    def drain(self) -> None:
        assert sorted(one.number for one in self.batcher.drain()) == [one.number for one in self.waiting]
        self.waiting = []

    @invariant()
    def it_is_due_when_its_first_event_is(self) -> None:
        if self.batcher.due < math.inf:
            assert self.batcher.due <= self.now + self.options.max_wait
        assert all(one.state is HELD for one in self.waiting)


TestAnyOrderOfEvents = BatcherMachine.TestCase
