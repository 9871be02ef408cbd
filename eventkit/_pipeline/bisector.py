"""Running a `BatchHandler`: calls on ever smaller groups until every event is decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio

from eventkit._event import Batch, Event
from eventkit._pipeline.executor import Cause, Slot
from eventkit._pipeline.inflight import GONE, HELD, RUNNING, InFlight
from eventkit._pipeline.single import cancelled_from_outside, probe_result, timed_out
from eventkit._policies.bisect import Bisection
from eventkit._policies.failure import Failure
from eventkit._policies.gate import ProbeResult
from eventkit._policies.letter import describe_error
from eventkit._telemetry.context import current_event
from eventkit._telemetry.observer import Fanout
from eventkit._telemetry.records import BatchBisected, HandlerFailed
from eventkit.errors import BatchFailure, HandlerSignal

if TYPE_CHECKING:
    from eventkit._pipeline.flow import Flow
    from eventkit._pipeline.judge import Judge
    from eventkit._pipeline.lanes import Lanes
    from eventkit._pipeline.leases import Keeper
    from eventkit._pipeline.routes import BatchRoute

__all__ = ["BatchRunner"]


class _Run:
    """One batch on its way through its calls."""

    __slots__ = ("entries", "failed", "plan", "stopped")

    def __init__(self, entries: Sequence[InFlight], plan: Bisection) -> None:
        self.entries = entries
        self.plan = plan
        self.failed = 0
        self.stopped = ""

    @property
    def untested(self) -> list[InFlight]:
        return [self.entries[i] for i in self.plan.untested]

    def positions(self, entries: Sequence[InFlight]) -> set[int]:
        numbers = {entry.number for entry in entries}
        return {i for i, entry in enumerate(self.entries) if entry.number in numbers}

    def abandon(self) -> list[InFlight]:
        """Plan no more calls; the events that were still to be called."""
        rest = [entry for entry in self.untested if entry.state is RUNNING]
        self.plan.remove(self.plan.untested)
        return rest


class BatchRunner:
    """The work of the slots of one `BatchHandler`: one call at a time, a batch in as many as it needs."""

    def __init__(
        self,
        route: BatchRoute,
        *,
        judge: Judge,
        flow: Flow,
        keeper: Keeper,
        lanes: Lanes,
        emit: Fanout,
    ) -> None:
        self._route = route
        self._mode = route.on_raise
        self._judge = judge
        self._flow = flow
        self._keeper = keeper
        self._lanes = lanes
        self._emit = emit
        self._cancelled = anyio.get_cancelled_exc_class()

    async def work(self, slot: Slot) -> bool:
        """Make one call; False when the route is closed."""
        run = slot.job
        if not isinstance(run, _Run):
            entries = await self._route.take()
            if not entries:
                return False
            if not (entries := self._in_time(entries)):
                return True
            run = slot.job = self._begin(slot, entries)
        group = self._next_group(run)
        if group:
            await self._call(slot, run, group)
        else:
            slot.job = None
            self._finish(run)
        return True

    def suspended(self) -> None:
        """The call that runs has suspended: another slot may go on with the queue."""
        self._route.suspended()

    def _in_time(self, entries: list[InFlight]) -> list[InFlight]:
        """Those with enough time left for a call; the others go back."""
        last = anyio.current_time() + self._flow.spare
        for entry in entries:
            if entry.expires < last and entry.state is HELD:
                self._flow.too_late(entry)
        return [entry for entry in entries if entry.state is HELD]

    def _begin(self, slot: Slot, entries: Sequence[InFlight]) -> _Run:
        for entry in entries:
            entry.state, entry.slot = RUNNING, slot
        singly = len(entries) > 1 and self._route.failure_rate.high
        return _Run(entries, Bisection(len(entries), mode=self._mode, singly=singly))

    def _next_group(self, run: _Run) -> list[InFlight]:
        """The events of the next call; empty when all are decided, or must be left."""
        if run.plan.calls and self._judge.draining:
            for entry in run.abandon():
                self._judge.released(entry, "drain")
        while (indexes := run.plan.next()) is not None:
            group = [entry for i in indexes if (entry := run.entries[i]).state is RUNNING]
            if run.plan.calls > 1:
                group = self._without_expired(group)
            if self._lanes.ordered:
                group = self._without_overtaking(group)
            if group:
                if len(group) < len(indexes):
                    run.plan.narrow(run.positions(group))
                return group
        return []

    def _without_expired(self, group: list[InFlight]) -> list[InFlight]:
        now = anyio.current_time()
        for entry in group:
            if entry.expires <= now:
                self._judge.suspected(entry)
        return [entry for entry in group if entry.state is RUNNING]

    def _without_overtaking(self, group: list[InFlight]) -> list[InFlight]:
        """An event whose lease was lost, or whose time was over, is to come again: later ones of its key wait."""
        for entry in group:
            if entry.state is RUNNING and self._lanes.stands_back(entry):
                self._flow.probed(entry, ProbeResult.NOTHING)
        return [entry for entry in group if entry.state is RUNNING]

    async def _call(self, slot: Slot, run: _Run, group: Sequence[InFlight]) -> None:
        route = self._route
        batch = Batch([entry.event for entry in group if entry.event is not None])
        deadline = min(anyio.current_time() + route.timeout, *[entry.expires for entry in group])
        slot.begin(group, deadline)
        self._keeper.wake(deadline)
        context = route.context.copy()
        if len(group) == 1:
            context.run(current_event.set, group[0].event)
        error: BaseException | None = None
        try:
            result = await route.invoke(slot, context, batch)
            error = result if isinstance(result, HandlerSignal) else None
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - whatever user code raises is data from here on
            error = exc
        slot.entries = ()
        self._decide(slot, run, group, batch, error)
        # A cancellation is decided above and still goes on: never success, never failure, never swallowed.
        if isinstance(error, self._cancelled) and slot.scope.cancel_called:
            raise error

    def _decide(
        self, slot: Slot, run: _Run, group: Sequence[InFlight], batch: Batch[Any], error: BaseException | None
    ) -> None:
        """No await in here: a call's end and its outcomes are one step."""
        marks = batch.marks
        if isinstance(error, BatchFailure):
            marks, error = _named(batch, error)
        if slot.cause is not None and (slot.interrupted or isinstance(error, self._cancelled)):
            error = _cut(slot.cause, self._route.name, self._route.timeout)
        elif isinstance(error, self._cancelled) and cancelled_from_outside():
            error = _Cut()
        live = [entry for entry in group if entry.state is RUNNING]
        if len(live) < len(group):
            for entry in group:
                if entry.state is GONE:
                    self._lanes.left(entry)
        if not live:
            return  # every lease of the call was lost meanwhile
        unmarked = [entry for entry in live if entry.event not in marks] if marks else live
        if error is None:
            run.plan.passed()
            self._returned(run, live, unmarked, marks)
        else:
            self._raised(run, live, unmarked, marks, error)

    def _returned(
        self,
        run: _Run,
        live: Sequence[InFlight],
        unmarked: Sequence[InFlight],
        marks: dict[Event[Any], BaseException | None],
    ) -> None:
        self._judge.handled(unmarked)
        failures = self._apply(run, live, marks)
        transient = bool(failures) and not unmarked and all(failure is Failure.TRANSIENT for failure in failures)
        if not transient:
            self._route.successes += 1
        self._flow.called(transient=transient)
        for entry in unmarked:
            if entry.probe:
                self._flow.probed(entry, ProbeResult.HEALTHY)

    def _raised(
        self,
        run: _Run,
        live: Sequence[InFlight],
        unmarked: Sequence[InFlight],
        marks: dict[Event[Any], BaseException | None],
        error: BaseException,
    ) -> None:
        if isinstance(error, _Cut):
            self._apply(run, live, marks)
            for entry in [*unmarked, *run.abandon()]:
                self._judge.released(entry, "cut by the drain")
            return
        failure = self._route.policy.classify(error)
        name, message = describe_error(error)
        if len(live) > 1:
            self._emit(
                HandlerFailed(
                    handler=self._route.name, events=len(live), failure=failure.value, error=name, message=message
                )
            )
        if failure is Failure.TRANSIENT:
            self._outage(run, live, unmarked, marks, error)
        else:
            # First what is left to call: a marked event that failed stops those of its key among it.
            direct = run.plan.failed(run.positions(unmarked), marked=len(unmarked) < len(live))
            for entry in unmarked if direct else ():
                if entry.event is not None:
                    marks[entry.event] = error
            self._apply(run, live, marks)
        self._flow.called(transient=failure is Failure.TRANSIENT, detail=f"{name}: {message}")
        if run.plan.systemic and (rest := run.abandon()):
            run.stopped = "no call succeeded"
            now = anyio.current_time()
            for entry in rest:
                self._judge.park(entry, now, rerun=True)
            detail = (
                f"{name} in {run.plan.calls} calls of {self._route.name}; if it means an outage, add it to `transient`"
            )
            self._flow.close("bisector", detail)

    def _outage(
        self,
        run: _Run,
        live: Sequence[InFlight],
        unmarked: Sequence[InFlight],
        marks: dict[Event[Any], BaseException | None],
        error: BaseException,
    ) -> None:
        """A transient error: nothing is searched, everything waits."""
        rest = run.abandon()
        alone = len(unmarked) == 1
        for entry in live:
            if entry.event in marks:
                self._apply(run, (entry,), marks)
                continue
            probe = entry.probe
            self._judge.transient(entry, error, alone=alone)
            if probe:
                self._flow.probed(entry, ProbeResult.TRANSIENT)
        now = anyio.current_time()
        for entry in rest:
            self._judge.park(entry, now, rerun=True)

    def _apply(
        self, run: _Run, live: Sequence[InFlight], marks: dict[Event[Any], BaseException | None]
    ) -> list[Failure]:
        """Decide the marked events; the classes of those that failed."""
        failures: list[Failure] = []
        if not marks:
            return failures
        for entry in live:
            if entry.event is None or entry.event not in marks:
                continue
            error = marks[entry.event]
            if error is None:
                self._judge.handled((entry,))
                self._flow.probed(entry, ProbeResult.HEALTHY)
            else:
                failures.append(self._route.policy.classify(error))
                run.failed += failures[-1] is not Failure.SKIP
                self._fail(run, entry, error)
        return failures

    def _fail(self, run: _Run, entry: InFlight, error: BaseException) -> None:
        """One event failed; later ones of its key are not called before it is decided."""
        failure = self._route.policy.classify(error)
        if failure is not Failure.SKIP and entry.lane is not None:
            behind = self._lanes.stopped(entry, run.untested)
            run.plan.remove(run.positions(behind))
            if self._judge.draining:
                for follower in behind:
                    if follower.state is HELD:  # it may have gone back with the one before it
                        self._judge.released(follower, "drain")
        probe = entry.probe
        self._judge.failed(entry, error)
        if probe:
            self._flow.probed(entry, probe_result(failure))

    def _finish(self, run: _Run) -> None:
        self._route.failure_rate.add(len(run.entries), run.failed)
        if run.plan.calls > 1:
            self._emit(
                BatchBisected(
                    handler=self._route.name,
                    events=len(run.entries),
                    failed=run.failed,
                    calls=run.plan.calls,
                    stopped=run.stopped,
                )
            )


class _Cut(BaseException):
    """The call was cancelled by a drain: its unmarked events are released."""


def _cut(cause: Cause, handler: str, timeout: float) -> BaseException:
    return timed_out(handler, timeout) if cause is Cause.TIMEOUT else _Cut()


def _named(
    batch: Batch[Any], failure: BatchFailure
) -> tuple[dict[Event[Any], BaseException | None], BaseException | None]:
    """The marks a `BatchFailure` stands for: the named failed, the others are done. An unknown event fails loudly."""
    try:
        for event in failure.failures:
            batch.require(event)
    except ValueError as exc:
        return batch.marks, exc
    return {**dict.fromkeys(batch, None), **batch.marks, **failure.failures}, None
