"""Receiving when the source fails, or has nothing to give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import anyio
import pytest

from eventkit import Event, Handler
from eventkit._telemetry.records import DrainStarted, EventReleased, ReceiveFailed, WorkerStopped
from eventkit.errors import AdapterError, ConnectionLost, SourceNotFound, Throttled
from eventkit.spi import Limits, Settled
from eventkit.testing import Call, Faults
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

Data: TypeAlias = dict[str, Any]


class Receives(Faults):
    """Notes when receives are sent, and raises what `fail` gives for that time."""

    def __init__(self, fail: Callable[[float], AdapterError | None] = lambda _: None) -> None:
        self.fail = fail
        self.times: list[float] = []

    async def before(self, call: Call) -> Mapping[int, Settled]:
        if call.verb == "receive":
            now = anyio.current_time()
            self.times.append(now)
            error = self.fail(now - self.times[0])
            if error is not None:
                raise error
        return {}


class Notes(Handler[Data]):
    """Notes when it started, and takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.starts: list[float] = []
        self.ended = 0

    async def handle(self, event: Event[Data]) -> None:
        self.starts.append(anyio.current_time())
        await anyio.sleep(self.seconds)
        self.ended += 1


def test_a_source_that_fails_for_a_while_is_asked_ever_less_often_and_heals_by_itself() -> None:
    """A provider's outage must neither end the worker nor be made worse by it."""
    receives = Receives(lambda since: ConnectionLost("no route") if since < 300 else None)
    handler = Notes()
    rig = Rig(handler, faults=receives)

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until_settled(400)

    on_virtual_time(scenario)
    failed = rig.of(ReceiveFailed)
    assert handler.ended == 1
    assert 15 <= len(failed) <= 60
    assert max(record.delay for record in failed) > 10
    assert all(record.delay <= 30 for record in failed)
    assert failed[0].error.endswith("ConnectionLost")
    assert all(later - sooner >= 0.05 for sooner, later in pairwise(receives.times[: len(failed)]))


def test_a_source_that_says_when_to_come_back_is_left_alone_until_then() -> None:
    """`retry_after` is the provider's own advice."""
    receives = Receives(lambda since: Throttled("slow down", retry_after=25.0) if since < 1 else None)
    rig = Rig(Notes(), faults=receives)

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)
    assert receives.times[1] - receives.times[0] >= 25.0


def test_what_is_in_hand_goes_on_while_receiving_fails() -> None:
    """An intake that is broken is no reason to stop handling and settling."""
    receives = Receives(lambda since: ConnectionLost("no route") if since > 0 else None)
    handler = Notes(seconds=1.0)
    rig = Rig(handler, faults=receives)

    async def scenario() -> None:
        rig.publish(*[{}] * 30)
        async with rig.running():
            await rig.until_settled(10)

    on_virtual_time(scenario)
    assert handler.ended == 30


def test_a_drain_does_not_wait_for_the_pause_after_a_failed_receive() -> None:
    """The pause may be half a minute, the drain budget is less."""
    rig = Rig(Notes(), faults=Receives(lambda _: Throttled("slow down", retry_after=300.0)))

    async def scenario() -> float:
        async with rig.running():
            await anyio.sleep(10)
            drained = anyio.current_time()
        return anyio.current_time() - drained

    assert on_virtual_time(scenario) < 1


@pytest.mark.parametrize("concurrent", [1, 3])
def test_a_source_that_is_gone_for_good_drains_the_worker_and_is_raised(concurrent: int) -> None:
    """What runs may finish and settle; whoever runs the worker learns why it ended, by the exception's class."""
    receives = Receives(lambda since: SourceNotFound("queue events was deleted") if since > 0 else None)
    handler = Notes(seconds=3.0)
    rig = Rig(handler, faults=receives, limits=Limits(receive=5, concurrent_receives=concurrent))

    async def scenario() -> None:
        rig.publish(*[{}] * 5)
        with pytest.raises(SourceNotFound, match="queue events was deleted"):
            await rig.worker.run()

    on_virtual_time(scenario)
    assert handler.ended == rig.broker.acked == 5
    assert rig.broker.depth(QUEUE).leased == 0
    assert "SourceNotFound" in rig.of(DrainStarted)[0].reason
    [stopped] = rig.of(WorkerStopped)
    assert not stopped.clean
    assert stopped.error.endswith("SourceNotFound")


