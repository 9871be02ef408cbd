"""Order per key: one running event per ordering key, and what followers do when their head fails."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Literal

from eventkit._pipeline.inflight import GONE, HELD, PARKED, InFlight
from eventkit._pipeline.lane import Away, Lane
from eventkit.spi import Traits

if TYPE_CHECKING:
    from eventkit._pipeline.batcher import Gathering

__all__ = ["Lanes"]

REMEMBERED = 10_000
"""Acknowledged message ids kept, for sources that bring later events of a key again."""

LONGEST_RECEIVE = 60.0
"""Seconds after which a receive has surely brought what it brings."""

DOUBT = 10.0
"""Seconds an event may take to come again; what asks for events later, and does not get it, gives it up."""

RETRY = 1.0
"""Seconds between two looks at a lane that waits."""

LEASE_MARGIN = 1.0
"""Seconds a lease may last at the source after it has ended for us."""


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
        clock: Callable[[], float],
    ) -> None:
        self.blocks = on_key_failure == "block"
        self.ordered = ordered
        self._release_policy = traits.key_release
        self._offer = offer
        self._release = release
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._fading: deque[Lane] = deque()
        """Empty lanes of whose events some may not be back at the source."""
        self._stalled: dict[Lane, None] = {}
        """Lanes in which something waits for what is to come again."""
        self._heard = -math.inf
        self.acked: dict[str, None] = {}

    def already_acked(self, entry: InFlight) -> bool:
        """Whether the source brings an event again that was acknowledged here: it must not run twice."""
        return entry.delivery.message_id in self.acked

    def enter(self, entry: InFlight) -> None:
        """Hand an event to its handler, when its turn comes: in the order in which its key's events first came."""
        if (lane := self.line_up(entry)) is None:
            self._offer(entry)
        else:
            self._pump(lane)

    def line_up(self, entry: InFlight) -> Lane | None:
        """Let an event wait in its lane, and nothing more; None when it has no order to keep."""
        lane = self._lane_of(entry)
        if lane is not None:
            lane.wait(entry)
        return lane

    def pass_by(self, entry: InFlight) -> None:
        """The event will reach no handler: what is behind it waits until its dead letter is stored."""
        lane = self._lane_of(entry)
        if lane is not None:
            lane.busy += 1
            lane.gathering = None

    def _lane_of(self, entry: InFlight) -> Lane | None:
        """The lane of an event that comes, and its place there; None when it has no order to keep."""
        key = entry.delivery.key
        if not self.ordered or key is None:
            return None
        lane = self._lanes.get(key)
        if lane is None or (lane.away and _is_over(lane, entry.asked_at)):
            lane = self._lanes[key] = Lane(key, entry.asked_at)
        entry.lane, entry.place = lane, lane.place_of(entry)
        lane.came(entry)
        lane.again |= entry.delivery.delivery_count != 1
        return lane

    def is_free(self, entry: InFlight) -> bool:
        """Whether an event that comes now would be handed on at once."""
        lane = self._lanes.get(entry.delivery.key or "") if self.ordered else None
        if lane is None or _is_over(lane, entry.asked_at):
            return True
        place = lane.place_of(entry)
        return not lane.busy and not lane.awaits(place) and all(place < first.place for first in _first(lane))

    def starve(self, in_hand: int) -> bool:
        """Whether all that is in hand waits for events that are to come again."""
        return self.ordered and in_hand == sum(len(lane.waiting) for lane in self._lanes.values())

    def done(self, entry: InFlight) -> None:
        """The event is decided for good: handled, skipped or stored among the dead letters."""
        if self._release_policy == "redelivers" and self.ordered and entry.delivery.key is not None:
            self._remember(entry.delivery.message_id)
        if (lane := self._leave(entry)) is not None:
            lane.away.pop(entry.delivery.message_id, None)
            self._pump(lane)

    def parked(self, entry: InFlight) -> None:
        """The event waits in hand; its followers wait with it, unless failures of a key are skipped."""
        lane = entry.lane
        if self.blocks and lane is not None:
            lane.parked = [*(other for other in lane.parked if other.state is PARKED), entry]
        elif (lane := self._leave(entry)) is not None:
            self._pump(lane)

    def stands_back(self, entry: InFlight) -> bool:
        """Let an event that is to run again wait for its turn, if one of its key before it is still to run."""
        lane = entry.lane
        if lane is None or not self.blocks:
            return False
        awaits = lane.awaits(entry.place)
        parked = (other for other in lane.parked if other.state is PARKED)
        if not awaits and all(entry.place <= other.place for other in (*parked, *_first(lane))):
            return False
        self._take_back(lane, entry)
        if awaits and self._release_policy == "followers":
            self._release_behind(lane, entry.place - 1)
        return True

    def went_back(self, entry: InFlight) -> None:
        """The event goes back to the source and will come again; what waits behind it must not run before it."""
        lane = entry.lane
        if lane is None:
            self.stays_out(entry)
            return
        if entry in lane.waiting:
            lane.waiting.remove(entry)
            entry.lane = None
        elif not _in_lost_call(entry):
            self._leave(entry)
        if self.blocks:
            self._await(lane, entry)
        self._pump(lane)

    def heard(self, asked_at: float) -> None:
        """A receive that began at `asked_at` brought all that there was."""
        self._heard = max(self._heard, asked_at)

    def tick(self, now: float) -> float:
        """Let nobody wait any longer for what somebody else has taken, or the dead letters.

        An event that went back comes again to whoever receives next, which need not be us. When to ask again, on
        the loop's clock.
        """
        due = math.inf
        for lane in list(self._stalled):
            if lane.waiting:
                # Unless its own lease was good since then, what waits may be of an order that is no more.
                self._lose_patience(lane, min(lane.waiting[0].asked_at, self._heard - DOUBT))
            self._pump(lane)
            if lane.stalled:
                back_at = min(away.back_at for away in lane.away.values() if away.awaited)
                due = min(due, max(back_at + DOUBT, now + RETRY))
            else:
                del self._stalled[lane]
        return due

    def _lose_patience(self, lane: Lane, when: float) -> None:
        first = lane.first_out(when)
        if self._release_policy != "followers":
            lane.give_up(lambda away: away.place < first)
        elif not lane.busy and lane.awaits(min(first, lane.waiting[0].place)):
            # It brings nothing of a key that is out in part: given back, all that there is comes again in order.
            self._release_behind(lane, -1)

    def stays_out(self, entry: InFlight) -> None:
        """The event did not go back as it should: it comes when its lease has ended, and not before."""
        lane = self._lanes.get(entry.delivery.key or "") if self.ordered else None
        if lane is None:
            return
        id = entry.delivery.message_id
        away = lane.away.get(id)
        if away is None and entry.place and entry.state is GONE and entry.received_at >= lane.asked_at:
            # It was handled and could not be settled: nobody waits for it, but it has its place when it comes,
            # if it is of the order that is kept now.
            lane.away[id] = Away(entry, entry.place, _lease_end(entry), awaited=False)
        elif away is not None and away.entry is entry:
            lane.away[id] = away._replace(lease_end=_lease_end(entry))

    def left(self, entry: InFlight) -> None:
        """The call in which the event's lease was lost has ended: until then its key was busy."""
        if (lane := self._leave(entry)) is not None:
            self._pump(lane)

    def stopped(self, failed: InFlight, later: Iterable[InFlight]) -> list[InFlight]:
        """Of `later`, those of the failed event's key behind it: put back to wait for it, in order."""
        lane = failed.lane
        if lane is None or not self.blocks:
            return []
        behind = [entry for entry in later if entry.lane is lane and entry.place > failed.place]
        for entry in behind:
            self._take_back(lane, entry)
        return behind

    def halt(self) -> list[InFlight]:
        """Take out every event that waits for its turn."""
        entries = [entry for lane in self._lanes.values() for entry in lane.waiting]
        for lane in list(self._lanes.values()):
            lane.waiting.clear()
            self._drop_if_over(lane)
        for entry in entries:
            entry.lane = None
        return entries

    def _take_back(self, lane: Lane, entry: InFlight) -> None:
        lane.busy -= 1
        entry.state, entry.slot = HELD, None
        lane.wait(entry)

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
            self._drop_if_over(lane)

    def _hand_on(self, lane: Lane) -> None:
        while lane.waiting and not lane.awaits((entry := lane.waiting[0]).place):
            if lane.busy and not self._joins(lane, entry):
                return
            lane.waiting.popleft()
            lane.busy += 1
            lane.route, lane.gathering = entry.route, self._offer(entry)
        if lane.waiting:
            self._stalled[lane] = None

    def _joins(self, lane: Lane, entry: InFlight) -> bool:
        """Whether an event may share the batch that gathers; behind others of its key, and no other delivery of it."""
        route, gathering = entry.route, lane.gathering
        if gathering is None or route is None or route is not lane.route or not route.joins(entry, gathering):
            return False
        id = entry.delivery.message_id
        return not lane.again or all(
            other.place < entry.place and other.delivery.message_id != id
            for other in gathering.entries
            if other.lane is lane
        )

    def _await(self, lane: Lane, entry: InFlight) -> None:
        """Let what is behind the event wait until it comes again, or give it back too, where the source needs that."""
        now = self._clock()
        id = entry.delivery.message_id
        again = next((other for other in lane.waiting if other.delivery.message_id == id), None)
        if again is not None:
            lane.waiting.remove(again)
            again.place = min(again.place, entry.place)
            lane.wait(again)
            return
        self._send_away(lane, entry)
        if now >= entry.expires:
            # It waited for all its time: what should have come before it came is elsewhere.
            lane.give_up(lambda away: away.entry is not entry and away.back_at <= entry.received_at)
        self._recall(lane, entry)
        # Where the source brings later ones again by itself, it waits for the end of a lost lease, and so must we.
        if self._release_policy == "followers" or (self._release_policy == "redelivers" and entry.state is not GONE):
            self._release_behind(lane, entry.place)

    def _send_away(self, lane: Lane, entry: InFlight) -> None:
        older = lane.away.pop(entry.delivery.message_id, None)
        place = entry.place if older is None else min(entry.place, older.place)
        lease_end = _lease_end(entry) if entry.state is GONE else -math.inf
        lane.away[entry.delivery.message_id] = Away(entry, place, lease_end)

    def _recall(self, lane: Lane, head: InFlight) -> None:
        """What gathers in a batch that has not started waits behind an event that goes back."""
        if lane.gathering is None:
            return
        for entry in list(lane.gathering.entries):
            if entry.lane is lane and entry.place > head.place:
                lane.gathering.remove(entry)
                self._take_back(lane, entry)

    def _release_behind(self, lane: Lane, place: int) -> None:
        for entry in lane.behind(place):
            if entry.state is PARKED:
                self._leave(entry)
            else:
                lane.waiting.remove(entry)
                entry.lane = None
            self._release(entry, "behind a failed event of its key")
            self._send_away(lane, entry)

    def _drop_if_over(self, lane: Lane) -> None:
        if lane.busy or lane.waiting or self._lanes.get(lane.key) is not lane:
            return
        # A receive may have begun that long ago, and still bring what was leased before these were back.
        when = self._clock() - LONGEST_RECEIVE if lane.away else 0.0
        if _is_over(lane, when):
            del self._lanes[lane.key]
            return
        self._fading.append(lane)
        while (oldest := self._fading[0]) is not lane and (oldest.busy or oldest.waiting or _is_over(oldest, when)):
            self._fading.popleft()
            self._drop_if_over(oldest)

    def _remember(self, message_id: str) -> None:
        self.acked[message_id] = None
        if len(self.acked) > REMEMBERED:
            del self.acked[next(iter(self.acked))]


def _lease_end(entry: InFlight) -> float:
    """When a lease that we have given up is over at the source at the latest."""
    return max(entry.leased_until, entry.latest_end) + LEASE_MARGIN


def _is_over(lane: Lane, when: float) -> bool:
    """Nothing of the key is in hand, and what was asked for at `when` or later cannot come before its turn."""
    return not lane.busy and not lane.waiting and all(away.back_at <= when for away in lane.away.values())


def _first(lane: Lane) -> Iterable[InFlight]:
    return islice(lane.waiting, 1)


def _in_lost_call(entry: InFlight) -> bool:
    """Whether the lease was lost in the middle of a call, which is still to end."""
    return entry.state is GONE and entry.slot is not None and entry in entry.slot.entries
