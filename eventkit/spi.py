"""The door for authors of adapters: what a source and a sink must do, and the values they trade in.

The core holds the policy (retry, batching, order, leases, drain); an adapter translates. The
contract stands on the protocols below, once; `eventkit.testing` checks it clause by clause.

Values are frozen msgspec structs: as immutable and slotted as frozen dataclasses, at a tenth
of the price on a path taken for every event.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from eventkit.errors import ConfigurationError

__all__ = [
    "DONE",
    "LOST",
    "UNKNOWN",
    "Adapter",
    "Address",
    "Backlog",
    "DeadLetter",
    "DeadLetterBrowser",
    "Delivery",
    "Demand",
    "Depth",
    "Extended",
    "Letter",
    "Limits",
    "LocalCounts",
    "LocalPlace",
    "LocalServer",
    "NativeDeadLetter",
    "Outgoing",
    "Receipt",
    "Settled",
    "SettledKind",
    "Sink",
    "Source",
    "SourceInfo",
    "Traits",
]

Receipt: TypeAlias = Any
"""Opaque token that settles one delivery; only the adapter that issued it looks inside."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """One attempt by a source to hand an event over.

    `delivery_count` is 1 on the first delivery on every source, None where the source does not count.
    `enqueued_at` is in Unix seconds. `leased_until` is on the loop's clock (`anyio.current_time`),
    measured from before an extend, from a receive's response less 1 s (but never less than half the lease).
    `raw` is the SDK's own object.
    """

    receipt: Receipt
    body: bytes
    message_id: str
    leased_until: float
    attributes: Mapping[str, str] = {}
    content_type: str | None = None
    key: str | None = None
    delivery_count: int | None = None
    enqueued_at: float | None = None
    raw: object = None


class SettledKind(enum.Enum):
    """How the provider answered for one item."""

    DONE = "done"
    LOST = "lost"
    """The lease is gone: the delivery belongs to somebody else, or will."""
    RETRY = "retry"
    """Not done, and asking again after `after` seconds may help."""
    REFUSED = "refused"
    """Not done, and asking again will not help; `cause` says why."""
    UNKNOWN = "unknown"
    """Sent, but the answer was lost: done or not, nobody knows."""


class Settled(msgspec.Struct, frozen=True):
    """The answer for one item of a settle or publish call."""

    kind: SettledKind
    after: float = 0.0
    cause: str = ""

    @staticmethod
    def retry(after: float = 0.0, cause: str = "") -> Settled:
        """Ask again after `after` seconds."""
        return Settled(SettledKind.RETRY, after, cause)

    @staticmethod
    def refused(cause: str) -> Settled:
        """The provider will not do it; `cause` names why, without payload or credential."""
        return Settled(SettledKind.REFUSED, 0.0, cause)


DONE = Settled(SettledKind.DONE)
LOST = Settled(SettledKind.LOST)
UNKNOWN = Settled(SettledKind.UNKNOWN)


class Extended(msgspec.Struct, frozen=True):
    """The lease was extended; `until` is on the loop's clock, measured from before the call."""

    until: float


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery to dead-letter. `detail` is JSON text of at most 1 KiB, free of payload."""

    receipt: Receipt
    reason: str
    detail: str


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One message to publish. `delay` is in seconds; `event_id` is an id by which a repeat can be told.

    `spare` names attributes that may be left out where the message is too large with them.
    """

    body: bytes
    attributes: Mapping[str, str] = {}
    content_type: str | None = None
    key: str | None = None
    delay: float = 0.0
    event_id: str = ""
    spare: tuple[str, ...] = ()


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What the core will ask of a source, known before the first receive.

    `events` and `bytes` bound what is held at once, `parked` what waits beside it; `ordered` says that
    order per key is wanted; `lease` and `wait` are the seconds a lease and a receive will last.
    """

    events: int = 200
    bytes: int = 64 * 1024 * 1024
    parked: int = 1000
    ordered: bool = False
    lease: float = 30.0
    wait: float = 5.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Most items one call takes, and bytes one body may have. The core keeps to them; adapters do not chunk.

    For a verb without a batch call, the limit is how many single calls may be in flight.
    """

    receive: int = 100
    concurrent_receives: int = 1
    settle: int = 100
    extend: int = 100
    publish: int = 100
    body: int = 1024 * 1024


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """Declared differences between sources. Times are in seconds; None means unlimited or unknown.

    `key_release` says what becomes of held followers when a failed head of a key goes back:
    *followers* are released after it in order, *hold* keeps them leased, *redelivers* means the source
    brings the later ones again by itself, *none* that the source has no order per key.

    With `max_retry_delay` 0 retries wait parked. `nack_delay_max` is how long a nack may be delayed all the same:
    what is parked when the worker drains keeps so much of its delay.
    """

    delivery_count: Literal["exact", "approximate", "none"] = "exact"
    confirms_ack: bool = True
    max_retry_delay: float | None = None
    nack_delay_max: float = 0.0
    delay_granularity: float = 0.0
    release_counts: bool = True
    lease_fixed: bool = False
    lease_total_max: float | None = None
    key_release: Literal["followers", "hold", "redelivers", "none"] = "none"
    native_receive_limit: int | None = None
    retention: float | None = None

    @property
    def longest_nack(self) -> float | None:
        """Longest delay of a nack, None for any."""
        return self.max_retry_delay if self.max_retry_delay != 0 else self.nack_delay_max


class SourceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A source's name, limits and traits: constant for its life.

    `dead_letters` is the address of the sink that the provider itself dead-letters to, where it has one and the
    source cannot (see `NativeDeadLetter`): the core publishes there unless it is told another. `warnings` is what
    the provider's set-up will surprise with, a line each.
    """

    name: str
    limits: Limits = Limits()
    traits: Traits = Traits()
    dead_letters: str | None = None
    warnings: tuple[str, ...] = ()


class Source(Protocol):
    """Where events are received from.

    1.  Results are positional, same length and order; provider batch entry ids are positions.
    2.  A raised exception means every item's outcome is unknown; a known outcome is returned, never raised.
    3.  No retry, log, sleep or task that outlives the context manager; SDK retries pinned low.
    4.  `receive` returns at most `limit` within about `wait` seconds; empty is normal. The core never
        cancels it, and runs `info.limits.concurrent_receives` of it side by side.
    5.  Settling twice gives DONE or LOST, never an exception.
    6.  The core respects `info.limits` and never mixes verbs in a call.
    7.  Only `AdapterError` subclasses and cancellation leave an adapter, the SDK's error as `__cause__`.
    8.  Bodies and attributes survive byte for byte, or publish refuses them with a reason.
    9.  `Delivery.raw` is the SDK's object; credentials come from the SDK's own chain.
    10. Methods may run concurrently.
    11. After `stop()` nothing that arrived is stranded: it is handed over or given back.
    12. Nothing held is unsettleable until the context ends.
    13. What arrived and was not yet handed over is kept leased by the adapter; if no `receive` has been
        pending for a third of the lease it is given back, and reception starts again at the next `receive`.
        An expired lease is never handed over.
    """

    info: SourceInfo

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Up to `limit` deliveries, after at most about `wait` seconds. Raises AdapterError."""
        ...

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        """End these deliveries as handled. Raises AdapterError."""
        ...

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        """Give these back, each to be delivered again after its own delay in seconds. Raises AdapterError."""
        ...

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        """Keep these for `lease` seconds from now. Raises AdapterError."""
        ...

    def stop(self) -> None:
        """Receive no more. Idempotent, no await.

        The pending receive returns as soon as the wire allows; later ones hand over what is buffered,
        then [] for ever. Settling and extending go on until the context ends.
        """
        ...


@runtime_checkable
class NativeDeadLetter(Protocol):
    """A source that dead-letters by itself; otherwise the core publishes, confirms, then acks."""

    async def dead_letter(self, letters: Sequence[Letter]) -> Sequence[Settled]:
        """Move these to the dead letters. DONE only when stored. Raises AdapterError."""
        ...


class Sink(Protocol):
    """Where events are published to. Clauses 1-3 and 6-10 of `Source` hold here too."""

    limits: Limits

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        """Publish; DONE only when the provider confirmed. Raises AdapterError."""
        ...


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """How much waits at a source. `oldest_age` is in seconds; None where the source does not tell."""

    ready: int
    delayed: int = 0
    leased: int = 0
    dead: int = 0
    oldest_age: float | None = None


