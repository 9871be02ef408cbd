"""Which events of a failed batch are called next, driven by simulated handlers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventkit._policies.bisect import Bisection, FailureRate

Mode: TypeAlias = Literal["bisect", "one_by_one", "whole"]
Handler: TypeAlias = Callable[[Sequence[int]], Collection[int] | None]
"""One call on a group: None when it returned, the events it left unmarked when it raised."""

MODES: tuple[Mode, ...] = ("bisect", "one_by_one", "whole")
SEARCHING = st.sampled_from(("bisect", "one_by_one"))


@dataclass
class Run:
    """What one batch went through."""

    calls: list[list[int]] = field(default_factory=list)
    handled: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    failed_in: dict[int, list[int]] = field(default_factory=dict)
    """For each failed event, the group whose call was its direct failure."""

    @property
    def decided(self) -> list[int]:
        return sorted(self.handled + self.failed)

    @property
    def group_calls(self) -> int:
        return sum(len(call) > 1 for call in self.calls)


def step(plan: Bisection, group: list[int], handler: Handler, run: Run) -> None:
    """One call, and its outcome told to the plan."""
    run.calls.append(list(group))
    unmarked = handler(group)
    if unmarked is None:
        plan.passed()
        run.handled += group
        return
    run.handled += [i for i in group if i not in unmarked]
    if plan.failed(unmarked, marked=len(unmarked) < len(group)):
        run.failed += sorted(unmarked)
        run.failed_in |= {event: list(group) for event in unmarked}


def searched(size: int, handler: Handler, *, mode: Mode = "bisect", singly: bool = False) -> Run:
    """Call until all is decided, whatever it looks like."""
    plan, run = Bisection(size, mode=mode, singly=singly), Run()
    while (group := plan.next()) is not None:
        step(plan, group, handler, run)
    return run


def failing(bad: Iterable[int]) -> Handler:
    """A handler that raises for any group with a bad event in it, and marks nothing."""
    poison = frozenset(bad)
    return lambda group: group if poison.intersection(group) else None


def adversary(seed: int) -> Handler:
    """A handler without any logic: it raises or not, and marks what it likes."""
    rng = Random(seed)
    return lambda group: None if rng.random() < 0.3 else [i for i in group if rng.random() < 0.8]


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, frozenset[int]]:
    """The size of a batch, and which of its events are bad."""
    size = draw(st.integers(1, 70))
    return size, frozenset(draw(st.sets(st.integers(0, size - 1))))


@given(batches(), st.sampled_from(MODES), st.booleans())
def test_every_event_is_decided_exactly_once(batch: tuple[int, frozenset[int]], mode: Mode, singly: bool) -> None:
    """An event decided twice is acked and retried at once; one never decided keeps its lease for ever."""
    size, bad = batch

    assert searched(size, failing(bad), mode=mode, singly=singly).decided == list(range(size))


@given(st.integers(1, 70), st.integers(), st.sampled_from(MODES), st.booleans())
def test_every_event_is_decided_exactly_once_whatever_the_handler_does(
    size: int, seed: int, mode: Mode, singly: bool
) -> None:
    """Handlers are user code: one that fails at random and marks at random must not confuse the plan."""
    assert searched(size, adversary(seed), mode=mode, singly=singly).decided == list(range(size))


@given(batches(), SEARCHING, st.booleans())
def test_exactly_the_bad_events_fail(batch: tuple[int, frozenset[int]], mode: Mode, singly: bool) -> None:
    """A poison event must not take a good one with it, nor slip through."""
    size, bad = batch

    assert sorted(searched(size, failing(bad), mode=mode, singly=singly).failed) == sorted(bad)


@given(st.integers(1, 70), st.integers(), SEARCHING, st.booleans())
def test_an_event_fails_only_after_a_call_on_it_alone(size: int, seed: int, mode: Mode, singly: bool) -> None:
    """Nothing is dead-lettered by inference, even when every sign points at it."""
    run = searched(size, adversary(seed), mode=mode, singly=singly)

    assert run.failed_in == {event: [event] for event in run.failed}


@given(st.integers(1, 300), st.integers(), SEARCHING, st.booleans())
def test_a_search_never_takes_more_calls_than_events_and_half_of_them(
    size: int, seed: int, mode: Mode, singly: bool
) -> None:
    """The price of a search is bounded, or one bad batch would hold up a queue."""
    run = searched(size, adversary(seed), mode=mode, singly=singly)

    assert len(run.calls) <= size + (size + 1) // 2


@given(st.integers(1, 300), st.integers(), SEARCHING, st.booleans())
def test_at_most_half_as_many_calls_as_events_are_on_groups(size: int, seed: int, mode: Mode, singly: bool) -> None:
    """Calls on groups that raise repeat work: after so many of them one by one is cheaper."""
    run = searched(size, adversary(seed), mode=mode, singly=singly)

    assert run.group_calls <= (size + 1) // 2


def test_what_is_left_when_the_calls_on_groups_are_used_up_goes_one_by_one() -> None:
    """Two calls on groups of four events: the right half is called one by one, though nothing is known of it."""
    run = searched(4, failing(range(4)))

    assert run.calls == [[0, 1, 2, 3], [0, 1], [0], [1], [2], [3]]


def test_one_bad_event_in_256_takes_at_most_17_calls() -> None:
    """The figure the documentation gives, for every place the bad event may have."""
    calls = {bad: len(searched(256, failing({bad})).calls) for bad in range(256)}

    assert max(calls.values()) == 17


@given(st.integers(16, 400), st.data())
def test_one_bad_event_takes_two_calls_a_halving(size: int, data: st.DataObject) -> None:
    """At most 2 * ceil(log2 n) + 1 calls, where the calls on groups last for that."""
    bad = data.draw(st.integers(0, size - 1))
    halvings = (size - 1).bit_length()

    assert len(searched(size, failing({bad})).calls) <= 2 * halvings + 1


@given(st.integers(4, 400))
def test_an_all_bad_batch_looks_systemic_after_so_many_calls(size: int) -> None:
    """An outage must be recognised before a whole batch has failed one by one."""
    plan, run = Bisection(size, mode="bisect"), Run()
    while not plan.systemic:
        group = plan.next()
        assert group is not None, "all decided, and still not systemic"
        step(plan, group, failing(range(size)), run)

    assert len(run.calls) == 2 * (size - 1).bit_length() + 2


@given(st.integers(4, 400))
def test_a_systemic_stop_leaves_only_events_that_were_not_called_alone(size: int) -> None:
    """Who failed alone keeps that failure; everybody else is to be parked, not failed."""
    plan, run = Bisection(size, mode="bisect"), Run()
    while not plan.systemic and (group := plan.next()) is not None:
        step(plan, group, failing(range(size)), run)

    assert sorted(run.failed + plan.untested) == list(range(size))
    assert run.failed == sorted(run.failed_in)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_a_batch_of_one_or_two_is_never_systemic(size: int, mode: Mode) -> None:
    """So few failures say nothing: closing the intake for them would let one poison event stop a worker."""
    plan, run = Bisection(size, mode=mode), Run()
    while (group := plan.next()) is not None:
        step(plan, group, failing(range(size)), run)
        assert not plan.systemic

    assert run.failed == list(range(size))


def test_one_bad_event_never_looks_systemic() -> None:
    """The first event being bad costs ceil(log2 n) + 1 calls before anything passes; that is no outage."""
    for size in range(1, 130):
        for bad in range(size):
            plan, run = Bisection(size, mode="bisect"), Run()
            while (group := plan.next()) is not None:
                step(plan, group, failing({bad}), run)
                assert not plan.systemic, (size, bad, run.calls)


def test_a_call_that_returns_shows_that_it_is_no_outage() -> None:
    """One success rules out the systemic stop for good, however many failures follow."""
    run, plan = Run(), Bisection(64, mode="one_by_one", singly=True)
    while (group := plan.next()) is not None:
        step(plan, group, failing(range(1, 64)), run)

    assert run.failed == list(range(1, 64))
    assert not plan.systemic


def test_an_event_marked_before_the_raise_shows_that_it_is_no_outage() -> None:
    """A handler that could finish one event is not facing a dead database."""
    plan, run = Bisection(64, mode="bisect"), Run()
    while (group := plan.next()) is not None:
        step(plan, group, lambda group: group[1:] if len(group) == 64 else group, run)

    assert run.failed == list(range(1, 64))
    assert not plan.systemic


def test_an_event_whose_lease_was_lost_in_a_call_is_no_success() -> None:
    """Else an outage in which leases are lost looks like bad events, and empties the queue into the dead letters."""
    plan = Bisection(8, mode="bisect")
    for _ in range(8):
        group = plan.next()
        assert group is not None
        plan.failed(group[:-1] if len(group) > 2 else group)

    assert plan.systemic


@given(st.integers(1, 200), st.sets(st.integers(0, 199)), SEARCHING, st.booleans())
def test_events_are_decided_in_the_order_they_came(size: int, bad: set[int], mode: Mode, singly: bool) -> None:
    """Left before right: a batch that is searched keeps the order in which its events were received."""
    order: list[int] = []
    plan = Bisection(size, mode=mode, singly=singly)
    while (group := plan.next()) is not None:
        if bad.isdisjoint(group):
            plan.passed()
            order += group
        elif plan.failed(group):
            order += group

    assert order == list(range(size))


@given(st.integers(1, 100), st.integers())
def test_a_group_is_called_in_the_order_its_events_came(size: int, seed: int) -> None:
    """A handler that goes through a batch in order must see the source's order in every part of it."""
    run = searched(size, adversary(seed))

    assert all(call == sorted(call) for call in run.calls)


