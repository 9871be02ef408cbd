"""What a source says of itself to be held to the contract: one `Variant`, one entry in the table of `variants.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from eventkit.spi import Adapter

Verb: TypeAlias = Literal["receive", "ack", "nack", "dead_letter"]


class Line(Protocol):
    """The connection between workers and their source, which a case can lose."""

    async def lose(self) -> None:
        """From now on no call gets through, and what is on the wire breaks. Called at most once before `heal`."""
        ...

    async def heal(self) -> None:
        """All is well again. Idempotent."""
        ...

    def lose_answer(self, verb: Verb) -> bool:
        """Let the next call of `verb` be done and its answer be lost; False where that cannot be made to happen."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the server has counted for one place."""

    delivered: int
    acked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One new, empty queue, for one case alone.

    Workers receive at `source`, over `line`. The case publishes at `sink`, and looks at the same queue at `beside`
    (by default `source`); it does neither while the line is lost. `dead_letter` is what workers are told, None leaves
    it to the source. `dead_letters` is where dead letters arrive as events; None means that the source has a browser.
    """

    adapter: Adapter
    source: str
    sink: str
    line: Line
    beside: str = ""
    dead_letter: str | None = None
    dead_letters: str | None = None
    counts: Callable[[], Counts] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One kind of source. Times are in seconds.

    `place` makes a place and removes it again, many of them side by side; it is given a folder of its own. `lease` is
    the shortest lease the source can do, and the queue's own with `Traits.lease_fixed`. `outage` is how long a lost
    line stays lost: long enough that calls fail. `ordered` asks for order per key. `repeats` says that the server
    may deliver an event twice without a reason. `limit` is how long a case may take. `virtual` runs it on a clock that
    jumps. `environment` is set while it runs.
    """

    name: str
    place: Callable[[Path], AbstractAsyncContextManager[Place]]
    lease: float
    outage: float = 2.0
    ordered: bool = False
    repeats: bool = False
    limit: float = 30.0
    virtual: bool = False
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.name
