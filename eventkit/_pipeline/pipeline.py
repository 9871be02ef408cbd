"""The stages wired together, and the drain that takes them down in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

import anyio
from anyio.abc import TaskGroup

from eventkit._codec import Codec
from eventkit._config import Options
from eventkit._pipeline.bisector import BatchRunner
from eventkit._pipeline.calls import Calls
from eventkit._pipeline.counters import Counters
from eventkit._pipeline.executor import Cause, Slot, Work
from eventkit._pipeline.flow import Flow
from eventkit._pipeline.inflight import PARKED, Table
from eventkit._pipeline.judge import Judge
from eventkit._pipeline.lanes import Lanes
from eventkit._pipeline.leases import Keeper
from eventkit._pipeline.receiver import Admission, Receiver
from eventkit._pipeline.routes import BatchRoute, Route, RouteTable, SingleRoute
from eventkit._pipeline.settler import Settler
from eventkit._pipeline.single import SingleRunner
from eventkit._pipeline.wakeup import Waiters
from eventkit._policies.gate import Gate, GateOptions
from eventkit._policies.history import History
from eventkit._telemetry.observer import Fanout
from eventkit._telemetry.records import DrainEnded, DrainStarted, HandlerStuck, Summary
from eventkit.errors import PermanentAdapterError
from eventkit.spi import Sink, Source

__all__ = ["Pipeline"]

LOOK = 0.01
"""Seconds between two looks at whether a drain is done."""

FLUSH = 4.0
"""Seconds after the drain budget in which cut handlers end and the last settlements are sent."""

SUMMARY_EVERY = 60.0


class Pipeline:
    """Everything between a source and the handlers, from `run` to the end of the drain.

    Its constructor is long because it is the one place that knows every stage.
    """

    def __init__(
        self,
        *,
        source: Source,
        letters_to: Sink | Literal["native", "discard"],
        routes: Sequence[Route],
        history: History,
        codec: Codec,
        options: Options,
        emit: Fanout,
        rng: Random,
        wall: Callable[[], float],
    ) -> None:
        self.counters = Counters()
        self.failure: PermanentAdapterError | None = None
        self.cut = 0
        self.stuck = False
        self._options = options
        self._routes = routes
        self._emit = emit
        self._drain_asked = anyio.Event()
        self._drain_reason = ""
        self._hurried = False
        self._receives = source.info.limits.concurrent_receives
        table = self._table = Table()
        room = Waiters()
        slots: list[Slot] = []
        self._slots = slots
        calls = self._calls = Calls()
        keeper = self._keeper = Keeper(
            source=source, table=table, slots=slots, emit=emit, calls=calls, lease=options.lease
        )
        judge = self._judge = Judge(
            info=source.info,
            table=table,
            history=history,
            counters=self.counters,
            emit=emit,
            retry=options.retry,
            max_parked=options.limits.parked,
            longest_delay=options.longest_delay(source.info),
            rng=rng,
            wall=wall,
        )
        flow = Flow(
            gate=Gate(GateOptions()),
            table=table,
            routes=routes,
            room=room,
            emit=emit,
            rng=rng,
            max_processing=options.max_processing,
            wake_keeper=keeper.wake,
        )
        lanes = self._lanes = Lanes(
            ordered=options.ordering == "key",
            on_key_failure=options.on_key_failure,
            traits=source.info.traits,
            offer=flow.offer,
            release=judge.released,
            clock=anyio.current_time,
        )
        settler = self._settler = Settler(
            source=source,
            letters_to=letters_to,
            table=table,
            history=history,
            counters=self.counters,
            room=room,
            emit=emit,
            calls=calls,
        )
        # The stages know one another in both directions; these are the ways back.
        judge.lanes, judge.settler, judge.flow = lanes, settler, flow
        keeper.judge = flow.judge = settler.judge = judge
        keeper.flow, flow.lanes = flow, lanes
        for route in routes:
            work = self._runner(route, judge, flow, keeper, lanes)
            slots.extend(Slot(work) for _ in range(route.handler.concurrency))
        admission = Admission(
            table=table,
            history=history,
            codec=codec,
            routes=RouteTable(routes),
            lanes=lanes,
            judge=judge,
            flow=flow,
            keeper=keeper,
            max_processing=options.max_processing,
            unroutable=options.unroutable,
        )
        self._receiver = Receiver(
            source=source,
            admission=admission,
            table=table,
            flow=flow,
            room=room,
            counters=self.counters,
            emit=emit,
            rng=rng,
            limits=options.limits,
            wait=options.receive_wait,
        )

    def _runner(self, route: Route, judge: Judge, flow: Flow, keeper: Keeper, lanes: Lanes) -> Work:
        if isinstance(route, BatchRoute):
            return BatchRunner(route, judge=judge, flow=flow, keeper=keeper, lanes=lanes, emit=self._emit)
        assert isinstance(route, SingleRoute), "a route is one of the two"
        return SingleRunner(route, judge=judge, flow=flow, keeper=keeper)

    def drain(self, reason: str) -> None:
        """Take no more events and end once those in hand are decided. Idempotent; the first reason stands."""
        if not self._drain_asked.is_set():
            self._drain_reason = reason
            self._drain_asked.set()

    def hurry(self) -> None:
        """Cut the running handlers now instead of at the end of the drain budget."""
        self.drain("stopped")
        self._hurried = True

    async def run(self, abandon: Callable[[], None]) -> None:
        """Run until drained. `abandon` is called when handlers survive their cancellation: it may end the process."""
        async with anyio.create_task_group() as tasks:
            self._start(tasks)
            await self._drain_asked.wait()
            await self._drain()
            if self.stuck:
                abandon()
            self._receiver_scope.cancel()
            for route in self._routes:
                route.close()
            self._keeper.stop()
            self._settler.close()
            self._summary_scope.cancel()

    def _start(self, tasks: TaskGroup) -> None:
        self._receiver_scope, self._summary_scope = anyio.CancelScope(), anyio.CancelScope()
        tasks.start_soon(self._keeper.keep, name="eventkit keeper")
        tasks.start_soon(self._keeper.extend, name="eventkit extender")
        self._settler.start(tasks)
        for slot in self._slots:
            tasks.start_soon(slot.serve, name="eventkit slot")
        tasks.start_soon(self._receive, name="eventkit receiver")
        tasks.start_soon(self._summarise, name="eventkit summary")

    async def _receive(self) -> None:
        with self._receiver_scope:
            async with anyio.create_task_group() as tasks:
                for _ in range(self._receives):
                    tasks.start_soon(self._receive_one)

    async def _receive_one(self) -> None:
        try:
            await self._receiver.run()
        except PermanentAdapterError as exc:
            self.failure = exc
            self.drain(f"the source failed: {type(exc).__name__}")

    async def _drain(self) -> None:
        started = anyio.current_time()
        running = sum(bool(slot.entries) for slot in self._slots)
        budget = self._options.drain
        self._emit(
            DrainStarted(
                reason=self._drain_reason, running=running, held=len(self._table.entries) - running, budget=budget
            )
        )
        self._judge.draining = True
        self._receiver.stop()
        self._give_back()
        await self._until_done(started + budget, stop_early=True)
        self._cut_calls()
        self._calls.end_by(anyio.current_time() + FLUSH)
        await self._until_done(anyio.current_time() + FLUSH)
        self.stuck = self._report_stuck()
        self._emit(DrainEnded(seconds=anyio.current_time() - started, cut=self.cut))

    def _give_back(self) -> None:
        """Everything that has not started goes back at once."""
        for entry in [*(e for route in self._routes for e in route.halt()), *self._lanes.halt()]:
            self._judge.released(entry, "drain")
        for entry in list(self._table.entries.values()):
            if entry.state is PARKED:
                self._judge.released(entry, "drain")

    def _cut_calls(self) -> None:
        for slot in self._slots:
            if slot.entries:
                self.cut += 1
                slot.cancel(Cause.DRAIN)

    async def _until_done(self, deadline: float, *, stop_early: bool = False) -> None:
        while anyio.current_time() < deadline and not (stop_early and self._hurried):
            busy = any(slot.entries or slot.job for slot in self._slots)
            if not busy and not self._table.entries and not self._receiver.receiving:
                return
            await anyio.sleep(LOOK)

    def _report_stuck(self) -> bool:
        stuck = [slot for slot in self._slots if slot.entries]
        for slot in stuck:
            route = slot.entries[0].route
            self._emit(
                HandlerStuck(handler=route.name if route else "", events=len(slot.entries), cause=Cause.DRAIN.value)
            )
        return bool(stuck)

    async def _summarise(self) -> None:
        before = Counters()
        started = anyio.current_time()
        with self._summary_scope:
            while True:
                await anyio.sleep(SUMMARY_EVERY)
                now = anyio.current_time()
                self._emit(self._summary(before, now - started))
                before, started = self.counters.copy(), now
        self._emit(self._summary(before, anyio.current_time() - started))

    def _summary(self, before: Counters, seconds: float) -> Summary:
        return Summary(
            seconds=seconds, in_flight=self._table.held, parked=self._table.parked, **self.counters.since(before)
        )