def test_a_right_half_is_not_called_when_its_left_half_passed() -> None:
    """The bad event must be in it: calling it would only repeat the failure."""
    calls = searched(16, failing({15})).calls

    assert calls == [list(range(16)), list(range(8)), [8, 9, 10, 11], [12, 13], [14], [15]]


def test_a_right_half_is_called_when_its_left_half_raised() -> None:
    """The left half explains the failure, so nothing is known of the right one: it may pass whole."""
    calls = searched(16, failing({0})).calls

    assert calls[1:5] == [list(range(8)), [0, 1, 2, 3], [0, 1], [0]]
    assert calls[5:] == [[1], [2, 3], [4, 5, 6, 7], list(range(8, 16))]


def test_a_right_half_known_bad_is_called_once_an_event_was_taken_out_of_it() -> None:
    """The event that left may have been the bad one, and the rest may pass in one call."""
    plan, run = Bisection(8, mode="bisect"), Run()
    step(plan, plan.next() or [], failing({7}), run)
    step(plan, plan.next() or [], failing({7}), run)
    plan.remove([7])

    assert plan.next() == [4, 5, 6]


def test_a_right_half_an_event_was_taken_out_of_is_not_known_bad() -> None:
    """The same, when the event left before the left half was called."""
    plan, run = Bisection(8, mode="bisect"), Run()
    step(plan, plan.next() or [], failing({7}), run)
    left = plan.next() or []
    plan.remove([7])
    step(plan, left, failing({7}), run)

    assert plan.next() == [4, 5, 6]