@runtime_checkable
class Backlog(Protocol):
    """A source that can tell how much waits."""

    async def depth(self) -> Depth | None:
        """How much waits now; None without the permission to ask, never a failure for that."""
        ...


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One event among the dead letters. Times are Unix seconds; `id` names it for `take` and `put_back`."""

    id: str
    reason: str
    detail: str
    message_id: str
    body: bytes
    attributes: Mapping[str, str]
    content_type: str | None
    key: str | None
    delivery_count: int | None
    enqueued_at: float
    dead_at: float


@runtime_checkable
class DeadLetterBrowser(Protocol):
    """A source whose dead letters can be looked at, removed and put back."""

    async def peek(self, limit: int, after: str | None = None) -> Sequence[DeadLetter]:
        """Up to `limit` dead letters, oldest first, those after the one with id `after`. Raises AdapterError."""
        ...

    async def take(self, ids: Sequence[str]) -> Sequence[Settled]:
        """Remove these for good; LOST for one that is not there. Raises AdapterError."""
        ...

    async def put_back(self, ids: Sequence[str]) -> Sequence[Settled]:
        """Make these deliverable again, with a delivery count of 0; LOST for one that is not there."""
        ...


class Address(msgspec.Struct, frozen=True):
    """Where a source or sink is: a URL without credentials."""

    scheme: str
    host: str = ""
    path: str = ""
    query: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `text`. Raises ConfigurationError when it is no URL, or carries credentials."""
        shown = _masked(text)
        if _carries_credentials(text):
            raise ConfigurationError(
                f"address {shown!r} carries credentials; remove them: they come from the SDK's own chain"
            )
        try:
            parts = urlsplit(text)
            query = tuple(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError as exc:
            raise ConfigurationError(f"address {shown!r} is not a URL: {exc}") from exc
        if not parts.scheme or "://" not in text:
            raise ConfigurationError(
                f"address {shown!r} has no scheme; write for example sqlite:///events.db or memory://events"
            )
        if parts.fragment:
            raise ConfigurationError(f"address {shown!r} has a fragment; escape # as %23")
        doubled = sorted({name for name, _ in query if sum(n == name for n, _ in query) > 1})
        if doubled:
            raise ConfigurationError(f"address {shown!r} sets {', '.join(doubled)} more than once")
        return cls(parts.scheme.lower(), unquote(parts.netloc), unquote(parts.path), query)

    def options(self, allowed: Iterable[str]) -> dict[str, str]:
        """The query parameters. Raises ConfigurationError for one that is not in `allowed`."""
        known = sorted(allowed)
        unknown = [name for name, _ in self.query if name not in known]
        if unknown:
            raise ConfigurationError(
                f"address {self.scheme}://{self.host}{self.path}: unknown parameter {', '.join(map(repr, unknown))}; "
                f"known: {', '.join(known) or 'none'}"
            )
        return dict(self.query)

    def __str__(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.query)
        return f"{self.scheme}://{self.host}{self.path}" + (f"?{query}" if query else "")


def _carries_credentials(text: str) -> bool:
    """Whether a user stands before the host, or a password with an unescaped `/`, `?` or `#` in it might."""
    rest = text.partition("://")[2] or text
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    return "@" in authority or (":" in authority and "@" in rest)


def _masked(text: str) -> str:
    """`text` without credentials and without the values of parameters, which may be some."""
    head, at, tail = text.rpartition("@")
    scheme, mark, _ = head.partition("://")
    shown = f"{scheme if mark else ''}{mark}***@{tail}" if at else text
    return shown.partition("?")[0]


class Adapter(Protocol):
    """The target of an entry point in the group `eventkit.adapters`, whose name is the URL scheme."""

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[Source]:
        """Open a source. Entering raises ConfigurationError, SourceNotFound or another AdapterError."""
        ...

    def open_sink(self, address: Address) -> AbstractAsyncContextManager[Sink]:
        """Open a sink. Entering raises ConfigurationError, SourceNotFound or another AdapterError."""
        ...


class LocalCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a local server has done since it started, over all its queues that hold no dead letters of others.

    `dead` is how many events were put among the dead letters, by the server or by a worker.
    """

    published: int
    delivered: int
    acked: int
    nacked: int
    expired: int
    dead: int


class LocalPlace(Protocol):
    """A local server that runs."""

    endpoint: str
    """Where it listens: a loopback address."""
    environment: Mapping[str, str]
    """What a process needs in its environment to find the server; credentials among it are made up."""

    def address(self, queue: str) -> str:
        """The address to write as `source` for this queue."""
        ...

    def dead_letters(self, queue: str) -> str:
        """The address of a source at which the dead letters of this queue arrive as events."""
        ...

    def counts(self) -> LocalCounts:
        """What it has done so far."""
        ...


@runtime_checkable
class LocalServer(Protocol):
    """An adapter that brings a stand-in for its provider, for development and tests: `eventkit local SCHEME`."""

    def local(self, queues: Sequence[str], *, port: int = 0) -> AbstractAsyncContextManager[LocalPlace]:
        """Serve `queues`, each with a dead-letter queue of its own, on `port` of the loopback; 0 is a free one.

        Entering raises ConfigurationError for a name that cannot be, a port that is taken, or a missing package.
        Leaving stops it; what it holds is gone.
        """
        ...
