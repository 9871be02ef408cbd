"""Order per key: one running event of a key, and what its followers do when it fails.

The route is a fake that keeps what it is offered; the source of the state machine is a list per key.
"""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eventkit._event import Batch, Event
from eventkit._handler import BatchHandler, Batching
from eventkit._pipeline.batcher import Gathering
from eventkit._pipeline.executor import Slot
from eventkit._pipeline.inflight import GONE, HELD, PARKED, RUNNING, SETTLING, InFlight, Table
from eventkit._pipeline.lane import Away
from eventkit._pipeline.lanes import REMEMBERED, Lanes
from eventkit._pipeline.routes import BatchRoute
from eventkit._policies.history import History
from eventkit.spi import Delivery, Traits

Failure: TypeAlias = Literal["block", "skip"]
Release: TypeAlias = Literal["followers", "hold", "redelivers"]

FAILURES: tuple[Failure, ...] = ("block", "skip")
RELEASES: tuple[Release, ...] = ("followers", "hold", "redelivers")
RELEASING: tuple[Release, ...] = ("followers", "redelivers")


class FakeRoute:
    """Keeps what it is offered. With `batch` more than 1, that many events of a key may share a gathering."""

    def __init__(self, batch: int = 1) -> None:
        self.offered: list[InFlight] = []
        self.gatherings: list[Gathering] = []
        self._batch = batch

    def offer(self, entry: InFlight) -> Gathering | None:
        self.offered.append(entry)
        if self._batch == 1:
            return None
        gathering = entry.lane.gathering if entry.lane is not None else None
        if gathering is None or not self.joins(entry, gathering):
            gathering = Gathering(None, 0.0)
            self.gatherings.append(gathering)
        gathering.entries.append(entry)
        gathering.closed = len(gathering.entries) >= self._batch
        return gathering

    def start(self) -> None:
        """Hand every batch to its handler."""
        for gathering in self.gatherings:
            gathering.closed = True
            gathering.take()

    def joins(self, entry: InFlight, gathering: Gathering | None) -> bool:
        return gathering is not None and not gathering.closed


class Rig:
    """Lanes with a fake in front of and behind them."""

    def __init__(
        self, release: Release = "hold", on_key_failure: Failure = "block", *, ordered: bool = True, batch: int = 1
    ) -> None:
        self.now = 1000.0
        self.route: Any = FakeRoute(batch)
        self.released: list[InFlight] = []
        self._table = Table()
        self.lanes = Lanes(
            ordered=ordered,
            on_key_failure=on_key_failure,
            traits=Traits(key_release=release),
            offer=lambda entry: entry.route.offer(entry) if entry.route else None,
            release=lambda entry, _: self.give_back(entry),
            clock=lambda: self.now,
        )

    def give_back(self, entry: InFlight) -> None:
        self.released.append(entry)
        self.lanes.went_back(entry)

    def come(
        self,
        message_id: str,
        key: str | None = "k",
        *,
        route: Any = None,
        asked_at: float | None = None,
        delivery_count: int = 1,
    ) -> InFlight:
        """A delivery arrives, of a receive that began at `asked_at`."""
        delivery = Delivery(
            receipt=message_id,
            body=b"",
            message_id=message_id,
            leased_until=self.now + 30.0,
            key=key,
            delivery_count=delivery_count,
        )
        entry = self._table.register(delivery, self.now, 600.0, asked_at)
        entry.route = route or self.route
        self.lanes.enter(entry)
        return entry

    def lose(self, entry: InFlight) -> None:
        """The lease of an event ends."""
        self._table.remove(entry)
        self.lanes.went_back(entry)

    def is_free(self, message_id: str, key: str | None = "k") -> bool:
        """Whether an event that comes now would run at once."""
        delivery = Delivery(receipt=message_id, body=b"", message_id=message_id, leased_until=self.now + 30.0, key=key)
        return self.lanes.is_free(self._table.register(delivery, self.now, 600.0))

    @property
    def waiting(self) -> list[InFlight]:
        return [entry for lane in self.lanes._lanes.values() for entry in lane.waiting]

    @property
    def offered(self) -> list[str]:
        return [entry.delivery.message_id for entry in self.route.offered]

    @property
    def back(self) -> list[str]:
        return [entry.delivery.message_id for entry in self.released]


def test_without_ordering_everything_is_offered_at_once() -> None:
    """Keys cost nothing where nobody asked for order."""
    rig = Rig(ordered=False)
    for message_id in "abc":
        rig.come(message_id)

    assert rig.offered == ["a", "b", "c"]


def test_events_without_a_key_are_offered_at_once() -> None:
    """They have no order among them."""
    rig = Rig()
    for message_id in "abc":
        rig.come(message_id, key=None)

    assert rig.offered == ["a", "b", "c"]


