"""What was handed over and is not settled: what a receipt is, and which ordering keys are in somebody's hands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from eventkit.spi import DONE, Settled
from eventkit_pubsub._stream import Stream


class Mark:
    """A message of `key` is in somebody's hands, by a lease that ends at `leased_until`."""

    __slots__ = ("key", "leased_until")

    def __init__(self, key: str, leased_until: float) -> None:
        self.key = key
        self.leased_until = leased_until


class Hold(msgspec.Struct, gc=False, eq=False):
    """A message that was handed over; `stream` is the one it counts against, by `share` bytes, until it is settled."""

    ack_id: str
    share: float
    stream: Stream | None
    mark: Mark | None = None


class Held:
    """The ordering keys of which something is held."""

    def __init__(self) -> None:
        self._marks: set[Mark] = set()
        self._first_end = math.inf

    def mark(self, key: str, leased_until: float) -> Mark:
        """For a message of `key` that is handed over."""
        mark = Mark(key, leased_until)
        self._marks.add(mark)
        self._first_end = min(self._first_end, leased_until)
        return mark

    def forget(self, mark: Mark) -> None:
        """It is in nobody's hands any more."""
        self._marks.discard(mark)

    def settle(self, holds: Iterable[Hold], results: Sequence[Settled]) -> None:
        """What is done counts against no stream, and holds no key, any more."""
        for hold, result in zip(holds, results, strict=True):
            stream = hold.stream
            if result is not DONE or stream is None:
                continue
            hold.stream = None
            stream.outstanding -= 1
            stream.outstanding_bytes -= hold.share
            if hold.mark is not None:
                self.forget(hold.mark)

    def keys(self) -> set[str]:
        """Of what is not settled."""
        return {mark.key for mark in self._marks}

    def lost(self, now: float) -> set[str]:
        """The keys of which something was held until its lease was over; they are told once."""
        if now < self._first_end:
            return set()
        over = {mark for mark in self._marks if mark.leased_until <= now}
        self._marks -= over
        self._first_end = min((mark.leased_until for mark in self._marks), default=math.inf)
        return {mark.key for mark in over}
