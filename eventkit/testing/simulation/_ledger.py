"""What truly happened, and what must never have: the invariants, checked at every step and at the end.

Their numbers are those of the promises they stand for; `INVARIANTS` says each in a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from eventkit.spi import Delivery
from eventkit.testing.memory import Change, Kind
from eventkit.testing.simulation._switches import CALM

if TYPE_CHECKING:
    from eventkit._event import Event
    from eventkit.testing.simulation._life import Life
    from eventkit.testing.simulation._plan import Plan

__all__ = ["INVARIANTS", "Call", "Fate", "Ledger", "Violation"]

INVARIANTS: Final = {
    "I1": "no loss: every event ends acked or among the dead letters",
    "I2": "settle after effect: no ack before a handler succeeded or skipped, or the dead letter is stored",
    "I3": "at least once: once faults have ended, every good event is handled within bounded time",
    "I6": "the dead letters are the bad events, all of them and nothing else, each under one stable id",
    "I7": "nothing is dead-lettered without a direct failure of that single event",
    "I8": "order per key: no event starts before those of its key before it are decided; one runs at a time",
    "I9": "attempts: as many as configured, counted once a delivery, and nothing but failures counts",
    "I11": "work is bounded: calls of a batch, and one call and one settlement an event where nothing goes wrong",
    "I12": "memory is bounded: events and bytes in hand keep to the limits, and nothing is left after a drain",
    "I13": "drain: nothing starts after the signal, it ends within its budget, and what had not started goes back",
    "I15": "liveness: no deadlock, no livelock, no worker that falls over",
    "I17": "determinism: one seed gives one trace",
}

SLACK = 0.001
"""Seconds by which two sums of the same times may differ."""

FLUSH = 5.0
"""Seconds beyond its budget that a drain may take."""


class Violation(msgspec.Struct, frozen=True):
    """A broken invariant."""

    invariant: str
    message: str
    at: float


class Fate(msgspec.Struct, eq=False):
    """What became of one event. `place` is its position among those of its key."""

    index: int
    role: str
    key: str | None
    size: int
    place: int = 0
    good: bool = True
    """It never fails by itself, but for a while."""
    bad: bool = False
    """It must end among the dead letters."""
    successes: int = 0
    failures: int = 0
    """Deliveries in which it failed directly."""
    failed_under: Any = None
    """The delivery of its last direct failure."""
    timed_out: bool = False
    """A call with it alone was cut at the end of its time."""
    skipped: bool = False
    rejected: bool = False
    maimed: bool = False
    """The broker lost its attributes, once."""
    acked: bool = False
    dead: bool = False
    reasons: dict[str, list[str]] = {}
    """Reason -> ids of the dead letters stored under it."""
    deliveries: int = 0
    unsettled: int = 0
    """Deliveries that ended in another way than by a settlement of their worker."""

    @property
    def decided(self) -> bool:
        """Handled, skipped or dead."""
        return bool(self.successes or self.skipped or self.dead)

    @property
    def passable(self) -> bool:
        """What follows in its key may run: it is decided, or no handler would see it."""
        return self.decided or self.maimed or self.role in {"undecodable", "unroutable"}


class Call(msgspec.Struct, eq=False):
    """One call of a handler, while it runs."""

    life: Life
    events: Sequence[Event[Any]]
    fates: Sequence[Fate]
    started: float
    run: _Run


class _Run(msgspec.Struct, eq=False):
    """The calls that belong to one batch."""

    size: int
    calls: int = 0
    succeeded: bool = False


class _Lease(msgspec.Struct, eq=False):
    fate: Fate
    source: int
    since: float
    until: float
    size: int
    arrived: bool = False


class Ledger:
    """Told of everything by the broker, the handlers and the workers of one simulated world.

    It has one method for each thing it can be told, so more than seven.
    """

    def __init__(self, plan: Plan, violate: Callable[[str, str], None], clock: Callable[[], float]) -> None:
        self.fates: dict[str, Fate] = {}
        self.open = 0
        self.expired = 0
        self.stale = 0
        self.on_settled: Callable[[], None] = lambda: None
        self._plan = plan
        self._violate = violate
        self._clock = clock
        self._keys: dict[str, list[Fate]] = {}
        self._leases: dict[Any, _Lease] = {}
        self._delivered_at: dict[Any, float] = {}
        self._running: dict[int, list[Call]] = {}
        self._runs: dict[int, dict[int, tuple[Event[Any], _Run]]] = {}
        self._batches = plan.handlers in {"batch", "both"}
        recalls = plan.keys and plan.traits.key_release == "redelivers"
        self._calm = CALM.issuperset(plan.faults) and not recalls
        self._exact = self._calm and plan.workers == 1 and plan.counted
        self._counts_failures = plan.counted and not {"duplicate", "letter_refused"} & set(plan.faults)

    # -- the broker ----------------------------------------------------------------------------------

    def published(self, message_id: str, fate: Fate) -> None:
        """An event was accepted."""
        self.fates[message_id] = fate
        self.open += 1
        if fate.key is not None:
            line = self._keys.setdefault(fate.key, [])
            fate.place = len(line)
            line.append(fate)

    def changed(self, change: Change) -> None:
        """The queue has moved."""
        fate = self.fates.get(change.message_id)
        match change.kind:
            case Kind.DELIVERED if fate is not None:
                fate.deliveries += 1
                self._delivered_at[change.receipt] = change.at
                self._leases[change.receipt] = _Lease(fate, change.source, change.at, change.until, fate.size)
            case Kind.EXTENDED:
                if (lease := self._leases.get(change.receipt)) is not None:
                    lease.until = change.until
            case Kind.ACKED if fate is not None:
                self._leases.pop(change.receipt, None)
                self._acked(fate)
            case Kind.DEAD if fate is not None:
                self._leases.pop(change.receipt, None)
                self._settle(fate)
            case Kind.NACKED:
                self._leases.pop(change.receipt, None)
            case Kind.EXPIRED | Kind.RECALLED if fate is not None:
                if self._leases.pop(change.receipt, None) is not None:
                    fate.unsettled += 1
                elif change.kind is Kind.RECALLED and fate.acked:
                    fate.acked, fate.unsettled = False, fate.unsettled + 1
                    self.open += 1
                self.expired += change.kind is Kind.EXPIRED
            case Kind.STALE:
                # An extension may cross with the settlement of the same delivery.
                self.stale += change.reason != "extend"
            case Kind.DROPPED:
                self._violate("I1", f"event {change.message_id} was dropped by the broker")
            case _:
                pass

    def _acked(self, fate: Fate) -> None:
        if not fate.decided:
            self._violate("I2", f"event {fate.index} ({fate.role}) was acked, and no handler is done with it")
        fate.acked = True
        self._settle(fate)

    def _settle(self, fate: Fate) -> None:
        self.open -= 1
        if not self.open:
            self.on_settled()

    def letter_stored(self, message_id: str, reason: str, id: str) -> None:
        """A dead letter is safe: in the queue's own, or in the sink."""
        fate = self.fates[message_id]
        fate.dead = True
        ids = fate.reasons = {**fate.reasons, reason: [*fate.reasons.get(reason, []), id]}
        if len(set(ids[reason])) > 1 or not id:
            self._violate("I6", f"event {fate.index}: ids of its dead letters for {reason!r}: {ids[reason]}")
        if len(ids[reason]) > 1 and self._calm:
            self._violate("I6", f"event {fate.index} was dead-lettered {len(ids[reason])} times, and nothing went wrong")
        if not (fate.failures or fate.timed_out or fate.rejected or fate.maimed or fate.role in {"undecodable", "unroutable"}):
            self._violate("I7", f"event {fate.index} ({fate.role}) was dead-lettered ({reason}) and never failed alone")
        if reason == "attempts" and self._exact and fate.failures != self._plan.attempts:
            self._violate(
                "I9", f"event {fate.index} was given up after {fate.failures} of {self._plan.attempts} attempts"
            )

    # -- the workers ---------------------------------------------------------------------------------

    def receiving(self, life: Life, limit: int) -> None:
        """A worker asks for more."""
        if self._plan.in_flight_bytes > 1_000_000 or not self._calm or self._plan.ordering == "key":
            return
        held = sum(lease.size for lease in self._held(life.source) if lease.arrived and not lease.fate.failures)
        if held >= self._plan.in_flight_bytes:
            most = self._plan.in_flight_bytes
            self._violate("I12", f"worker {life.number} receives {limit} more with {held} of {most} bytes in hand")

    def received(self, life: Life, deliveries: Sequence[Delivery]) -> None:
        """A worker was handed deliveries."""
        for delivery in deliveries:
            if (lease := self._leases.get(delivery.receipt)) is not None:
                lease.arrived = True
        if not deliveries or not self._calm:
            return
        held = len(self._held(life.source))
        most = self._plan.in_flight + self._plan.parked + (self._plan.ordering == "key")
        if held > most:
            self._violate("I12", f"worker {life.number} holds {held} events; {most} is the most")

    def _held(self, source: int) -> list[_Lease]:
        now = self._clock()
        return [lease for lease in self._leases.values() if lease.source == source and lease.until - 1.0 > now]

    def drained(self, life: Life, asked_at: float, blocked: float) -> None:
        """A worker has ended after a signal."""
        seconds = self._clock() - asked_at - blocked
        if seconds > self._plan.drain + FLUSH:
            self._violate("I13", f"worker {life.number} drained for {seconds:g} s; its budget is {self._plan.drain:g} s")
        left = self._held(life.source)
        if left and self._calm:
            events = ", ".join(str(lease.fate.index) for lease in left)
            self._violate("I13", f"worker {life.number} has ended and still holds events {events}")

    def ended(self, life: Life) -> None:
        """A worker is no more."""
        self._running.pop(life.number, None)
        self._runs.pop(life.number, None)

    def begun_anew(self, life: Life) -> None:
        """Which calls belong together is forgotten: what was not decided starts anew."""
        self._runs.pop(life.number, None)

    # -- the handlers --------------------------------------------------------------------------------

    def called(self, life: Life, events: Sequence[Event[Any]]) -> Call:
        """A handler is called."""
        fates = [self.fates[event.message_id] for event in events]
        now = self._clock()
        if life.signalled_at is not None and now > life.signalled_at + life.blocked_since + SLACK:
            self._violate("I13", f"worker {life.number} starts {_names(fates)} after its signal")
        for event, fate in zip(events, fates, strict=True):
            self._check_attempt(event, fate)
        if self._plan.ordering == "key":
            self._check_order(life, fates)
        run = self._run_of(life, events)
        call = Call(life, events, fates, now, run)
        self._running.setdefault(life.number, []).append(call)
        return call

    def _check_attempt(self, event: Event[Any], fate: Fate) -> None:
        if self._exact and event.attempt != fate.failures + 1:
            self._violate("I9", f"event {fate.index} runs as attempt {event.attempt} after {fate.failures} failures")
        if self._plan.counted and event.attempt < 1:
            self._violate("I9", f"event {fate.index} runs as attempt {event.attempt}")
        if self._calm and fate.successes:
            self._violate("I11", f"event {fate.index} is handled again, and nothing went wrong")
        if self._counts_failures and event.delivery is not fate.failed_under:
            most = self._plan.attempts + fate.unsettled
            if fate.failures >= most:
                self._violate("I9", f"event {fate.index} has failed {fate.failures} times, and runs once more")

    def _check_order(self, life: Life, fates: Sequence[Fate]) -> None:
        for position, fate in enumerate(fates):
            if fate.key is None:
                continue
            for call in self._running.get(life.number, ()):
                if any(other.key == fate.key for other in call.fates):
                    self._violate("I8", f"events {fate.index} and {_names(call.fates)} of key {fate.key} run at once")
            if self._plan.on_key_failure == "skip":
                continue
            for before in self._keys[fate.key][: fate.place]:
                if not before.passable and before not in fates[:position]:
                    self._violate("I8", f"event {fate.index} starts before {before.index} of its key is decided")

    def _run_of(self, life: Life, events: Sequence[Event[Any]]) -> _Run:
        """The batch that these events are called for: their own, unless all were in one before."""
        if not self._batches:
            return _Run(len(events))
        known = self._runs.setdefault(life.number, {})
        runs = [known[id(event)][1] if id(event) in known else None for event in events]
        run = runs[0]
        if run is None or any(other is not run for other in runs):
            run = _Run(len(events))
        for event in events:
            known[id(event)] = event, run
        run.calls += 1
        n = run.size
        most = n + math.ceil(n / 2)
        if run.calls > most:
            self._violate("I11", f"{run.calls} calls for a batch of {n}: {most} is the most")
        silent = 2 * math.ceil(math.log2(n)) + 2 if n > 1 else 2
        if not run.succeeded and run.calls > silent:
            self._violate("I11", f"{run.calls} calls for a batch of {n} without a success: {silent} is the most")
        return run

    def succeeded(self, call: Call, event: Event[Any]) -> None:
        """The handler is about to return with this event done, or has marked it so."""
        if call.life.dead:
            return
        fate = self.fates[event.message_id]
        fate.successes += 1
        call.run.succeeded = True
        self._decided(call, event)

    def passed(self, call: Call) -> None:
        """The handler is about to return, or to name what failed: the call says something of every event."""
        call.run.succeeded = True

    def skipped(self, call: Call, event: Event[Any]) -> None:
        """The handler does not want this event."""
        self.fates[event.message_id].skipped = True
        self._decided(call, event)

    def rejected(self, call: Call, event: Event[Any]) -> None:
        """The handler rejects this event alone."""
        self.fates[event.message_id].rejected = True
        self._decided(call, event)

    def failed(self, event: Event[Any]) -> None:
        """This event failed by itself, and the handler says so: alone in its call, or named."""
        fate = self.fates[event.message_id]
        if fate.failed_under is not event.delivery:
            fate.failures += 1
            fate.failed_under = event.delivery

    def timed_out(self, event: Event[Any]) -> None:
        """The call with this event alone was cut at the end of its time."""
        self.fates[event.message_id].timed_out = True
        lease = self._leases.get(event.delivery.receipt)
        if lease is not None and lease.until > self._clock():
            self.failed(event)

    def outage(self, call: Call) -> None:
        """The call failed transiently: its events start anew."""
        for event in call.events:
            self._decided(call, event)

    def _decided(self, call: Call, event: Event[Any]) -> None:
        """What is called with this event next is another batch."""
        self._runs.get(call.life.number, {}).pop(id(event), None)

    def returned(self, call: Call) -> None:
        """The call has ended, in whatever way."""
        running = self._running.get(call.life.number)
        if running is not None and call in running:
            running.remove(call)

    def late(self, call: Call) -> bool:
        """Whether a call that was cancelled had run for all its time."""
        now, plan = self._clock(), self._plan
        since = min(self._delivered_at[event.delivery.receipt] for event in call.events)
        return now + SLACK >= min(call.started + plan.timeout, since + plan.max_processing)

    # -- the end -------------------------------------------------------------------------------------

    def closed(self) -> None:
        """Everything has ended: is all accounted for?"""
        for message_id, fate in self.fates.items():
            self._check_end(message_id, fate)
        if self._calm and not {"hang", "swallow"} & set(self._plan.faults):
            if self.expired:
                self._violate("I11", f"{self.expired} leases ended, and nothing went wrong")
            if self.stale:
                self._violate("I11", f"{self.stale} stale receipts were used, and nothing went wrong")

    def _check_end(self, message_id: str, fate: Fate) -> None:
        name = f"event {fate.index} ({fate.role}, message {message_id})"
        if not fate.acked and not fate.dead:
            self._violate("I1", f"{name} is neither acked nor dead")
        elif fate.bad and not fate.dead and not fate.skipped:
            self._violate("I6", f"{name} is bad, and was acked")
        elif fate.good and fate.dead and not (fate.failures or fate.timed_out or fate.rejected or fate.maimed):
            self._violate("I6", f"{name} is good, and among the dead letters: {fate.reasons}")
        elif fate.good and not fate.dead and not (fate.successes or fate.skipped):
            self._violate("I3", f"{name} was never handled")
        if self._calm and fate.successes > 1:
            self._violate("I11", f"{name} was handled {fate.successes} times, and nothing went wrong")


def _names(fates: Sequence[Fate]) -> str:
    return ", ".join(str(fate.index) for fate in fates)
