"""Where an event is in its queue, and what moves it: a settlement, or time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import chain, count
from typing import Any

from eventkit.spi import LOST, Settled
from eventkit.testing.memory._dead_letters import DeadLetters
from eventkit.testing.memory._leases import Leases
from eventkit.testing.memory._order import Order
from eventkit.testing.memory._values import Change, Counts, Kind, Message, Settings


class Flow:
    """The events of one queue: waiting in `order`, held back in `delays`, leased, or dead.

    Every move of an event is made here but for the two on the hot path, from waiting to leased and from
    leased to done. `live` counts the events neither done nor dead; `next_due` is when time will move one, or
    sooner: most calls need not look at a single lease.
    """

    def __init__(self, name: str, settings: Settings, wall: Callable[[float], float]) -> None:
        self.name = name
        self.settings = settings
        self.counts = Counts()
        self.order = Order(settings.traits.key_release, redelivers_acked=settings.redelivers_acked)
        self.leases = Leases()
        self.delays: list[tuple[float, int, Message]] = []
        self.dead_letters = DeadLetters()
        self.live = 0
        self.next_due = math.inf
        self.tell: Callable[[Change], None] | None = None
        self.on_ready: Callable[[], None] = _nothing
        self._wall = wall
        self._ties = count()

    def accept(self, messages: Iterable[Message], delay: float, now: float) -> int:
        """Take in new events, and say how many; with a delay, they take their places when that is over."""
        number, enqueued_at = 0, self._wall(now)
        for message in messages:
            number += 1
            message.born = now
            message.enqueued_at = enqueued_at
            if delay > 0:
                self._hold_back(message, now + delay)
            else:
                self.order.add(message)
            if self.tell is not None:
                self.told(Kind.PUBLISHED, message, now, until=message.due)
        self.live += number
        self.counts.published += number
        return number

    def start(self, now: float) -> None:
        """The loop's clock is known: what was published before, at 0, was published now."""
        for message in chain(self.order.waiting(), self.held_back()):
            message.born += now
            message.enqueued_at = self._wall(message.born)
        delays, self.delays, self.next_due = self.delays, [], math.inf
        for due, _, message in delays:
            self._hold_back(message, due + now)

    def held_back(self) -> list[Message]:
        """What waits for the end of a delay."""
        return [message for _, _, message in self.delays]

    # -- time ----------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Catch up with what time has done until `now`, in the order in which it was due."""
        if now < self.next_due:
            return
        over = [(end, 0, receipt, message) for end, receipt, message in self.leases.over(now)]
        while self.delays and self.delays[0][0] <= now:
            due, tie, message = heappop(self.delays)
            over.append((due, 1, tie, message))
        over.sort(key=_when)
        for when, was_delayed, receipt, message in over:
            if was_delayed:
                self._release(message, when)
            elif self.leases.pop(receipt) is not None:  # else it was recalled with an earlier one of its key
                self.expire(receipt, message, when)
        self.next_due = min(self.leases.first_end(), self.delays[0][0] if self.delays else math.inf)

    def will_be_due(self, when: float) -> None:
        """Time will move an event at `when`."""
        if when < self.next_due:
            self.next_due = when
            self.on_ready()

    def _hold_back(self, message: Message, due: float) -> None:
        """Let `message` come back at `due`, or to be dropped as too old, if that is sooner."""
        retention = self.settings.traits.retention
        message.due = due if retention is None else min(due, message.born + retention)
        heappush(self.delays, (message.due, next(self._ties), message))
        self.will_be_due(message.due)

    def _release(self, message: Message, now: float) -> None:
        """`message` is held back no more."""
        if message.place:
            self.order.due(message)
        else:
            message.due = 0.0
            self.order.add(message)
        if self.tell is not None:
            self.told(Kind.DUE, message, now)

    def expire(self, receipt: int, message: Message, now: float) -> None:
        """The lease of `message` has ended, and it is leased no more."""
        self.counts.expired += 1
        if self.tell is not None:
            self.told(Kind.EXPIRED, message, now, receipt=receipt)
        self.go_back(receipt, message, 0.0, now)

    # -- where an event goes -------------------------------------------------------------------

    def go_back(self, receipt: int, message: Message, due: float, now: float) -> None:
        """`message`, no longer leased, waits again: until `due`, if that is not 0."""
        self._requeue(message, due, now)
        if message.place:
            for other_receipt, other in self.order.recalled(receipt, message):
                self._recall(other_receipt, other, now)
            self.order.ended(receipt, message)
        self.on_ready()

    def _recall(self, receipt: int, message: Message, now: float) -> None:
        """`message` goes back because one before it in its key did."""
        self.counts.recalled += 1
        if self.tell is not None:
            self.told(Kind.RECALLED, message, now, receipt=receipt)
        if not receipt:  # it was acked: nothing but to deliver it again
            self.live += 1
            self.order.add(message)
            return
        self.leases.pop(receipt)
        self._requeue(message, 0.0, now)
        self.order.ended(receipt, message)

    def _requeue(self, message: Message, due: float, now: float) -> None:
        limit = self.settings.traits.native_receive_limit
        if limit is not None and message.count >= limit:
            self.bury(message, "receive_limit", "", now)
            return
        if due:
            self._hold_back(message, due)
        if message.place or not due:
            self.order.add(message)

    def bury(self, message: Message, reason: str, detail: str, now: float, *, receipt: Any = 0) -> None:
        """`message`, which is nowhere else any more, is a dead letter."""
        self.live -= 1
        self.counts.dead += 1
        self.dead_letters.add(message, reason, detail, self._wall(now))
        if self.tell is not None:
            self.told(Kind.DEAD, message, now, receipt=receipt, reason=reason)

    def drop(self, message: Message, now: float) -> None:
        """`message`, which is nowhere else any more, is too old."""
        self.live -= 1
        self.counts.dropped += 1
        if self.tell is not None:
            self.told(Kind.DROPPED, message, now)

    # -- telling -------------------------------------------------------------------------------

    def told(
        self,
        kind: Kind,
        message: Message,
        now: float,
        *,
        receipt: Any = 0,
        until: float = 0.0,
        source: int = 0,
        reason: str = "",
    ) -> None:
        """Tell the observer. The caller has made sure that there is one: the common case costs no call."""
        assert self.tell is not None
        self.tell(
            Change(
                kind=kind,
                at=now,
                queue=self.name,
                message_id=message.message_id,
                key=message.key,
                count=message.count,
                receipt=receipt,
                until=until,
                source=source,
                reason=reason,
            )
        )

    def met_stale(self, verb: str, receipt: Any, now: float) -> Settled:
        """Somebody used a receipt that is worth nothing."""
        self.counts.stale += 1
        if self.tell is not None:
            self.tell(Change(kind=Kind.STALE, at=now, queue=self.name, message_id="", receipt=receipt, reason=verb))
        return LOST


def _when(happening: tuple[float, int, int, Message]) -> tuple[float, int, int]:
    return happening[:3]


def _nothing() -> None:
    pass
