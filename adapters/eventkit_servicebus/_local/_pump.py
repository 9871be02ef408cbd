"""Receivers that wait at a queue: each is served in its turn, as soon as there is something."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from eventkit_servicebus._local._queue import LocalQueue
from eventkit_servicebus._local._stored import Taken

TURN: Final = 16
"""Messages that one receiver gets before the next one has its turn."""


class Taker(Protocol):
    """A receiver, which wants `wanted` messages now."""

    session_id: str

    @property
    def wanted(self) -> int:
        """How many it can be given."""
        ...

    @property
    def lease(self) -> float | None:
        """How long it holds what it gets; None for the length of a lock."""
        ...

    def give(self, taken: list[Taken]) -> None:
        """Here they are."""
        ...


class Pump:
    """Who waits at one queue. Messages are taken only for one who can be given them."""

    def __init__(self, queue: LocalQueue, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._takers: deque[Taker] = deque()
        self._serving: asyncio.Handle | None = None
        self._at_once = False
        self._ended = False
        self.on_time: Callable[[float], float] | None = None
        """Told the time before anybody is served; answers when it wants to be told again."""

    def join(self, taker: Taker) -> None:
        """Serve this one, too."""
        self._takers.append(taker)
        self.ring()

    def leave(self, taker: Taker) -> None:
        """It waits no more."""
        if taker in self._takers:
            self._takers.remove(taker)

    def ring(self) -> None:
        """There may be something now, or somebody who wants it, or something to wait for sooner."""
        if not self._at_once and not self._ended:
            self._serve_after(0.0)
            self._at_once = True

    def serve(self) -> None:
        """Hand over what there is."""
        self._at_once = False
        now = self._clock()
        due = self.on_time(now) if self.on_time is not None else float("inf")
        idle = 0
        while idle < len(self._takers):
            taker = self._takers[0]
            self._takers.rotate(-1)
            wanted = min(taker.wanted, TURN)
            taken = self._queue.take(wanted, now, session=taker.session_id, lease=taker.lease) if wanted > 0 else []
            idle = 0 if taken else idle + 1
            if taken:
                taker.give(taken)
        due = min(due, self._queue.next_due)
        if not self._at_once and due - now < 86_400:
            # Not before the clock has moved: what is due now was taken into account.
            self._serve_after(max(0.001, due - now))

    def end(self) -> None:
        """Serve nobody any more."""
        self._ended = True
        if self._serving is not None:
            self._serving.cancel()

    def _serve_after(self, seconds: float) -> None:
        if self._serving is not None:
            self._serving.cancel()
        if not self._ended:
            self._serving = self._loop.call_later(seconds, self.serve) if seconds else self._loop.call_soon(self.serve)
