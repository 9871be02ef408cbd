"""Where the checks work on the in-memory broker: virtual time, a new broker for each check."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any

from eventkit.spi import Address
from eventkit.testing import MemoryAdapter, MemoryBroker
from eventkit.testing.conformance import Place


def memory_places(adapter: MemoryAdapter, **options: Any) -> Callable[[], AbstractAsyncContextManager[Place]]:
    """Places at brokers with these `options`, which `adapter` opens."""
    numbers = count()

    @asynccontextmanager
    async def places() -> AsyncIterator[Place]:
        broker = MemoryBroker(f"broker-{next(numbers)}", wall=time.time, **options)
        adapter.use(broker)
        address = Address.parse(f"memory://events?broker={broker.name}")
        yield Place(source=address, sink=address)

    return places
