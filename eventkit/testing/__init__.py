"""The door for tests: a broker without a cloud, faults for it, and a harness for handlers.

Below it are `simulation` (your worker under every fault there is) and `conformance` (for authors of adapters).
"""

from eventkit.testing.chaos import Chaos, chaos
from eventkit.testing.harness import Harness, Outcome
from eventkit.testing.memory import (
    Call,
    Change,
    Counts,
    Faults,
    Kind,
    MemoryAdapter,
    MemoryBroker,
    MemoryQueue,
    MemorySink,
    MemorySource,
    Settings,
)
from eventkit.testing.proxy import FaultProxy, ProxyCounts

__all__ = [
    "Call",
    "Change",
    "Chaos",
    "Counts",
    "Faults",
    "Harness",
    "Kind",
    "MemoryAdapter",
    "MemoryBroker",
    "MemoryQueue",
    "MemorySink",
    "MemorySource",
    "Outcome",
    "Settings",
    "chaos",
]
