"""One connection to a queue file: its transactions, and the threads its work is done in."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import ParamSpec, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread

from eventkit.errors import SourceNotFound
from eventkit_sqlite._config import Place
from eventkit_sqlite._errors import translated_errors
from eventkit_sqlite._schema import open_file, queue_id

P = ParamSpec("P")
T = TypeVar("T")


class Session:
    """One connection, and the queue it works on. Synchronous: for one thread at a time.

    `relaxed` leaves commits to the disk's own time: for leases, which mean nothing after a power cut.
    """

    def __init__(self, place: Place, *, relaxed: bool = False, wall: Callable[[], float] = time.time) -> None:
        """Open. Raises what `open_file` raises."""
        self.place = place
        self.wall = wall
        self.db = open_file(place, synchronous="NORMAL" if relaxed else place.synchronous)
        try:
            self.queue = queue_id(self.db, place.queue)
            self._file = place.path.stat()
        except BaseException:
            self.db.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[float]:
        """Hold the write lock; commit at the end, roll back if it raises. Gives the time in Unix seconds.

        Raises SourceNotFound when the file is no longer where it was, sqlite3.Error.
        """
        self.db.execute("BEGIN IMMEDIATE")
        try:
            self.check_file()
            yield self.wall()
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:  # some errors have rolled back already
                self.db.execute("ROLLBACK")
            raise

    def check_file(self) -> None:
        """Raise SourceNotFound when the file is no longer where it was.

        SQLite goes on writing to a file that was deleted: nothing would be left of a confirmed publish.
        """
        try:
            same = os.path.samestat(self.place.path.stat(), self._file)
        except OSError as exc:
            raise SourceNotFound(f"queue file {self.place.path} is gone: {exc.strerror}; start again") from exc
        if not same:
            raise SourceNotFound(f"queue file {self.place.path} was replaced while in use; start again")


class Threaded:
    """Runs the work of one queue's sessions in worker threads, one call at a time, first come first served."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._turn = CapacityLimiter(1)
        self._lock = threading.Lock()  # asyncio's own cancel gives the turn back while the thread still works

    async def run(self, doing: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`, which uses the session. `doing` completes "cannot … FILE". Raises AdapterError."""

        def locked() -> T:
            with self._lock:
                return work(*args, **kwargs)

        with translated_errors(doing, self._place.path):
            return await to_thread.run_sync(locked, limiter=self._turn)

    @asynccontextmanager
    async def session(self, *, relaxed: bool = False) -> AsyncIterator[Session]:
        """A session for the context. Entering raises ConfigurationError or AdapterError."""
        session = await self.run("open", Session, self._place, relaxed=relaxed)
        try:
            yield session
        finally:
            with CancelScope(shield=True):  # as long as the call under way: a busy timeout at most
                await self.run("close", session.db.close)
