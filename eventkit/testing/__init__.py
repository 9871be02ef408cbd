"""The door for tests: a broker without a cloud, and a harness for handlers."""

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

__all__ = [
    "Call",
    "Change",
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
]
