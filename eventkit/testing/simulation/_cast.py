"""The events of a simulated world, and handlers that treat each as its part demands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import msgspec

from eventkit import Batch, BatchFailure, BatchHandler, Batching, Event, Handler, Reject, Retry, Skip
from eventkit._handler import AnyHandler
from eventkit.errors import HandlerSignal
from eventkit.testing.simulation._calls import Call
from eventkit.testing.simulation._engines import start_and_forget
from eventkit.testing.simulation._ledger import Ledger
from eventkit.testing.simulation._switches import HANDLER, SWITCHES
from eventkit.testing.simulation._witness import Fate

if TYPE_CHECKING:
    from eventkit.testing.simulation._life import Life
    from eventkit.testing.simulation._plan import Plan
    from eventkit.testing.simulation._world import World

__all__ = ["MANY", "SINGLE", "Cast", "Part", "handlers"]

SINGLE, MANY = "single.event", "many.event"


class Part(msgspec.Struct, eq=False):
    """How handlers treat one event. `times` is how often it misbehaves, `seconds` how long."""

    role: str = "ok"
    times: int = 0
    seconds: float = 0.0
    partner: int = -1


class BadError(Exception):
    """An item-shaped failure."""


class UglyError(BaseException):
    """What no handler should raise."""


class Cast:
    """Who plays what. `rng` decides the parts before anything runs, and styles and lengths of calls after."""

    def __init__(self, world: World, plan: Plan, ledger: Ledger, rng: Random) -> None:
        self.parts = [_part(world, plan, rng) for _ in range(plan.events)]
        self.outages: list[tuple[float, float]] = []
        if "outage" in plan.faults:
            self.outages = _outages(plan, rng)
        self._world = world
        self._plan = plan
        self._ledger = ledger
        self._rng = rng
        self._counts = [0] * plan.events

    def fate(self, index: int, key: str | None, size: int) -> Fate:
        """An empty record of an event."""
        role = self.parts[index].role
        if role == "hang" and self._plan.handlers == "plain":
            role = "ok"  # what does not wait cannot hang
        bad = role in {"poison", "reject", "undecodable", "unroutable", "hang"}
        good = role in {"ok", "slow", "transient", "partner", "swallow", "leak"}
        return Fate(index, role, key, size, good=good, bad=bad)

    def in_outage(self) -> bool:
        """Whether everything behind the handlers is out of order."""
        now = anyio.current_time()
        return any(start <= now < end for start, end in self.outages)

    # -- the play ------------------------------------------------------------------------------------

    async def play(self, life: Life, events: Sequence[Event[Any]], batch: Batch[Any] | None) -> HandlerSignal | None:
        """Handle these, each by its part; tell the ledger at every turn."""
        life.check()
        ledger = self._ledger
        call = ledger.called(life, events)
        self._world.note(life, "calls", *[fate.index for fate in call.fates])
        try:
            await self._dwell(life, call)
        except anyio.get_cancelled_exc_class():
            self._world.note(life, "is cut at", *[fate.index for fate in call.fates])
            late = ledger.late(call)
            swallowed = await self._swallows(life, call)
            if late:
                ledger.healthy(call)
            for event in events if late and (len(events) == 1 or self._plan.on_raise == "whole") else ():
                ledger.timed_out(life, event)
            if not swallowed:
                raise
            if self._rng.random() < 0.5:
                raise BadError("made of a cancellation") from None
            return None
        else:
            return self._end(call, batch)
        finally:
            ledger.returned(call)

    def play_now(self, life: Life, event: Event[Any]) -> HandlerSignal | None:
        """Handle one event as a plain function, without waiting."""
        life.check()
        call = self._ledger.called(life, (event,))
        self._world.note(life, "calls", call.fates[0].index)
        try:
            return self._end(call, None)
        finally:
            self._ledger.returned(call)

    async def _dwell(self, life: Life, call: Call) -> None:
        """Take as long as the slowest of these, or for ever."""
        parts = [self.parts[fate.index] for fate in call.fates]
        for part in parts:
            if part.role in {"slow", "hang", "leak"}:
                self._world.fired(part.role)
            if part.role == "leak":
                start_and_forget(part.seconds, self._plan.engine)
        await life.sleep(max(math.inf if part.role == "hang" else part.seconds for part in parts))

    async def _swallows(self, life: Life, call: Call) -> bool:
        """Go on in spite of the cancellation, for a while."""
        parts = [part for fate in call.fates if (part := self.parts[fate.index]).role == "swallow"]
        if not parts or self._world.healed or life.dead:
            return False
        self._world.fired("swallow")
        with anyio.CancelScope(shield=True):
            await life.sleep(parts[0].seconds)
        return True

    def _end(self, call: Call, batch: Batch[Any] | None) -> HandlerSignal | None:
        """Say what became of the call. Nothing waits from here on."""
        if self.in_outage():
            self._world.fired("outage")
            self._ledger.outage(call)
            raise ConnectionError("everything is down")
        if batch is None:
            return self._end_one(call, call.events[0])
        return self._end_batch(call, batch)

    def _end_one(self, call: Call, event: Event[Any]) -> HandlerSignal | None:
        error = self._error(call, event, alone=True)
        if not isinstance(error, ConnectionError):
            self._ledger.healthy(call)
        if error is None:
            self._ledger.succeeded(call, event)
            return None
        self._tell(call, event, error)
        if isinstance(error, HandlerSignal) and self._rng.random() < 0.3:
            return error
        raise error

    def _end_batch(self, call: Call, batch: Batch[Any]) -> HandlerSignal | None:
        errors = {event: self._error(call, event, alone=len(batch) == 1) for event in batch}
        failed = {event: error for event, error in errors.items() if error is not None}
        style = self._plan.style if self._plan.style != "mixed" else self._rng.choice(["raise", "mark", "name"])
        if any(self._part_of(event).role == "wrong_marks" and self._once(event) for event in batch):
            self._ledger.healthy(call)
            self._mark_wrongly(batch)
        if any(isinstance(error, ConnectionError) for error in failed.values()):
            self._ledger.outage(call)
            raise ConnectionError("down for one of them")
        self._ledger.healthy(call)
        if not failed or style == "mark":
            return self._mark(call, batch, failed, all_of_them=bool(failed) and self._rng.random() < 0.5)
        if style == "name":
            return self._name(call, errors, failed)
        whole = len(batch) == 1 or self._plan.on_raise == "whole"
        for event, error in failed.items() if not whole else [(event, next(iter(failed.values()))) for event in batch]:
            if whole:
                self._tell(call, event, error)
        raise next(iter(failed.values()))

    def _mark(
        self, call: Call, batch: Batch[Any], failed: dict[Event[Any], BaseException], *, all_of_them: bool
    ) -> HandlerSignal | None:
        """Return, with the failed marked; sometimes with the others marked too, and sometimes raise after all."""
        self._ledger.passed(call)
        for event in batch:
            error = failed.get(event)
            if error is not None:
                self._tell(call, event, error)
                if isinstance(error, Skip):
                    batch.skip(event, error.reason)
                else:
                    batch.fail(event, error)
                continue
            self._ledger.succeeded(call, event)
            if all_of_them:
                batch.done(event)
        if all_of_them and len(batch) > 1 and self._rng.random() < 0.3:
            raise BadError("after every event was marked")
        return None

    def _name(
        self, call: Call, errors: dict[Event[Any], BaseException | None], failed: dict[Event[Any], BaseException]
    ) -> HandlerSignal | None:
        self._ledger.passed(call)
        for event, error in errors.items():
            if error is None:
                self._ledger.succeeded(call, event)
            else:
                self._tell(call, event, error)
        failure = BatchFailure(failed)
        if self._rng.random() < 0.3:
            return failure
        raise failure

    def _mark_wrongly(self, batch: Batch[Any]) -> NoReturn:
        """Name an event of another batch: the framework must refuse it loudly."""
        self._world.fired("wrong_marks")
        for event in batch if len(batch) == 1 or self._plan.on_raise == "whole" else ():
            self._ledger.failed(event)
        stranger: Event[Any] = Event(batch[0].delivery, "stranger", "", "", None)
        if self._rng.random() < 0.5:
            batch.done(stranger)
        raise BatchFailure({stranger: BadError("not of this batch")})

    def _error(self, call: Call, event: Event[Any], *, alone: bool) -> BaseException | None:
        """What is wrong with this event in this call."""
        part = self._part_of(event)
        match part.role:
            case "poison":
                return BadError("poison")
            case "reject":
                return Reject("not good enough")
            case "skip":
                return Skip("not wanted")
            case "retry" if self._once(event):
                return Retry(after=self._rng.choice([None, 0.0, 1.0]))
            case "flaky" | "partial" if self._once(event):
                return BadError(f"{part.role}, for now")
            case "transient" if self._once(event):
                return ConnectionError("down for one event")
            case "follows" if not self._is_decided(part.partner) and self._once(event):
                return BadError("not before another one")
            case "partner" if any(fate.index == part.partner for fate in call.fates) and not alone:
                return BadError("not in this company")
            case "base_exception" if self._once(event):
                return self._rng.choice([UglyError("no Exception at all"), SystemExit(3)])
            case _:
                return None

    def _tell(self, call: Call, event: Event[Any], error: BaseException) -> None:
        """The event fails by itself, by the word of its handler."""
        ledger = self._ledger
        match error:
            case Skip():
                ledger.skipped(event)
            case Reject():
                ledger.rejected(event)
            case ConnectionError():
                ledger.outage(call)
            case _:
                ledger.failed(event)
        self._fired(self._part_of(event).role)

    def _fired(self, role: str) -> None:
        if role in SWITCHES:
            self._world.fired(role)

    def _part_of(self, event: Event[Any]) -> Part:
        return self.parts[self._ledger.fates[event.message_id].index]

    def _is_decided(self, index: int) -> bool:
        return any(fate.index == index and fate.decided for fate in self._ledger.fates.values())

    def _once(self, event: Event[Any]) -> bool:
        """Whether it still misbehaves; that ends after so many times."""
        fate = self._ledger.fates[event.message_id]
        part = self.parts[fate.index]
        if self._counts[fate.index] >= part.times:
            return False
        self._counts[fate.index] += 1
        self._world.fired(part.role)
        return True


def _part(world: World, plan: Plan, rng: Random) -> Part:
    """Draw the part of one event."""
    role = "ok"
    for name in HANDLER:
        # Drawn for every role, so that one more or less moves no other.
        chosen = rng.random() < plan.faults.get(name, 0.0)
        role = name if chosen and role == "ok" else role
    if "only_poison" in plan.faults:
        role = "poison"
        world.fired("only_poison")
    times, seconds, partner = rng.choice([1, 1, 2, 4]), rng.random(), rng.randrange(plan.events)
    if role == "slow":
        seconds *= min(3 * plan.lease, 0.8 * plan.timeout)
    elif role == "swallow":
        seconds *= 2 * plan.lease
    else:
        seconds *= 0.05
    return Part(role, times, seconds, partner)


def _outages(plan: Plan, rng: Random) -> list[tuple[float, float]]:
    start = rng.uniform(0.0, 0.5 * plan.heal_at)
    return [(start, start + rng.uniform(1.0, plan.heal_at))]


def handlers(cast: Cast, plan: Plan, life: Life) -> list[AnyHandler]:
    """The handlers of one life, by the plan."""

    class One(Handler[Any]):
        types = (SINGLE,) if plan.handlers == "both" else (SINGLE, MANY)
        concurrency = plan.concurrency
        timeout = plan.timeout

        async def handle(self, event: Event[Any]) -> HandlerSignal | None:
            return await cast.play(life, (event,), None)

    class Plain(Handler[Any]):
        types = (SINGLE, MANY)
        concurrency = plan.concurrency
        timeout = plan.timeout

        def handle(self, event: Event[Any]) -> HandlerSignal | None:
            return cast.play_now(life, event)

    class Many(BatchHandler[Any]):
        types = (MANY,) if plan.handlers == "both" else (SINGLE, MANY)
        concurrency = plan.concurrency
        timeout = plan.timeout
        on_raise = plan.on_raise
        batching = Batching(max_size=plan.batch_size, max_wait=plan.batch_wait)

        async def handle(self, batch: Batch[Any]) -> HandlerSignal | None:
            return await cast.play(life, list(batch), batch)

    match plan.handlers:
        case "single":
            return [One()]
        case "batch":
            return [Many()]
        case "both":
            return [One(), Many()]
        case "plain":
            return [Plain()]
