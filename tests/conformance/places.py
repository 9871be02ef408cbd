"""Where the checks work: on the in-memory broker a new one for each check, at a local Service Bus a new entity."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
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


SESSIONS = 20
"""At a time of one source: more than there are keys, each of which may be held."""


@dataclass(frozen=True, slots=True)
class ServicebusAddresses:
    """Addresses at a local Service Bus, by the names it serves: `orders`, `bills.sessions`, `news/audit`."""

    endpoint: str

    def source(self, name: str) -> Address:
        """To receive from a queue or subscription."""
        return self._address(name, f"&sessions={SESSIONS}" if name.endswith(".sessions") else "")

    def sink(self, name: str) -> Address:
        """To publish to a queue, or to the topic of a subscription."""
        return self._address(name.partition("/")[0], "&sessions=on" if name.endswith(".sessions") else "")

    def dead_letters(self, name: str) -> Address:
        """What a queue or subscription has given up."""
        return self._address(f"{name}/$DeadLetterQueue")

    def _address(self, name: str, more: str = "") -> Address:
        return Address.parse(f"servicebus://eventkit-local/{name}?endpoint={self.endpoint.removeprefix('sb://')}{more}")


NOBODY = ServicebusAddresses("127.0.0.1:9")
"""The port of the discard protocol: nobody answers."""
