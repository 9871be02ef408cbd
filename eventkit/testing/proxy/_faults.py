"""The faults that are set on a proxy now."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import anyio
from anyio import current_time

LONGEST_MATCH = 1024
"""Bytes of a request that are kept, so that a match may lie across two pieces of it."""


@dataclass(slots=True, kw_only=True)
class Cut:
    """What is to happen to one reply: `left` bytes of it pass, then its connection is reset after `linger` seconds.

    `name` is the fault it counts as; it is the reply to the first request that has `when` in it.
    """

    name: str
    when: bytes
    left: int
    linger: float


@dataclass(slots=True)
class Standing:
    """Faults of every connection, and the cuts that wait for a request. Times are in seconds."""

    delay: float = 0.0
    rate: float = math.inf
    """Bytes a second, each way of each connection."""
    swallows_until: float = -math.inf
    resets_new: bool = False
    cuts: list[Cut] = field(default_factory=list)
    _changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def swallows(self) -> bool:
        """Whether nothing gets through now."""
        return current_time() < self.swallows_until

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        self.delay, self.rate, self.swallows_until, self.resets_new = 0.0, math.inf, -math.inf, False
        self.cuts.clear()
        self.changed()

    def changed(self) -> None:
        """Let who waits look again."""
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_delay(self, since: float) -> bool:
        """Wait until the delay of what came at `since` is over; whether there was any."""
        waited = False
        while (left := since + self.delay - current_time()) > 0:
            waited = True
            with anyio.move_on_after(left):
                await self._changed.wait()
        return waited

    def cut_for(self, request: bytes, new: int) -> Cut | None:
        """Take out the first cut that the last `new` bytes of `request` complete the match of."""
        for cut in self.cuts:
            start = max(0, len(request) - new - max(0, len(cut.when) - 1))
            if request.find(cut.when, start) >= 0:
                self.cuts.remove(cut)
                return cut
        return None
