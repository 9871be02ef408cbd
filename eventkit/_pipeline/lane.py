"""The lane of one key: what is in hand, what waits, and what is to come again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from eventkit._pipeline.inflight import PARKED, SETTLING, InFlight

if TYPE_CHECKING:
    from eventkit._pipeline.batcher import Gathering
    from eventkit._pipeline.routes import Route

__all__ = ["Away", "Lane"]


class Away(NamedTuple):
    """An event that went back, and is to come again."""

    entry: InFlight
    place: int
    lease_end: float
    """When its lost lease is over at the source; -inf for one that was given back."""
    awaited: bool = True
    """Cleared when it seems not to come any more; if it comes after all, it still has its place."""

    @property
    def back_at(self) -> float:
        """Since when the source may bring it again, on the loop's clock; until then it may bring later ones."""
        return math.inf if self.entry.state is SETTLING else max(self.lease_end, self.entry.due)


class Lane:
    """The events of one key that are in hand, and those that are to come again."""

    __slots__ = (
        "again",
        "asked_at",
        "away",
        "busy",
        "gathering",
        "key",
        "parked",
        "pumping",
        "route",
        "since",
        "waiting",
    )

    def __init__(self, key: str, asked_at: float) -> None:
        self.key = key
        self.asked_at = asked_at
        """When the receive began that brought its first events."""
        self.again = False
        """Some event in it was not delivered for the first time: an older delivery of it may be in hand, too."""
        self.since = -math.inf
        """When an event last came again: until then, the source may have kept back those behind it."""
        self.pumping = False
        self.busy = 0
        """Events handed on and not yet decided."""
        self.parked: list[InFlight] = []
        """Those of the busy ones that are parked, or were."""
        self.waiting: deque[InFlight] = deque()
        """Events whose turn has not come, by their places."""
        self.away: dict[str, Away] = {}
        """Events that went back to the source, by message id; who comes after them waits for them."""
        self.gathering: Gathering | None = None
        """The batch its events are gathering in, which more of them may join ..."""
        self.route: Route | None = None
        """... if they are of this route."""

    def wait(self, entry: InFlight) -> None:
        """Let an event wait in its place, nearly always the last."""
        position = len(self.waiting)
        while position and self.waiting[position - 1].place > entry.place:
            position -= 1
        self.waiting.insert(position, entry)

    def place_of(self, entry: InFlight) -> int:
        """The place of an event that comes: the one it had before, else the last."""
        away = self.away.get(entry.delivery.message_id)
        if away is not None:
            return away.place
        if entry.delivery.delivery_count != 1:
            # An older delivery, whose lease the source has ended and that does not know it yet.
            for other in (*self.waiting, *self.parked):
                if other.delivery.message_id == entry.delivery.message_id:
                    return other.place
        return entry.place or entry.number

    def came(self, entry: InFlight) -> None:
        """An event that was away is back."""
        back = self.away.pop(entry.delivery.message_id, None)
        if back is None:
            # One that was out elsewhere comes after what is behind it; with the first of its lane, it was in order.
            again = entry.delivery.delivery_count != 1 and entry.asked_at != self.asked_at
            entry.misplaced = again and entry.place == entry.number
            return
        self.since = entry.received_at
        entry.misplaced = back.entry.misplaced
        if entry.misplaced:
            return
        # The source keeps the order: what was to come before it, and did not, will not come any more.
        asked_at = entry.asked_at
        self.give_up(lambda away: away.place < back.place and away.back_at <= asked_at)

    def give_up(self, hopeless: Callable[[Away], bool]) -> None:
        """Let nobody wait for these any more."""
        for message_id, away in self.away.items():
            if away.awaited and hopeless(away):
                self.away[message_id] = away._replace(awaited=False)

    def first_out(self, when: float) -> float:
        """The first place of what may not have come since `when`, as it was out, or one before it; infinity if none."""
        if when < self.since:
            return -math.inf
        out = [away for away in self.away.values() if away.back_at > when]
        return min((-math.inf if away.entry.misplaced else away.place for away in out), default=math.inf)

    def awaits(self, place: float) -> bool:
        """Whether an event before this place is to come again."""
        return bool(self.away) and any(away.awaited and away.place < place for away in self.away.values())

    @property
    def stalled(self) -> bool:
        """Whether the next event waits for one that is to come again."""
        return bool(self.waiting) and self.awaits(self.waiting[0].place)

    def behind(self, place: int) -> list[InFlight]:
        """What waits, or is parked, after this place."""
        parked = (entry for entry in self.parked if entry.state is PARKED)
        return [entry for entry in (*self.waiting, *parked) if entry.place > place]
