"""Receives from a FIFO queue that a client may repeat, having lost the reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from eventkit_sqs._local._stored import Taken

WINDOW: Final = 300.0
"""Seconds in which a receive can be repeated. [doc: ReceiveMessage, ReceiveRequestAttemptId]"""


class _Attempt(NamedTuple):
    over: float
    taken: Sequence[Taken]
    state: Sequence[tuple[int, float]]


class Attempts:
    """What each attempt of the last five minutes took."""

    def __init__(self) -> None:
        self._attempts: dict[str, _Attempt] = {}

    def add(self, id: str, taken: Sequence[Taken], now: float) -> None:
        """Remember what a receive took, or has just been given again; `now` never runs backwards."""
        for old in [old for old, attempt in self._attempts.items() if attempt.over <= now]:
            del self._attempts[old]
        self._attempts[id] = _Attempt(now + WINDOW, taken, _state(taken))

    def find(self, id: str, now: float) -> Sequence[Taken]:
        """What this attempt took; nothing if a message was settled, put off or given back since."""
        attempt = self._attempts.get(id)
        if attempt is None or attempt.over <= now or attempt.state != _state(attempt.taken):
            return ()
        return attempt.taken if all(message.until > now for message, _ in attempt.taken) else ()


def _state(taken: Sequence[Taken]) -> Sequence[tuple[int, float]]:
    """What changes when anything is done to these messages."""
    return [(message.receipt, message.until) for message, _ in taken]
