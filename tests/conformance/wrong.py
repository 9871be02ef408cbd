"""An adapter around the in-memory one that passes everything on: what the wrong sources and sinks start from.

A wrong one overrides a method, and names the checks that must find it in `fails`: those, and no others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Self

import msgspec
import trio

from eventkit.errors import ConnectionLost, SourceNotFound
from eventkit.spi import (
    DONE,
    Address,
    DeadLetter,
    Delivery,
    Demand,
    Depth,
    Extended,
    Letter,
    Limits,
    Outgoing,
    Receipt,
    Settled,
    SourceInfo,
    Traits,
)
from eventkit.testing import MemoryAdapter
from eventkit.testing.memory import MemorySink, NativeMemorySource

BOUNDED = Traits(
    max_retry_delay=4.0,
    delay_granularity=0.5,
    lease_total_max=8.0,
    key_release="hold",
    native_receive_limit=4,
    retention=10.0,
)
"""Traits that rule out no check: every limit is there, and can be waited for with a lease of 2 s."""


class Passing:
    """A source that passes everything on, and copies its dead letters to where they can be received."""

    fails: ClassVar[tuple[str, ...]] = ()
    traits: ClassVar[Traits] = BOUNDED
    declared: ClassVar[Traits | None] = None
    ordered: ClassVar[bool] = True

    def __init__(self, inner: NativeMemorySource, demand: Demand, adapter: MemoryAdapter, broker: str) -> None:
        self.inner = inner
        self.demand = demand
        self.info: SourceInfo = inner.info
        if self.declared is not None:
            self.info = SourceInfo(name=inner.info.name, limits=inner.info.limits, traits=self.declared)
        self.held: dict[Receipt, Delivery] = {}
        self._graveyard = adapter.broker(broker)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, inner: NativeMemorySource, demand: Demand, adapter: MemoryAdapter, broker: str
    ) -> AsyncIterator[Self]:
        yield cls(inner, demand, adapter, broker)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        deliveries = await self.inner.receive(limit, wait)
        self.held.update((delivery.receipt, delivery) for delivery in deliveries)
        return deliveries

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        return await self.inner.ack(receipts)

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        return await self.inner.nack(items)

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        return await self.inner.extend(receipts, lease)

    async def dead_letter(self, letters: Sequence[Letter]) -> Sequence[Settled]:
        answers = await self.inner.dead_letter(letters)
        for letter, answer in zip(letters, answers, strict=True):
            if answer == DONE:
                dead = self.held[letter.receipt]
                self._graveyard.publish("dead", dead.body, attributes=dead.attributes)
        return answers

    def stop(self) -> None:
        self.inner.stop()

    async def depth(self) -> Depth | None:
        return await self.inner.depth()

    async def peek(self, limit: int, after: str | None = None) -> Sequence[DeadLetter]:
        return await self.inner.peek(limit, after)

    async def take(self, ids: Sequence[str]) -> Sequence[Settled]:
        return await self.inner.take(ids)

    async def put_back(self, ids: Sequence[str]) -> Sequence[Settled]:
        return await self.inner.put_back(ids)


class PassingSink:
    """A sink that passes everything on."""

    fails: ClassVar[tuple[str, ...]] = ()

    def __init__(self, inner: MemorySink) -> None:
        self.inner = inner
        self.limits: Limits = inner.limits

    @classmethod
    @asynccontextmanager
    async def opened(cls, inner: MemorySink) -> AsyncIterator[Self]:
        yield cls(inner)

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        return await self.inner.publish(messages)


class WrongAdapter:
    """Opens `source` and `sink` around those of `memory`. Nothing is at the host "missing", nor at "unreachable"."""

    def __init__(
        self, memory: MemoryAdapter, *, source: type[Passing] = Passing, sink: type[PassingSink] = PassingSink
    ) -> None:
        self._memory = memory
        self._source = source
        self._sink = sink

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[Passing]:
        return self._open_source(address, demand)

    def open_sink(self, address: Address) -> AbstractAsyncContextManager[PassingSink]:
        return self._open_sink(address)

    @asynccontextmanager
    async def _open_source(self, address: Address, demand: Demand) -> AsyncIterator[Passing]:
        self.reach(address)
        broker = dict(address.query)["broker"]
        async with self._memory.open_source(self.understood(address), demand) as inner:
            assert isinstance(inner, NativeMemorySource)
            async with self._source.opened(inner, demand, self._memory, broker) as source:
                yield source

    @asynccontextmanager
    async def _open_sink(self, address: Address) -> AsyncIterator[PassingSink]:
        self.reach(address)
        async with self._memory.open_sink(self.understood(address)) as inner, self._sink.opened(inner) as sink:
            yield sink

    def understood(self, address: Address) -> Address:
        """What is asked of the adapter inside."""
        return address

    def reach(self, address: Address) -> None:
        """Raise what a provider's SDK would lead to."""
        if address.host == "missing":
            raise SourceNotFound("no queue named missing; create it first")
        if address.host == "unreachable":
            raise ConnectionLost("nobody answers at unreachable") from OSError("connection refused")


def start_unowned(function: Callable[[], Any]) -> None:
    """Start a task that outlives whoever starts it."""
    trio.lowlevel.spawn_system_task(function)


def but(traits: Traits, **changed: Any) -> Traits:
    """The same but for what is `changed`."""
    return msgspec.structs.replace(traits, **changed)
