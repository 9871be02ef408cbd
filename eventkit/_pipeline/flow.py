"""The intake gate at work: closing it, probing with what is in hand, and running parked events again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

import anyio

from eventkit._pipeline.inflight import PARKED, InFlight, Table
from eventkit._pipeline.wakeup import Waiters
from eventkit._policies.gate import Gate, ProbeResult
from eventkit._telemetry.observer import Fanout
from eventkit._telemetry.records import GateClosed, GateOpened, GateProbed

if TYPE_CHECKING:
    from eventkit._pipeline.batcher import Gathering
    from eventkit._pipeline.judge import Judge
    from eventkit._pipeline.lanes import Lanes
    from eventkit._pipeline.routes import Route

__all__ = ["Flow"]

ALREADY_HANDLED = "already handled; its source delivers again after a failed event of its key"

SPARE_SHARE = 0.1
"""An event with less than this share of `max_processing` left is released instead of run: its call would be cut."""


class Flow:
    """Owns the gate. The keeper calls `tick`; whoever ran a handler reports `called` and `probed`."""

    judge: Judge
    lanes: Lanes

    def __init__(
        self,
        *,
        gate: Gate,
        table: Table,
        routes: Sequence[Route],
        room: Waiters,
        emit: Fanout,
        rng: Random,
        max_processing: float,
        wake_keeper: Callable[[float], None],
    ) -> None:
        self.gate = gate
        self.wants_probe = False
        """The gate is closed and nothing is in hand: the probe is a receive of one."""
        self._table = table
        self._routes = routes
        self._room = room
        self._emit = emit
        self._rng = rng
        self.spare = max_processing * SPARE_SHARE
        self._wake_keeper = wake_keeper

    def called(self, *, transient: bool, detail: str = "") -> None:
        """A handler call has ended; enough transient ones in a row close the gate."""
        if self.gate.called(transient=transient):
            self.close("transient", detail)

    def close(self, reason: str, detail: str) -> None:
        """Pause the intake and park what has not started."""
        if self.gate.closed:
            return
        now = anyio.current_time()
        self.gate.pause(reason, now, self._rng)
        self._emit(GateClosed(reason=reason, delay=self.gate.probe_at - now, detail=detail))
        for route in self._routes:
            for entry in route.halt():
                self.judge.park(entry, now, rerun=True)
        self._wake_keeper(self.gate.probe_at)

    def parked(self, due: float) -> None:
        """An event was parked until `due`."""
        self._wake_keeper(due)
        self._room.wake_all()

    def freed(self) -> None:
        """An event left the table without being settled: there is room for another."""
        self._room.wake_all()

    def probed(self, entry: InFlight, result: ProbeResult) -> None:
        """The probe `entry` has shown something."""
        if not entry.probe:
            return
        entry.probe = False
        if not self.gate.closed:
            return
        reason, now = self.gate.reason, anyio.current_time()
        if self.gate.probed(result, now, self._rng):
            self._emit(GateOpened(reason=reason, seconds=now - self.gate.closed_at))
            self.wants_probe = False
            self._room.wake_all()
            self._wake_keeper(now)
            return
        if result is not ProbeResult.NOTHING:
            self._emit(GateProbed(reason=reason, delay=self.gate.probe_at - now, result=result.value))
        self._wake_keeper(self.gate.probe_at)

    def admit(self, entry: InFlight) -> None:
        """Take in an event that was received while the gate is closed: as the probe, if one is wanted."""
        if self.wants_probe and self.lanes.is_free(entry):
            self.wants_probe = False
            entry.probe = True
        self.lanes.enter(entry)

    def offer(self, entry: InFlight) -> Gathering | None:
        """Hand an event to its handler, unless nothing may start now."""
        assert entry.route is not None, "an event is offered after it has been routed"
        if self.judge.draining:
            self.judge.released(entry, "drain")
            return None
        if self.lanes.acked and self.lanes.already_acked(entry):
            self.judge.skipped(entry, ALREADY_HANDLED)
            return None
        if self.gate.closed and not entry.probe:
            self.judge.park(entry, anyio.current_time(), rerun=True)
            return None
        return entry.route.offer(entry)

    def tick(self, now: float) -> float:
        """Do what time demands of gate and lanes; when it will demand something again."""
        if self.gate.probe_due(now):
            self._probe(now)
        due = self.lanes.tick(now)
        return min(due, self.gate.probe_at) if self.gate.closed and not self.gate.probing else due

    def _probe(self, now: float) -> None:
        """Start a probe: the event in hand that waited longest, else a receive of one."""
        self.gate.probing = True
        waiting = [entry for entry in self._table.entries.values() if entry.state is PARKED and entry.rerun]
        if waiting:
            entry = min(waiting, key=lambda parked: parked.due)
            entry.probe = True
            self._run(entry, now)
        else:
            self.wants_probe = True
            self._room.wake_all()

    def wake(self, entry: InFlight, now: float) -> None:
        """A parked event is due: give it back when its retry was counted, else run it again from hand."""
        if not entry.rerun:
            self._table.unpark(entry)
            self.judge.due_again(entry)
        elif not self.gate.closed:
            self._run(entry, now)

    def due(self, entry: InFlight) -> float:
        """When a parked event needs attention; never while only a probe may run it."""
        return math.inf if entry.rerun and self.gate.closed else entry.due

    def too_late(self, entry: InFlight) -> None:
        """The event has waited for nearly all its time: give it back rather than cut its call."""
        self.judge.released(entry, "end of max_processing")
        self.probed(entry, ProbeResult.NOTHING)

    def _run(self, entry: InFlight, now: float) -> None:
        self._table.unpark(entry)
        if entry.expires - now < self.spare:
            self.too_late(entry)
        elif entry.lane is None:
            self.lanes.enter(entry)
        else:
            self.offer(entry)