def test_a_right_half_is_not_known_bad_when_the_bad_event_may_have_left_its_left_half() -> None:
    """A left half that passed without one of its events says nothing about the right one."""
    plan, run = Bisection(8, mode="bisect"), Run()
    step(plan, plan.next() or [], failing({0}), run)
    plan.remove([0])
    step(plan, plan.next() or [], failing({0}), run)

    assert run.calls[-1] == [1, 2, 3]
    assert plan.next() == [4, 5, 6, 7]


@given(st.integers(1, 60), st.integers(), SEARCHING, st.booleans(), st.data())
def test_an_event_taken_out_is_never_called_again(
    size: int, seed: int, mode: Mode, singly: bool, data: st.DataObject
) -> None:
    """Its lease is lost or its key is stopped: calling it would run it twice, or out of order."""
    plan, run, handler = Bisection(size, mode=mode, singly=singly), Run(), adversary(seed)
    gone: set[int] = set()
    while (group := plan.next()) is not None:
        step(plan, group, handler, run)
        assert gone.isdisjoint(group)
        taken = data.draw(st.sets(st.sampled_from(plan.untested))) if plan.untested else set()
        plan.remove(taken)
        gone |= taken

    assert sorted([*run.decided, *gone]) == list(range(size))


def test_what_is_untested_is_told_in_order_without_the_group_that_is_being_called() -> None:
    """It is what gets parked when a search is given up, in the source's order."""
    plan = Bisection(9, mode="bisect")
    before = plan.untested
    for _ in range(2):
        plan.failed(plan.next() or [])
    called = plan.next()

    assert (before, called, plan.untested) == (list(range(9)), [0, 1, 2], [3, 4, 5, 6, 7, 8])


def test_only_the_unmarked_are_tried_again() -> None:
    """A mark made before the raise stands: repeating a finished event would be a second effect."""
    run = searched(4, lambda group: [1, 2] if len(group) == 4 else None)

    assert run.calls == [[0, 1, 2, 3], [1], [2]]


