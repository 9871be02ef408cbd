"""Drain (P8): at any instant nothing is lost, what has not started is ready at once, and the end comes in time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from eventkit import Backoff, Batch, BatchHandler, Batching, Event, Handler, Report
from eventkit._handler import AnyHandler
from eventkit._telemetry.records import DrainEnded, DrainStarted, EventReleased, EventRetried, Record
from eventkit.spi import Address, Delivery, Demand, Limits, Traits
from eventkit.testing import Call, Faults, MemoryAdapter, MemorySource
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

Data = dict[str, Any]

BUDGET = 5.0
GRACE = 5.0
"""Seconds beyond the budget in which `run` must have returned."""


class TimedRig(Rig):
    """A rig that knows when the drain began."""

    drain_began = float("inf")

    def observe(self, record: Record) -> None:
        super().observe(record)
        if isinstance(record, DrainStarted):
            self.drain_began = anyio.current_time()


class Log:
    """What handlers did: starts with their times, and effects."""

    def __init__(self) -> None:
        self.starts: list[tuple[float, str]] = []
        self.effects: list[str] = []
        self.attempts: dict[str, int] = {}

    def start(self, *events: Event[Any]) -> None:
        now = anyio.current_time()
        for event in events:
            self.starts.append((now, event.message_id))
            self.attempts[event.message_id] = event.attempt

    def effect(self, *events: Event[Any]) -> None:
        self.effects += [event.message_id for event in events]


class One(Handler[Data]):
    """Does what its event says: `seconds` of work, then a failure while `attempt` is at most `fails`."""

    types = ("one",)
    concurrency = 4

    def __init__(self, log: Log) -> None:
        self.log = log
        self.transient_left: dict[str, int] = {}

    async def handle(self, event: Event[Data]) -> None:
        first = event.message_id not in self.log.attempts
        self.log.start(event)
        await anyio.sleep(event.data.get("seconds", 0.3) if first else 0.1)
        left = self.transient_left.setdefault(event.message_id, event.data.get("down", 0))
        if left:
            self.transient_left[event.message_id] -= 1
            raise ConnectionError("down")
        if event.attempt <= event.data.get("fails", 0):
            raise ValueError("bad event")
        self.log.effect(event)


class Many(BatchHandler[Data]):
    """Raises while one of its events is a bad one."""

    types = ("many",)
    concurrency = 2
    batching = Batching(max_size=5, max_wait=0.5)

    def __init__(self, log: Log) -> None:
        self.log = log

    async def handle(self, batch: Batch[Data]) -> None:
        self.log.start(*batch)
        await anyio.sleep(0.3)
        if any(event.attempt <= event.data.get("fails", 0) for event in batch):
            raise ValueError("bad event")
        self.log.effect(*batch)


def publish_everything(rig: Rig) -> None:
    """Single and batched events, keyed and not; some fail, some find their store down, one outlasts any budget."""
    for n in range(12):
        rig.publish({}, {"down": 2} if n % 4 == 0 else {"seconds": 1.0}, type="one")
        rig.publish({"fails": 9} if n % 5 == 0 else {}, {}, type="many")
        rig.publish({"fails": 1} if n % 3 == 0 else {}, type="one", key="ab"[n % 2])
        rig.publish({"fails": 1} if n == 4 else {}, type="many", key="cd"[n % 2])
    rig.publish({"seconds": 60.0}, type="one")


async def drained(rig: Rig, after: float) -> tuple[Report, float]:
    """Run the rig's worker, drain it `after` seconds, and give its report and how long the drain took."""
    report: list[Report] = []

    async def run() -> None:
        report.append(await rig.worker.run())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await anyio.sleep(after)
        rig.worker.drain()
        started = anyio.current_time()
    return report[0], anyio.current_time() - started


def successor(rig: Rig, *handlers: AnyHandler, **options: Any) -> Rig:
    """Another worker, of another process, at the same broker."""
    other = Rig(*handlers, **options)
    other.worker._adapter.use(rig.broker)  # type: ignore[union-attr]
    other.broker = rig.broker
    return other


async def settled(rig: Rig) -> None:
    """Wait, with longer strides than the rig's, until the broker holds nothing any more."""
    with anyio.fail_after(600):
        while (depth := rig.broker.depth(QUEUE)).ready + depth.delayed + depth.leased:
            await anyio.sleep(0.5)


EVENTS = 73
INSTANTS = [round(0.001 + 0.33 * n, 3) for n in range(20)]
OPTIONS: dict[str, Any] = {"ordering": "key", "drain": BUDGET, "retry": Backoff(attempts=3, maximum=10.0)}


DELAYS = {
    "delayed": {"max_retry_delay": None},
    "parked": {"max_retry_delay": 0.0},
    "parked, then delayed": {"max_retry_delay": 0.0, "nack_delay_max": 5.0},
}


