"""The queue file: its tables, who may open it, and how it is opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from eventkit.errors import AccessDenied, ConfigurationError, SourceNotFound
from eventkit_sqlite._config import Place

APPLICATION_ID: Final = 0x45564B51  # "EVKQ": tells our files from those of other programs
VERSION: Final = 1
BUSY_TIMEOUT: Final = 3.0
"""Seconds a call waits, in its thread, for another process to let go of the file."""

# An event is one row of `content`, which never changes, and one small row of `event` that moves it through its
# life: so a lease of 16 MiB is written in a few bytes. What `due` says:
#     ready     NULL                 waits in one of the indexes `ready_*`, in publish order
#     delayed   the end of the delay, owner NULL
#     leased    the end of the lease, owner and receipt set
# `lane` has one row a key that has events, if anybody asked for order: whose leases are on it, and its first event
# that is not leased.
# Times are Unix seconds: the processes that share a file share a clock.
_TABLES: Final = (
    "CREATE TABLE counter (event INTEGER NOT NULL)",
    "INSERT INTO counter VALUES (0)",
    "CREATE TABLE queue (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, ordered INTEGER NOT NULL DEFAULT 0)",
    """CREATE TABLE content (
        id INTEGER PRIMARY KEY, message_id TEXT NOT NULL, event_id TEXT NOT NULL, content_type TEXT,
        published REAL NOT NULL, attributes BLOB NOT NULL, body BLOB NOT NULL)""",
    """CREATE TABLE event (
        id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, key TEXT, due REAL,
        owner INTEGER, receipt INTEGER, deliveries INTEGER NOT NULL DEFAULT 0)""",
    "CREATE INDEX ready_plain ON event (queue, due, key) WHERE due IS NULL AND key IS NULL",
    "CREATE INDEX ready_keyed ON event (queue, due) WHERE due IS NULL AND key IS NOT NULL",
    "CREATE INDEX waiting ON event (queue, due) WHERE due IS NOT NULL",
    "CREATE INDEX keyed ON event (queue, key, owner) WHERE key IS NOT NULL",
    """CREATE TABLE lane (
        queue INTEGER NOT NULL, key TEXT NOT NULL, owner INTEGER, head INTEGER, due REAL,
        PRIMARY KEY (queue, key)) WITHOUT ROWID""",
    "CREATE INDEX lane_open ON lane (queue, owner, head) WHERE head IS NOT NULL AND due IS NULL",
    """CREATE TABLE dead (
        id INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL, event INTEGER NOT NULL, key TEXT,
        deliveries INTEGER NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, died REAL NOT NULL)""",
    "CREATE INDEX dead_queue ON dead (queue)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)


def open_file(place: Place, *, synchronous: str) -> sqlite3.Connection:
    """A connection to the queue file; file and tables are made if there are none. `synchronous` is SQLite's word.

    Raises ConfigurationError, SourceNotFound or AccessDenied for a path that cannot be a queue file, sqlite3.Error.
    """
    _check_path(place.path)
    db = sqlite3.connect(place.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        _check_or_create(db, place.path)
        _set_up(db, place.path, synchronous)
    except BaseException:
        db.close()
        raise
    return db


def queue_id(db: sqlite3.Connection, name: str) -> int:
    """The number of the queue `name`, made if there is none. Raises sqlite3.Error."""
    row = db.execute("SELECT id FROM queue WHERE name = ?", (name,)).fetchone()
    if row is None:
        db.execute("INSERT INTO queue (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
        row = db.execute("SELECT id FROM queue WHERE name = ?", (name,)).fetchone()
    return int(row[0])


def _check_path(path: Path) -> None:
    try:
        if path.is_dir():
            raise ConfigurationError(f"{path} is a folder; name a file for the queue, such as {path / 'events.db'}")
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"{path} is a device or a socket; name a file for the queue")
        if not path.parent.is_dir():
            raise SourceNotFound(f"no folder {path.parent} for the queue file {path.name}; create it first")
    except OSError as exc:
        raise AccessDenied(f"queue file {path} is out of reach: {exc.strerror}") from exc
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise AccessDenied(f"queue file {path} is read-only for this user; a worker writes to it (chmod u+rw)")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise AccessDenied(
            f"folder {path.parent} is read-only for this user; SQLite keeps two more files beside {path.name}"
        )


def _check_or_create(db: sqlite3.Connection, path: Path) -> None:
    try:
        with db:
            db.execute("BEGIN")  # what is read of it is of one moment: another process may be making it
            if _is_ours(db, path):
                return
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        raise ConfigurationError(
            f"{path} is not an SQLite file; name another file, or move this one out of the way"
        ) from exc
    with db:  # commits, or rolls back
        db.execute("BEGIN IMMEDIATE")
        if not _is_ours(db, path):  # another process may have been first
            for statement in _TABLES:
                db.execute(statement)


def _is_ours(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the tables are there; False for an empty file. Raises ConfigurationError for any other content."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if (application, version) == (APPLICATION_ID, VERSION):
        return True
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, tables) == (0, 0, 0):
        return False
    if application != APPLICATION_ID:
        raise ConfigurationError(
            f"{path} is a database of another program (application_id {application:#x}, expected "
            f"{APPLICATION_ID:#x}); name another file for the queue"
        )
    raise ConfigurationError(
        f"{path} has version {version} of the queue's tables, this release of eventkit reads version {VERSION}; "
        f"use the release that wrote it, or drain it there and start with a new file"
    )


def _set_up(db: sqlite3.Connection, path: Path, synchronous: str) -> None:
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise ConfigurationError(
            f"the file system of {path} cannot share a file between processes (journal_mode is {mode}); "
            "put it on a local disk"
        )
    db.execute(f"PRAGMA synchronous = {synchronous}")
    if synchronous == "FULL":
        db.execute("PRAGMA fullfsync = ON")  # macOS: a plain fsync leaves it in the disk's cache
    db.execute("PRAGMA secure_delete = FAST")  # some builds write zeros over each body that is acked: twice the work
    db.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
