"""An honest source that fetches ahead, as those on a stream do: what clauses 11 and 13 are about."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
import msgspec

from eventkit.spi import Delivery, Demand, Extended, Traits
from eventkit.testing import MemoryAdapter
from eventkit.testing.memory import NativeMemorySource
from tests.conformance.wrong import Passing


class Buffered(Passing):
    """Fetches as many events as the demand has room for; keeps them leased, and gives back what nobody asks for."""

    traits = Traits()
    ordered = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.buffer: deque[Delivery] = deque()
        self._pending = 0
        self._asked = anyio.current_time()
        self._lease = self.demand.lease

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, inner: NativeMemorySource, demand: Demand, adapter: MemoryAdapter, broker: str
    ) -> AsyncIterator[Self]:
        self = cls(inner, demand, adapter, broker)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.keep)
            yield self
            tasks.cancel_scope.cancel()
        await self.give_back_at_the_end()

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        self._pending += 1
        try:
            if not self.buffer:
                most = min(max(limit, self.demand.events), self.info.limits.receive)
                self.buffer.extend(await super().receive(most, wait))
            return [self.buffer.popleft() for _ in range(min(limit, len(self.buffer)))]
        finally:
            self._pending -= 1
            self._asked = anyio.current_time()

    async def keep(self) -> None:
        """Extend what is in the buffer, or give it back."""
        while True:
            await anyio.sleep(self._lease / 6)
            if self.idle():
                await self.give_back()
            else:
                await self._extend_all()

    def idle(self) -> bool:
        """Whether nobody has asked for a third of the lease."""
        return not self._pending and anyio.current_time() > self._asked + self._lease / 3

    async def give_back(self) -> None:
        """Give back what is in the buffer."""
        fetched = [*self.buffer]
        self.buffer.clear()
        for delivery in fetched:
            await self.inner.nack([(delivery.receipt, 0.0)])

    async def give_back_at_the_end(self) -> None:
        """Give back what was never handed over."""
        await self.give_back()

    async def _extend_all(self) -> None:
        for delivery in [*self.buffer]:
            [answer] = await self.inner.extend([delivery.receipt], self._lease)
            if delivery not in self.buffer:
                continue  # handed over meanwhile
            place = self.buffer.index(delivery)
            if isinstance(answer, Extended):
                self.buffer[place] = msgspec.structs.replace(delivery, leased_until=answer.until)
            else:
                del self.buffer[place]
