"""Order per key: one running event per ordering key, and what followers do when their head fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from eventkit._pipeline.inflight import HELD, InFlight
from eventkit.spi import Traits

if TYPE_CHECKING:
    from eventkit._pipeline.batcher import Gathering
    from eventkit._pipeline.routes import Route

__all__ = ["Lane", "Lanes"]

REMEMBERED = 10_000
"""Acknowledged message ids kept, for sources that bring later events of a key again."""


class Lane:
    """The events of one key that are in hand."""

    __slots__ = ("away", "busy", "gathering", "key", "pumping", "route", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.pumping = False
        self.busy = 0
        """Events handed on and not yet decided."""
        self.waiting: deque[InFlight] = deque()
        """Events whose turn has not come, by their places."""
        self.away: dict[str, int] = {}
        """Places of events that went back to the source, by message id; who comes after them waits for them."""
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

    def came(self, entry: InFlight) -> int:
        """The place of an event that comes: its old one if it was away, else the last."""
        message_id = entry.delivery.message_id
        if message_id not in self.away:
            return entry.number
        # The source keeps the order: what went back earlier, from a place before, will not come any more.
        earlier = list(takewhile(message_id.__ne__, self.away))
        place = self.away.pop(message_id)
        for other in earlier:
            if self.away[other] < place:
                del self.away[other]
        return place

    @property
    def next(self) -> InFlight | None:
        """The event whose turn comes next, unless one before it is away."""
        if not self.waiting or (self.away and min(self.away.values()) < self.waiting[0].place):
            return None
        return self.waiting[0]


class Lanes:
    """All lanes of a worker. `offer` hands an event on, to its handler or into parking; `release` gives it back."""

    def __init__(
        self,
        *,
        ordered: bool,
        on_key_failure: Literal["block", "skip"],
        traits: Traits,
        offer: Callable[[InFlight], Gathering | None],
        release: Callable[[InFlight, str], None],
    ) -> None:
        self.blocks = on_key_failure == "block"
        self.ordered = ordered
        self._release_policy = traits.key_release
        self._offer = offer
        self._release = release
        self._lanes: dict[str, Lane] = {}
        self.acked: dict[str, None] = {}

    def already_acked(self, entry: InFlight) -> bool:
        """Whether the source brings an event again that was acknowledged here: it must not run twice."""
        return entry.delivery.message_id in self.acked

    def enter(self, entry: InFlight) -> None:
        """Hand an event on, now or when its turn comes: in the order in which the events of its key first came."""
        key = entry.delivery.key
        if not self.ordered or key is None:
            self._offer(entry)
            return
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
        entry.lane, entry.place = lane, lane.came(entry)
        lane.wait(entry)
        self._pump(lane)

    def done(self, entry: InFlight) -> None:
        """The event is decided for good: handled, skipped or stored among the dead letters."""
        if (lane := self._leave(entry)) is not None:
            if self._release_policy == "redelivers":
                self._remember(entry.delivery.message_id)
            self._pump(lane)

    def parked(self, entry: InFlight) -> None:
        """The event waits in hand; its followers wait with it, unless failures of a key are skipped."""
        if not self.blocks and (lane := self._leave(entry)) is not None:
            self._pump(lane)

    def went_back(self, entry: InFlight) -> None:
        """The event goes back to the source and will come again; what waits behind it must not run before it."""
        lane = entry.lane
        if lane is None:
            return
        if entry in lane.waiting:
            lane.waiting.remove(entry)
            entry.lane = None
        else:
            self._leave(entry)
        if self.blocks:
            lane.away[entry.delivery.message_id] = entry.place
            self._recall(lane, entry)
            if self._release_policy != "hold":
                self._release_behind(lane, entry)
        self._pump(lane)

    def stopped(self, failed: InFlight, later: Iterable[InFlight]) -> list[InFlight]:
        """Of `later`, those of the failed event's key: put back to wait behind it, in order."""
        lane = failed.lane
        if lane is None or not self.blocks:
            return []
        behind = [entry for entry in later if entry.lane is lane]
        for entry in behind:
            entry.state, entry.slot = HELD, None
            lane.busy -= 1
            lane.wait(entry)
        return behind

    def halt(self) -> list[InFlight]:
        """Take out every event that waits for its turn."""
        entries = [entry for lane in self._lanes.values() for entry in lane.waiting]
        for lane in list(self._lanes.values()):
            lane.waiting.clear()
            self._drop_if_empty(lane)
        for entry in entries:
            entry.lane = None
        return entries

    def _leave(self, entry: InFlight) -> Lane | None:
        lane, entry.lane = entry.lane, None
        if lane is not None:
            lane.busy -= 1
        return lane

    def _pump(self, lane: Lane) -> None:
        # What is offered may be parked or released at once, which comes back here.
        if not lane.pumping:
            lane.pumping = True
            self._hand_on(lane)
            lane.pumping = False
            self._drop_if_empty(lane)

    def _hand_on(self, lane: Lane) -> None:
        while (entry := lane.next) is not None:
            route = entry.route
            assert route is not None, "an event enters a lane after it has been routed"
            if lane.busy and not (route is lane.route and route.joins(entry, lane.gathering)):
                return
            lane.waiting.popleft()
            lane.busy += 1
            lane.route, lane.gathering = route, self._offer(entry)

    def _recall(self, lane: Lane, head: InFlight) -> None:
        """What gathers in a batch, and has not started, waits behind an event that goes back."""
        if lane.gathering is None:
            return
        for entry in list(lane.gathering.entries):
            if entry.lane is lane and entry.state is HELD and entry.place > head.place:
                lane.gathering.remove(entry)
                lane.busy -= 1
                lane.wait(entry)

    def _release_behind(self, lane: Lane, head: InFlight) -> None:
        behind = [entry for entry in lane.waiting if entry.place > head.place]
        for entry in behind:
            lane.waiting.remove(entry)
            entry.lane = None
            lane.away[entry.delivery.message_id] = entry.place
        for entry in behind:
            self._release(entry, "behind a failed event of its key")

    def _drop_if_empty(self, lane: Lane) -> None:
        if not lane.busy and not lane.waiting and self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]

    def _remember(self, message_id: str) -> None:
        self.acked[message_id] = None
        if len(self.acked) > REMEMBERED:
            del self.acked[next(iter(self.acked))]
