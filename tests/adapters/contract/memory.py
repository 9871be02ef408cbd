"""The in-memory broker, with the traits of each family of sources, on a clock that jumps."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from eventkit.errors import ConnectionLost
from eventkit.spi import Settled
from eventkit.testing import Call, Faults, MemoryAdapter, MemoryBroker, Settings
from eventkit.testing.simulation._brokers import BROKERS
from tests.adapters.contract.variant import Counts, Place, Variant, Verb

LEASE = 1.5
QUEUE, DEAD = "events", "dead"


class MemoryLine(Faults):
    """Loses every call while it is down, and the answers it is told to."""

    def __init__(self, *, letters: Verb | str) -> None:
        self._down = False
        self._answers: list[str] = []
        self._letters = letters

    async def lose(self) -> None:
        """See `Line`."""
        self._down = True

    async def heal(self) -> None:
        """See `Line`."""
        self._down = False

    def lose_answer(self, verb: Verb) -> bool:
        """See `Line`."""
        self._answers.append(self._letters if verb == "dead_letter" else verb)
        return True

    async def before(self, call: Call) -> Mapping[int, Settled]:
        """See `Faults`."""
        self._require_up()
        return {}

    async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
        """See `Faults`."""
        self._require_up()
        ours = call.verb != "publish" or call.queue == DEAD
        if results and ours and call.verb in self._answers:
            self._answers.remove(call.verb)
            raise ConnectionLost(f"the answer of {call.verb} was lost")
        return results

    def _require_up(self) -> None:
        if self._down:
            raise ConnectionLost("the line is down")


def memory_place(
    settings: Settings, *, adapter: Callable[[], MemoryAdapter] = MemoryAdapter
) -> Callable[[Path], AbstractAsyncContextManager[Place]]:
    """Places at brokers with these settings."""

    @asynccontextmanager
    async def place(_: Path) -> AsyncIterator[Place]:
        native = settings.native_dead_letter
        line = MemoryLine(letters="dead_letter" if native else "publish")
        broker = MemoryBroker(faults=line, wall=time.time)
        broker.declare(QUEUE, replace(settings, lease=LEASE))
        opener = adapter()
        opener.use(broker)

        def counts() -> Counts:
            found = broker.counts(QUEUE)
            return Counts(delivered=found.delivered, acked=found.acked)

        yield Place(
            adapter=opener,
            source=f"memory://{QUEUE}",
            sink=f"memory://{QUEUE}",
            line=line,
            dead_letter=None if native else f"memory://{DEAD}",
            dead_letters=None if native else f"memory://{DEAD}",
            counts=counts,
        )

    return place


def memory_variant(family: str, *, adapter: Callable[[], MemoryAdapter] = MemoryAdapter) -> Variant:
    """The broker with the traits of a family of sources."""
    settings = BROKERS[family]
    return Variant(
        name=f"memory as {family}",
        place=memory_place(settings, adapter=adapter),
        lease=LEASE,
        ordered=settings.traits.key_release != "none",
        virtual=True,
    )


FAMILIES = ("sqs", "fifo", "servicebus", "sessions", "pubsub", "pubsub-exactly-once", "pubsub-ordered")
"""Native delays, followers, parking, hold, dead letters in a sink, no count, redelivers."""

VARIANTS = tuple(map(memory_variant, FAMILIES))
