"""What the in-memory broker is made of: its settings, its messages, and what it tells of itself."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from eventkit.errors import ConfigurationError
from eventkit.spi import Limits, Settled, Traits

Verb: TypeAlias = Literal["receive", "ack", "nack", "extend", "dead_letter", "publish"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a queue behaves. Times are in seconds.

    `lease` is the queue's own length of a lease, the one in force with `traits.lease_fixed`; otherwise
    a source chooses, up to `lease_max`. `native_dead_letter` makes sources that dead-letter by themselves.
    `redelivers_acked` makes the key policy *redelivers* as strict as Pub/Sub's documentation has it: an
    event that comes again brings the later ones of its key with it, those already acked too.
    """

    traits: Traits = Traits(key_release="hold")
    limits: Limits = Limits()
    lease: float = 30.0
    lease_max: float = math.inf
    native_dead_letter: bool = True
    redelivers_acked: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.lease < math.inf or not self.lease_max > 0:
            raise ConfigurationError(f"lease={self.lease!r}, lease_max={self.lease_max!r}: must be above 0 s")

    def length(self, wanted: float) -> float:
        """The length of a lease for one who wants `wanted` seconds."""
        return min(self.lease if self.traits.lease_fixed else wanted, self.lease_max)


class Message(msgspec.Struct, eq=False, gc=False):
    """One event in a queue, in any state. Times are on the loop's clock, but for `enqueued_at` (Unix seconds).

    `born` is when the queue accepted it, `count` the deliveries so far, `place` its place in the order of its
    key (0: none), `due` the end of a delay (0: none), `until` the end of its newest lease, `leased_at` its start.
    """

    body: bytes
    message_id: str
    attributes: dict[str, str] | None = None
    content_type: str | None = None
    key: str | None = None
    born: float = 0.0
    enqueued_at: float = 0.0
    count: int = 0
    place: int = 0
    due: float = 0.0
    until: float = 0.0
    leased_at: float = 0.0


class Kind(enum.Enum):
    """What can happen to an event in the broker."""

    PUBLISHED = "published"
    DELIVERED = "delivered"
    ACKED = "acked"
    NACKED = "nacked"
    EXTENDED = "extended"
    EXPIRED = "expired"
    """Its lease ended, and nobody had settled it."""
    RECALLED = "recalled"
    """An earlier event of its key went back, and took this one along (`key_release="redelivers"`)."""
    DUE = "due"
    """Its delay is over."""
    DEAD = "dead"
    DROPPED = "dropped"
    """Older than the retention."""
    STALE = "stale"
    """Somebody used a receipt that is worth nothing (any more); `message_id` is empty."""
    REMOVED = "removed"
    """Taken out of the dead letters for good."""
    PUT_BACK = "put back"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of state, told to observers when it is complete.

    `at` and `until` (the end of a lease or delay) are on the loop's clock; `receipt` is 0 where none is
    involved; `source` is the number of the source something is delivered to; `reason` is that of a dead
    letter, or the verb that met a stale receipt.
    """

    kind: Kind
    at: float
    queue: str
    message_id: str
    key: str | None = None
    count: int = 0
    receipt: Any = 0
    until: float = 0.0
    source: int = 0
    reason: str = ""


class Counts(msgspec.Struct, kw_only=True):
    """How often each thing has happened since the broker was made."""

    published: int = 0
    delivered: int = 0
    acked: int = 0
    nacked: int = 0
    expired: int = 0
    recalled: int = 0
    dead: int = 0
    dropped: int = 0
    stale: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a source or sink, as a fault sees it.

    `source` is the number of the source instance, counted from 1 a broker, 0 for a sink. `items` are the
    call's own: receipts, (receipt, delay) pairs, letters or messages; for a receive, where none are known
    before, one None for each delivery asked for.
    """

    verb: Verb
    queue: str
    source: int
    items: Sequence[Any]


class Faults:
    """What goes wrong between a source or sink and the broker. Subclass it; here, nothing does.

    Both methods may wait, and may raise an AdapterError.
    """

    async def before(self, call: Call) -> Mapping[int, Settled]:
        """The call has not reached the broker. Raise, and it never does.

        The items at the positions returned are answered so, and not done; a receive ignores them.
        """
        return {}

    async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
        """The call is done; what is returned is the reply. Raise, and the reply is lost."""
        return results
