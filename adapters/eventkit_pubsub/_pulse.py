"""How long what has just arrived may have waited for the loop."""

from __future__ import annotations

from typing import Final

LATE: Final = 1.0
"""Seconds that a response is taken to have been on its way."""
CATCHING_UP: Final = 1.0
"""Seconds after a standstill in which what arrives may have waited since its beginning."""


class Pulse:
    """Fed by a task that beats often: when it is late, the loop stood still, and everything waited.

    A process that was stopped goes on with a socket full of messages, whose leases have run all the time.
    """

    def __init__(self, now: float) -> None:
        self._last = now
        self._gap = 0.0
        self._caught_up = now

    def beat(self, now: float) -> bool:
        """The loop runs. Whether it stood still before."""
        gap, self._last = now - self._last, now
        if gap > LATE:
            self._gap, self._caught_up = gap, now + CATCHING_UP
        return gap > LATE

    def waited(self, now: float) -> float:
        """Seconds that what arrives now may have waited."""
        gap = self._gap if now < self._caught_up else 0.0
        return max(LATE, gap, now - self._last)
