"""One connection to a queue file, and its transactions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from eventkit.errors import SourceNotFound
from eventkit_sqlite._config import Place
from eventkit_sqlite._schema import open_file, queue_id


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
