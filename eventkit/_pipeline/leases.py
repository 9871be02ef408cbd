"""The keeper: extends leases, cancels what is late or lost, and wakes what is parked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from eventkit._pipeline.calls import Calls
from eventkit._pipeline.executor import Cause, Slot
from eventkit._pipeline.inflight import GONE, HELD, PARKED, RUNNING, SETTLING, InFlight, Table
from eventkit._pipeline.wakeup import Waiters
from eventkit._policies.gate import ProbeResult
from eventkit._telemetry.observer import Fanout
from eventkit._telemetry.records import HandlerStuck, SettleFailed
from eventkit.errors import AdapterError
from eventkit.spi import Extended, SettledKind, Source

if TYPE_CHECKING:
    from eventkit._pipeline.flow import Flow
    from eventkit._pipeline.judge import Judge

__all__ = ["Keeper"]

SHORTEST_NAP = 0.005
STUCK_AFTER = 5.0
"""Seconds after its cancellation at which a call that still runs is reported."""


class Keeper:
    """Scans the in-flight table and sleeps to the earliest due: no timer, task or heap entry per event."""

    judge: Judge
    flow: Flow

    def __init__(
        self, *, source: Source, table: Table, slots: Sequence[Slot], emit: Fanout, calls: Calls, lease: float
    ) -> None:
        self.wake_at = -math.inf
        self._source = source
        self._calls = calls
        self._table = table
        self._slots = slots
        self._emit = emit
        self._lease = lease
        self._nap = Waiters()
        self._extends: list[InFlight] = []
        self._extender = Waiters()
        self._stopped = False

    def wake(self, at: float) -> None:
        """Look again at `at`, if the next look is later than that."""
        if at < self.wake_at:
            self.wake_at = at
            self._nap.wake()

    def stop(self) -> None:
        """End both tasks."""
        self._stopped = True
        self._nap.wake_all()
        self._extender.wake_all()

    async def keep(self) -> None:
        """Scan until stopped."""
        while not self._stopped:
            now = anyio.current_time()
            self.wake_at = math.inf
            due = self._scan(now)
            # What the scan set off may have asked for an earlier look.
            self.wake_at = max(min(due, self.wake_at), now + SHORTEST_NAP)
            await self._nap.sleep(self.wake_at)

    def _scan(self, now: float) -> float:
        """Do all that is due; when the next thing is."""
        due = math.inf
        for slot in self._slots:
            if slot.entries:
                due = min(due, self._look_at_call(slot, now))
        due = min(due, self.flow.tick(now))
        for entry in list(self._table.entries.values()):
            if entry.state is not GONE:
                due = min(due, self._look_at(entry, now))
        if self._extends:
            self._extender.wake()
        return due

    def _look_at_call(self, slot: Slot, now: float) -> float:
        if now < slot.deadline:
            return slot.deadline
        slot.cancel(Cause.TIMEOUT)
        late = slot.deadline + STUCK_AFTER
        if now < late or slot.reported:
            return math.inf if slot.reported else late
        self._report_stuck(slot)
        return math.inf

    def _report_stuck(self, slot: Slot) -> None:
        slot.reported = True
        route = slot.entries[0].route
        cause = slot.cause.value if slot.cause else ""
        self._emit(HandlerStuck(handler=route.name if route else "", events=len(slot.entries), cause=cause))

    def _look_at(self, entry: InFlight, now: float) -> float:
        if now >= entry.leased_until:
            # What is on the wire is settled by the answer, or lost after it.
            if not entry.sent:
                self._lose(entry)
            return math.inf
        if now >= entry.expires:
            self._expire(entry)
            return entry.leased_until
        if entry.state is PARKED and self.flow.due(entry) <= now:
            self.flow.wake(entry, now)
        due = min(entry.leased_until, entry.expires)
        if entry.state is PARKED:
            due = min(due, self.flow.due(entry))
        if entry.extending or (entry.state is SETTLING and entry.letter is None):
            return due
        if now < entry.extend_at:
            return min(due, entry.extend_at)
        entry.extending = True
        self._extends.append(entry)
        return due

    def _lose(self, entry: InFlight) -> None:
        slot = entry.slot
        self.judge.lost(entry)
        self.flow.probed(entry, ProbeResult.NOTHING)
        self.flow.freed()
        # A batch call goes on for the events that are still ours.
        if slot is not None and all(other.state is GONE for other in slot.entries):
            slot.cancel(Cause.LEASE_LOST)

    def _expire(self, entry: InFlight) -> None:
        """End of `max_processing`: no more extensions. What runs is cancelled by its call's deadline."""
        if entry.state is RUNNING and entry.slot is not None and entry not in entry.slot.entries:
            self.judge.suspected(entry)  # its batch is searched, and another part of it is being called
        elif entry.state in (HELD, PARKED):
            self.judge.released(entry, "end of max_processing")
        else:
            return
        self.flow.probed(entry, ProbeResult.NOTHING)

    async def extend(self) -> None:
        """Send the extensions the scans asked for, in batches, until stopped."""
        limit = self._source.info.limits.extend
        while not self._stopped:
            if not self._extends:
                await self._extender.sleep()
                continue
            chunk, self._extends = self._extends[:limit], self._extends[limit:]
            chunk = [entry for entry in chunk if entry.state is not GONE]
            if chunk:
                await self._extend(chunk)

    async def _extend(self, entries: list[InFlight]) -> None:
        cause = "no answer in time"
        asked_at = anyio.current_time()
        with self._calls.limited():
            try:
                results = await self._source.extend([entry.delivery.receipt for entry in entries], self._lease)
            except AdapterError as exc:
                cause = f"{type(exc).__name__}: {exc}"
            else:
                cause = ""
                for entry, result in zip(entries, results, strict=True):
                    self._extended(entry, result, asked_at)
        if cause:
            self._emit(SettleFailed(verb="extend", events=len(entries), final=False, cause=cause))
            latest_end = anyio.current_time() + self._lease
            for entry in entries:
                entry.latest_end = latest_end
                self._retry_extend(entry, 0.0)
        self.wake(anyio.current_time())

    def _extended(self, entry: InFlight, result: object, asked_at: float) -> None:
        if entry.state is GONE:
            return
        if isinstance(result, Extended):
            now = anyio.current_time()
            entry.extending = False
            entry.leased_until, entry.asked_at = result.until, asked_at
            entry.extend_at = now + max(0.0, result.until - now) / 3
        elif getattr(result, "kind", None) is SettledKind.LOST and entry.state is not SETTLING:
            entry.lost_at(anyio.current_time())
            self._lose(entry)
        else:
            self._retry_extend(entry, getattr(result, "after", 0.0))

    def _retry_extend(self, entry: InFlight, after: float) -> None:
        """Try again soon, but not so often that a failing source is hammered."""
        now = anyio.current_time()
        entry.extending = False
        entry.extend_at = now + max(after, (entry.leased_until - now) / 4, 0.05)
