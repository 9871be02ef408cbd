"""Waking waiting tasks: the only hand-off primitive of the pipeline, one wake-up for a batch of work."""

from __future__ import annotations

import math
from collections import deque

import anyio

__all__ = ["Waiters"]


class Waiters:
    """Tasks that sleep until there is something to do, woken first come first served."""

    __slots__ = ("_events",)

    def __init__(self) -> None:
        self._events: deque[anyio.Event] = deque()

    def wake(self, count: int = 1) -> None:
        """Wake up to `count` of the sleeping tasks."""
        while count > 0 and self._events:
            self._events.popleft().set()
            count -= 1

    def wake_all(self) -> None:
        """Wake every sleeping task."""
        self.wake(len(self._events))

    async def sleep(self, until: float = math.inf) -> None:
        """Sleep until woken, or until the loop's clock shows `until`. Check the reason to wake up afterwards."""
        event = anyio.Event()
        self._events.append(event)
        try:
            if until == math.inf:
                await event.wait()
            else:
                with anyio.CancelScope(deadline=until):
                    await event.wait()
        finally:
            if not event.is_set():
                self._events.remove(event)
