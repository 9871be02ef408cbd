"""Events waiting to be settled with one verb, taken in groups of what one call may hold."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import anyio

from eventkit._pipeline.inflight import GONE, InFlight
from eventkit._pipeline.wakeup import Waiters

__all__ = ["Outbox"]

LINGER = 0.003
"""Seconds a call waits for company before it is sent with less than it may hold."""


class Outbox:
    """A queue with one wake-up a group. Several senders may take from it."""

    def __init__(self, verb: str, limit: int) -> None:
        self.verb = verb
        self._limit = limit
        self._items: deque[InFlight] = deque()
        self._later: list[InFlight] = []
        self._senders = Waiters()
        self._lingering = Waiters()
        self._closing = False

    def put(self, entries: Sequence[InFlight]) -> None:
        """Add events. One sender wakes for the first, to linger for company, and one for each full call."""
        before = len(self._items)
        self._items.extend(entries)
        full = len(self._items) // self._limit - before // self._limit
        if full or not before:
            self._lingering.wake(full)
            self._senders.wake(max(full, 1))

    def put_later(self, entry: InFlight, due: float) -> None:
        """Add one event again at `due`, on the loop's clock."""
        entry.due = due
        self._later.append(entry)
        self._senders.wake()

    def close(self) -> None:
        """No more will be put: senders send what is left, without lingering, and end."""
        self._closing = True
        self._lingering.wake_all()
        self._senders.wake_all()

    def hurry(self) -> None:
        """Send what waits for company now."""
        self._lingering.wake_all()

    async def take(self) -> list[InFlight]:
        """The next group, at most one call's worth; an empty list when closed and empty."""
        while True:
            self._bring_back()
            if self._items and not self._closing and len(self._items) < self._limit:
                await self._lingering.sleep(anyio.current_time() + LINGER)
            if group := self._next_group():
                return group
            if self._closing and not self._later:
                self._senders.wake_all()
                return []
            await self._senders.sleep(min((entry.due for entry in self._later), default=math.inf))

    def _next_group(self) -> list[InFlight]:
        items = self._items
        taken = [items.popleft() for _ in range(min(self._limit, len(items)))]
        return [entry for entry in taken if entry.state is not GONE]

    def _bring_back(self) -> None:
        if not self._later:
            return
        now = anyio.current_time()
        self._items.extend(entry for entry in self._later if entry.due <= now)
        self._later = [entry for entry in self._later if entry.due > now]
