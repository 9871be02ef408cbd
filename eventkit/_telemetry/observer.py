"""Observers and the fan-out that keeps one observer's mistake from reaching the worker."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from eventkit._telemetry.records import Level, Record

__all__ = ["Fanout", "Observer"]


class Observer(Protocol):
    """Receives every record of at least `level`, on the loop's thread (`LoopBlocked`: on its own)."""

    level: Level

    def observe(self, record: Record) -> None:
        """Take one record. Must not block; an exception is printed and goes no further."""
        ...


class Fanout:
    """Hands each record to every observer that listens at its level."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self.debug = any(observer.level <= Level.DEBUG for observer in observers)

    def __call__(self, record: Record) -> None:
        for observer in self._observers:
            if record.level < observer.level:
                continue
            try:
                observer.observe(record)
            except Exception:  # noqa: BLE001 - an observer's failure must not become the worker's
                # Standard error may be gone; there is nobody left to tell.
                with suppress(OSError, ValueError):
                    traceback.print_exc(file=sys.stderr)
