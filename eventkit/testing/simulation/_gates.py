"""The intake gates of the workers, as their records tell of them, and what must not happen while they are closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from eventkit._telemetry.records import GateClosed, GateOpened, GateProbed
from eventkit.testing.simulation._calls import Call, Chain
from eventkit.testing.simulation._witness import SLACK

if TYPE_CHECKING:
    from eventkit.testing.simulation._life import Life

__all__ = ["Gates"]

CLOSES_AFTER, FAR_TOO_MANY = 10, 40
"""Transient failures in a row that close the gate, and so many that it should have, even if some did not count."""


class _Gate(msgspec.Struct, eq=False):
    closed_at: float | None = None
    probe_at: float = 0.0
    transient: int = 0
    """Calls in a row that failed transiently."""


class Gates:
    """One gate a worker. `batch_size` is the largest there may be, 0 where handlers take single events.

    `holds` says whether an event of a call is still leased.
    """

    def __init__(
        self,
        violate: Callable[[str, str], None],
        clock: Callable[[], float],
        batch_size: int,
        holds: Callable[[Call], bool],
    ) -> None:
        self._violate = violate
        self._clock = clock
        self._batch_size = batch_size
        self._holds = holds
        self._gates: dict[int, _Gate] = {}

    def ended(self, life: Life) -> None:
        """The worker is no more."""
        self._gates.pop(life.number, None)

    def told(self, life: Life, record: GateClosed | GateProbed | GateOpened, *, sure: bool) -> None:
        """The worker says so. Unless it is `sure`, calls may have ended that count for nobody."""
        gate, now = self._of(life), self._clock()
        if isinstance(record, GateOpened):
            if gate.transient:
                self._violate("I11", f"worker {life.number} takes events in again after a transient failure")
            gate.closed_at = None
            return
        gate.probe_at = now + record.delay
        if isinstance(record, GateClosed):
            gate.closed_at = now
            if record.reason == "transient" and gate.transient < CLOSES_AFTER and sure:
                self._violate("I11", f"worker {life.number} closes its gate after {gate.transient} transient failures")

    def transient(self, life: Life) -> None:
        """A call has failed transiently."""
        self._of(life).transient += 1

    def healthy(self, life: Life) -> None:
        """A call has come to something else."""
        self._of(life).transient = 0

    def check(self, call: Call, running: Sequence[Call]) -> None:
        """A call starts beside those that run."""
        gate, life, now = self._of(call.life), call.life, self._clock()
        if gate.closed_at is None:
            if gate.transient >= FAR_TOO_MANY:
                self._violate("I11", f"worker {life.number} goes on after {gate.transient} transient failures in a row")
        elif now > gate.closed_at and life.frozen_until <= now and not self._is_begun(call.chain, gate.closed_at):
            names = ", ".join(str(fate.index) for fate in call.fates)
            if len(call.fates) > 1 or any(self._is_probe(other, gate.closed_at) for other in running):
                self._violate("I11", f"worker {life.number} starts {names} beside the one probe of its gate")
            if now < gate.probe_at - SLACK:
                self._violate("I11", f"worker {life.number} probes with {names} before it is time")

    def _of(self, life: Life) -> _Gate:
        return self._gates.setdefault(life.number, _Gate())

    def _is_begun(self, chain: Chain, when: float) -> bool:
        """Whether it may be what is left of a batch that was begun at that time, and is run one by one."""
        return chain.began < when and chain.events <= self._batch_size

    def _is_probe(self, call: Call, closed_at: float) -> bool:
        """Whether it is not part of what was begun before the gate closed, and its event is still its worker's."""
        if call.started <= closed_at or call.run.calls > 1 or call.lost or self._is_begun(call.chain, closed_at):
            return False
        return self._holds(call)