@pytest.mark.parametrize("concurrent", [1, 3])
def test_a_source_that_answers_at_once_with_nothing_does_not_spin(concurrent: int) -> None:
    """Not every source waits; a loop that asks thousands of times a second would cost money and a core."""
    receives = Receives()
    handler = Notes()
    rig = Rig(handler, faults=receives, wait=0.0, limits=Limits(concurrent_receives=concurrent))

    async def scenario() -> None:
        async with rig.running():
            await anyio.sleep(10)
            assert len(receives.times) <= 40 * concurrent
            rig.publish({})
            published = anyio.current_time()
            await rig.until_settled()
            assert handler.starts[0] - published <= 0.5

    on_virtual_time(scenario)


def test_a_source_that_cannot_cope_is_asked_by_one_receive_until_it_answers() -> None:
    """Eight at a time may be what it cannot cope with: all time out, and none ever gets anything."""

    class Slow(Receives):
        """Answers one receive at a time, and lets the others wait for too long."""

        def __init__(self) -> None:
            super().__init__()
            self.waiting = 0

        async def before(self, call: Call) -> Mapping[int, Settled]:
            if call.verb != "receive":
                return {}
            self.waiting += 1
            try:
                await anyio.sleep(2.0)
                if self.waiting > 1:
                    raise ConnectionLost("no answer in time")
            finally:
                self.waiting -= 1
            return {}

    handler = Notes()
    rig = Rig(handler, faults=Slow(), limits=Limits(receive=10, concurrent_receives=8))

    async def scenario() -> float:
        rig.publish(*[{}] * 500)
        began = anyio.current_time()
        async with rig.running():
            await rig.until_settled(2000)
        return anyio.current_time() - began

    assert on_virtual_time(scenario) < 200
    assert handler.ended == 500
    assert len(rig.of(ReceiveFailed)) < 100


def test_an_empty_source_is_asked_by_one_receive_at_a_time_and_a_full_one_by_all() -> None:
    """Each poll of an empty queue is billed, and tells no more than the one beside it."""
    receives = Receives()
    rig = Rig(Notes(seconds=1.0), faults=receives, wait=5.0, limits=Limits(receive=2, concurrent_receives=4))

    async def scenario() -> int:
        async with rig.running():
            await anyio.sleep(60)
            idle = len(receives.times)
            assert idle <= 4 + 60 / 5
            rig.publish(*[{}] * 400)
            await rig.until_settled()
        return len(receives.times) - idle

    assert on_virtual_time(scenario) >= 200


def test_a_source_with_something_to_give_is_asked_without_pause() -> None:
    """The brake is for empty answers only."""
    receives = Receives()
    handler = Notes()
    rig = Rig(handler, faults=receives, wait=0.0, limits=Limits(receive=1))

    async def scenario() -> float:
        rig.publish(*[{}] * 200)
        started = anyio.current_time()
        async with rig.running():
            await rig.until_settled()
        return anyio.current_time() - started

    assert on_virtual_time(scenario) < 1


def test_an_event_whose_lease_ended_on_the_way_is_not_handled() -> None:
    """A reply may come so late that the lease is over: the event belongs to somebody else by then."""

    class Late(Faults):
        def __init__(self) -> None:
            self.first = True

        async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
            if call.verb == "receive" and results and self.first:
                self.first = False
                await anyio.sleep(40)
            return results

    handler = Notes()
    rig = Rig(handler, faults=Late(), lease=10.0)

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until_settled(60)

    on_virtual_time(scenario)
    assert handler.ended == 1
    assert rig.broker.counts().stale == 0
    assert rig.of(EventReleased) == []
