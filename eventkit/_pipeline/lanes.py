"""Order per key: one running event per ordering key, and what followers do when their head fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
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

    __slots__ = ("busy", "first", "gathering", "heads", "key", "pumping", "route", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.pumping = False
        self.busy = 0
        """Events handed on and not yet decided."""
        self.first: deque[InFlight] = deque()
        """Heads that came back: they run before those that wait."""
        self.waiting: deque[InFlight] = deque()
        self.heads: dict[str, None] = {}
        """Message ids of heads that went back to the source; who waits, waits for them."""
        self.gathering: Gathering | None = None
        """The batch its events are gathering in, which more of them may join ..."""
        self.route: Route | None = None
        """... if they are of this route."""


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

    def enter(self, entry: InFlight, *, first: bool = False) -> None:
        """Hand an event to its handler, now or when its turn comes; `first` puts it before those that wait."""
        key = entry.delivery.key
        if not self.ordered or key is None:
            self._offer(entry)
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
                self._take_out(lane, queue, entry)
                return
        self._leave(entry)
        if self.blocks:
            lane.heads[entry.delivery.message_id] = None
            self._recall(lane, entry)
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

    def halt(self) -> list[InFlight]:
        """Take out every event that waits for its turn."""
        entries = [entry for lane in self._lanes.values() for entry in (*lane.first, *lane.waiting)]
        for lane in list(self._lanes.values()):
            lane.first.clear()
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
        while queue := lane.first or (not lane.heads and lane.waiting) or None:
            entry = queue[0]
            route = entry.route
            assert route is not None, "an event enters a lane after it has been routed"
            if lane.busy and not (route is lane.route and route.joins(entry, lane.gathering)):
                return
            queue.popleft()
            lane.busy += 1
            lane.route, lane.gathering = route, self._offer(entry)

    def _take_out(self, lane: Lane, queue: deque[InFlight], entry: InFlight) -> None:
        """An event that waits goes back; what waits behind it goes back too, or it would run before it."""
        behind = [*lane.first, *lane.waiting]
        del behind[: behind.index(entry) + 1]
        queue.remove(entry)
        entry.lane = None
        if self.blocks:
            for follower in behind:
                (lane.first if follower in lane.first else lane.waiting).remove(follower)
            self._give_back(behind)
        self._drop_if_empty(lane)

    def _recall(self, lane: Lane, head: InFlight) -> None:
        """What still gathers in one batch with an event that goes back waits behind it again."""
        gathering = lane.gathering
        if gathering is None or head not in gathering.entries:
            return
        behind = gathering.entries[gathering.entries.index(head) + 1 :]
        for follower in reversed([entry for entry in behind if entry.lane is lane and entry.state is HELD]):
            gathering.remove(follower)
            lane.busy -= 1
            lane.waiting.appendleft(follower)

    def _release_followers(self, lane: Lane) -> None:
        followers, lane.waiting = lane.waiting, deque()
        self._give_back(followers)

    def _give_back(self, followers: Iterable[InFlight]) -> None:
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
