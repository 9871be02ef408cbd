"""Who holds which session of a queue, and what a session remembers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol

from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._queue import LocalQueue

LOST_SESSION: Final = AmqpError(
    "com.microsoft:session-lock-lost", "The session lock has expired on the session. Accept a new one to go on."
)


class Owner(Protocol):
    """A receiver that holds a session, or waits for one until `waits_until`, on the server's clock."""

    waits_until: float

    def granted(self, session: str, until: float) -> None:
        """It holds this session now, until then."""
        ...

    def lost(self) -> None:
        """It holds it no more."""
        ...

    def waited(self) -> None:
        """No session was free in time."""
        ...


class Lock:
    """A session that is held. `until` is on the server's clock."""

    __slots__ = ("owner", "until")

    def __init__(self, owner: Owner, until: float) -> None:
        self.owner = owner
        self.until = until


class Sessions:
    """The sessions of one queue.

    A lock that ends by itself counts as a failure of what was held under it, one that is given up does not.
    """

    def __init__(self, queue: LocalQueue, ring: Callable[[], None]) -> None:
        self.states: dict[str, bytes] = {}
        self._queue = queue
        self._ring = ring
        self._locks: dict[str, Lock] = {}
        self._waiting: list[Owner] = []

    def accept(self, session: str, owner: Owner, now: float) -> None:
        """Give `owner` this session. Raises AmqpError if somebody has it."""
        self.expire(now)
        if session in self._locks:
            text = f"The requested session {session!r} cannot be accepted. It may be locked by another receiver."
            raise AmqpError("com.microsoft:session-cannot-be-locked", text)
        self._grant(session, owner, now)

    def wait(self, owner: Owner) -> None:
        """Give `owner` the next session that is free and has something to deliver."""
        self._waiting.append(owner)
        self._ring()

    def _grant(self, session: str, owner: Owner, now: float) -> None:
        lock = self._locks[session] = Lock(owner, now + self._queue.settings.lock)
        self._ring()
        owner.granted(session, lock.until)

    def release(self, owner: Owner, now: float) -> None:
        """`owner` holds nothing and waits for nothing any more."""
        if owner in self._waiting:
            self._waiting.remove(owner)
        for session in [session for session, lock in self._locks.items() if lock.owner is owner]:
            del self._locks[session]
            self._queue.leave_session(session, now, counts=False)
        self._ring()

    def renew(self, session: str, now: float) -> float:
        """Lock it for the whole length again; until when. Raises AmqpError if nobody holds it."""
        lock = self.held(session, now)
        lock.until = now + self._queue.settings.lock
        return lock.until

    def held(self, session: str, now: float) -> Lock:
        """The lock of a session. Raises AmqpError if nobody holds it."""
        self.expire(now)
        lock = self._locks.get(session)
        if lock is None:
            raise LOST_SESSION
        return lock

    def tend(self, now: float) -> float:
        """See what time has done, give free sessions to those who wait, and say when to look again."""
        self.expire(now)
        for owner in [owner for owner in self._waiting if owner.waits_until <= now]:
            self._waiting.remove(owner)
            owner.waited()
        while self._waiting and (session := self._queue.next_session(self._locks, now)) is not None:
            self._grant(session, self._waiting.pop(0), now)
        ends = [lock.until for lock in self._locks.values()] + [owner.waits_until for owner in self._waiting]
        return min(ends, default=math.inf)

    def expire(self, now: float) -> None:
        """End the locks whose time is over."""
        for session, lock in [(session, lock) for session, lock in self._locks.items() if lock.until <= now]:
            del self._locks[session]
            self._queue.leave_session(session, now, counts=True)
            lock.owner.lost()