@pytest.mark.parametrize("delays", DELAYS.values(), ids=DELAYS)
@pytest.mark.parametrize("release", ["followers", "hold", "redelivers"])
def test_a_drain_at_any_instant_loses_nothing_and_leaves_nothing_leased(release: Any, delays: dict[str, Any]) -> None:
    """P8: a rollout may come at the worst moment, and no event may be lost to it or wait for a lease to end."""
    for instant in INSTANTS:
        log = Log()
        rig = TimedRig(One(log), Many(log), traits=Traits(key_release=release, **delays), **OPTIONS)
        publish_everything(rig)

        async def scenario(rig: TimedRig = rig, log: Log = log, instant: float = instant) -> None:
            report, seconds = await drained(rig, instant)

            depth = rig.broker.depth(QUEUE)
            assert seconds <= BUDGET + GRACE
            assert depth.leased == 0
            assert sorted(rig.broker.acked_ids) == sorted(log.effects), "a finished handler's event is settled"
            assert depth.ready + depth.delayed + depth.dead + rig.broker.acked == EVENTS
            waiting = {record.message_id for record in rig.of(EventRetried)} if delays != DELAYS["parked"] else set()
            assert depth.delayed <= len(waiting), "only a counted retry waits"
            assert all(at <= rig.drain_began for at, _ in log.starts)
            assert report.released == len(rig.of(EventReleased))
            # Nothing goes back twice; where the source recalls followers by itself, it may be faster than our nack.
            assert release == "redelivers" or rig.broker.counts().stale == 0

            after = successor(rig, One(log), Many(log), traits=rig.broker.settings.traits, **OPTIONS)
            async with after.running():
                await settled(after)
            assert {*log.effects, *rig.dead} == {str(n + 1) for n in range(EVENTS)}

        try:
            on_virtual_time(scenario)
        except AssertionError as exc:
            exc.add_note(f"drained after {instant} s")
            raise


class Long(Handler[Data]):
    """Takes a minute."""

    concurrency = 2

    async def handle(self, event: Event[Data]) -> None:
        await anyio.sleep(60)


def test_stop_cuts_what_runs_at_once() -> None:
    """A second signal: the operator does not want to wait for the budget."""
    rig = Rig(Long(), drain=30.0)
    rig.publish(*[{}] * 5)

    async def scenario() -> tuple[Report, float]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 1)
            report: list[Report] = []

            async def run() -> None:
                report.append(await rig.worker.run())

            tasks.start_soon(run)
            await anyio.sleep(1)
            rig.worker.stop()
        return report[0], anyio.current_time()

    report, ended = on_virtual_time(scenario)

    assert report.cut == 2
    assert not report.clean
    assert ended < 3
    assert rig.broker.depth(QUEUE).ready == 5


def test_cancelling_a_worker_from_outside_drains_it() -> None:
    """A worker inside another program is ended by its task group: its events must go back all the same."""
    rig = Rig(Long(), drain=2.0)
    rig.publish(*[{}] * 5)

    async def scenario() -> None:
        with anyio.move_on_after(1):
            await rig.worker.run()

    on_virtual_time(scenario)

    assert rig.of(DrainStarted)[0].reason == "cancelled"
    depth = rig.broker.depth(QUEUE)
    assert (depth.ready, depth.leased) == (5, 0)
    assert rig.dead == {}


class SlowWire(Faults):
    """A receive whose answer is on its way for a while; notes whether it was cut."""

    def __init__(self) -> None:
        self.answered = 0
        self.cut = 0

    async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
        if call.verb == "receive":
            try:
                await anyio.sleep(1.0)
            except BaseException:
                self.cut += 1
                raise
            self.answered += 1
        return results


def test_a_receive_on_the_wire_is_not_cancelled_and_what_it_brings_goes_back() -> None:
    """The broker has hidden those events already: a cut receive hides them for a whole lease."""
    wire = SlowWire()
    rig = Rig(Long(), faults=wire)
    rig.publish(*[{}] * 5)

    async def scenario() -> None:
        async with rig.running():
            await anyio.sleep(0.5)

    on_virtual_time(scenario)

    assert (wire.cut, wire.answered) == (0, 1)
    assert {record.reason for record in rig.of(EventReleased)} == {"drain"}
    assert rig.broker.depth(QUEUE).ready == 5
    assert rig.broker.counts().expired == 0


class Working(Handler[Data]):
    """Works for as many seconds as its event says."""

    def __init__(self, log: Log) -> None:
        self.log = log

    async def handle(self, event: Event[Data]) -> None:
        self.log.start(event)
        await anyio.sleep(event.data.get("seconds", 0.0))
        self.log.effect(event)


def test_a_handler_that_ends_within_the_budget_is_settled_and_the_worker_ends_with_it() -> None:
    """The budget is a limit, not a wait."""
    log = Log()
    rig = Rig(Working(log), drain=20.0, lease=3.0)

    async def scenario() -> None:
        rig.publish({"seconds": 8.0}, {"seconds": 10.0})
        report, seconds = await drained(rig, after=1.0)

        assert log.effects == rig.broker.acked_ids == ["1", "2"]
        assert 9.0 <= seconds < 9.5
        assert report.clean
        assert (report.handled, report.released, report.cut) == (2, 0, 0)
        assert rig.of(DrainEnded)[0].cut == 0

    on_virtual_time(scenario)


