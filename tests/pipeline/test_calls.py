"""Calling handlers: outcomes, contexts, timeouts and cancellation."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest

from eventkit import Batch, BatchHandler, Batching, Event, Handler, Reject, Retry, Skip, cleanup
from eventkit._policies.backoff import Backoff
from eventkit._telemetry.records import EventDeadLettered, EventRetried, EventSkipped, HandlerStuck, WorkerWarning
from eventkit.spi import Traits
from eventkit.testing import Kind
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

QUICK = Backoff(initial=0.1, maximum=0.5, attempts=3)


class Recorder(Handler[dict[str, str]]):
    """Notes every run and does what the event says."""

    concurrency = 1

    def __init__(self) -> None:
        self.runs: list[tuple[str, int]] = []

    async def handle(self, event: Event[dict[str, str]]) -> Retry | Reject | Skip | None:
        self.runs.append((event.message_id, event.attempt))
        match event.data.get("do"):
            case "raise":
                raise ValueError("no such quake")
            case "return skip":
                return Skip("not wanted")
            case "raise reject":
                raise Reject("no good")
            case "retry":
                return Retry(after=7.0)
            case "exit":
                raise SystemExit(3)
        return None


def test_an_event_is_acked_only_after_its_handler_returned() -> None:
    """P2: a crash between the two must bring the event back, never lose it."""
    seen: list[int] = []

    class Slow(Handler[dict[str, str]]):
        async def handle(self, event: Event[dict[str, str]]) -> None:
            await anyio.sleep(5)
            seen.append(rig.broker.acked)

    async def scenario() -> None:
        rig.publish({}, {})
        async with rig.running():
            await rig.until_settled()

    rig = Rig(Slow())
    on_virtual_time(scenario)

    assert seen == [0, 0]
    assert rig.broker.acked == 2


def test_each_outcome_settles_its_event_in_its_own_way() -> None:
    """The outcomes are the vocabulary of handlers: each must do what section 3 says."""
    handler = Recorder()
    rig = Rig(handler, retry=QUICK)

    async def scenario() -> None:
        rig.publish({}, {"do": "return skip"}, {"do": "raise reject"}, {"do": "raise"})
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)

    assert rig.changes(Kind.ACKED) == ["1", "2"]
    assert rig.dead == {"3": "no good", "4": "attempts"}
    assert [record.reason for record in rig.of(EventSkipped)] == ["not wanted"]
    assert [run for run in handler.runs if run[0] == "4"] == [("4", 1), ("4", 2), ("4", 3)]


def test_a_retry_after_is_honoured_and_counted() -> None:
    """`Retry(after=…)` overrides the backoff, but is an attempt like any other."""
    handler = Recorder()
    rig = Rig(handler, retry=QUICK)

    async def scenario() -> float:
        rig.publish({"do": "retry"})
        async with rig.running():
            await rig.until_settled()
        return anyio.current_time()

    on_virtual_time(scenario)

    assert [record.delay for record in rig.of(EventRetried)] == [7.0, 7.0]
    delivered = [change.at for change in rig.broker.history if change.kind is Kind.DELIVERED]
    assert [round(b - a) for a, b in pairwise(delivered)] == [7, 7]
    assert rig.dead == {"1": "attempts"}


def test_a_handler_that_raises_system_exit_does_not_take_the_worker_down() -> None:
    """Otherwise one poison event would end one worker after the other (P4)."""
    handler = Recorder()
    rig = Rig(handler, retry=QUICK)

    async def scenario() -> None:
        rig.publish({"do": "exit"}, {})
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)

    assert rig.dead == {"1": "attempts"}
    assert rig.changes(Kind.ACKED) == ["2"]


def test_what_one_event_binds_is_not_seen_by_the_next() -> None:
    """P10: a context variable bound for one event must not appear in another's logs."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("customer", default="nobody")
    seen: list[str] = []

    class Binding(Handler[dict[str, str]]):
        concurrency = 1

        async def handle(self, event: Event[dict[str, str]]) -> None:
            seen.append(variable.get())
            variable.set(event.id)
            await anyio.sleep(0.1)
            seen.append(variable.get())

    async def scenario() -> None:
        rig.publish({}, {}, {})
        async with rig.running():
            await rig.until_settled()

    rig = Rig(Binding())
    on_virtual_time(scenario)

    assert seen == ["nobody", "1", "nobody", "2", "nobody", "3"]


