"""What workers write down while they live: one file a round, one line a thing that happened, in the order it did."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

LINE = 64
"""Bytes a line has: a page holds a whole number of them, so SIGKILL in the midst of a write cannot tear one."""

NAME = "ledger.txt"


class Line(NamedTuple):
    """One thing that happened in worker number `life`, at `at` on the monotonic clock; `event` is -1 for none.

    `what`: `start` and `effect` by handlers, the others by telemetry records (see `worker.RECORDS`).
    """

    what: str
    event: int
    life: int
    pid: int
    attempt: int
    at: float


class Pen:
    """Appends lines for one worker. Each is in the page cache when `write` returns, whatever becomes of the process."""

    def __init__(self, folder: Path, life: int) -> None:
        self._file = os.open(folder / NAME, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._life = life
        self._pid = os.getpid()

    def write(self, what: str, event: int = -1, attempt: int = 0) -> None:
        """Append one line, in one call of the system."""
        text = f"{what} {event} {self._life} {self._pid} {attempt} {time.monotonic():.6f}"
        os.write(self._file, text.ljust(LINE - 1).encode() + b"\n")


def read(folder: Path) -> list[Line]:
    """All that has happened so far."""
    path = folder / NAME
    if not path.exists():
        return []
    rows = (line.split() for line in path.read_text().splitlines())
    return [
        Line(what, int(n), int(life), int(pid), int(attempt), float(at)) for what, n, life, pid, attempt, at in rows
    ]


def size(folder: Path) -> int:
    """Bytes written so far."""
    path = folder / NAME
    return path.stat().st_size if path.exists() else 0