@pytest.mark.parametrize(("release_counts", "attempt"), [(False, 1), (True, 2)])
def test_a_handler_cut_at_the_end_of_the_budget_is_released_uncounted(release_counts: bool, attempt: int) -> None:
    """Its event is not to blame. A source that counts releases shows it to the next process, which knows no better."""
    log = Log()
    rig = Rig(Working(log), drain=5.0, lease=3.0, traits=Traits(release_counts=release_counts))

    async def scenario() -> None:
        rig.publish({"seconds": 60.0}, {"seconds": 3.0})
        report, seconds = await drained(rig, after=1.0)

        assert 5.0 <= seconds < 5.5
        assert not report.clean
        assert (report.handled, report.released, report.cut) == (1, 1, 1)
        assert [record.reason for record in rig.of(EventReleased)] == ["cut by the drain"]
        assert rig.of(DrainEnded)[0].cut == 1
        depth = rig.broker.depth(QUEUE)
        assert (depth.ready, depth.delayed, depth.leased) == (1, 0, 0)

        after = successor(rig, Working(log), max_processing=100.0)
        async with after.running():
            await settled(after)
        assert log.attempts["1"] == attempt

    on_virtual_time(scenario)


def test_a_batch_that_is_searched_when_the_drain_begins_is_given_back_with_what_waits_behind_it() -> None:
    """The call that runs ends; what it stopped, and what was still to be called, must not stay leased."""

    class Searching(BatchHandler[Data]):
        batching = Batching(max_size=8, max_wait=0.1)

        async def handle(self, batch: Batch[Data]) -> None:
            await anyio.sleep(1.0)
            if any(event.data["n"] == 0 for event in batch):
                raise ValueError("bad event")

    for instant in range(1, 9):
        rig = Rig(Searching(), ordering="key")

        async def scenario(rig: Rig = rig, instant: int = instant) -> None:
            for n in range(8):
                rig.publish({"n": n}, key="ab"[n % 2])
            _, seconds = await drained(rig, after=instant)

            depth = rig.broker.depth(QUEUE)
            assert seconds < 1.5
            assert depth.leased == 0
            assert depth.ready + depth.delayed + rig.broker.acked == 8

        on_virtual_time(scenario)


def test_stop_ends_a_drain_that_is_under_way() -> None:
    """The second signal comes in the middle of the first one's budget."""
    rig = Rig(Long(), drain=60.0)

    async def scenario() -> float:
        rig.publish(*[{}] * 3)
        async with rig.running():
            await anyio.sleep(1)
            rig.worker.drain()
            await anyio.sleep(2)
            rig.worker.stop()
            stopped = anyio.current_time()
        return anyio.current_time() - stopped

    assert on_virtual_time(scenario) < 0.5
    assert rig.broker.depth(QUEUE).ready == 3


def test_a_worker_that_is_drained_before_it_runs_takes_nothing() -> None:
    """SIGTERM may come while clients are being opened."""
    rig = Rig(Long())

    async def scenario() -> None:
        rig.publish({})
        rig.worker.drain()
        report = await rig.worker.run()

        assert report == Report(handled=0, skipped=0, dead_lettered=0, retried=0, released=0, cut=0)
        assert rig.broker.depth(QUEUE).ready == 1

    on_virtual_time(scenario)


def test_several_receives_on_the_wire_all_come_in_and_count_nothing() -> None:
    """Each may carry events; a source that does not count releases shows the next worker first attempts."""
    log, wire = Log(), SlowWire()
    limits = Limits(receive=4, concurrent_receives=3)
    rig = Rig(Working(log), faults=wire, limits=limits, traits=Traits(release_counts=False))

    async def scenario() -> None:
        rig.publish(*[{}] * 12)
        report, _ = await drained(rig, after=0.5)

        assert (wire.cut, wire.answered) == (0, 3)
        assert log.starts == []
        assert report.released == 12

        after = successor(rig, Working(log))
        async with after.running():
            await settled(after)
        assert log.attempts == {str(n): 1 for n in range(1, 13)}

    on_virtual_time(scenario)


def test_a_receive_waits_for_a_quarter_of_the_drain_budget_at_most() -> None:
    """A source that cannot end its long poll early must not use up the time of the handlers."""
    waits: list[float] = []

    class DeafSource(MemorySource):
        """Does not hear `stop`: a long poll runs its time."""

        async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
            waits.append(wait)
            await anyio.sleep(wait)
            return []

    rig = Rig(Working(Log()), drain=8.0, wait=20.0, dead_letter="discard")
    wire = rig.broker._wire(QUEUE)

    class DeafAdapter(MemoryAdapter):
        @asynccontextmanager
        async def open_source(self, address: Address, demand: Demand) -> AsyncIterator[MemorySource]:
            yield DeafSource(wire, 1, demand)

    rig.worker._adapter = DeafAdapter()

    async def scenario() -> None:
        _, seconds = await drained(rig, after=0.5)
        assert seconds <= 2.0

    on_virtual_time(scenario)
    assert set(waits) == {2.0}
