"""What a FIFO queue was sent lately."""

from __future__ import annotations

from typing import Final, TypeAlias

from eventkit_sqs._local._wire import Sent

WINDOW: Final = 300.0
"""Seconds in which a second message with the same id is accepted and dropped. [doc: Exactly-once processing]"""

Key: TypeAlias = tuple[str | None, str]
"""The group, where each has ids of its own, and the id."""


class Duplicates:
    """The answers to what was sent in the last five minutes, also to what was deleted since."""

    def __init__(self) -> None:
        self._sent: dict[Key, tuple[float, Sent]] = {}

    def find(self, key: Key, now: float) -> Sent | None:
        """The answer to the first message with this key, if that is not too long ago."""
        self._forget(now)
        _, sent = self._sent.get(key, (0.0, None))
        return sent

    def add(self, key: Key, sent: Sent, now: float) -> None:
        """Remember it; `now` never runs backwards."""
        self._sent[key] = now + WINDOW, sent

    def _forget(self, now: float) -> None:
        while self._sent:
            key = next(iter(self._sent))
            if self._sent[key][0] > now:
                return
            del self._sent[key]
