"""What a handler receives: one event, or a batch of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import msgspec

from eventkit.errors import Skip

if TYPE_CHECKING:
    from eventkit.spi import Delivery

__all__ = ["Batch", "Event"]

T = TypeVar("T")


class Event(msgspec.Struct, Generic[T], eq=False):
    """One event, decoded and validated. Compared by identity: two deliveries are two events.

    `id`, `source`, `type`, `subject` and `extensions` are those of CloudEvents 1.0; for a body
    that is not a CloudEvent, `id` is the broker's message id and `source` the source's name.
    `attempt` is 1 on the first try and grows with every counted failure; 0 where the source
    does not count deliveries and none has failed in this process.
    """

    delivery: Delivery
    id: str
    source: str
    type: str
    data: T
    attempt: int = 1
    subject: str | None = None
    _time: str | None = None
    _extensions: Mapping[str, str] | None = None

    @property
    def extensions(self) -> Mapping[str, str]:
        """The extension attributes of the CloudEvent, as text."""
        return self._extensions or {}

    @property
    def time(self) -> datetime | None:
        """When it happened, as its producer says (RFC 3339), or None; the codec has checked the form."""
        return datetime.fromisoformat(self._time) if self._time is not None else None

    @property
    def key(self) -> str | None:
        """The ordering key the event was published with."""
        return self.delivery.key

    @property
    def message_id(self) -> str:
        """The broker's id for the message that carried this event."""
        return self.delivery.message_id

    @property
    def attributes(self) -> Mapping[str, str]:
        """The message's attributes, as the broker delivered them."""
        return self.delivery.attributes

    @property
    def enqueued_at(self) -> float | None:
        """When the broker accepted the message (Unix seconds), where it says so."""
        return self.delivery.enqueued_at

    def __repr__(self) -> str:
        return f"<Event {self.type or 'untyped'} id={self.id[:128]!r} attempt={self.attempt}>"


class Batch(Sequence[Event[T]]):
    """The events of one call of a batch handler, in the order they were received.

    Mark single events with `done`, `skip` and `fail`; returning means that the unmarked are done.
    Marks made before a raise stay: only the unmarked events are tried again.
    """

    __slots__ = ("_events", "_members", "marks")

    def __init__(self, events: Sequence[Event[T]]) -> None:
        self._events = tuple(events)
        self._members: frozenset[Event[T]] | None = None
        self.marks: dict[Event[Any], BaseException | None] = {}

    def done(self, event: Event[T]) -> None:
        """Mark `event` as handled. Raises ValueError for an event of another batch."""
        self._mark(event, None)

    def skip(self, event: Event[T], reason: str) -> None:
        """Mark `event` as not wanted. Raises ValueError for an event of another batch."""
        self._mark(event, Skip(reason))

    def fail(self, event: Event[T], error: BaseException) -> None:
        """Mark `event` as failed; `error` may be `Retry` or `Reject`.

        Raises ValueError for an event of another batch.
        """
        self._mark(event, error)

    def _mark(self, event: Event[T], error: BaseException | None) -> None:
        self.require(event)
        self.marks[event] = error

    def require(self, event: Event[Any]) -> None:
        """Raise ValueError unless `event` belongs to this batch."""
        if self._members is None:
            self._members = frozenset(self._events)
        if event not in self._members:
            raise ValueError(f"{event!r} is not an event of this batch of {len(self._events)}")

    @overload
    def __getitem__(self, index: int) -> Event[T]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Event[T], ...]: ...
    def __getitem__(self, index: int | slice) -> Event[T] | tuple[Event[T], ...]:
        return self._events[index]

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event[T]]:
        return iter(self._events)
