"""From what a handler did to what becomes of the event: outcomes, and where each is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

from eventkit._pipeline.counters import Counters
from eventkit._pipeline.inflight import PARKED, SETTLING, DeadLetterNote, InFlight, Table
from eventkit._policies.backoff import Backoff, rounded_up
from eventkit._policies.failure import Failure
from eventkit._policies.history import History
from eventkit._policies.letter import describe_error, letter_detail, letter_id, redacted
from eventkit._telemetry.observer import Fanout
from eventkit._telemetry.records import (
    EventDeadLettered,
    EventHandled,
    EventParked,
    EventReleased,
    EventRetried,
    EventSkipped,
    LeaseLost,
    WorkerWarning,
)
from eventkit.errors import Reject, Retry, Skip
from eventkit.spi import SourceInfo

if TYPE_CHECKING:
    from eventkit._pipeline.flow import Flow
    from eventkit._pipeline.lanes import Lanes
    from eventkit._pipeline.settler import Settler

__all__ = ["Judge"]

REFUSED_LETTER_DELAY = 60.0
"""Seconds until an event whose dead letter nobody would take is delivered again."""

SHOWN = 200
"""Characters of an id or a reason in a dead letter's detail."""


class Judge:
    """Decides each event's outcome and passes it on: to the settler, into parking, or back to the source."""

    lanes: Lanes
    settler: Settler
    flow: Flow

    def __init__(
        self,
        *,
        info: SourceInfo,
        table: Table,
        history: History,
        counters: Counters,
        emit: Fanout,
        retry: Backoff,
        max_parked: int,
        longest_delay: float | None,
        rng: Random,
        wall: Callable[[], float],
    ) -> None:
        self.draining = False
        self._info = info
        self._table = table
        self._history = history
        self._counters = counters
        self._emit = emit
        self._retry = retry
        self._max_parked = max_parked
        self._longest_delay = longest_delay
        self._rng = rng
        self._wall = wall

    def attempt(self, entry: InFlight) -> int:
        """Which attempt this delivery is: its delivery count less the deliveries known not to count."""
        past = self._history.find(entry.delivery.message_id)
        count = entry.delivery.delivery_count
        if past is None:
            return count if count is not None else 1
        return max(1, count - past.uncounted) if count is not None else past.failures + 1

    def handled(self, entries: Sequence[InFlight]) -> None:
        """The handler returned."""
        self._counters.handled += len(entries)
        if self._emit.debug:
            for entry in entries:
                self._emit(EventHandled(**self._about(entry)))
        self.settler.ack(entries)
        if self.lanes.ordered:
            for entry in entries:
                self.lanes.done(entry)

    def skipped(self, entry: InFlight, reason: str) -> None:
        """The event is not wanted: settled as done, with a reason in the log."""
        self._counters.skipped += 1
        self._emit(EventSkipped(**self._about(entry), reason=reason))
        self.settler.ack((entry,))
        self.lanes.done(entry)

    def rejected(self, entry: InFlight, reason: str, error: BaseException | None = None) -> None:
        """Dead-letter the event; its followers go on once it is stored."""
        entry.letter = self._note(entry, reason, error)
        self.settler.dead_letter(entry)

    def failed(self, entry: InFlight, error: BaseException) -> None:
        """A handler call on this event alone failed, or named it as failed."""
        route = entry.route
        assert route is not None, "only a routed event reaches a handler"
        match route.policy.classify(error):
            case Failure.SKIP:
                self.skipped(entry, error.reason if isinstance(error, Skip) else type(error).__name__)
            case Failure.REJECT:
                self.rejected(entry, error.reason if isinstance(error, Reject) else type(error).__name__, error)
            case Failure.TRANSIENT:
                self.transient(entry, error)
            case Failure.RETRY | Failure.ITEM:
                self._again(entry, error, error.after if isinstance(error, Retry) else None)

    def transient(self, entry: InFlight, error: BaseException, *, alone: bool = True) -> None:
        """An outage: the event waits parked, uncounted, unless it keeps failing while others succeed.

        An event that did so only in the company of others (`alone=False`) runs alone from then on.
        """
        assert entry.route is not None, "only a routed event reaches a handler"
        self._counters.transient += 1
        past = self._history.of(entry.delivery.message_id)
        if past.transient(entry.route.successes):
            if alone:
                self._again(entry, error, None)
                return
            past.suspect = True
        delay = self._retry.delay(past.transient_in_a_row, self._rng)
        if self.park(entry, anyio.current_time() + delay, rerun=True):
            name, message = describe_error(error)
            self._emit(EventParked(**self._about(entry), delay=delay, error=name, message=message))

    def park(self, entry: InFlight, due: float, *, rerun: bool) -> bool:
        """Keep the event leased without a slot until `due`; False when it was given back for want of room."""
        if self.draining or self._table.parked >= self._max_parked:
            if not rerun:
                self.due_again(entry, self._left_of(due))
                return False
            self.released(entry, "drain" if self.draining else "parking is full")
            return False
        if rerun and self.lanes.stands_back(entry):
            return True
        self._table.park(entry, due, rerun=rerun)
        self.lanes.parked(entry)
        self.flow.parked(due)
        return True

    def released(self, entry: InFlight, reason: str) -> None:
        """Give the event back at once, without counting an attempt; one that is parked for a counted retry counted."""
        if entry.state is PARKED:
            due = entry.due
            self._table.unpark(entry)
            if not entry.rerun:
                self.due_again(entry, self._left_of(due))
                return
        self._counters.released += 1
        if self._info.traits.release_counts:
            self._history.of(entry.delivery.message_id).uncounted += 1
        self._emit(EventReleased(**self._about(entry), reason=reason))
        self.settler.nack(entry, 0.0)
        self.lanes.went_back(entry)

    def suspected(self, entry: InFlight) -> None:
        """Give back what is left of a failed batch at the end of its time: it will run alone."""
        self._history.of(entry.delivery.message_id).suspect = True
        self.released(entry, "end of max_processing")

    def due_again(self, entry: InFlight, delay: float = 0.0) -> None:
        """Give the event back for a counted retry, after what is left of its delay."""
        if not delay and not self._info.traits.release_counts:
            # To such a source, a nack without a delay is a release: the failure is counted here alone.
            self._history.of(entry.delivery.message_id).uncounted -= 1
        self.settler.nack(entry, delay)
        self.lanes.went_back(entry)

    def _left_of(self, due: float) -> float:
        """Seconds until `due`, as far as the source keeps them for an event that cannot wait parked."""
        return max(0.0, min(due - anyio.current_time(), self._info.traits.nack_delay_max))

    def lost(self, entry: InFlight) -> None:
        """The lease is gone: nothing may be settled, and the event comes again by itself."""
        self._counters.lease_lost += 1
        # What was on its way back, or waits to go, has been counted, or not, when that was decided.
        if entry.state is not SETTLING and (entry.state is not PARKED or entry.rerun):
            self._history.of(entry.delivery.message_id).uncounted += 1
        self._emit(LeaseLost(**self._about(entry), state=entry.state.name.lower()))
        self._table.remove(entry)
        self.lanes.went_back(entry)

    def stored(self, entry: InFlight) -> None:
        """The dead letter is stored, or discarded as configured."""
        letter = entry.letter
        assert letter is not None, "only an event with a letter is dead-lettered"
        self._counters.dead_lettered += 1
        self._emit(
            EventDeadLettered(
                **self._about(entry),
                reason=letter.reason,
                error=letter.error,
                message=letter.message,
                dead_letter_id=letter.id,
            )
        )
        self.lanes.done(entry)

    def _again(self, entry: InFlight, error: BaseException, after: float | None) -> None:
        """A counted failure: try again after a delay, or dead-letter at the last attempt."""
        attempt = self._count_failure(entry)
        enqueued = entry.delivery.enqueued_at
        if self._retry.exhausted(attempt, self._wall() - enqueued if enqueued is not None else 0.0):
            self.rejected(entry, "attempts", error)
            return
        self._counters.retried += 1
        delay = self._bounded(self._retry.delay(attempt, self._rng) if after is None else after)
        name, message = describe_error(error)
        self._emit(EventRetried(**self._about(entry), delay=delay, error=name, message=message))
        self._back_after(entry, delay)

    def letter_refused(self, entry: InFlight) -> None:
        """Nobody would take its dead letter: the event comes again, and may be refused again, but not at once."""
        longest = self._longest_delay
        self._back_after(entry, REFUSED_LETTER_DELAY if longest is None else min(REFUSED_LETTER_DELAY, longest))

    def _back_after(self, entry: InFlight, delay: float) -> None:
        """Give the event back with a delay; where the source cannot delay, it waits parked."""
        if self._info.traits.max_retry_delay == 0 and delay > 0:
            self.park(entry, anyio.current_time() + delay, rerun=False)
        else:
            self.due_again(entry, delay)

    def _count_failure(self, entry: InFlight) -> int:
        past = self._history.find(entry.delivery.message_id)
        if entry.delivery.delivery_count is None:
            past = past or self._history.of(entry.delivery.message_id)
            past.failures += 1
            return past.failures
        if past is not None:
            past.transient_in_a_row = 0
        return entry.attempt

    def _bounded(self, delay: float) -> float:
        """The delay the source can honour: clamped, then rounded up so that no retry is due early."""
        longest = self._longest_delay
        if longest is not None and delay > longest:
            self._emit(
                WorkerWarning(warning=f"{self._info.name} cannot delay a retry by {delay:g} s: {longest:g} s it is")
            )
            delay = longest
        return rounded_up(delay, self._info.traits.delay_granularity)

    def _note(self, entry: InFlight, reason: str, error: BaseException | None) -> DeadLetterNote:
        name, message = describe_error(error)
        reason = redacted(reason)[:SHOWN]
        event = entry.event
        event_id = event.id if event is not None else ""
        stable_id = letter_id(self._info.name, event_id or entry.delivery.message_id, reason)
        fields: dict[str, str | int | float] = {
            "id": stable_id,
            "reason": reason,
            "error": name[:SHOWN],
            "message": message,
            "failed_at": round(self._wall(), 3),
            "origin": self._info.name[:SHOWN],
            "attempts": entry.attempt,
            "handler": entry.route.name if entry.route else "",
            "event_id": event_id[:SHOWN],
            "event_type": event.type[:SHOWN] if event is not None else "",
            "trace": event.extensions.get("traceparent", "")[:64] if event is not None else "",
        }
        detail = letter_detail({name: value for name, value in fields.items() if value != ""})
        return DeadLetterNote(stable_id, reason, name, message, detail)

    def _about(self, entry: InFlight) -> dict[str, Any]:
        event = entry.event
        return {
            "event_id": event.id if event is not None else "",
            "event_type": event.type if event is not None else "",
            "message_id": entry.delivery.message_id,
            "handler": entry.route.name if entry.route is not None else "",
            "attempt": entry.attempt,
        }
