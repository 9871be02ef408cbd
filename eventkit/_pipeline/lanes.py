"""Order per key: one running event per ordering key, and what followers do when their head fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from eventkit._pipeline.inflight import HELD, InFlight
from eventkit.spi import Traits

if TYPE_CHECKING:
    from eventkit._pipeline.batcher import Gathering

__all__ = ["Lane", "Lanes"]

REMEMBERED = 10_000
"""Acknowledged message ids kept, for sources that bring later events of a key again."""


class Lane:
    """The events of one key that are in hand."""

    __slots__ = ("busy", "first", "gathering", "heads", "key", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.busy = 0
        """Events handed on and not yet decided."""
        self.first: deque[InFlight] = deque()
        """Heads that came back: they run before those that wait."""
        self.waiting: deque[InFlight] = deque()
        self.heads: dict[str, None] = {}
        """Message ids of heads that went back to the source; who waits, waits for them."""
        self.gathering: Gathering | None = None
        """The batch its events are gathering in, which more of them may join."""


class Lanes:
    """All lanes of a worker. `offer` hands an event to its handler; `release` gives it back uncounted."""

    def __init__(
        self,
        *,
        ordered: bool,
        on_key_failure: Literal["block", "skip"],
        traits: Traits,
        release: Callable[[InFlight, str], None],
    ) -> None:
        self.blocks = on_key_failure == "block"
        self.ordered = ordered
        self._release_policy = traits.key_release
        self._release = release
        self._lanes: dict[str, Lane] = {}
        self.acked: dict[str, None] = {}

    def already_acked(self, entry: InFlight) -> bool:
        """Whether the source brings an event again that was acknowledged here: it must not run twice."""
        return entry.delivery.message_id in self.acked

    def enter(self, entry: InFlight, *, first: bool = False) -> None:
        """Hand an event to its handler, now or when its turn comes; `first` puts it before those that wait."""
        key = entry.delivery.key
        if not self.ordered or key is None:
            assert entry.route is not None, "an event enters a lane after it has been routed"
            entry.route.offer(entry)
            return
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
        entry.lane = lane
        if entry.delivery.message_id in lane.heads:
            del lane.heads[entry.delivery.message_id]
            first = True
        (lane.first if first else lane.waiting).append(entry)
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
        """The event goes back to the source and will come again."""
        lane = entry.lane
        if lane is None:
            return
        for queue in (lane.first, lane.waiting):
            if entry in queue:
                queue.remove(entry)
                entry.lane = None
                self._drop_if_empty(lane)
                return
        self._leave(entry)
        if self.blocks:
            lane.heads[entry.delivery.message_id] = None
            if self._release_policy != "hold":
                self._release_followers(lane)
        self._pump(lane)

    def stopped(self, failed: InFlight, later: Iterable[InFlight]) -> list[InFlight]:
        """Of `later`, those of the failed event's key: put back to wait behind it, in order."""
        lane = failed.lane
        if lane is None or not self.blocks:
            return []
        behind = [entry for entry in later if entry.lane is lane]
        for entry in reversed(behind):
            entry.state, entry.slot = HELD, None
            lane.busy -= 1
            lane.waiting.appendleft(entry)
        return behind

    def waiting(self) -> list[InFlight]:
        """Every event that waits for its turn."""
        return [entry for lane in self._lanes.values() for entry in (*lane.first, *lane.waiting)]

    def _leave(self, entry: InFlight) -> Lane | None:
        lane, entry.lane = entry.lane, None
        if lane is not None:
            lane.busy -= 1
        return lane

    def _pump(self, lane: Lane) -> None:
        while queue := lane.first or (not lane.heads and lane.waiting) or None:
            entry = queue[0]
            route = entry.route
            assert route is not None, "an event enters a lane after it has been routed"
            if lane.busy and not route.joins(entry, lane.gathering):
                return
            queue.popleft()
            lane.busy += 1
            lane.gathering = route.offer(entry)
        self._drop_if_empty(lane)

    def _release_followers(self, lane: Lane) -> None:
        followers, lane.waiting = lane.waiting, deque()
        for follower in followers:
            follower.lane = None
            self._release(follower, "behind a failed event of its key")

    def _drop_if_empty(self, lane: Lane) -> None:
        if not lane.busy and not lane.first and not lane.waiting and self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]

    def _remember(self, message_id: str) -> None:
        self.acked[message_id] = None
        if len(self.acked) > REMEMBERED:
            del self.acked[next(iter(self.acked))]
