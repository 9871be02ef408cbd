"""What is remembered of an event between its deliveries, in a bounded map by message id."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["History", "Past"]

TRANSIENT_LIMIT = 20
"""Transient failures, each with a success of the same handler in between, after which an event itself is to blame."""


@dataclass(slots=True)
class Past:
    """One event's past in this process."""

    uncounted: int = 0
    """Deliveries that ended without a counted attempt: released, lost, or ended transient."""
    failures: int = 0
    """Counted failures; the attempt where the source counts none."""
    transient_in_a_row: int = 0
    blamed: int = 0
    """Transient failures since whose predecessor the same handler succeeded on another event."""
    successes_seen: int = -1
    suspect: bool = False
    """Left over in a failed batch at the end of its time: to be run alone."""

    def transient(self, successes: int) -> bool:
        """Count one transient failure; True when the event is to blame from now on (DESIGN: after 20)."""
        self.transient_in_a_row += 1
        if successes > self.successes_seen >= 0 or self.blamed == 0:
            self.blamed += 1
        self.successes_seen = successes
        return self.blamed >= TRANSIENT_LIMIT


class History:
    """The past of the `capacity` events that failed or were released last; the oldest is forgotten first."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self.known: dict[str, Past] = {}
        """By message id. Most events have no past: ask whether this is empty before calling."""

    def find(self, message_id: str) -> Past | None:
        """The past of this message, if any is known."""
        return self.known.get(message_id)

    def of(self, message_id: str) -> Past:
        """The past of this message, begun now if none is known, and remembered longest."""
        past = self.known.pop(message_id, None) or Past()
        self.known[message_id] = past
        if len(self.known) > self._capacity:
            del self.known[next(iter(self.known))]
        return past

    def forget(self, message_id: str) -> None:
        """The event is settled for good."""
        self.known.pop(message_id, None)
