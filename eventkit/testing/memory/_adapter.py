"""The scheme `memory`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from eventkit.errors import ConfigurationError
from eventkit.spi import Address, Demand
from eventkit.testing.memory._broker import MemoryBroker
from eventkit.testing.memory._source import MemorySink, MemorySource


class MemoryAdapter:
    """Opens `memory://QUEUE` and `memory://QUEUE?broker=NAME` at the brokers of this process.

    An address has to lead two callers to the same broker, so they are kept here, by name, and made when first
    asked for: the one process-wide state of the package. `use` puts a broker of your own in the place of its
    name; `reset` forgets all, for tests.
    """

    def __init__(self) -> None:
        self._brokers: dict[str, MemoryBroker] = {}

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[MemorySource]:
        """See `Adapter`."""
        broker, queue = self._resolve(address)
        return broker.source(queue, demand)

    def open_sink(self, address: Address) -> AbstractAsyncContextManager[MemorySink]:
        """See `Adapter`."""
        broker, queue = self._resolve(address)
        return broker.sink(queue)

    def broker(self, name: str = "memory") -> MemoryBroker:
        """The broker of this name, made if need be."""
        if name not in self._brokers:
            self._brokers[name] = MemoryBroker(name)
        return self._brokers[name]

    def use(self, broker: MemoryBroker) -> None:
        """Let addresses with the name of `broker` lead to it from now on."""
        self._brokers[broker.name] = broker

    def reset(self) -> None:
        """Forget every broker. Sources and sinks that are open keep theirs."""
        self._brokers.clear()

    def _resolve(self, address: Address) -> tuple[MemoryBroker, str]:
        name = address.options({"broker"}).get("broker", "memory")
        if not address.host or address.path not in {"", "/"}:
            raise ConfigurationError(f"address {address}: a queue is named memory://QUEUE, for example memory://orders")
        return self.broker(name), address.host


adapter = MemoryAdapter()
