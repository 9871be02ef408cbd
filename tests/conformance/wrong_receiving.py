"""Sources whose receives, limits or buffers break the contract in one way each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self
from weakref import WeakKeyDictionary

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from eventkit.errors import PermanentAdapterError
from eventkit.spi import (
    LOST,
    Delivery,
    Demand,
    Extended,
    Limits,
    Receipt,
    Settled,
    SourceInfo,
)
from eventkit.testing import MemoryAdapter, MemoryBroker
from eventkit.testing.memory import NativeMemorySource
from tests.conformance.buffered import Buffered
from tests.conformance.wrong import Passing

# -- receiving (clauses 4, 6, 10) --------------------------------------------------------------------


class ReceivesTooMany(Passing):
    """A batch is a batch."""

    fails = ("a_receive_gives_at_most_its_limit",)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        return await super().receive(limit + 1 if limit == 2 else limit, wait)


class ReceivesWithoutWaiting(Passing):
    """An empty queue is asked again and again."""

    fails = ("a_receive_at_an_empty_source_takes_about_its_wait",)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        return await super().receive(limit, 0.0)


class ReceivesTooLate(Passing):
    """The wire has a wait of its own, and a long one."""

    fails = (
        "a_pending_receive_returns_after_stop",
        "a_receive_at_an_empty_source_takes_about_its_wait",
        "an_extended_lease_lasts",
    )

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        deliveries = await super().receive(limit, wait)
        if not deliveries and wait >= 1.0:
            await anyio.sleep(5.5)
        return deliveries


class ReceivesAfterItsWait(Passing):
    """It gathers for as long as it may."""

    fails = ("a_pending_receive_returns_after_stop", "a_receive_returns_when_something_is_published")

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        if wait > 10:
            await anyio.sleep(wait)
        return await super().receive(limit, wait)


class HangsOnAnEmptyQueue(Passing):
    """A look into the queue waits for something to be there."""

    fails = ("a_receive_without_a_wait_returns",)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        return await super().receive(limit, wait or 1000.0)


class SharesItsReceives(Passing):
    """A receive that begins while another waits is given the same."""

    fails = ("receives_side_by_side_share_what_there_is",)

    _running: anyio.Event | None = None
    _brought: Sequence[Delivery] = ()

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        if self._running is not None:
            await self._running.wait()
            return self._brought[:limit]
        self._running = anyio.Event()
        try:
            self._brought = await super().receive(limit, wait)
        finally:
            self._running.set()
            self._running = None
        return self._brought


class SharesItsLeases(Passing):
    """A source is shown what the one opened before it holds."""

    fails = (
        "a_key_in_hand_is_given_to_nobody_else",
        "after_stop_what_arrived_is_handed_over_or_given_back",
        "what_is_not_asked_for_goes_to_another",
        "what_one_source_holds_another_is_not_given",
    )

    first: SharesItsLeases
    _open: ClassVar[WeakKeyDictionary[MemoryBroker, list[SharesItsLeases]]] = WeakKeyDictionary()

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, inner: NativeMemorySource, demand: Demand, adapter: MemoryAdapter, broker: str
    ) -> AsyncIterator[Self]:
        self = cls(inner, demand, adapter, broker)
        here = cls._open.setdefault(adapter.broker(broker), [])
        here.append(self)
        self.first = here[0]
        yield self
        here.remove(self)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        if self.first is not self and (shown := [*self.first.held.values()]):
            await checkpoint()
            return shown[:limit]
        return await super().receive(limit, wait)


class DeclaresTooMuch(Passing):
    """Its provider takes a hundred, not a thousand."""

    fails = ("a_call_as_large_as_the_limit_is_taken",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        limits = msgspec.structs.replace(self.inner.info.limits, settle=1000, extend=1000)
        self.info = SourceInfo(name=self.info.name, limits=limits, traits=self.info.traits)


class DeclaresNoReceives(Passing):
    """A limit that nobody can keep."""

    fails = ("limits_and_traits_make_sense",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        limits = Limits(concurrent_receives=0)
        self.info = SourceInfo(name=self.info.name, limits=limits, traits=self.info.traits)


class OneCallAtATime(Passing):
    """One connection, and a receive that sits on it."""

    fails = ("settling_goes_on_while_a_receive_waits",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = anyio.Lock()

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        async with self._lock:
            return await super().receive(limit, wait)

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        async with self._lock:
            return await super().extend(receipts, lease)


class MixesCalls(Passing):
    """Concurrent acks share one reply."""

    fails = ("settlements_side_by_side_are_done",)

    _running = 0

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        self._running += 1
        crowded = self._running > 1
        try:
            answers = await super().ack(receipts)
        finally:
            self._running -= 1
        return [LOST] * len(receipts) if crowded else answers


# -- stop and buffers (clauses 11, 13) ---------------------------------------------------------------


class IgnoresStop(Passing):
    """Receives for ever."""

    fails = ("a_pending_receive_returns_after_stop", "receives_after_stop_end_with_nothing_for_ever")

    def stop(self) -> None:
        pass


class StopsOnce(Passing):
    """A second stop is a mistake, it says."""

    fails = ("stop_may_be_called_twice",)

    _stopped = False

    def stop(self) -> None:
        if self._stopped:
            raise PermanentAdapterError("stopped already")
        self._stopped = True
        super().stop()


class StrandsItsBufferAtStop(Buffered):
    """What was fetched ahead is forgotten by stop."""

    fails = ("after_stop_what_arrived_is_handed_over_or_given_back",)

    def stop(self) -> None:
        super().stop()
        self.buffer.clear()


class StrandsItsBufferAtTheEnd(Buffered):
    """What was fetched ahead is forgotten by the end of the context."""

    fails = ("closing_gives_back_what_was_never_handed_over",)

    async def give_back_at_the_end(self) -> None:
        pass


class HandsOverExpiredLeases(Buffered):
    """Nobody keeps what was fetched ahead."""

    fails = ("what_is_handed_over_is_still_leased",)

    async def keep(self) -> None:
        await anyio.sleep_forever()


class HoardsItsBuffer(Buffered):
    """What was fetched ahead is kept for ever, asked for or not."""

    fails = ("what_is_not_asked_for_goes_to_another",)

    def idle(self) -> bool:
        return False
