"""Parking at its edges: what counts as an attempt and what does not, and how an event leaves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeAlias

import anyio
import pytest

from eventkit import Backoff, Event, FlowLimits, Handler, Retry
from eventkit._telemetry.records import EventParked, EventReleased, EventRetried, LeaseLost
from eventkit.spi import Settled, Traits
from eventkit.testing import Call, Faults, Kind
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

Data: TypeAlias = dict[str, Any]

PARKS = Traits(max_retry_delay=0, key_release="hold")


class Flaky(Handler[Data]):
    """Fails as often as its event says, and notes every call: (time, message id, attempt, data)."""

    def __init__(self, error: type[Exception] = ValueError, seconds: float = 0.0) -> None:
        self.error = error
        self.seconds = seconds
        self.calls: list[tuple[float, str, int, Data]] = []

    async def handle(self, event: Event[Data]) -> None:
        self.calls.append((anyio.current_time(), event.message_id, event.attempt, event.data))
        await anyio.sleep(self.seconds)
        if sum(call[1] == event.message_id for call in self.calls) <= event.data.get("fails", 0):
            raise self.error("not yet")


@pytest.mark.parametrize("max_delay", [None, 0.0], ids=["delayed", "parked"])
def test_a_transient_failure_runs_again_from_hand_without_a_new_delivery(max_delay: float | None) -> None:
    """An outage must not use up the source's own delivery limit, nor the event's attempts."""
    handler = Flaky(ConnectionError)
    rig = Rig(handler, traits=Traits(max_retry_delay=max_delay), lease=5.0, retry=Backoff(maximum=60.0))

    async def scenario() -> None:
        rig.publish({"fails": 6, "text": "still here"})
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)
    assert [(attempt, data["text"]) for _, _, attempt, data in handler.calls] == [(1, "still here")] * 7
    assert rig.broker.counts().delivered == 1
    delays = [record.delay for record in rig.of(EventParked)]
    waits = [later[0] - sooner[0] for sooner, later in pairwise(handler.calls)]
    assert all(delay <= waited <= delay + 1 for delay, waited in zip(delays, waits, strict=True))


def test_a_transient_event_at_the_end_of_max_processing_is_released_uncounted() -> None:
    """It cannot be kept for ever, and what could not be tried has not failed."""
    handler = Flaky(ConnectionError)
    rig = Rig(handler, traits=PARKS, max_processing=100.0, retry=Backoff(initial=20.0, maximum=60.0))

    async def scenario() -> None:
        rig.publish({"fails": 20})
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)
    assert {record.reason for record in rig.of(EventReleased)} == {"end of max_processing"}
    assert rig.broker.counts().delivered > 1
    assert {attempt for _, _, attempt, _ in handler.calls} == {1}
    held = [0.0]
    for change in rig.broker.history:
        if change.kind is Kind.DELIVERED:
            held.append(change.at)
        elif change.kind in {Kind.NACKED, Kind.ACKED}:
            assert change.at - held[-1] <= 100.1, "kept longer than max_processing"


def test_a_counted_retry_counts_although_it_reaches_the_end_of_max_processing_parked() -> None:
    """A slow handler leaves its parked retries too little time: they must reach the dead letters all the same."""
    handler = Flaky(seconds=60.0)
    rig = Rig(handler, traits=PARKS, max_processing=100.0, retry=Backoff(initial=80.0, maximum=80.0, attempts=4))

    async def scenario() -> None:
        rig.publish({"fails": 99})
        async with rig.running():
            await rig.until_settled(3600)

    on_virtual_time(scenario)
    assert [attempt for _, _, attempt, _ in handler.calls] == [1, 2, 3, 4]
    assert rig.dead == {"1": "attempts"}
    assert rig.of(EventReleased) == []


@pytest.mark.parametrize("max_delay", [None, 0.0], ids=["delayed", "parked"])
@pytest.mark.parametrize("release_counts", [True, False])
def test_a_retry_counts_although_its_source_takes_it_for_a_release(
    release_counts: bool, max_delay: float | None
) -> None:
    """Where a nack without a delay is not counted, we must count a retry that was parked or wants no delay."""

    class Impatient(Flaky):
        async def handle(self, event: Event[Data]) -> None:
            await super().handle(event)
            raise Retry(after=0.0 if event.attempt < 3 else None)

    handler = Impatient()
    rig = Rig(handler, traits=Traits(max_retry_delay=max_delay, release_counts=release_counts))

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)
    assert [attempt for _, _, attempt, _ in handler.calls] == [1, 2, 3, 4, 5]
    assert rig.dead == {"1": "attempts"}


@pytest.mark.parametrize(("most", "expected"), [(0.0, 0.0), (4.0, 4.0), (600.0, 20.0)])
def test_a_parked_retry_keeps_what_the_source_can_keep_of_its_delay_at_the_drain(most: float, expected: float) -> None:
    """A rollout during an incident must not turn all retries that wait into calls at once."""

    class Later(Handler[Data]):
        async def handle(self, event: Event[Data]) -> None:
            raise Retry(after=20.0)

    rig = Rig(Later(), traits=Traits(max_retry_delay=0.0, nack_delay_max=most))

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until(lambda: bool(rig.of(EventRetried)))
        [nacked] = [change for change in rig.broker.history if change.kind is Kind.NACKED]
        delay = nacked.until - nacked.at if nacked.until else 0.0
        assert expected - 1.0 < delay <= expected or delay == expected

    on_virtual_time(scenario)


class Robber(Faults):
    """While armed, the broker takes back what is to be extended."""

    def __init__(self) -> None:
        self.armed = False
        self.rig: Rig | None = None

    async def before(self, call: Call) -> Mapping[int, Settled]:
        if call.verb == "extend" and self.armed and self.rig is not None:
            self.rig.broker.queue(QUEUE).nack([(item, 0.0) for item in call.items], anyio.current_time())
        return {}


@pytest.mark.parametrize(("error", "attempts"), [(ValueError, [1, 2]), (ConnectionError, [1, 1])])
def test_a_lease_lost_in_parking_counts_the_failure_before_it_and_no_more(
    error: type[Exception], attempts: list[int]
) -> None:
    """The handler did fail; that somebody else got the event meanwhile is not another failure, nor forgives it."""
    handler, robber = Flaky(error), Robber()
    rig = Rig(handler, traits=PARKS, lease=3.0, faults=robber, retry=Backoff(initial=60.0, maximum=60.0), seed=4)
    robber.rig = rig

    async def scenario() -> None:
        rig.publish({"fails": 1})
        async with rig.running():
            await rig.until(lambda: bool(rig.of(EventRetried) or rig.of(EventParked)))
            robber.armed = True
            await rig.until(lambda: bool(rig.of(LeaseLost)))
            robber.armed = False
            await rig.until_settled()

    on_virtual_time(scenario)
    assert [attempt for _, _, attempt, _ in handler.calls] == attempts
    assert [record.state for record in rig.of(LeaseLost)] == ["parked"]


def test_followers_that_come_again_with_their_head_keep_their_own_count() -> None:
    """Where a failed head brings its followers again, each of those deliveries is uncounted once, and only once."""
    handler = Flaky()
    rig = Rig(handler, traits=Traits(key_release="redelivers"), ordering="key", retry=Backoff(maximum=5.0, attempts=5))

    async def scenario() -> None:
        rig.publish({"fails": 3}, {"fails": 99}, {}, key="a")
        async with rig.running():
            await rig.until_settled(600)

    on_virtual_time(scenario)
    assert [attempt for _, id, attempt, _ in handler.calls if id == "1"] == [1, 2, 3, 4]
    assert [attempt for _, id, attempt, _ in handler.calls if id == "2"] == [1, 2, 3, 4, 5]
    assert rig.dead == {"2": "attempts"}


def test_the_intake_waits_while_parking_is_full_and_goes_on_afterwards() -> None:
    """P7: a receive would bring what can only be given back."""
    handler = Flaky()
    rig = Rig(handler, traits=PARKS, retry=Backoff(initial=60.0, maximum=60.0), max_processing=600.0)
    rig.worker.options = replace(rig.worker.options, limits=FlowLimits(in_flight=10, parked=10))

    async def scenario() -> None:
        rig.publish(*[{"fails": 1}] * 40)
        async with rig.running():
            pipeline = rig.worker._pipeline
            while pipeline is None or pipeline._table.parked < 10:
                await anyio.sleep(0.001)
                pipeline = rig.worker._pipeline
            await anyio.sleep(0.1)
            while pipeline._table.parked == 10:
                before = rig.broker.counts().delivered
                await anyio.sleep(0.01)
                full = pipeline._table.parked == 10
                assert not full or rig.broker.counts().delivered == before
            await rig.until_settled()

    on_virtual_time(scenario)
    assert rig.dead == {}
    assert rig.broker.acked == 40


def test_a_counted_retry_that_finds_no_place_counts_and_goes_back_at_once() -> None:
    """Parking may be full of retries, or have no place at all: poison must still reach the dead letters."""
    handler = Flaky()
    rig = Rig(handler, traits=PARKS)
    rig.worker.options = replace(rig.worker.options, limits=FlowLimits(parked=0))

    async def scenario() -> None:
        rig.publish({"fails": 99}, {})
        async with rig.running():
            await rig.until_settled(10)

    on_virtual_time(scenario)
    assert rig.dead == {"1": "attempts"}
    assert [attempt for _, id, attempt, _ in handler.calls if id == "1"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("after", [0.0, 0.5, 30.0])
def test_a_retry_with_a_wish_of_its_own_waits_that_long(after: float) -> None:
    """`Retry(after=…)` means the same where the source cannot delay."""

    class Wishes(Flaky):
        async def handle(self, event: Event[Data]) -> None:
            await super().handle(event)
            if event.attempt == 1:
                raise Retry(after=after)

    handler = Wishes()
    rig = Rig(handler, traits=PARKS)

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)
    [first, second] = handler.calls
    assert after <= second[0] - first[0] <= after + 1
    assert second[2] == 2


class Item(Flaky):
    """Fails by itself: a counted retry."""

    types = ("item",)


class Transient(Flaky):
    """Fails in an outage."""

    types = ("transient",)


def test_at_a_drain_all_parked_events_go_back_at_once() -> None:
    """Another worker must not wait for the delays of this one, or for its leases to end."""
    handlers = Item(), Transient(ConnectionError)
    rig = Rig(*handlers, traits=PARKS, retry=Backoff(initial=200.0, maximum=200.0))

    async def scenario() -> None:
        rig.publish(*[{"fails": 9}] * 5, type="item")
        rig.publish(*[{"fails": 9}] * 5, type="transient")
        async with rig.running():
            await anyio.sleep(1)
            assert rig.worker._pipeline is not None
            assert rig.worker._pipeline._table.parked >= 6
        depth = rig.broker.depth(QUEUE)
        assert (depth.ready, depth.delayed, depth.leased) == (10, 0, 0)

    on_virtual_time(scenario)
