"""The door for tests: a broker without a cloud, faults for it or for a wire, and a harness for handlers.

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
    "FaultProxy",
    "Faults",
    "Harness",
    "Kind",
    "MemoryAdapter",
    "MemoryBroker",
    "MemoryQueue",
    "MemorySink",
    "MemorySource",
    "Outcome",
    "ProxyCounts",
    "Settings",
    "chaos",
]
