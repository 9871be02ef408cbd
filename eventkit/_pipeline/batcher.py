"""Gathering events into batches: by size, bytes, age and key. Pure: `now` is an argument."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable

from eventkit._handler import Batching
from eventkit._pipeline.inflight import HELD, InFlight

__all__ = ["Batcher", "Gathering"]


class Gathering:
    """A batch that is being gathered; closed once it is full or old enough."""

    __slots__ = ("bytes", "closed", "due", "entries", "key")

    def __init__(self, key: Hashable, due: float) -> None:
        self.key = key
        self.due = due
        self.entries: list[InFlight] = []
        self.bytes = 0
        self.closed = False

    def remove(self, entry: InFlight) -> None:
        """Take one event out again."""
        self.entries.remove(entry)
        self.bytes -= entry.size

    def take(self) -> list[InFlight]:
        """Take all events out, without those that were withdrawn meanwhile."""
        entries, self.entries = self.entries, []
        return [entry for entry in entries if entry.state is HELD]


class Batcher:
    """Events of one handler on their way into batches; what was withdrawn meanwhile is left out."""

    def __init__(self, options: Batching) -> None:
        self._options = options
        self._open: dict[Hashable, Gathering] = {}
        self._ready: deque[Gathering] = deque()

    def add(self, entry: InFlight, key: Hashable, now: float) -> Gathering:
        """Put an event into the batch of its key; `now` is when it came."""
        gathering = self._open.get(key)
        if gathering is not None and not self.fits(entry, gathering):
            self._close(gathering)
            gathering = None
        if gathering is None:
            gathering = self._open[key] = Gathering(key, now + self._options.max_wait)
        gathering.entries.append(entry)
        gathering.bytes += entry.size
        if len(gathering.entries) >= self._options.max_size or gathering.bytes >= self._options.max_bytes:
            self._close(gathering)
        return gathering

    def fits(self, entry: InFlight, gathering: Gathering) -> bool:
        """Whether an event would gather in this batch, and not in one after it."""
        return not gathering.closed and gathering.bytes + entry.size <= self._options.max_bytes

    def add_alone(self, entry: InFlight) -> None:
        """Make a batch of this event only."""
        gathering = Gathering(None, 0.0)
        gathering.entries.append(entry)
        gathering.closed = True
        self._ready.append(gathering)

    @property
    def empty(self) -> bool:
        """Whether nothing gathers and no batch waits."""
        return not self._open and not self._ready

    @property
    def due(self) -> float:
        """When the next batch is old enough, on the loop's clock."""
        # Batches of one handler wait equally long, so the first opened is the first due.
        return next(iter(self._open.values())).due if self._open else math.inf

    def take(self, now: float) -> list[InFlight]:
        """The events of the next batch; an empty list when none is ready."""
        while self._open and (first := next(iter(self._open.values()))).due <= now:
            self._close(first)
        while self._ready:
            if entries := self._ready.popleft().take():
                return entries
        return []

    def drain(self) -> list[InFlight]:
        """Take everything out, in order."""
        for gathering in list(self._open.values()):
            self._close(gathering)
        entries = [entry for gathering in self._ready for entry in gathering.take()]
        self._ready.clear()
        return entries

    def _close(self, gathering: Gathering) -> None:
        gathering.closed = True
        del self._open[gathering.key]
        self._ready.append(gathering)
