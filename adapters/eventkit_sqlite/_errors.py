"""SQLite's errors as eventkit's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from eventkit.errors import AccessDenied, AdapterError, PermanentAdapterError, TransientAdapterError

_LOCKED: Final = (TransientAdapterError, "another process holds its lock; look for one that is stuck in a transaction")
_DENIED: Final = (
    AccessDenied,
    "this user may not write to it, or to its folder; grant it, for the files beside it too",
)
_DAMAGED: Final = (PermanentAdapterError, "the file is damaged; stop every process that uses it and restore a copy")

# By primary code, https://www.sqlite.org/rescode.html; what is not here ends the worker.
_CASES: Final[dict[int, tuple[type[AdapterError], str]]] = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_PROTOCOL: _LOCKED,
    sqlite3.SQLITE_FULL: (TransientAdapterError, "the disk is full; free some space, what was confirmed is kept"),
    sqlite3.SQLITE_IOERR: (TransientAdapterError, "the disk failed to read or write; look into the system's log"),
    sqlite3.SQLITE_NOMEM: (TransientAdapterError, "the machine is out of memory"),
    sqlite3.SQLITE_PERM: _DENIED,
    sqlite3.SQLITE_READONLY: _DENIED,
    sqlite3.SQLITE_CANTOPEN: _DENIED,
    sqlite3.SQLITE_AUTH: _DENIED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
_OTHER: Final = (PermanentAdapterError, "SQLite does not do it; was the file changed by another program?")


@contextmanager
def translated_errors(doing: str, path: Path) -> Iterator[None]:
    """Raise an AdapterError in place of SQLite's. `doing` completes "cannot … FILE": `publish to`."""
    try:
        yield
    except sqlite3.Error as exc:
        kind, advice = _CASES.get(getattr(exc, "sqlite_errorcode", -1) & 0xFF, _OTHER)
        name = getattr(exc, "sqlite_errorname", type(exc).__name__)
        raise kind(f"cannot {doing} {path}: {advice} ({name}: {exc})") from exc
    except msgspec.MsgspecError as exc:
        raise PermanentAdapterError(
            f"cannot {doing} {path}: attributes of a row cannot be read; {_DAMAGED[1]}"
        ) from exc
