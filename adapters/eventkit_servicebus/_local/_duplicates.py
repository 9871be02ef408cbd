"""What a queue with duplicate detection was sent lately."""

from __future__ import annotations

from typing import Any


class Duplicates:
    """The ids of the last `window` seconds, also of what was completed since."""

    def __init__(self, window: float) -> None:
        self.window = window
        self._seen: dict[Any, float] = {}

    def known(self, id: Any, now: float) -> bool:
        """Whether this id was met in the window; it is from now on. `now` never runs backwards."""
        while self._seen and next(iter(self._seen.values())) <= now - self.window:
            del self._seen[next(iter(self._seen))]
        if id is None or id in self._seen:
            return id is not None
        self._seen[id] = now
        return False
