"""Wakes the receives of this process when this process changes a queue; other processes are found by polling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from anyio.lowlevel import RunVar

from eventkit_sqlite._config import Place

# One registry an event loop, for as long as it runs: a source and a sink are opened apart and know nothing of
# each other, and an anyio.Event belongs to one loop.
_LISTENERS: RunVar[dict[tuple[Path, str], list[Bell]]] = RunVar("eventkit_sqlite_listeners")


class Bell:
    """What one source waits on."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def next_ring(self) -> anyio.Event:
        """An event that is set at the next ring from now: take it before looking whether there is work."""
        return self._rung

    def ring(self) -> None:
        """Wake who waits."""
        self._rung.set()
        self._rung = anyio.Event()


@contextmanager
def listening(place: Place) -> Iterator[Bell]:
    """A bell that `ring_all` rings."""
    bells = _LISTENERS.get({})
    _LISTENERS.set(bells)
    here = bells.setdefault((place.path, place.queue), [])
    bell = Bell()
    here.append(bell)
    try:
        yield bell
    finally:
        here.remove(bell)
        if not here:
            bells.pop((place.path, place.queue), None)


def ring_all(place: Place) -> None:
    """Wake every source of this queue that runs on this event loop."""
    for bell in _LISTENERS.get({}).get((place.path, place.queue), ()):
        bell.ring()
