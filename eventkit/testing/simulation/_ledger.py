"""What truly happened to each event, and what must never have: the invariants of handlers, events and their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from eventkit._pipeline.settler import LETTER_ATTRIBUTE
from eventkit._telemetry.records import BatchBisected, GateClosed, GateOpened, GateProbed, LeaseLost, Record
from eventkit.spi import Letter, Outgoing
from eventkit.testing.memory import Change, Kind
from eventkit.testing.simulation._calls import Call, Run, Slots
from eventkit.testing.simulation._gates import Gates
from eventkit.testing.simulation._witness import SLACK, Fate, Witness

if TYPE_CHECKING:
    from eventkit._event import Event
    from eventkit.testing.simulation._life import Life
    from eventkit.testing.simulation._plan import Plan

__all__ = ["Ledger"]


class Ledger(Witness):
    """A witness that the handlers tell of each call, too.

    It has one method for each thing it can be told, so more than seven.
    """

    def __init__(self, plan: Plan, violate: Callable[[str, str], None], clock: Callable[[], float]) -> None:
        super().__init__(plan, violate, clock)
        self._plan = plan
        self._keys: dict[str, list[Fate]] = {}
        self._running: dict[int, list[Call]] = {}
        self._slots = Slots()
        self._bodies: dict[bytes, Fate] = {}
        self._letters: dict[Any, Letter] = {}
        self._batches = plan.handlers in {"batch", "both"}
        self._gates = Gates(violate, clock, plan.batch_size if self._batches else 0, self._holds)
        # Such a source brings back what was acked, and means it.
        self.calm = self.calm and not (plan.keys and plan.traits.key_release == "redelivers")
        # What swallows its cancellation may outlast its lease, which then counts for nobody.
        self._exact = self.calm and plan.workers == 1 and plan.counted and "swallow" not in plan.faults
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
        self._gates.ended(life)

    def told(self, life: Life, record: Record) -> None:
        """See `Witness`. A slot tells itself that it is done with a batch."""
        if isinstance(record, BatchBisected | GateClosed):
            run = self._slots.done()
            if run is not None and isinstance(record, BatchBisected):
                self._check_calls(run, record.events)
        if isinstance(record, GateClosed | GateProbed | GateOpened):
            self._gates.told(life, record, sure=not self.expired)
        if isinstance(record, LeaseLost):
            for call in self._running.get(life.number, ()):
                call.lost |= any(event.message_id == record.message_id for event in call.events)

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
        if self._slots.searches(events, now):  # what fails transiently is not searched: it waits
            self.violate("I11", "a batch is searched for the cause of an outage")
        call = Call(life, events, fates, now, self._run_of(events), self._slots.chain_of(len(events), now))
        running = self._running.setdefault(life.number, [])
        if call.run.calls <= 1:  # a batch that is searched already is searched to its end
            self._gates.check(call, running)
        running.append(call)
        return call

    def _holds(self, call: Call) -> bool:
        return any(event.delivery.receipt in self.leases for event in call.events)

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

    def _run_of(self, events: Sequence[Event[Any]]) -> Run:
        if not self._batches:
            return Run({})
        run = self._slots.run_of(events)
        run.calls += 1
        if self._plan.ordering == "none":  # else some may have stood back before they were called
            self._check_calls(run, len(run.events))
        return run

    def _check_calls(self, run: Run, size: int) -> None:
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
        self._slots.failed(call.events, self.clock())
        self._gates.transient(call.life)

    def healthy(self, call: Call) -> None:
        """The call has come to something else than a transient failure."""
        self._gates.healthy(call.life)

    def returned(self, call: Call) -> None:
        """The call has ended, in whatever way."""
        running = self._running.get(call.life.number)
        if running is not None and call in running:
            running.remove(call)
        self._slots.returned(self.clock())

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
