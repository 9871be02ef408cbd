"""The embedded queue: real files, real time."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
from eventkit_sqlite import adapter

from tests.adapters.contract.variant import Place, Variant, Verb


class Locker:
    """Loses the file to another connection, which holds its lock."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._held: sqlite3.Connection | None = None

    async def lose(self) -> None:
        """See `Line`."""
        self._held = await anyio.to_thread.run_sync(self._lock)

    def _lock(self) -> sqlite3.Connection:
        held = sqlite3.connect(self._file, timeout=5.0, isolation_level=None, check_same_thread=False)
        held.execute("BEGIN EXCLUSIVE")
        return held

    async def heal(self) -> None:
        """See `Line`."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def lose_answer(self, verb: Verb) -> bool:
        """No answer of a file is lost: whoever has committed knows."""
        return False


@asynccontextmanager
async def sqlite_place(folder: Path) -> AsyncIterator[Place]:
    """A new file."""
    file = folder / "events.db"
    address = f"sqlite:///{file}?queue=events&durability=normal"
    line = Locker(file)
    try:
        yield Place(adapter=adapter, source=address, sink=address, line=line)
    finally:
        await line.heal()


VARIANTS = (
    # A call waits three seconds for a lock: an outage lasts longer, and every lease is lost in it.
    Variant(name="sqlite", place=sqlite_place, lease=1.5, outage=3.5, ordered=True),
)
