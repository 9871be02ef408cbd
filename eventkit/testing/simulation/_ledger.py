"""What truly happened to each event, and what must never have: the invariants of handlers, events and their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from eventkit._pipeline.settler import LETTER_ATTRIBUTE
from eventkit._telemetry.records import BatchBisected, GateClosed, GateOpened, GateProbed, LeaseLost, Record
from eventkit.spi import Letter, Outgoing
from eventkit.testing.memory import Change, Kind
from eventkit.testing.simulation._witness import SLACK, Fate, Witness

if TYPE_CHECKING:
    from eventkit._event import Event
    from eventkit.testing.simulation._life import Life
    from eventkit.testing.simulation._plan import Plan

__all__ = ["Call", "Ledger"]

CLOSES_AFTER, FAR_TOO_MANY = 10, 40
"""Transient failures in a row that close the gate, and so many that it should have, even if some did not count."""


class Call(msgspec.Struct, eq=False):
    """One call of a handler, while it runs."""

    life: Life
    events: Sequence[Event[Any]]
    fates: Sequence[Fate]
    started: float
    run: _Run
    chain: _Chain
    lost: bool = False
    """Its worker has lost the lease of an event of it, as far as it knows."""


class _Run(msgspec.Struct, eq=False):
    """The calls that belong to one batch; its events by identity, which are kept so that no other takes their id."""

    events: dict[int, Event[Any]]
    calls: int = 0
    succeeded: bool = False


class _Chain(msgspec.Struct, eq=False):
    """Calls of one slot, each of which began when the one before it ended: perhaps of one batch, one by one."""

    began: float
    ended: float = math.inf
    events: int = 0


class _Gate(msgspec.Struct, eq=False):
    """The intake gate of one worker, as its records tell of it, and what its calls have come to."""

    closed_at: float | None = None
    probe_at: float = 0.0
    transient: int = 0
    """Calls in a row that failed transiently."""


class Ledger(Witness):
    """A witness that the handlers tell of each call, too.

    It has one method for each thing it can be told, so more than seven.
    """

    def __init__(self, plan: Plan, violate: Callable[[str, str], None], clock: Callable[[], float]) -> None:
        super().__init__(plan, violate, clock)
        self._plan = plan
        self._keys: dict[str, list[Fate]] = {}
        self._running: dict[int, list[Call]] = {}
        self._runs: dict[int, _Run] = {}
        """The batch that each slot is at, by the id of its task."""
        self._gates: dict[int, _Gate] = {}
        self._failed_at: dict[int, tuple[float, dict[int, Event[Any]]]] = {}
        """When the last call of each slot failed transiently, and its events."""
        self._chains: dict[int, _Chain] = {}
        """The calls of each slot that follow one another without a pause."""
        self._bodies: dict[bytes, Fate] = {}
        self._letters: dict[Any, Letter] = {}
        self._batches = plan.handlers in {"batch", "both"}
        # Such a source brings back what was acked, and means it.
        self.calm = self.calm and not (plan.keys and plan.traits.key_release == "redelivers")
        self._exact = self.calm and plan.workers == 1 and plan.counted
        self._counts_failures = plan.counted and not {"duplicate", "letter_refused"} & set(plan.faults)

    # -- the broker ----------------------------------------------------------------------------------

    def accepted(self, message_id: str, fate: Fate, body: bytes) -> None:
        """An event is about to be published; no two have the same body."""
        self.published(message_id, fate)
        self._bodies[body] = fate
        if fate.key is not None:
            line = self._keys.setdefault(fate.key, [])
            fate.place = len(line)
            line.append(fate)

    def changed(self, change: Change) -> None:
        """See `Witness`."""
        if change.kind is Kind.DEAD and (fate := self.fates.get(change.message_id)) is not None:
            letter = self._letters.get(change.receipt)
            self._letter_stored(fate, change.reason, letter.detail if letter is not None else "")
        super().changed(change)

    def acked(self, fate: Fate) -> None:
        """See `Witness`."""
        if not fate.decided:
            self.violate("I2", f"event {fate.index} ({fate.role}) was acked, and no handler is done with it")
        super().acked(fate)

    def letters_sent(self, letters: Sequence[Letter]) -> None:
        """See `Witness`."""
        for letter in letters:
            self._letters[letter.receipt] = letter

    def letters_stored(self, letters: Sequence[Outgoing]) -> None:
        """See `Witness`."""
        for letter in letters:
            fate = self._bodies.get(letter.body)
            if fate is None:
                self.violate("I6", "a dead letter has another body than any event")
            else:
                detail = letter.attributes.get(LETTER_ATTRIBUTE, "")
                self._letter_stored(fate, _field(detail, "reason"), detail)

    def _letter_stored(self, fate: Fate, reason: str, detail: str) -> None:
        fate.dead = True
        known = [*fate.reasons.get(reason, []), _field(detail, "id")]
        fate.reasons = {**fate.reasons, reason: known}
        if len(set(known)) > 1 or not known[0]:
            self.violate("I6", f"event {fate.index}: ids of its dead letters for {reason!r}: {known}")
        if len(known) > 1 and self.calm:
            self.violate("I6", f"event {fate.index} was dead-lettered {len(known)} times, and nothing went wrong")
        if not (fate.excusable or fate.role in {"undecodable", "unroutable"}):
            self.violate("I7", f"event {fate.index} ({fate.role}) was dead-lettered ({reason}) and never failed alone")
        if reason == "attempts" and self._exact and fate.failures != self._plan.attempts:
            self.violate(
                "I9", f"event {fate.index} was given up after {fate.failures} of {self._plan.attempts} attempts"
            )

    # -- the workers ---------------------------------------------------------------------------------

    def receiving(self, life: Life, limit: int) -> None:
        """See `Witness`."""
        most = self._plan.in_flight_bytes
        if not self.calm or self._plan.ordering == "key":
            return
        held = sum(lease.size for lease in self.held(life.source) if lease.arrived and not lease.fate.failures)
        if held >= most:
            self.violate("I12", f"worker {life.number} receives {limit} more with {held} of {most} bytes in hand")

    def ended(self, life: Life) -> None:
        """See `Witness`."""
        self._running.pop(life.number, None)
        self._gates.pop(life.number, None)

    def told(self, life: Life, record: Record) -> None:
        """See `Witness`. A slot tells itself that it is done with a batch."""
        if isinstance(record, BatchBisected | GateClosed):
            run = self._runs.pop(anyio.get_current_task().id, None)
            if run is not None and isinstance(record, BatchBisected):
                self._check_calls(run, record.events)
        if isinstance(record, GateClosed | GateProbed | GateOpened):
            self._gate_told(life, record)
        if isinstance(record, LeaseLost):
            for call in self._running.get(life.number, ()):
                call.lost |= any(event.message_id == record.message_id for event in call.events)

    def _gate_told(self, life: Life, record: GateClosed | GateProbed | GateOpened) -> None:
        gate, now = self._gates.setdefault(life.number, _Gate()), self.clock()
        if isinstance(record, GateOpened):
            if gate.transient:
                self.violate("I11", f"worker {life.number} takes events in again after a transient failure")
            gate.closed_at = None
            return
        gate.probe_at = now + record.delay
        if isinstance(record, GateClosed):
            gate.closed_at = now
            # Where leases were lost, calls may have ended that count for nobody.
            if record.reason == "transient" and gate.transient < CLOSES_AFTER and not self.expired:
                self.violate("I11", f"worker {life.number} closes its gate after {gate.transient} transient failures")

    # -- the handlers --------------------------------------------------------------------------------

    def called(self, life: Life, events: Sequence[Event[Any]]) -> Call:
        """A handler is called."""
        fates = [self.fates[event.message_id] for event in events]
        now = self.clock()
        if life.signalled_at is not None and now > life.signalled_at + life.stood_still + SLACK:
            self.violate("I13", f"worker {life.number} starts {_names(fates)} after its signal")
        for event, fate in zip(events, fates, strict=True):
            self._check_attempt(event, fate)
        if self._plan.ordering == "key":
            self._check_order(life, fates)
        self._check_search(events, now)
        run = self._run_of(events)
        chain = self._chain(len(events), now)
        if run.calls <= 1:  # a batch that is searched already is searched to its end
            self._check_gate(life, fates, chain)
        call = Call(life, events, fates, now, run, chain)
        self._running.setdefault(life.number, []).append(call)
        return call

    def _chain(self, events: int, now: float) -> _Chain:
        """The chain that the slot is at, with `events` more."""
        slot = anyio.get_current_task().id
        chain = self._chains.get(slot)
        if chain is None or now > chain.ended:
            chain = self._chains[slot] = _Chain(now)
        chain.ended, chain.events = math.inf, chain.events + events
        return chain

    def _check_gate(self, life: Life, fates: Sequence[Fate], chain: _Chain) -> None:
        gate, now = self._gates.get(life.number), self.clock()
        if gate is None:
            return
        if gate.closed_at is None:
            if gate.transient >= FAR_TOO_MANY:
                self.violate("I11", f"worker {life.number} goes on after {gate.transient} transient failures in a row")
        elif now > gate.closed_at and life.frozen_until <= now and not self._is_begun(chain, gate.closed_at):
            running = self._running.get(life.number, ())
            others = [call for call in running if self._is_probe(call, gate.closed_at)]
            if others or len(fates) > 1:
                self.violate("I11", f"worker {life.number} starts {_names(fates)} beside the one probe of its gate")
            if now < gate.probe_at - SLACK:
                self.violate("I11", f"worker {life.number} probes with {_names(fates)} before it is time")

    def _is_begun(self, chain: _Chain, when: float) -> bool:
        """Whether it may be what is left of a batch that was begun at that time, and is run one by one."""
        return self._batches and chain.began < when and chain.events <= self._plan.batch_size

    def _is_probe(self, call: Call, closed_at: float) -> bool:
        """Whether it is not part of what was begun before the gate closed, and its event is still its worker's."""
        if call.started <= closed_at or call.run.calls > 1 or call.lost or self._is_begun(call.chain, closed_at):
            return False
        return any(event.delivery.receipt in self.leases for event in call.events)

    def _check_search(self, events: Sequence[Event[Any]], now: float) -> None:
        """What fails transiently is not searched: it waits."""
        failed_at, known = self._failed_at.get(anyio.get_current_task().id, (-math.inf, {}))
        if now - failed_at < SLACK and len(known) > 1 and any(id(event) in known for event in events):
            self.violate("I11", "a batch is searched for the cause of an outage")

    def _check_attempt(self, event: Event[Any], fate: Fate) -> None:
        if self._exact and event.attempt != fate.failures + 1:
            self.violate("I9", f"event {fate.index} runs as attempt {event.attempt} after {fate.failures} failures")
        if self._plan.counted and event.attempt < 1:
            self.violate("I9", f"event {fate.index} runs as attempt {event.attempt}")
        if self.calm and fate.successes:
            self.violate("I11", f"event {fate.index} is handled again, and nothing went wrong")
        if self._counts_failures and event.delivery is not fate.failed_under:
            most = self._plan.attempts + fate.unsettled
            if fate.failures >= most:
                self.violate("I9", f"event {fate.index} has failed {fate.failures} times, and runs once more")

    def _check_order(self, life: Life, fates: Sequence[Fate]) -> None:
        for position, fate in enumerate(fates):
            if fate.key is None:
                continue
            for call in self._running.get(life.number, ()):
                if any(other.key == fate.key for other in call.fates):
                    self.violate("I8", f"events {fate.index} and {_names(call.fates)} of key {fate.key} run at once")
            if self._plan.on_key_failure == "skip":
                continue
            for before in self._keys[fate.key][: fate.place]:
                if not before.passable and before not in fates[:position]:
                    self.violate("I8", f"event {fate.index} starts before {before.index} of its key is decided")

    def _run_of(self, events: Sequence[Event[Any]]) -> _Run:
        """The batch that these events are called for: that of the slot, if they are a part of it, else a new one."""
        if not self._batches:
            return _Run({})
        slot = anyio.get_current_task().id
        run = self._runs.get(slot)
        if run is None or any(id(event) not in run.events for event in events):
            run = self._runs[slot] = _Run({id(event): event for event in events})
        run.calls += 1
        if self._plan.ordering == "none":  # else some may have stood back before they were called
            self._check_calls(run, len(run.events))
        return run

    def _check_calls(self, run: _Run, size: int) -> None:
        most, silent = size + math.ceil(size / 2), 2 * math.ceil(math.log2(size)) + 2
        if run.calls > most:
            self.violate("I11", f"{run.calls} calls for a batch of {size}: {most} is the most")
        if not run.succeeded and run.calls > silent:
            self.violate("I11", f"{run.calls} calls for a batch of {size} without a success: {silent} is the most")

    def succeeded(self, call: Call, event: Event[Any]) -> None:
        """The handler is about to return with this event done, or has marked it so."""
        if call.life.dead:
            return
        fate = self.fates[event.message_id]
        fate.successes += 1
        call.run.succeeded = True

    def passed(self, call: Call) -> None:
        """The handler is about to return, or to name what failed: the call says something of every event."""
        call.run.succeeded = True

    def skipped(self, event: Event[Any]) -> None:
        """The handler does not want this event."""
        self.fates[event.message_id].skipped = True

    def rejected(self, event: Event[Any]) -> None:
        """The handler rejects this event alone."""
        self.fates[event.message_id].rejected = True

    def failed(self, event: Event[Any]) -> None:
        """This event failed by itself, and the handler says so: alone in its call, or named."""
        fate = self.fates[event.message_id]
        if fate.failed_under is not event.delivery:
            fate.failures += 1
            fate.failed_under = event.delivery

    def timed_out(self, life: Life, event: Event[Any]) -> None:
        """The call with this event alone was cut at the end of its time, or by the end of a drain just then."""
        self.fates[event.message_id].timed_out = True
        lease = self.leases.get(event.delivery.receipt)
        if lease is not None and lease.until > self.clock() and life.signalled_at is None:
            self.failed(event)

    def outage(self, call: Call) -> None:
        """The call fails transiently: nothing is searched, and what comes next in this slot is another batch."""
        slot = anyio.get_current_task().id
        self._runs.pop(slot, None)
        self._chains.pop(slot, None)
        self._failed_at[slot] = self.clock(), {id(event): event for event in call.events}
        self._gates.setdefault(call.life.number, _Gate()).transient += 1

    def healthy(self, call: Call) -> None:
        """The call has come to something else than a transient failure."""
        self._gates.setdefault(call.life.number, _Gate()).transient = 0

    def returned(self, call: Call) -> None:
        """The call has ended, in whatever way."""
        running = self._running.get(call.life.number)
        if running is not None and call in running:
            running.remove(call)
        chain = self._chains.get(anyio.get_current_task().id)
        if chain is not None:
            chain.ended = self.clock()

    def late(self, call: Call) -> bool:
        """Whether a call that was cancelled had run for all its time."""
        now, plan = self.clock(), self._plan
        since = min(self.delivered_at[event.delivery.receipt] for event in call.events)
        return now + SLACK >= min(call.started + plan.timeout, since + plan.max_processing)

    # -- the end -------------------------------------------------------------------------------------

    def closed(self) -> None:
        """Everything has ended: is all accounted for?"""
        super().closed()
        for fate in self.fates.values():
            self._check_end(fate)
        if self.calm and not {"hang", "swallow"} & set(self._plan.faults):
            if self.expired:
                self.violate("I11", f"{self.expired} leases ended, and nothing went wrong")
            if self.stale:
                self.violate("I11", f"{self.stale} stale receipts were used, and nothing went wrong")

    def _check_end(self, fate: Fate) -> None:
        name = f"event {fate.index} ({fate.role})"
        if fate.bad and not fate.dead and not fate.skipped:
            self.violate("I6", f"{name} is bad, and was acked")
        elif fate.good and fate.dead and not fate.excusable:
            self.violate("I6", f"{name} is good, and among the dead letters: {fate.reasons}")
        elif fate.good and not fate.dead and not (fate.successes or fate.skipped):
            self.violate("I3", f"{name} was never handled")
        if self.calm and fate.successes > 1:
            self.violate("I11", f"{name} was handled {fate.successes} times, and nothing went wrong")


def _names(fates: Sequence[Fate]) -> str:
    return ", ".join(str(fate.index) for fate in fates)


def _field(detail: str, name: str) -> str:
    return str(msgspec.json.decode(detail).get(name, "")) if detail else ""
