"""Waking those who wait for a change that they look for themselves."""

from __future__ import annotations

import math

import anyio


class Bell:
    """Wakes everybody who waits. Rung without anybody waiting, it is forgotten: look first, then wait."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        """Wake whoever waits now."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self, until: float = math.inf) -> None:
        """Wait for the next ring, at most until `until` on the loop's clock."""
        event = self._event = self._event or anyio.Event()
        with anyio.CancelScope(deadline=until):
            await event.wait()
