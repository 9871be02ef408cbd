"""Those who wait for messages of one subscription, and are served in turns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from eventkit_pubsub._local._errors import PubsubError
from eventkit_pubsub._local._stored import Holder, Taken
from eventkit_pubsub._local._subscription import LocalSubscription

TURN: Final = 1
"""Messages that one of several gets at a time."""
_FAR: Final = 86_400.0


class Waiter(Holder, Protocol):
    """A stream or a pull. It stands in line as long as it lives; `room` says what it would take now."""

    @property
    def lease(self) -> float:
        """Seconds until what it gets has to be settled."""
        ...

    def room(self) -> int:
        """How many messages it would take now."""
        ...

    def give(self, taken: Sequence[Taken]) -> None:
        """Have these: at least one, and no more than there is room for."""
        ...

    def end(self, error: PubsubError) -> None:
        """There will be nothing more."""
        ...


class Line:
    """The waiters of one subscription, each in turn.

    Messages are taken only for one that has room, within one step of the loop after there is something; nobody polls.
    """

    def __init__(self, subscription: LocalSubscription, clock: Callable[[], float]) -> None:
        self._subscription = subscription
        self._now = clock
        self._waiters: deque[Waiter] = deque()
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Handle | None = None
        self._rung = False

    def join(self, waiter: Waiter) -> None:
        """Stand in line."""
        self._subscription.join(waiter.source)
        self._waiters.append(waiter)
        self.ring()

    def leave(self, waiter: Waiter, unsent: Sequence[Taken]) -> None:
        """Go away, and give back what was not sent."""
        self._waiters.remove(waiter)
        self._subscription.give_back(unsent, self._now())
        self._subscription.leave(waiter.source)
        if not self._waiters and self._next is not None:
            self._next.cancel()
            self._rung = False

    def ring(self) -> None:
        """There may be something now, or room for it, or something to wait for sooner."""
        if self._waiters and not self._rung:
            self._rung = True
            self._serve_at(None)

    def end(self, error: PubsubError) -> None:
        """End all waiters."""
        for waiter in self._waiters:
            waiter.end(error)
        if self._next is not None:
            self._next.cancel()

    def serve(self) -> None:
        """Hand out what there is, until nobody has room or nothing is there for those who have."""
        self._rung = True  # what rings from here on is seen to below
        waiters, now, in_vain = self._waiters, self._now(), 0
        self._subscription.catch_up(now)
        most = TURN if len(waiters) > 1 else 1_000
        while in_vain < len(waiters):
            waiter = waiters[0]
            waiters.rotate(-1)
            room = min(waiter.room(), most)
            taken = self._subscription.take(room, waiter.lease, waiter, now) if room > 0 else ()
            if taken:
                waiter.give(taken)
            in_vain = 0 if taken else in_vain + 1
        self._rung = False
        if waiters:
            # Not before the clock has moved: what is due now was taken into account.
            self._serve_at(max(0.001, self._subscription.next_due - now))

    def _serve_at(self, wait: float | None) -> None:
        if self._next is not None:
            self._next.cancel()
        if wait is None:
            self._next = self._loop.call_soon(self.serve)
        else:
            self._next = self._loop.call_later(min(wait, _FAR), self.serve)
