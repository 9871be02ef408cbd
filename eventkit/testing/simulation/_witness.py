"""What the broker sees of its workers, and what it must never see: the invariants that hold for any handler.

Their numbers are those of the promises they stand for; `INVARIANTS` says each in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from eventkit._telemetry.records import Record
from eventkit.spi import Delivery, Letter, Outgoing
from eventkit.testing.memory import Change, Kind
from eventkit.testing.simulation._switches import CALM, GIVES_BACK

if TYPE_CHECKING:
    from eventkit.testing.simulation._life import Life
    from eventkit.testing.simulation._plan import Conditions

__all__ = ["INVARIANTS", "Fate", "Lease", "Violation", "Witness"]

INVARIANTS: Final = {
    "I1": "no loss: every event ends acked or among the dead letters",
    "I2": "settle after effect: no ack before a handler succeeded or skipped, or the dead letter is stored",
    "I3": "at least once: once faults have ended, every good event is handled within bounded time",
    "I6": "the dead letters are the bad events, all of them and nothing else, each under one stable id",
    "I7": "nothing is dead-lettered without a direct failure of that single event",
    "I8": "order per key: no event starts before those of its key before it are decided; one runs at a time",
    "I9": "attempts: as many as configured, counted once a delivery, and nothing but failures counts",
    "I11": "work is bounded: calls of a batch, and one call and one settlement an event where nothing goes wrong",
    "I12": "memory is bounded: events and bytes in hand keep to the limits, and nothing is left after a drain",
    "I13": "drain: nothing starts after the signal, it ends within its budget, and what had not started goes back",
    "I15": "liveness: no deadlock, no livelock, no worker that falls over",
    "I17": "determinism: one seed gives one trace",
}

SLACK = 0.001
"""Seconds by which two sums of the same times may differ."""

FLUSH = 5.0
"""Seconds beyond its budget that a drain may take."""


class Violation(msgspec.Struct, frozen=True):
    """A broken invariant."""

    invariant: str
    message: str
    at: float


class Fate(msgspec.Struct, eq=False):
    """What became of one event. `place` is its position among those of its key."""

    index: int
    role: str
    key: str | None
    size: int
    place: int = 0
    good: bool = True
    """It never fails by itself, but for a while."""
    bad: bool = False
    """It must end among the dead letters."""
    successes: int = 0
    failures: int = 0
    """Deliveries in which it failed directly."""
    failed_under: Any = None
    """The delivery of its last direct failure."""
    timed_out: bool = False
    """A call with it alone was cut at the end of its time."""
    skipped: bool = False
    rejected: bool = False
    maimed: bool = False
    """The broker lost its attributes, once."""
    acked: bool = False
    dead: bool = False
    reasons: dict[str, list[str]] = {}
    """Reason -> ids of the dead letters stored under it."""
    deliveries: int = 0
    unsettled: int = 0
    """Deliveries that ended in another way than by a settlement of their worker."""

    @property
    def decided(self) -> bool:
        """Handled, skipped or dead."""
        return bool(self.successes or self.skipped or self.dead)

    @property
    def excusable(self) -> bool:
        """It failed by itself, by its handler's word or the clock's, or came without its attributes."""
        return bool(self.failures or self.timed_out or self.rejected or self.maimed)

    @property
    def passable(self) -> bool:
        """What follows in its key may run: it is decided, or its broker has hidden what it is."""
        return self.decided or self.maimed


class Lease(msgspec.Struct, eq=False):
    """One delivery under way. `arrived` says that its worker has it."""

    fate: Fate
    source: int
    since: float
    until: float
    size: int
    arrived: bool = False


class Witness:
    """Told of everything by the broker and the workers of one simulated world.

    It has one method for each thing it can be told, so more than seven.
    """

    def __init__(self, conditions: Conditions, violate: Callable[[str, str], None], clock: Callable[[], float]) -> None:
        self.fates: dict[str, Fate] = {}
        self.open = 0
        self.expired = 0
        self.stale = 0
        self.on_settled: Callable[[], None] = lambda: None
        self.violate = violate
        self.clock = clock
        self.calm = CALM.issuperset(conditions.faults)
        self._gives_back = GIVES_BACK.issuperset(conditions.faults)
        self.leases: dict[Any, Lease] = {}
        self.delivered_at: dict[Any, float] = {}

    # -- the broker ----------------------------------------------------------------------------------

    def published(self, message_id: str, fate: Fate) -> None:
        """An event was accepted."""
        self.fates[message_id] = fate
        self.open += 1

    def changed(self, change: Change) -> None:  # noqa: C901 - one case for each kind
        """The queue has moved."""
        fate = self.fates.get(change.message_id)
        match change.kind:
            case Kind.PUBLISHED if fate is None:
                self.published(change.message_id, Fate(len(self.fates), "event", change.key, 0))
            case Kind.DELIVERED if fate is not None:
                self._delivered(fate, change)
            case Kind.EXTENDED:
                if (lease := self.leases.get(change.receipt)) is not None:
                    lease.until = change.until
            case Kind.ACKED if fate is not None:
                self.leases.pop(change.receipt, None)
                self.acked(fate)
            case Kind.DEAD if fate is not None:
                self.leases.pop(change.receipt, None)
                fate.dead = True
                self._settled()
            case Kind.NACKED:
                self.leases.pop(change.receipt, None)
            case Kind.EXPIRED | Kind.RECALLED if fate is not None:
                self._came_back(fate, change)
            case Kind.STALE:
                # An extension may cross with the settlement of the same delivery.
                self.stale += change.reason != "extend"
            case Kind.DROPPED:
                self.violate("I1", f"event {change.message_id} was dropped by the broker")
            case _:
                pass

    def _delivered(self, fate: Fate, change: Change) -> None:
        fate.deliveries += 1
        self.delivered_at[change.receipt] = change.at
        self.leases[change.receipt] = Lease(fate, change.source, change.at, change.until, fate.size)

    def acked(self, fate: Fate) -> None:
        """An event has left the queue."""
        fate.acked = True
        self._settled()

    def _came_back(self, fate: Fate, change: Change) -> None:
        if self.leases.pop(change.receipt, None) is not None:
            fate.unsettled += 1
        elif change.kind is Kind.RECALLED and fate.acked:
            fate.acked, fate.unsettled = False, fate.unsettled + 1
            self.open += 1
        self.expired += change.kind is Kind.EXPIRED

    def _settled(self) -> None:
        self.open -= 1
        if not self.open:
            self.on_settled()

    # -- the workers ---------------------------------------------------------------------------------

    def receiving(self, life: Life, limit: int) -> None:
        """A worker asks for more."""

    def received(self, life: Life, deliveries: Sequence[Delivery]) -> None:
        """A worker was handed deliveries."""
        for delivery in deliveries:
            if (lease := self.leases.get(delivery.receipt)) is not None:
                lease.arrived = True
        if not deliveries or not self.calm:
            return
        options = life.options
        held = len(self.held(life.source))
        most = options.limits.in_flight + options.limits.parked + (options.ordering == "key")
        if held > most:
            self.violate("I12", f"worker {life.number} holds {held} events; {most} is the most")

    def held(self, source: int) -> list[Lease]:
        """What is leased to this source, for a while yet."""
        now = self.clock()
        return [lease for lease in self.leases.values() if lease.source == source and lease.until - 1.0 > now]

    def told(self, life: Life, record: Record) -> None:
        """A worker has reported something."""

    def drained(self, life: Life, seconds: float, hurried: float | None) -> None:
        """A worker has ended, so long after its signal, and after its second."""
        budget = life.options.drain
        if seconds > budget + FLUSH:
            self.violate("I13", f"worker {life.number} drained for {seconds:g} s; its budget is {budget:g} s")
        if hurried is not None and hurried > FLUSH:
            self.violate("I13", f"worker {life.number} ended {hurried:g} s after its second signal")

    def left(self, life: Life) -> None:
        """A worker has ended by itself."""
        left = self.held(life.source)
        if left and self._gives_back:
            events = ", ".join(str(lease.fate.index) for lease in left)
            self.violate("I13", f"worker {life.number} has ended and still holds events {events}")

    def ended(self, life: Life) -> None:
        """A worker is no more."""

    def letters_sent(self, letters: Sequence[Letter]) -> None:
        """These are on their way to the queue's own dead letters."""

    def letters_stored(self, letters: Sequence[Outgoing]) -> None:
        """The sink of dead letters has taken these."""

    # -- the end -------------------------------------------------------------------------------------

    def closed(self) -> None:
        """Everything has ended: is all accounted for?"""
        for message_id, fate in self.fates.items():
            if not fate.acked and not fate.dead:
                self.violate("I1", f"event {fate.index} (message {message_id}) is neither acked nor dead")
