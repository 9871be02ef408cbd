"""The intake gate: whether events are taken in, and when a probe may try. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from random import Random

__all__ = ["Gate", "GateOptions", "ProbeResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """When the gate closes and how long it waits between probes, in seconds; the wait doubles, ±20 %."""

    transient_calls: int = 10
    first_wait: float = 5.0
    longest_wait: float = 60.0


class ProbeResult(enum.Enum):
    """What a probe showed. NOTHING: the event never reached its handler."""

    HEALTHY = "healthy"
    TRANSIENT = "transient"
    ITEM_FAILED = "item failed"
    NOTHING = "nothing"


class Gate:
    """Closed by consecutive transient outcomes, by a batch that looks like an outage, or by `pause`.

    While closed, one event at a time is run as a probe. A probe that is handled, skipped, rejected or retried
    at the handler's wish opens the gate; a transient failure waits longer. An item-shaped failure opens a gate
    closed by transient outcomes, and leaves one closed by the bisector closed: a queue of nothing but poison
    drains at the rate of the probes.
    """

    def __init__(self, options: GateOptions) -> None:
        self.closed = False
        self.reason = ""
        self.closed_at = 0.0
        self.probe_at = 0.0
        self.probing = False
        self.wait = 0.0
        self._options = options
        self._transient = 0

    def called(self, *, transient: bool) -> bool:
        """Count the outcome of one handler call; True when the gate should close now."""
        self._transient = self._transient + 1 if transient else 0
        return not self.closed and self._transient >= self._options.transient_calls

    def pause(self, reason: str, now: float, rng: Random) -> None:
        """Close; the first probe may run after the first wait. No effect on a closed gate."""
        if self.closed:
            return
        self.closed, self.reason, self.closed_at, self.probing = True, reason, now, False
        self._schedule(self._options.first_wait, now, rng)

    def probe_due(self, now: float) -> bool:
        """Whether a probe should be started now."""
        return self.closed and not self.probing and now >= self.probe_at

    def probed(self, result: ProbeResult, now: float, rng: Random) -> bool:
        """Take the result of the probe; True when it opened the gate."""
        self.probing = False
        match result:
            case ProbeResult.NOTHING:
                self.probe_at = now
            case ProbeResult.TRANSIENT:
                self._schedule(min(self.wait * 2, self._options.longest_wait), now, rng)
            case ProbeResult.ITEM_FAILED if self.reason == "bisector":
                self._schedule(self._options.first_wait, now, rng)
            case ProbeResult.ITEM_FAILED | ProbeResult.HEALTHY:  # pragma: no branch - these are all there are
                self.closed, self.reason, self._transient = False, "", 0
                return True
        return False

    def _schedule(self, wait: float, now: float, rng: Random) -> None:
        self.wait = wait
        self.probe_at = now + wait * rng.uniform(0.8, 1.2)