def test_a_hanging_handler_times_out_as_an_item_shaped_failure() -> None:
    """A hanging event must not live for ever: its timeouts count, and at the last it is dead-lettered."""

    class Hanging(Handler[dict[str, str]]):
        timeout = 3.0

        async def handle(self, event: Event[dict[str, str]]) -> None:
            await anyio.sleep_forever()

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until_settled()

    rig = Rig(Hanging(), retry=QUICK)
    on_virtual_time(scenario)

    assert rig.dead == {"1": "attempts"}
    assert {record.error for record in rig.of(EventRetried)} == {"eventkit.errors.HandlerTimeout"}
    assert rig.of(EventDeadLettered)[0].error == "eventkit.errors.HandlerTimeout"


def test_a_timeout_raised_by_user_code_is_an_outage_and_not_the_frameworks_own() -> None:
    """A slow database behind every handler must not dead-letter what is in the queue."""
    calls = 0

    class Waiting(Handler[dict[str, str]]):
        async def handle(self, event: Event[dict[str, str]]) -> None:
            nonlocal calls
            calls += 1
            if calls <= 4:
                with anyio.fail_after(1):
                    await anyio.sleep_forever()

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until_settled()

    rig = Rig(Waiting(), retry=QUICK)
    on_virtual_time(scenario)

    assert rig.dead == {}
    assert rig.broker.counts().delivered == 1


def test_a_late_cancel_does_not_hit_the_next_event() -> None:
    """A slot is used again and again: a cancel meant for one call must never reach another."""
    ends: list[str] = []

    class Tight(Handler[dict[str, str]]):
        concurrency = 1
        timeout = 1.0

        async def handle(self, event: Event[dict[str, str]]) -> None:
            await anyio.sleep(1.0 if event.data else 0.5)
            ends.append(event.id)

    async def scenario() -> None:
        rig.publish(*[{"late": "x"}, {}] * 20)
        async with rig.running():
            await rig.until(lambda: sum(int(end) % 2 == 0 for end in ends) == 20)

    rig = Rig(Tight(), retry=Backoff(initial=0, maximum=0, attempts=50))
    on_virtual_time(scenario)

    assert not [record for record in rig.of(EventRetried) if int(record.message_id) % 2 == 0]


@pytest.mark.parametrize("swallow", [True, False])
def test_a_handler_cut_by_the_drain_is_released_even_if_it_swallows_the_cancellation(swallow: bool) -> None:
    """Cancellation is never success (the effect was cut) and never failure (the event is not to blame)."""

    class Stubborn(Handler[dict[str, str]]):
        async def handle(self, event: Event[dict[str, str]]) -> None:
            try:
                await anyio.sleep(100)
            except BaseException:  # noqa: BLE001 - what must not be done
                if not swallow:
                    raise RuntimeError("wrapped") from None

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await anyio.sleep(1)

    rig = Rig(Stubborn(), drain=2.0)
    on_virtual_time(scenario)

    assert rig.broker.acked == 0
    assert rig.dead == {}
    assert rig.broker.depth(QUEUE).ready == 1


def test_a_handler_that_never_ends_is_reported_at_the_end_of_the_drain() -> None:
    """The process cannot end by itself then: whoever runs it must learn why."""
    abandoned: list[bool] = []
    release = anyio.Event()

    class Endless(Handler[dict[str, str]]):
        async def handle(self, event: Event[dict[str, str]]) -> None:
            with anyio.CancelScope(shield=True):
                await release.wait()

    async def scenario() -> None:
        rig.publish({})
        async with anyio.create_task_group() as tasks:

            def abandon() -> None:
                abandoned.append(True)
                release.set()

            async def work() -> None:
                await rig.worker.run(abandon=abandon)

            tasks.start_soon(work)
            await anyio.sleep(1)
            rig.worker.drain()

    rig = Rig(Endless(), drain=1.0)
    on_virtual_time(scenario)

    assert abandoned == [True]
    assert rig.of(HandlerStuck)[0].handler == "Endless"


class Pool:
    """Connections as a driver hands them out: a rollback and a return are awaits, which a cancellation cuts."""

    def __init__(self) -> None:
        self.open_transactions = 0
        self.free = anyio.Semaphore(1)

    @asynccontextmanager
    async def transaction(self, *, shielded: bool) -> AsyncIterator[None]:
        async with self.free:
            self.open_transactions += 1
            try:
                yield
            except BaseException:
                if shielded:
                    async with cleanup():
                        await self.rollback()
                else:
                    await self.rollback()
                raise
            await self.rollback()

    async def rollback(self) -> None:
        await anyio.sleep(2)
        self.open_transactions -= 1