def test_the_only_unmarked_event_of_a_group_is_called_alone_before_it_fails() -> None:
    """The raise may have come from an event that was marked; this one has not failed by itself yet."""
    run = searched(3, lambda group: [2] if 2 in group else None)

    assert run.calls == [[0, 1, 2], [2]]
    assert run.failed_in == {2: [2]}


def test_a_call_that_marked_all_and_raised_leaves_nothing_to_call() -> None:
    """Every event is decided by its mark; the raise has no event left to blame."""
    run = searched(4, lambda group: [])

    assert run.calls == [[0, 1, 2, 3]]
    assert not run.failed


@given(st.integers(2, 60), st.data())
def test_events_that_fail_only_together_all_pass_in_the_end(size: int, data: st.DataObject) -> None:
    """A batch-dependent failure (a deadlock, a duplicate key) is nobody's fault alone: nothing is dead-lettered."""
    pair = data.draw(st.sets(st.integers(0, size - 1), min_size=2, max_size=2))

    run = searched(size, lambda group: group if pair.issubset(group) else None)

    assert run.handled == list(range(size))


@given(batches())
def test_one_by_one_calls_each_event_once_after_the_batch(batch: tuple[int, frozenset[int]]) -> None:
    """The mode for handlers whose batches are cheap to split: predictable, at most n + 1 calls."""
    size, bad = batch

    calls = searched(size, failing(bad), mode="one_by_one").calls

    assert calls == [list(range(size)), *([[i] for i in range(size)] if bad and size > 1 else [])]


@given(batches(), st.booleans())
def test_whole_makes_one_call_whose_failure_all_share(batch: tuple[int, frozenset[int]], singly: bool) -> None:
    """The mode for handlers that write a batch as one: it is never split, however many failed lately."""
    size, bad = batch

    run = searched(size, failing(bad), mode="whole", singly=singly)

    assert run.calls == [list(range(size))]
    assert run.failed == (list(range(size)) if bad else [])


def test_whole_fails_only_what_was_not_marked() -> None:
    """What the handler finished before it raised is finished."""
    run = searched(4, lambda group: [1, 3], mode="whole")

    assert (run.handled, run.failed) == ([0, 2], [1, 3])


@given(batches(), SEARCHING)
def test_singly_calls_each_event_once_and_never_the_batch(batch: tuple[int, frozenset[int]], mode: Mode) -> None:
    """When many events failed lately, a call on the batch would almost surely be wasted."""
    size, bad = batch

    assert searched(size, failing(bad), mode=mode, singly=True).calls == [[i] for i in range(size)]


@given(batches(), SEARCHING)
def test_the_calls_made_are_counted(batch: tuple[int, frozenset[int]], mode: Mode) -> None:
    """The count is logged, and decides when a batch looks systemic."""
    size, bad = batch
    plan, run = Bisection(size, mode=mode), Run()
    while (group := plan.next()) is not None:
        step(plan, group, failing(bad), run)

    assert plan.calls == len(run.calls)


def test_an_empty_batch_needs_no_call() -> None:
    """Every event of a batch may lose its lease before the first call."""
    assert searched(0, failing(())).calls == []


@given(st.lists(st.integers(1, 100), min_size=1))
def test_without_failures_the_failure_rate_is_not_high(sizes: list[int]) -> None:
    """Healthy batches are called whole."""
    rate = FailureRate()
    for size in sizes:
        rate.add(size, 0)
        assert not rate.high


@pytest.mark.parametrize(("failed", "high"), [(19, False), (20, False), (21, True), (100, True)])
def test_the_failure_rate_is_high_above_a_fifth(failed: int, high: bool) -> None:
    """The limit stated in the documentation, exactly: 20 % is not more than 20 %."""
    rate = FailureRate()
    rate.add(100, failed)

    assert rate.high is high


def test_the_failure_rate_of_no_events_is_not_high() -> None:
    """The first batch of a worker is called whole."""
    assert not FailureRate().high


def test_old_failures_fade() -> None:
    """After a bad hour, batches must be called whole again, and soon: within a few windows of good events."""
    rate = FailureRate(window=200)
    rate.add(100_000, 100_000)
    for _ in range(4):
        rate.add(100, 0)

    assert not rate.high


@given(st.integers(1, 100))
def test_a_lasting_failure_rate_stays_high(size: int) -> None:
    """Fading must not round a steady stream of failures away."""
    rate = FailureRate()
    for _ in range(500):
        rate.add(size, size)

    assert rate.high
