"""Deliveries that nobody saw: Pub/Sub counts them, and they are no attempts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

MOST: Final = 10_000
"""Messages remembered; of the oldest beyond it the count will be too high."""


class Unseen:
    """How often each message has come and gone without being handed over, as far as this process knows."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}

    def add(self, received: Iterable[Any]) -> None:
        """These, raw `ReceivedMessage`s, go as they came."""
        times = self._times
        for each in received:
            id = each.message.message_id
            times[id] = times.pop(id, 0) + 1  # the newest stand last
        while len(times) > MOST:
            del times[next(iter(times))]

    def __bool__(self) -> bool:
        return bool(self._times)

    def times(self, message_id: str) -> int:
        """For this message."""
        return self._times.get(message_id, 0)