@pytest.mark.parametrize("shielded", [True, False])
def test_a_rollback_survives_cancellation_only_inside_cleanup(shielded: bool) -> None:
    """A connection goes back to its pool in the middle of a transaction otherwise: `cleanup` is the documented way."""
    pool = Pool()

    class Tidy(Handler[dict[str, str]]):
        timeout = 1.0

        async def handle(self, event: Event[dict[str, str]]) -> None:
            async with pool.transaction(shielded=shielded):
                await anyio.sleep_forever()

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until_settled()

    rig = Rig(Tidy(), retry=Backoff(attempts=1))
    on_virtual_time(scenario)

    assert pool.open_transactions == (0 if shielded else 1)
    assert rig.dead == {"1": "attempts"}


def test_clean_up_is_not_shielded_for_ever() -> None:
    """A rollback on a dead connection must not keep a drain: past its limit it is cut, and says so."""

    class Endless(Handler[dict[str, str]]):
        timeout = 1.0

        async def handle(self, event: Event[dict[str, str]]) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                async with cleanup(seconds=3):
                    await anyio.sleep_forever()

    async def scenario() -> float:
        rig.publish({})
        async with rig.running():
            await rig.until_settled()
        return anyio.current_time()

    rig = Rig(Endless(), retry=Backoff(attempts=1))

    assert on_virtual_time(scenario) < 5
    assert rig.dead == {"1": "attempts"}


def test_a_retry_longer_than_the_source_can_delay_is_clamped_with_a_warning() -> None:
    """Better late than a refusal by the broker, but nobody should wonder why."""
    rig = Rig(Recorder(), traits=Traits(max_retry_delay=5.0, key_release="hold"), retry=QUICK)

    async def scenario() -> None:
        rig.publish({"do": "retry"})
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)

    assert [record.delay for record in rig.of(EventRetried)] == [5.0, 5.0]
    assert "cannot delay a retry by 7 s" in rig.of(WorkerWarning)[0].warning


async def test_a_plain_def_handler_runs_in_a_thread_with_its_own_context() -> None:
    """Blocking code must not block the loop, and P10 holds there too."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("customer", default="nobody")
    seen: list[tuple[str, bool]] = []

    class Blocking(Handler[dict[str, str]]):
        concurrency = 1

        def handle(self, event: Event[dict[str, str]]) -> None:
            seen.append((variable.get(), threading.current_thread() is threading.main_thread()))
            variable.set(event.id)

    rig = Rig(Blocking())
    rig.publish({}, {}, {})
    async with rig.running():
        await rig.until_settled(10)

    assert seen == [("nobody", False)] * 3


async def test_a_thread_keeps_its_slot_until_it_returns_and_its_result_counts() -> None:
    """A thread cannot be stopped: the timeout must neither free its slot nor drop an effect that happened."""
    running = 0
    most = 0

    class Blocking(Handler[dict[str, str]]):
        concurrency = 2
        timeout = 0.1

        def handle(self, event: Event[dict[str, str]]) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            time.sleep(0.3)
            running -= 1

    rig = Rig(Blocking())
    rig.publish(*[{}] * 6)
    async with rig.running():
        await rig.until_settled(10)

    assert most == 2
    assert rig.broker.acked == 6
    assert rig.of(EventRetried) == []


async def test_a_plain_wrapper_around_an_async_handler_is_awaited() -> None:
    """Decorators often return a plain function: its coroutine must not be dropped unseen."""
    done: list[str] = []

    class Wrapped(Handler[dict[str, str]]):
        def handle(self, event: Event[dict[str, str]]) -> Awaitable[None]:
            async def inner() -> None:
                await anyio.lowlevel.checkpoint()
                done.append(event.id)

            return inner()

    rig = Rig(Wrapped())
    rig.publish({})
    async with rig.running():
        await rig.until_settled(10)

    assert done == ["1"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_worker_runs_on_both_backends(backend: str) -> None:
    """Anyio only: nothing may rest on asyncio."""

    class Count(BatchHandler[dict[str, str]]):
        batching = Batching(max_size=10, max_wait=0.01)

        async def handle(self, batch: Batch[dict[str, str]]) -> None:
            await anyio.sleep(0.001)
            if any(event.data for event in batch):
                raise ValueError("bad")

    async def scenario() -> None:
        rig.publish(*[{}] * 30, {"bad": "x"})
        async with rig.running():
            await rig.until_settled(10)

    rig = Rig(Count(), Recorder2(), retry=QUICK)
    anyio.run(scenario, backend=backend)

    assert rig.broker.acked == 30
    assert rig.dead == {"31": "attempts"}


class Recorder2(Handler[bytes]):
    """Takes another type, so that two routes exist."""

    types = ("other",)

    async def handle(self, event: Event[bytes]) -> None:
        """Do nothing."""
