"""eventkit: an asynchronous event worker framework. Write a handler; where events come from is configuration."""

from eventkit._codec import Decoding
from eventkit._config import FlowLimits
from eventkit._event import Batch, Event
from eventkit._handler import BatchHandler, Batching, Handler, cleanup
from eventkit._policies.backoff import Backoff
from eventkit._run import run
from eventkit._version import __version__
from eventkit._worker import Report, Worker
from eventkit.errors import (
    BatchFailure,
    ConfigurationError,
    EventKitError,
    HandlerTimeout,
    Reject,
    Retry,
    Skip,
)

__all__ = [
    "Backoff",
    "Batch",
    "BatchFailure",
    "BatchHandler",
    "Batching",
    "ConfigurationError",
    "Decoding",
    "Event",
    "EventKitError",
    "FlowLimits",
    "Handler",
    "HandlerTimeout",
    "Reject",
    "Report",
    "Retry",
    "Skip",
    "Worker",
    "__version__",
    "cleanup",
    "run",
]
