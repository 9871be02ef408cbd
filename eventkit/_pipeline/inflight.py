"""The in-flight table: every delivery that is ours, from its receipt to its settlement."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

from eventkit._event import Event
from eventkit.spi import Delivery

if TYPE_CHECKING:
    from eventkit._pipeline.executor import Slot
    from eventkit._pipeline.lane import Lane
    from eventkit._pipeline.routes import Route

__all__ = ["DeadLetterNote", "InFlight", "State", "Table"]


class State(enum.IntEnum):
    """Where a delivery is on its path."""

    HELD = 0
    """In a lane, a queue or a batch that is being gathered."""
    RUNNING = 1
    PARKED = 2
    SETTLING = 3
    GONE = 4


# Enum member access goes through a descriptor; the hot path reads these.
HELD, RUNNING, PARKED, SETTLING, GONE = State


class DeadLetterNote(msgspec.Struct, frozen=True):
    """What is stored and told of a dead letter; `detail` is the JSON text kept beside it."""

    id: str
    reason: str
    error: str
    message: str
    detail: str


class InFlight(msgspec.Struct, eq=False):
    """One delivery in hand. Its number is ours: message ids and receipts may repeat. Times are on the loop's clock."""

    number: int
    delivery: Delivery
    size: int
    received_at: float
    leased_until: float
    extend_at: float
    expires: float
    """End of `max_processing`: it is not extended past this."""
    attempt: int
    asked_at: float
    """When the call began by which the source leased it last: its receive, or an extension."""
    state: State = HELD
    event: Event[Any] | None = None
    route: Route | None = None
    slot: Slot | None = None
    lane: Lane | None = None
    place: int = 0
    """Its place in the order of its key, which it keeps when it goes back and comes again."""
    misplaced: bool = False
    """It first came here when it was not new: at the source it may be before others that came earlier."""
    letter: DeadLetterNote | None = None
    due: float = 0.0
    """When it needs attention again: the end of its parking, or of the wait before a settlement is repeated.

    Once it is given back: when it may come again.
    """
    delay: float = 0.0
    """Seconds until it may come again, once it is nacked."""
    repeats: int = 0
    extending: bool = False
    sent: bool = False
    """Its settlement is on the wire."""
    unknown: bool = False
    """A settlement was sent and the answer lost."""
    latest_end: float = 0.0
    """When its lease ends at the source if an extension without an answer was done after all."""
    probe: bool = False
    rerun: bool = False
    """Parked to be run again from hand; otherwise to be given back when due."""

    def lost_at(self, now: float) -> None:
        """The source says that the lease is gone."""
        self.leased_until, self.latest_end = min(self.leased_until, now), 0.0


class Table:
    """All deliveries in hand, in the order they came, and what they add up to."""

    def __init__(self) -> None:
        self.entries: dict[int, InFlight] = {}
        self.bytes = 0
        self.parked = 0
        self._number = 0

    @property
    def held(self) -> int:
        """Deliveries that count against the in-flight limit: all but the parked."""
        return len(self.entries) - self.parked

    def register(
        self, delivery: Delivery, now: float, max_processing: float, asked_at: float | None = None
    ) -> InFlight:
        """Take a delivery in; `asked_at` is when its receive began, which may be long before it came."""
        number = self._number = self._number + 1
        size = len(delivery.body)
        until = delivery.leased_until
        entry = self.entries[number] = InFlight(
            number,
            delivery,
            size,
            now,
            until,
            now + (until - now) / 3,
            now + max_processing,
            delivery.delivery_count or 0,
            now if asked_at is None else asked_at,
        )
        self.bytes += size
        return entry

    def remove(self, entry: InFlight) -> None:
        """Let a delivery go: settled, lost, or not to be settled any more."""
        if entry.state is PARKED:
            self.parked -= 1
        elif entry.state is GONE:
            return
        entry.state = GONE
        self.bytes -= entry.size
        del self.entries[entry.number]

    def park(self, entry: InFlight, due: float, *, rerun: bool) -> None:
        """Keep a delivery leased without a slot until `due`; without `rerun` its body is let go."""
        entry.state, entry.due, entry.rerun = PARKED, due, rerun
        self.parked += 1
        if not rerun:
            self.bytes -= entry.size
            entry.size = 0
            entry.delivery = _without_body(entry.delivery)
            if entry.event is not None:
                entry.event = _without_data(entry.event, entry.delivery)

    def unpark(self, entry: InFlight) -> None:
        """Count a parked delivery against the in-flight limit again."""
        self.parked -= 1
        entry.state = HELD


def _without_data(event: Event[Any], delivery: Delivery) -> Event[Any]:
    return Event(delivery, event.id, event.source, event.type, None, event.attempt)


def _without_body(delivery: Delivery) -> Delivery:
    return Delivery(
        receipt=delivery.receipt,
        body=b"",
        message_id=delivery.message_id,
        leased_until=delivery.leased_until,
        key=delivery.key,
        delivery_count=delivery.delivery_count,
        enqueued_at=delivery.enqueued_at,
    )
