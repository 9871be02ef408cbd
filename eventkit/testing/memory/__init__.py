"""An in-memory broker with honest leases: for tests, simulations, benchmarks and a first try.

    broker = MemoryBroker(traits=Traits(key_release="followers", delay_granularity=1.0))
    broker.publish("orders", {"id": 7}, key="customer-1")
    async with broker.source("orders") as source:
        [delivery] = await source.receive(1, wait=0)
        await source.nack([(delivery.receipt, 30.0)])

It does what the declared traits say and nothing better: a receipt is good for one delivery and until its
lease ends, keys block as they do at the broker with that `key_release`, and time is the loop's.
`adapter` serves the addresses `memory://QUEUE`.
"""

from eventkit.testing.memory._adapter import MemoryAdapter, adapter
from eventkit.testing.memory._broker import MemoryBroker
from eventkit.testing.memory._queue import MemoryQueue
from eventkit.testing.memory._source import MemorySink, MemorySource, NativeMemorySource
from eventkit.testing.memory._values import Call, Change, Counts, Faults, Kind, Message, Settings, Verb

__all__ = [
    "Call",
    "Change",
    "Counts",
    "Faults",
    "Kind",
    "MemoryAdapter",
    "MemoryBroker",
    "MemoryQueue",
    "MemorySink",
    "MemorySource",
    "Message",
    "NativeMemorySource",
    "Settings",
    "Verb",
    "adapter",
]