def test_an_event_waits_for_the_one_before_it_of_its_key() -> None:
    """The promise: one running event per key."""
    rig = Rig()
    first = rig.come("a")
    rig.come("b")
    rig.come("c")
    assert rig.offered == ["a"]

    rig.lanes.done(first)
    assert rig.offered == ["a", "b"]


def test_events_of_other_keys_do_not_wait() -> None:
    """A slow key must not hold up the others."""
    rig = Rig()
    for message_id in ("a1", "b1", "a2", "c1"):
        rig.come(message_id, key=message_id[0])

    assert rig.offered == ["a1", "b1", "c1"]


def test_an_event_without_a_lane_is_decided_without_one() -> None:
    """The pipeline reports every outcome, of unordered events too."""
    rig = Rig()
    entry = rig.come("a", key=None)
    rig.lanes.done(entry)
    rig.lanes.parked(entry)
    rig.lanes.went_back(entry)

    assert rig.lanes.stopped(entry, []) == []
    assert rig.offered == ["a"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("on_key_failure", FAILURES)
def test_a_key_with_nothing_in_hand_is_forgotten(release: Release, on_key_failure: Failure) -> None:
    """Keys are the outside world's, and without number: what is kept of them must end."""
    rig = Rig(release, on_key_failure)
    done, back, behind = rig.come("a"), rig.come("b"), rig.come("c")
    rig.lanes.done(done)
    rig.lanes.went_back(back)
    if behind.lane is not None and rig.offered[-1] == "c":
        rig.lanes.done(behind)
    elif behind.lane is not None:
        rig.lanes.went_back(behind)

    assert rig.lanes._lanes == {}


def test_followers_wait_for_a_parked_event_when_a_failed_key_blocks() -> None:
    """An outage must not let later events overtake."""
    rig = Rig(on_key_failure="block")
    head = rig.come("a")
    rig.come("b")
    rig.lanes.parked(head)

    assert rig.offered == ["a"]


def test_followers_go_on_when_their_head_is_parked_and_failures_of_a_key_are_skipped() -> None:
    """The user chose progress over order."""
    rig = Rig(on_key_failure="skip")
    head = rig.come("a")
    rig.come("b")
    rig.lanes.parked(head)

    assert rig.offered == ["a", "b"]


def test_a_skipped_event_that_runs_again_comes_before_those_that_wait() -> None:
    """It is the oldest of its key; but what runs is not interrupted."""
    rig = Rig(on_key_failure="skip")
    head = rig.come("a")
    follower = rig.come("b")
    rig.come("c")
    rig.lanes.parked(head)
    rig.lanes.enter(head)
    assert rig.offered == ["a", "b"]

    rig.lanes.done(follower)
    assert rig.offered == ["a", "b", "a"]


@pytest.mark.parametrize("release", RELEASES)
def test_followers_go_on_when_their_head_went_back_and_failures_of_a_key_are_skipped(release: Release) -> None:
    """Nothing is given back but the head."""
    rig = Rig(release, "skip")
    head = rig.come("a")
    rig.come("b")
    rig.lanes.went_back(head)

    assert rig.offered == ["a", "b"]
    assert rig.released == []


@pytest.mark.parametrize("release", RELEASING)
def test_followers_are_given_back_behind_a_blocking_head_in_order(release: Release) -> None:
    """SQS FIFO and Pub/Sub bring them again after the head, in the order in which they are given back."""
    rig = Rig(release)
    head = rig.come("a")
    for message_id in "bcd":
        rig.come(message_id)
    head.state = SETTLING  # it is being nacked
    rig.lanes.went_back(head)

    assert rig.back == ["b", "c", "d"]
    assert rig.offered == ["a"]


def test_followers_are_held_behind_a_blocking_head_until_it_has_come_back_and_is_done() -> None:
    """In a session they stay leased: giving them up would count against them, or end the session."""
    rig = Rig("hold")
    head = rig.come("a")
    rig.come("b")
    rig.lanes.went_back(head)
    rig.come("c")
    assert rig.offered == ["a"]
    assert rig.released == []

    again = rig.come("a")
    assert rig.offered == ["a", "a"]

    rig.lanes.done(again)
    assert rig.offered == ["a", "a", "b"]


def test_a_head_may_go_back_more_than_once() -> None:
    """It is retried up to its attempts, and its followers wait all that time."""
    rig = Rig("hold")
    head = rig.come("a")
    rig.come("b")
    for _ in range(3):
        rig.lanes.went_back(head)
        head = rig.come("a")
    rig.lanes.done(head)

    assert rig.offered == ["a", "a", "a", "a", "b"]


@pytest.mark.parametrize("release", RELEASES)
def test_what_waits_behind_an_event_that_goes_back_does_not_overtake_it(release: Release) -> None:
    """A waiting event can lose its lease, or reach the end of `max_processing`: it comes again before the next."""
    rig = Rig(release)
    head = rig.come("a")
    lost, behind = rig.come("b"), rig.come("c")
    rig.lanes.went_back(lost)
    rig.lanes.done(head)
    assert rig.offered == ["a"]
    assert rig.back == ([] if release == "hold" else ["c"])

    again = rig.come("b")
    if behind in rig.released:
        rig.come("c")
    rig.lanes.done(again)
    assert rig.offered == ["a", "b", "c"]


@pytest.mark.parametrize("release", RELEASES)
def test_what_waits_before_an_event_that_goes_back_stays(release: Release) -> None:
    """It was there earlier, and is not concerned."""
    rig = Rig(release)
    head, _ = rig.come("a"), rig.come("b")
    rig.lanes.went_back(rig.come("c"))
    rig.lanes.done(head)

    assert rig.offered == ["a", "b"]
    assert rig.released == []


def test_what_waits_behind_an_event_that_goes_back_goes_on_when_failures_of_a_key_are_skipped() -> None:
    """The user chose progress over order."""
    rig = Rig(on_key_failure="skip")
    head = rig.come("a")
    lost, _ = rig.come("b"), rig.come("c")
    rig.lanes.went_back(lost)
    rig.lanes.done(head)

    assert rig.offered == ["a", "c"]
    assert rig.released == []


def test_a_key_does_not_wait_for_an_event_that_will_not_come_back() -> None:
    """Its time to live ended, or somebody removed it: the source would have brought it before what it brings now."""
    rig = Rig("hold")
    expired, behind, _ = rig.come("a"), rig.come("b"), rig.come("c")
    rig.lanes.went_back(expired)
    rig.lanes.went_back(behind)
    assert rig.offered == ["a"]

    rig.lanes.done(rig.come("b"))
    assert rig.offered == ["a", "b", "c"]


def test_an_event_that_comes_back_before_a_later_one_does_waits_for_none_behind_it() -> None:
    """Only what went back earlier can be missing: the one behind it is still to come."""
    rig = Rig("hold", batch=2)
    a, b, _ = rig.come("a"), rig.come("b"), rig.come("c")
    for entry in (b, a):
        rig.lanes.went_back(entry)
    rig.lanes.done(rig.come("a"))
    assert rig.offered == ["a", "b", "a"]

    rig.lanes.done(rig.come("b"))
    assert rig.offered == ["a", "b", "a", "b", "c"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("on_key_failure", FAILURES)
def test_events_may_be_given_back_while_they_are_offered(release: Release, on_key_failure: Failure) -> None:
    """During a drain nothing starts: each event of a key, as its turn comes, goes back, and each goes back once."""
    rig = Rig(release, on_key_failure)
    head = rig.come("a")
    for message_id in "bcd":
        rig.come(message_id)
    rig.route.offer = rig.give_back
    rig.lanes.done(head)
    back = [*rig.back, *(entry.delivery.message_id for entry in rig.lanes.halt())]

    assert back == ["b", "c", "d"]
    assert rig.lanes._lanes == {}


def test_any_number_of_events_may_be_given_back_while_they_are_offered() -> None:
    """One after the other: thousands of a key, each inside the offer of the last, would exhaust the stack."""
    rig = Rig(on_key_failure="skip")
    head = rig.come("head")
    for number in range(2_000):
        rig.come(str(number))
    rig.route.offer = rig.give_back
    rig.lanes.done(head)

    assert len(rig.back) == 2_000


def test_an_event_that_gathered_with_one_that_goes_back_waits_for_it() -> None:
    """A lease may end before the batch starts: the rest of the batch must not run without it."""
    rig = Rig("hold", batch=3)
    lost, _ = rig.come("a"), rig.come("b")
    other = rig.come("x", key="other")
    rig.lanes.went_back(lost)
    assert [entry.delivery.message_id for entry in rig.waiting] == ["b"]
    assert other not in rig.waiting

    rig.lanes.done(rig.come("a"))
    assert rig.offered == ["a", "b", "x", "a", "b"]


def test_heads_that_went_back_together_come_again_in_order() -> None:
    """A batch that failed whole: while the first is retried, the second waits for it, however often it fails."""
    rig = Rig("hold", batch=2)
    a, b = rig.come("a"), rig.come("b")
    for entry in (a, b):
        rig.lanes.went_back(entry)
    rig.route._batch = 1
    a = rig.come("a")
    rig.come("b")
    rig.lanes.went_back(a)
    assert rig.offered == ["a", "b", "a"]

    rig.lanes.done(rig.come("a"))
    assert rig.offered == ["a", "b", "a", "a", "b"]


def test_an_acknowledged_event_is_remembered_where_the_source_may_bring_it_again() -> None:
    """Pub/Sub redelivers everything behind a failed event of a key: what was handled must not run twice."""
    rig = Rig("redelivers")
    done = rig.come("a")
    rig.lanes.done(done)

    assert rig.lanes.already_acked(rig.come("a"))
    assert not rig.lanes.already_acked(rig.come("b"))


@pytest.mark.parametrize("release", ["followers", "hold"])
def test_an_acknowledged_event_is_not_remembered_elsewhere(release: Release) -> None:
    """A message id that comes again is a redrive from the dead letters, and wanted."""
    rig = Rig(release)
    done = rig.come("a")
    rig.lanes.done(done)

    assert not rig.lanes.already_acked(rig.come("a"))


def test_an_event_that_was_not_done_is_not_remembered() -> None:
    """It is the one that has to run again."""
    rig = Rig("redelivers")
    head = rig.come("a")
    rig.lanes.went_back(head)

    assert not rig.lanes.already_acked(rig.come("a"))


def test_only_so_many_acknowledged_events_are_remembered() -> None:
    """The oldest are forgotten first: what comes again comes soon."""
    rig = Rig("redelivers")
    entries = [rig.come(str(n), key=str(n)) for n in range(REMEMBERED + 2)]
    for entry in entries:
        rig.lanes.done(entry)

    assert [rig.lanes.already_acked(entry) for entry in entries[:3]] == [False, False, True]
    assert rig.lanes.already_acked(entries[-1])


def test_events_of_a_key_may_share_a_batch_that_gathers() -> None:
    """One call handles them in order: that is one running call per key, and much faster."""
    rig = Rig(batch=3)
    for message_id in "abcd":
        rig.come(message_id)

    assert rig.offered == ["a", "b", "c"]


def test_the_next_batch_of_a_key_starts_when_all_of_the_last_are_decided() -> None:
    """While one event of it is open, nothing of the key may run beside it."""
    rig = Rig(batch=3)
    batch = [rig.come(message_id) for message_id in "abc"]
    for message_id in "def":
        rig.come(message_id)
    for entry in batch[:2]:
        rig.lanes.done(entry)
    assert rig.offered == ["a", "b", "c"]

    rig.lanes.done(batch[2])
    assert rig.offered == ["a", "b", "c", "d", "e", "f"]


def test_an_event_does_not_join_the_batch_of_another_handler() -> None:
    """Two handlers may take events of one key; they must not run side by side."""
    rig = Rig(batch=3)
    other = FakeRoute(batch=3)
    head = rig.come("a")
    rig.come("b", route=other)
    assert other.offered == []

    rig.lanes.done(head)
    assert [entry.delivery.message_id for entry in other.offered] == ["b"]


class Joining(BatchHandler[dict]):  # type: ignore[type-arg]
    batching = Batching(max_size=5, max_bytes=10)

    def batch_key(self, event: Event[dict[str, Any]]) -> str:
        return event.type

    async def handle(self, batch: Batch[dict[str, Any]]) -> None: ...


@dataclass
class Joins:
    """A real batch route, with one event of 4 bytes that gathers."""

    history: History
    route: BatchRoute
    gathering: Gathering | None

    def entry(self, message_id: str = "b", *, size: int = 4, type: str = "x") -> InFlight:
        delivery = Delivery(receipt=message_id, body=b"." * size, message_id=message_id, leased_until=30.0, key="k")
        entry = Table().register(delivery, 0.0, 600.0)
        entry.event = Event(delivery, message_id, "source", type, {})
        return entry


@pytest.fixture
def joins() -> Joins:
    history = History()
    unused: Any = None
    route = BatchRoute(
        Joining(), history=history, name="", decode=unused, invoke=unused, timeout=1.0, context=copy_context()
    )
    rig = Joins(history, route, None)
    rig.gathering = route.offer(rig.entry("a"))
    return rig


def test_an_event_joins_the_batch_of_its_key_while_it_gathers(joins: Joins) -> None:
    """The rule of a batch route, without which no two events of a key would share a call."""
    assert joins.route.joins(joins.entry(), joins.gathering)
    assert not joins.route.joins(joins.entry(), None)

    joins.route.halt()
    assert not joins.route.joins(joins.entry(), joins.gathering)


def test_an_event_that_would_gather_in_another_batch_does_not_join(joins: Joins) -> None:
    """One with too many bytes, or another `batch_key`, would run beside the events of its ordering key."""
    assert not joins.route.joins(joins.entry(size=7), joins.gathering)
    assert not joins.route.joins(joins.entry(type="y"), joins.gathering)


def test_an_event_that_has_to_run_alone_does_not_join(joins: Joins) -> None:
    """A probe, or one left over from a failed batch, is a batch of its own: its turn comes after the others."""
    probe = joins.entry()
    probe.probe = True
    joins.history.of("suspect").suspect = True
    joins.history.of("failed")

    assert not joins.route.joins(probe, joins.gathering)
    assert not joins.route.joins(joins.entry("suspect"), joins.gathering)
    assert joins.route.joins(joins.entry("failed"), joins.gathering)


def test_two_deliveries_of_one_event_do_not_share_a_batch() -> None:
    """Whichever is the older one: parked together, they would run again side by side."""
    rig = Rig("redelivers", batch=2)
    rig.come("a", delivery_count=2)
    rig.come("a")

    assert rig.offered == ["a"]


def test_an_event_that_comes_again_does_not_join_a_batch_of_later_ones() -> None:
    """It was handled, and its ack was lost: behind them in the batch, it would be parked and run beside them."""
    rig = Rig("hold", batch=3)
    handled = rig.come("a")
    rig.route.start()
    rig.come("b")
    rig.lanes.done(handled)
    handled.state = GONE
    rig.lanes.stays_out(handled)
    rig.come("a", delivery_count=2)

    assert rig.offered == ["a", "b"]


def test_what_came_late_may_keep_back_all_others_at_the_source() -> None:
    """Its place is not known: while it is out, no other is given up."""
    rig = Rig("hold")
    head = rig.come("b")
    rig.now += 1.0
    behind, late = rig.come("c"), rig.come("a", delivery_count=2)
    rig.lanes.went_back(late)
    late.due = rig.now + 60.0
    rig.lanes.went_back(head)
    rig.now += 30.0
    behind.asked_at = rig.now
    rig.lanes.heard(rig.now)
    rig.lanes.tick(rig.now)

    assert rig.offered == ["b"]


def test_the_place_of_an_order_that_is_no_more_is_not_remembered() -> None:
    """A late answer about an old delivery must not put its event before those that come before it now."""
    rig = Rig("hold")
    old = rig.come("b")
    rig.lanes.done(old)
    rig.now += 5.0
    head, again = rig.come("a", delivery_count=2), rig.come("b", delivery_count=2)
    lane = head.lane
    assert lane is not None
    old.state = GONE
    rig.lanes.stays_out(old)
    for entry in (again, head):
        rig.lanes.went_back(entry)

    assert lane.away["a"].place < lane.away["b"].place


def test_of_two_deliveries_of_one_event_the_first_has_its_place() -> None:
    """A newer one came while it ran, and went back first: what is behind it must not come before it."""
    rig = Rig("redelivers")
    first = rig.come("a")
    behind, newer = rig.come("b"), rig.come("a", delivery_count=2)
    lane = first.lane
    assert lane is not None
    lane.busy -= 1
    lane.wait(first)
    rig.lose(newer)

    assert first.place < behind.place


def test_later_events_of_a_failed_key_are_taken_out_of_their_batch_and_wait_in_order() -> None:
    """A batch that is searched goes on with the other keys; of this one nothing may run before the failed event."""
    rig = Rig("hold", batch=4)
    failed, b, c = rig.come("a"), rig.come("b"), rig.come("c")
    other = rig.come("x", key="other")
    rig.route.start()
    for entry in (failed, b, c, other):
        entry.state = RUNNING

    assert rig.lanes.stopped(failed, [b, other, c]) == [b, c]
    assert [entry.state for entry in (b, c, other)] == [HELD, HELD, RUNNING]
    assert (b.slot, c.slot) == (None, None)

    rig.lanes.went_back(failed)
    rig.come("d")
    rig.lanes.done(rig.come("a"))
    assert rig.offered == ["a", "b", "c", "x", "a", "b", "c", "d"]


def test_later_events_of_a_failed_key_stay_in_their_batch_when_failures_of_a_key_are_skipped() -> None:
    """They go on as if nothing had happened."""
    rig = Rig(on_key_failure="skip", batch=4)
    failed, later = rig.come("a"), rig.come("b")

    assert rig.lanes.stopped(failed, [later]) == []


@pytest.mark.parametrize("release", RELEASES)
def test_of_a_batch_that_met_an_outage_the_first_event_of_a_key_is_parked_and_the_others_wait(release: Release) -> None:
    """Parked on their own they would run again in any order, and side by side."""
    rig = Rig(release, batch=3)
    batch = [rig.come(message_id) for message_id in "abc"]
    rig.route.start()
    parked = []
    for entry in batch:
        entry.state = RUNNING
        if not rig.lanes.stands_back(entry):
            entry.state = PARKED
            rig.lanes.parked(entry)
            parked.append(entry)
    assert parked == batch[:1]
    assert rig.waiting == batch[1:]

    rig.lanes.done(batch[0])
    assert rig.offered == ["a", "b", "c", "b", "c"]


def test_an_event_stands_back_for_one_before_it_that_is_away() -> None:
    """It was in a batch with an event whose lease was lost: on its own it would run too early."""
    rig = Rig("hold", batch=2)
    lost, behind = rig.come("a"), rig.come("b")
    rig.route.start()
    lost.state = behind.state = RUNNING
    rig.lose(lost)

    assert rig.lanes.stands_back(behind)
    assert (behind.state, rig.waiting) == (HELD, [behind])

    rig.lanes.done(rig.come("a"))
    assert rig.offered == ["a", "b", "a", "b"]


def test_no_event_stands_back_where_there_is_nothing_to_wait_for() -> None:
    """It has no key, it is the first of its key, or failures of a key are skipped."""
    skipping = Rig(on_key_failure="skip", batch=2)
    first, second = skipping.come("a"), skipping.come("b")
    skipping.lanes.went_back(first)

    assert not skipping.lanes.stands_back(second)
    assert not Rig().lanes.stands_back(skipping.come("c", key=None))
    assert not (rig := Rig()).lanes.stands_back(rig.come("a"))


def test_a_probe_is_an_event_that_can_run_at_once() -> None:
    """One that waited for its turn would keep the gate closed until then."""
    rig = Rig("hold")
    assert rig.is_free("a")

    head = rig.come("a")
    assert not rig.is_free("b")
    rig.come("b")
    assert not rig.is_free("c")
    assert rig.is_free("x", key="other")
    assert rig.is_free("c", key=None)

    rig.lanes.went_back(head)
    assert not rig.is_free("c")
    assert rig.is_free("a")
    assert Rig(ordered=False).is_free("a")

    rig.lose(rig.come("z", key="z"))
    assert not rig.is_free("zz", key="z")


@pytest.mark.parametrize("release", ["hold", "redelivers"])
def test_followers_wait_for_the_end_of_a_lease_that_was_lost(release: Release) -> None:
    """The source may still think it ours, and bring later events before it brings that one again."""
    rig = Rig(release)
    rig.lose(rig.come("a"))
    rig.come("b")
    assert rig.offered == ["a"]

    rig.lanes.done(rig.come("a"))
    assert rig.offered == ["a", "a", "b"]


def test_what_somebody_else_has_taken_is_not_waited_for_till_the_end() -> None:
    """An event whose lease was lost comes again to whoever receives next; its followers would wait for it in vain."""
    rig = Rig("hold")
    first = rig.come("a")
    rig.now += 30.0
    rig.lose(first)
    rig.lanes.left(first)
    rig.now += 0.5
    second = rig.come("b")
    rig.now += 20.0

    rig.lanes.tick(rig.now)
    assert rig.offered == ["a"], "nothing was received since: it may still be there"

    rig.lanes.heard(rig.now - 15.0)
    rig.lanes.tick(rig.now)
    assert rig.offered == ["a"], "that may have been too early"

    rig.lanes.heard(rig.now - 5.0)
    rig.lanes.tick(rig.now)
    assert rig.offered == ["a"], "what waits may have been taken too"

    second.asked_at = rig.now - 10.0
    rig.lanes.tick(rig.now)
    assert rig.offered == ["a", "b"]


def test_a_reply_that_crosses_with_a_nack_does_not_overtake() -> None:
    """What was leased before an event was back is after it, although it comes when the source has it again."""
    rig = Rig("hold")
    first = rig.come("a")
    first.state = SETTLING
    rig.lanes.went_back(first)
    first.state, first.due = GONE, rig.now + 5.0
    rig.now += 6.0

    rig.come("b", asked_at=rig.now - 3.0)
    assert rig.offered == ["a"]

    rig.come("a")
    assert rig.offered == ["a", "a"]


def test_an_event_that_came_late_does_not_tell_that_one_before_it_is_gone() -> None:
    """It was out elsewhere, and stands behind what came meanwhile; at the source it may be the first of them all."""
    rig = Rig("hold")
    head = rig.come("b")
    rig.now += 1.0
    late = rig.come("a", delivery_count=2)
    rig.come("c")
    for entry in (late, head):
        rig.lanes.went_back(entry)
    rig.now += 1.0
    rig.come("a", delivery_count=3)
    assert rig.offered == ["b"]

    rig.lanes.done(rig.come("b", delivery_count=2))
    assert rig.offered == ["b", "b", "a"]


def test_what_the_source_kept_back_is_not_given_up() -> None:
    """It brings the events of a key in order: while an earlier one is held back there, the later ones are too."""
    rig = Rig("hold")
    head, second, third = rig.come("a"), rig.come("b"), rig.come("c")
    for entry in (second, head):
        rig.lanes.went_back(entry)
    rig.now += 12.0
    third.asked_at = rig.now
    rig.lanes.heard(rig.now)
    head = rig.come("a")
    rig.lanes.tick(rig.now)
    rig.lanes.done(head)
    assert rig.offered == ["a", "a"], "the second could not come before the head was back"

    rig.now += 12.0
    third.asked_at = rig.now
    rig.lanes.heard(rig.now)
    rig.lanes.tick(rig.now)
    assert rig.offered == ["a", "a", "c"]


def test_a_group_that_is_out_in_part_is_given_back_to_come_again_whole() -> None:
    """A FIFO group brings nothing while any of it is leased: to wait for its head with the rest in hand is in vain."""
    rig = Rig("followers")
    lost, behind = rig.come("a"), rig.come("b")
    rig.lanes.stopped(lost, ())
    lost.state = RUNNING
    lane = behind.lane
    assert lane is not None
    lane.away["0"] = Away(lost, 0, rig.now)
    rig.lanes.done(lost)
    assert rig.offered == ["a"]

    rig.now += 12.0
    behind.asked_at = rig.now
    rig.lanes.heard(rig.now)
    rig.lanes.tick(rig.now)
    assert rig.released == [behind]
    assert rig.offered == ["a"]


def test_a_key_is_free_again_a_while_after_a_lost_lease() -> None:
    """The event may be somebody else's by now; nobody can wait for it for ever."""
    rig = Rig("redelivers")
    rig.lose(rig.come("a"))
    rig.now += 40.0
    rig.come("b")

    assert rig.offered == ["a", "b"]


async def test_a_key_is_busy_until_the_call_has_ended_in_which_a_lease_was_lost() -> None:
    """Its handler is cancelled, and may still be cleaning up: the same event must not start beside it."""
    rig = Rig(on_key_failure="skip")
    lost = rig.come("a")
    work: Any = None
    slot = Slot(work)
    lost.state, lost.slot, slot.entries = RUNNING, slot, (lost,)
    rig.lose(lost)
    rig.come("b")
    assert rig.offered == ["a"]

    slot.entries = ()
    rig.lanes.left(lost)
    assert rig.offered == ["a", "b"]


def test_what_waits_is_taken_out_in_order_for_a_drain() -> None:
    """Each goes back once: what one of them sets off must not find the others still waiting."""
    rig = Rig("followers")
    head = rig.come("a")
    rig.come("b")
    other = rig.come("x", key="other")
    rig.come("y", key="other")
    rig.come("c")

    halted = rig.lanes.halt()
    assert [entry.delivery.message_id for entry in halted] == ["b", "c", "y"]
    assert rig.lanes.halt() == []

    for entry in (head, *halted):
        rig.lanes.went_back(entry)
    last = rig.come("z", key="other")
    assert rig.offered == ["a", "x"]

    rig.lanes.done(other)
    rig.lanes.done(last)
    assert rig.offered == ["a", "x", "z"]
    assert rig.released == []
    assert rig.lanes._lanes == {}


def test_heads_that_came_back_are_taken_out_for_a_drain_before_those_that_wait() -> None:
    """They are the older ones; sources keep the order in which events are given back."""
    rig = Rig("hold", batch=2)
    a, b = rig.come("a"), rig.come("b")
    rig.come("c")
    rig.lanes.went_back(a)
    rig.lanes.went_back(b)
    rig.route._batch = 1
    rig.come("a")
    rig.come("b")

    assert [entry.delivery.message_id for entry in rig.lanes.halt()] == ["b", "c"]


class LanesMachine(RuleBasedStateMachine):
    """The events of one key come, run, fail, park, lose their leases and come back, in any order."""

    @initialize(
        release=st.sampled_from(RELEASES), on_key_failure=st.sampled_from(FAILURES), batch=st.sampled_from([1, 3])
    )
    def start(self, release: Release, on_key_failure: Failure, batch: int) -> None:
        self.rig = Rig(release, on_key_failure, batch=batch)
        self.rig.give_back = self.give_back  # type: ignore[method-assign]
        self.blocks, self.batch = on_key_failure == "block", batch
        self.strict = release == "followers"
        self.published = 0
        self.at_source: list[int] = []
        self.in_hand: dict[int, InFlight] = {}
        self.parked: list[InFlight] = []
        self.effects: list[int] = []

    # -- the world ---------------------------------------------------------------------------------

    def give_back(self, entry: InFlight) -> None:
        if entry in self.parked:
            self.parked.remove(entry)
        entry.state = SETTLING
        self.rig.lanes.went_back(entry)
        number = int(entry.delivery.message_id)
        assert self.in_hand.pop(number) is entry, "given back twice"
        self.at_source = sorted([*self.at_source, number])

    def receive(self) -> None:
        """A source that orders by key brings the first it has; an SQS FIFO group none while a later one is out."""
        while self.at_source and (not self.strict or self.at_source[0] > max(self.in_hand, default=0)):
            number = self.at_source.pop(0)
            self.in_hand[number] = self.rig.come(str(number))

    def effect(self, entry: InFlight) -> None:
        entry.state = SETTLING
        number = int(entry.delivery.message_id)
        self.effects.append(number)
        assert self.in_hand.pop(number) is entry, "handled twice"
        self.rig.lanes.done(entry)

    def calls(self) -> list[list[InFlight]]:
        """What runs or could be started: single events, or groups that share a call."""
        offered = [e for e in self.in_hand.values() if e.state is HELD and e not in self.rig.waiting]
        if self.batch == 1:
            return [[entry] for entry in offered]
        gatherings = {id(g): g for g in self.rig.route.gatherings}
        groups = [[e for e in g.entries if e in offered] for g in gatherings.values()]
        assert sum(map(len, groups)) == len(offered), "in two batches, or in none"
        return [group for group in groups if group]

    def run_again(self, entry: InFlight) -> None:
        """As the pipeline does it: a blocking head kept its place, a skipped one gets in line again."""
        self.parked.remove(entry)
        entry.state = HELD
        if entry.lane is None:
            self.rig.lanes.enter(entry)
        else:
            self.rig.route.offer(entry)

    # -- what may happen ---------------------------------------------------------------------------

    @rule(events=st.integers(0, 4))
    def come(self, events: int) -> None:
        self.at_source += range(self.published + 1, self.published + events + 1)
        self.published += events
        self.receive()

    @rule(succeed=st.integers(0, 3), park=st.booleans())
    def call_ends(self, succeed: int, park: bool) -> None:
        """So many events succeed; the next one goes back or is parked, and what is behind it is stopped."""
        for group in self.calls()[:1]:
            self.rig.route.start()
            for entry in group:
                entry.state = RUNNING
            for entry in group[:succeed]:
                self.effect(entry)
            if not (rest := group[succeed:]):
                return
            stopped = self.rig.lanes.stopped(rest[0], rest[1:])
            if park:
                rest[0].state = PARKED
                self.parked.append(rest[0])
                self.rig.lanes.parked(rest[0])
            else:
                self.give_back(rest[0])
            for entry in rest[1:]:
                if entry not in stopped:
                    self.effect(entry)

    @rule(succeed=st.integers(0, 3))
    def call_meets_an_outage(self, succeed: int) -> None:
        """So many events succeed; all others are parked, unless they have to wait for one before them."""
        for group in self.calls()[:1]:
            self.rig.route.start()
            for entry in group:
                entry.state = RUNNING
            for entry in group[:succeed]:
                self.effect(entry)
            for entry in group[succeed:]:
                if not self.rig.lanes.stands_back(entry):
                    entry.state = PARKED
                    self.parked.append(entry)
                    self.rig.lanes.parked(entry)

    @precondition(lambda self: self.parked)
    @rule(data=st.data())
    def parked_event_is_due(self, data: st.DataObject) -> None:
        self.run_again(data.draw(st.sampled_from(self.parked)))

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def lease_ends(self, data: st.DataObject) -> None:
        """Of an event that waits, gathers or is parked."""
        self.give_back(data.draw(st.sampled_from(list(self.in_hand.values()))))

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def one_call_runs_at_a_time(self) -> None:
        assert len(self.calls()) <= 1

    @invariant()
    def effects_are_in_order(self) -> None:
        assert len(self.effects) == len(set(self.effects)), "handled twice"
        assert not self.blocks or self.effects == sorted(self.effects), "out of order"

    def teardown(self) -> None:
        """Once everything succeeds, everything is handled: no event is stuck behind another."""
        for _ in range(2 * self.published + 2):
            for entry in list(self.parked):
                self.run_again(entry)
            self.receive()
            self.call_ends(succeed=3, park=False)
            self.effects_are_in_order()
        assert not self.at_source, "not delivered"
        assert not self.in_hand, "stuck"
        assert not self.rig.lanes._lanes


LanesMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=30)
TestAnyOrderOfOutcomes = LanesMachine.TestCase
