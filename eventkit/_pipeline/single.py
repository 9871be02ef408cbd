"""Running a `Handler`: one event, one call, one outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from eventkit._pipeline.executor import Cause, Slot
from eventkit._pipeline.inflight import GONE, RUNNING, InFlight
from eventkit._policies.failure import Failure
from eventkit._policies.gate import ProbeResult
from eventkit._policies.letter import describe_error
from eventkit._telemetry.context import current_event
from eventkit.errors import HandlerSignal, HandlerTimeout

if TYPE_CHECKING:
    from eventkit._pipeline.flow import Flow
    from eventkit._pipeline.judge import Judge
    from eventkit._pipeline.leases import Keeper
    from eventkit._pipeline.routes import SingleRoute

__all__ = ["SingleRunner", "cancelled_from_outside", "probe_result", "timed_out"]


class SingleRunner:
    """The work of the slots of one `Handler`."""

    def __init__(self, route: SingleRoute, *, judge: Judge, flow: Flow, keeper: Keeper) -> None:
        self._route = route
        self._judge = judge
        self._flow = flow
        self._keeper = keeper
        self._cancelled = anyio.get_cancelled_exc_class()

    async def work(self, slot: Slot) -> bool:
        """Handle one event; False when the route is closed."""
        route = self._route
        while (entry := route.pop()) is None:
            if route.closed:
                return False
            await route.idle.sleep()
            slot.now = anyio.current_time()
        if entry.expires - slot.now < self._flow.spare:
            self._flow.too_late(entry)
            return True
        deadline = min(slot.now + route.timeout, entry.expires)
        entry.state, entry.slot = RUNNING, slot
        slot.begin((entry,), deadline)
        self._keeper.wake(deadline)
        context = route.context.copy()
        context.run(current_event.set, entry.event)
        error: BaseException | None = None
        result: object = None
        try:
            result = await route.invoke(slot, context, entry.event)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - whatever user code raises is data from here on
            error = exc
        slot.entries = ()
        self._decide(slot, entry, result, error)
        # A cancellation is decided above and still goes on: never success, never failure, never swallowed.
        if isinstance(error, self._cancelled) and slot.scope.cancel_called:
            raise error
        return True

    def suspended(self) -> None:
        """The call that runs has suspended: another slot may go on with the queue."""
        self._route.suspended()

    def _decide(self, slot: Slot, entry: InFlight, result: object, error: BaseException | None) -> None:
        """No await in here: a call's end and its outcome are one step."""
        if entry.state is GONE:
            self._judge.lanes.left(entry)
        if slot.cause is not None and (slot.interrupted or isinstance(error, self._cancelled)):
            self._cut(slot.cause, entry)
        elif entry.state is GONE:
            # The lease was lost while the call ran, or came back from a thread too late.
            self._flow.probed(entry, ProbeResult.NOTHING)
        elif error is None and isinstance(result, HandlerSignal):
            self._failed(entry, result)
        elif error is None:
            self._route.successes += 1
            self._flow.called(transient=False)
            self._judge.handled((entry,))
            if entry.probe:
                self._flow.probed(entry, ProbeResult.HEALTHY)
        elif isinstance(error, self._cancelled) and cancelled_from_outside():
            self._judge.released(entry, "cancelled")
        else:
            self._failed(entry, error)

    def _cut(self, cause: Cause, entry: InFlight) -> None:
        """The call was cancelled by us and felt it, whatever the handler made of that."""
        if entry.state is GONE or cause is Cause.LEASE_LOST:
            self._flow.probed(entry, ProbeResult.NOTHING)
        elif cause is Cause.TIMEOUT:
            self._failed(entry, timed_out(self._route.name, self._route.timeout))
        else:
            self._judge.released(entry, "cut by the drain")

    def _failed(self, entry: InFlight, error: BaseException) -> None:
        failure = self._route.policy.classify(error)
        probe = entry.probe
        self._judge.failed(entry, error)
        self._flow.called(transient=failure is Failure.TRANSIENT, detail=": ".join(describe_error(error)))
        if probe:
            self._flow.probed(entry, probe_result(failure))


def probe_result(failure: Failure) -> ProbeResult:
    """What a failed probe says of the gate: a wish of the handler shows that it works."""
    match failure:
        case Failure.TRANSIENT:
            return ProbeResult.TRANSIENT
        case Failure.ITEM:
            return ProbeResult.ITEM_FAILED
        case Failure.REJECT | Failure.RETRY | Failure.SKIP:
            return ProbeResult.HEALTHY


def timed_out(handler: str, timeout: float) -> HandlerTimeout:
    """The error of a call that was cancelled at its deadline."""
    return HandlerTimeout(f"{handler} ran longer than {timeout:g} s, or to the end of max_processing")


def cancelled_from_outside() -> bool:
    """Whether a scope around this task is cancelled; otherwise the exception is the handler's own making."""
    return anyio.current_effective_deadline() == float("-inf")
