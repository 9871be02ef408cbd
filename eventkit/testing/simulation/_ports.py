"""How a life reaches the broker: sources and sinks that end with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from eventkit.spi import (
    DONE,
    Address,
    Delivery,
    Demand,
    Extended,
    Letter,
    Receipt,
    Settled,
    Sink,
    Source,
    SourceInfo,
)
from eventkit.testing.memory import Call, MemorySource, NativeMemorySource
from eventkit.testing.simulation._faults import BrokerFaults
from eventkit.testing.simulation._life import LIFE, Life
from eventkit.testing.simulation._plan import stream

if TYPE_CHECKING:
    from eventkit.testing.simulation._world import World

__all__ = ["DEAD", "QUEUE", "LifeAdapter", "WorldFaults"]

QUEUE, DEAD = "events", "dead"
"""The queue that workers receive from, and the one their dead letters are published to."""


class LifeAdapter:
    """The adapter of one life, whose sources and sinks end with it.

    All addresses lead to the two queues of its world.
    """

    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[Source]:
        """See `Adapter`."""
        return self._source(demand)

    @asynccontextmanager
    async def _source(self, demand: Demand) -> AsyncIterator[Source]:
        async with self._world.broker.source(QUEUE, demand) as source:
            self._life.source = source.number
            self._world.note(self._life, "opens source", source.number)
            kind = NativeMortalSource if isinstance(source, NativeMemorySource) else MortalSource
            yield kind(source, self._world, self._life)

    def open_sink(self, address: Address) -> AbstractAsyncContextManager[Sink]:
        """See `Adapter`."""
        return self._world.broker.sink(DEAD)


class MortalSource:
    """The source of one life. Faults of calls are injected below it, by the broker."""

    def __init__(self, source: MemorySource, world: World, life: Life) -> None:
        self.info: SourceInfo = source.info
        self._source = source
        self._world = world
        self._life = life

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """See `Source`."""
        self._world.witness.receiving(self._life, limit)
        if self._world.faults.says_empty():
            await self._life.sleep(wait * 0.5)
            return []
        deliveries = await self._source.receive(limit, wait)
        self._world.witness.received(self._life, deliveries)
        return deliveries

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        """See `Source`."""
        return await self._source.ack(receipts)

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        """See `Source`."""
        return await self._source.nack(items)

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        """See `Source`."""
        return await self._source.extend(receipts, lease)

    def stop(self) -> None:
        """See `Source`."""
        self._life.check()
        self._source.stop()


class NativeMortalSource(MortalSource):
    """The source of one life at a queue that dead-letters by itself."""

    async def dead_letter(self, letters: Sequence[Letter]) -> Sequence[Settled]:
        """See `NativeDeadLetter`."""
        source: Any = self._source
        result: Sequence[Settled] = await source.dead_letter(letters)
        return result


class WorldFaults(BrokerFaults):
    """Faults of calls, and the end of a process in the middle of one."""

    def __init__(self, world: World) -> None:
        conditions = world.conditions
        super().__init__(
            stream(conditions.seed, "faults"), conditions.faults, lease=conditions.lease, latency=conditions.latency
        )
        self._world = world

    async def before(self, call: Call) -> Mapping[int, Settled]:
        """See `Faults`."""
        life = _caller()
        self._world.note(life, call.verb, len(call.items))
        answers = await super().before(call)
        self._world.nemesis.ambushed(life)
        life.check()
        if call.verb == "dead_letter":
            self._world.witness.letters_sent(call.items)
        return answers

    async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
        """See `Faults`."""
        if call.verb == "publish":
            stored = [letter for letter, result in zip(call.items, results, strict=True) if result == DONE]
            self._world.witness.letters_stored(stored)
        life = _caller()
        self._world.nemesis.ambushed(life)
        life.check()
        results = await super().after(call, results)
        life.check()
        return results

    async def pause(self, seconds: float) -> None:
        """See `BrokerFaults`."""
        await _caller().sleep(seconds)

    def maimed(self, delivery: Delivery) -> None:
        """See `BrokerFaults`."""
        self._world.witness.fates[delivery.message_id].maimed = True


def _caller() -> Life:
    """Whose call this is. Raises Killed if that one is dead."""
    life = LIFE.get()
    assert life is not None, "only lives call"
    life.check()
    return life
