"""Leases: kept while an event is in hand, and what happens when one is lost."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from eventkit import Batch, BatchHandler, Batching, Event, Handler
from eventkit._policies.backoff import Backoff
from eventkit._telemetry.records import EventReleased, LeaseLost, SettleFailed
from eventkit.errors import ConnectionLost
from eventkit.spi import LOST, Settled
from eventkit.testing import Call, Faults, Kind
from tests.pipeline.support import Rig, on_virtual_time

Data = dict[str, object]


class Slow(Handler[Data]):
    """Takes three leases."""

    concurrency = 2

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self.started: list[str] = []
        self.ended: list[str] = []

    async def handle(self, event: Event[Data]) -> None:
        self.started.append(event.message_id)
        await anyio.sleep(self.seconds)
        self.ended.append(event.message_id)


class NoExtend(Faults):
    """Extensions fail: by an error, or by being told that the lease is gone."""

    def __init__(self, *, lost: bool) -> None:
        self.lost = lost
        self.calls = 0

    async def before(self, call: Call) -> Mapping[int, Settled]:
        if call.verb != "extend":
            return {}
        self.calls += 1
        if self.lost:
            return dict.fromkeys(range(len(call.items)), LOST)
        raise ConnectionLost("no route to the broker")


def run(rig: Rig, *bodies: Data, until_acked: int) -> None:
    """Publish and run until so many are acked."""

    async def scenario() -> None:
        rig.publish(*bodies)
        async with rig.running():
            await rig.until(lambda: rig.broker.acked >= until_acked)

    on_virtual_time(scenario)


def test_a_handler_three_leases_long_is_not_run_twice() -> None:
    """Running, queued and gathered events are all kept; nothing is delivered a second time."""
    handler = Slow()
    rig = Rig(handler, lease=10.0)

    run(rig, *[{}] * 6, until_acked=6)

    assert sorted(handler.started) == sorted(handler.ended)
    assert len(handler.ended) == 6
    assert rig.broker.counts().delivered == 6


def test_leases_are_extended_in_batches_and_not_too_often() -> None:
    """An extension every third of a lease, many events a call: the broker is not hammered."""
    faults = Counting()
    rig = Rig(Slow(100.0), lease=30.0, faults=faults)

    run(rig, *[{}] * 2, until_acked=2)

    assert 9 <= faults.extends <= 12


class Counting(Faults):
    """Counts extension calls."""

    extends = 0

    async def before(self, call: Call) -> Mapping[int, Settled]:
        self.extends += call.verb == "extend"
        return {}


def test_a_gathering_batch_keeps_its_leases() -> None:
    """Peers lose leases while a batch fills; here `max_wait` may be longer than a lease."""
    sizes: list[int] = []

    class Patient(BatchHandler[Data]):
        batching = Batching(max_size=50, max_wait=25.0)

        async def handle(self, batch: Batch[Data]) -> None:
            sizes.append(len(batch))

    rig = Rig(Patient(), lease=5.0)

    run(rig, *[{}] * 7, until_acked=7)

    assert sizes == [7]
    assert rig.broker.counts().delivered == 7


def test_a_lost_lease_cancels_the_handler_and_forbids_settling() -> None:
    """Somebody else has the event now: two must not work on it, and a stale ack must not be sent."""
    handler = Slow(60.0)
    rig = Rig(handler, lease=9.0, faults=NoExtend(lost=True))

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await anyio.sleep(5)
            rig.broker.faults = None
            await rig.until(lambda: rig.broker.acked == 1)

    on_virtual_time(scenario)

    assert handler.started == ["1", "1"]
    assert handler.ended == ["1"]
    assert rig.of(LeaseLost)[0].state == "running"
    assert Kind.STALE not in {change.kind for change in rig.broker.history}


def test_an_extension_that_fails_is_tried_again_while_the_lease_lives() -> None:
    """A short loss of connection must not cost a lease that still runs."""
    faults = NoExtend(lost=False)
    handler = Slow(40.0)
    rig = Rig(handler, lease=30.0, faults=faults)

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await anyio.sleep(20)
            assert faults.calls >= 2
            rig.broker.faults = None
            await rig.until(lambda: rig.broker.acked == 1)

    on_virtual_time(scenario)

    assert handler.started == ["1"]
    assert {record.verb for record in rig.of(SettleFailed)} == {"extend"}


def test_a_lease_that_cannot_be_kept_is_lost_at_its_end_by_our_own_clock() -> None:
    """No answer from the broker is no licence to go on: it delivers the event to another worker."""
    handler = Slow(100.0)
    rig = Rig(handler, lease=10.0, faults=NoExtend(lost=False))

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until(lambda: bool(rig.of(LeaseLost)))
            assert anyio.current_time() <= 11
            rig.broker.faults = None
            await rig.until(lambda: rig.broker.acked == 1)

    on_virtual_time(scenario)

    assert handler.ended == ["1"]


def test_a_lost_lease_counts_no_attempt() -> None:
    """Attempts are for failures of the event, not of its lease."""
    attempts: list[int] = []

    class Noting(Slow):
        async def handle(self, event: Event[Data]) -> None:
            attempts.append(event.attempt)
            await super().handle(event)

    rig = Rig(Noting(20.0), lease=9.0, faults=NoExtend(lost=True))

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await anyio.sleep(40)
            rig.broker.faults = None
            await rig.until(lambda: rig.broker.acked == 1)

    on_virtual_time(scenario)

    assert len(attempts) >= 3
    assert set(attempts) == {1}


def test_an_event_that_waits_for_a_slot_past_max_processing_is_released() -> None:
    """No delivery is held for ever: others may have room for it. It counts no attempt."""
    handler = Slow(40.0)
    rig = Rig(handler, lease=10.0, max_processing=50.0)

    async def scenario() -> None:
        rig.publish(*[{}] * 8)
        async with rig.running():
            await rig.until(lambda: rig.broker.acked == 8)

    on_virtual_time(scenario)

    released = rig.of(EventReleased)
    assert released
    assert {record.reason for record in released} == {"end of max_processing"}
    assert rig.dead == {}


def test_a_call_that_still_runs_at_max_processing_has_timed_out() -> None:
    """Released would mean uncounted: an event that always hangs would then live for ever."""
    handler = Slow(1000.0)
    rig = Rig(handler, lease=10.0, max_processing=50.0, retry=Backoff(initial=0, maximum=0, attempts=2))

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)

    assert rig.dead == {"1": "attempts"}
    assert handler.started == ["1", "1"]


def test_a_batch_goes_on_for_the_events_that_are_still_ours() -> None:
    """One lost lease of many must not cut the work on the others; the lost one is not settled."""
    done: list[int] = []

    class Long(BatchHandler[Data]):
        batching = Batching(max_size=4, max_wait=0.1)

        async def handle(self, batch: Batch[Data]) -> None:
            await anyio.sleep(20)
            done.append(len(batch))

    class LoseFirst(Faults):
        lost = False

        async def before(self, call: Call) -> Mapping[int, Settled]:
            if self.lost or call.verb != "extend":
                return {}
            self.lost = True
            return {0: LOST}

    rig = Rig(Long(), lease=9.0, faults=LoseFirst())

    async def scenario() -> None:
        rig.publish(*[{}] * 4)
        async with rig.running():
            await rig.until(lambda: rig.broker.acked == 4)

    on_virtual_time(scenario)

    assert done[0] == 4
    assert len(rig.of(LeaseLost)) == 1
    assert rig.changes(Kind.ACKED)[:3] == ["2", "3", "4"]
