"""Every exception eventkit raises or understands.

EventKitError
├── ConfigurationError             before the first receive; never retried
│   ├── UnknownScheme
│   ├── AdapterNotInstalled
│   └── UnsupportedByAdapter
├── AdapterError                   raised by adapters; handled by receiver and settler
│   ├── TransientAdapterError      worth trying again, perhaps after `retry_after`
│   │   ├── Throttled
│   │   └── ConnectionLost
│   └── PermanentAdapterError      ends the worker
│       ├── SourceNotFound
│       └── AccessDenied
├── DecodeError                    an event that cannot be read: dead-lettered
├── HandlerTimeout                 the framework's own per-handler timeout
└── HandlerSignal                  raised (or returned) by handlers to steer
    ├── Retry    ├── Reject    ├── Skip    └── BatchFailure
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventkit._event import Event

__all__ = [
    "AccessDenied",
    "AdapterError",
    "AdapterNotInstalled",
    "BatchFailure",
    "ConfigurationError",
    "ConnectionLost",
    "DecodeError",
    "EventKitError",
    "HandlerSignal",
    "HandlerTimeout",
    "PermanentAdapterError",
    "Reject",
    "Retry",
    "Skip",
    "SourceNotFound",
    "Throttled",
    "TransientAdapterError",
    "UnknownScheme",
    "UnsupportedByAdapter",
]


class EventKitError(Exception):
    """Root of every exception defined by eventkit."""


class ConfigurationError(EventKitError):
    """What was asked for cannot work; raised before anything is received.

    `problems` lists every mistake found, so that one run shows them all.
    """

    def __init__(self, *problems: str) -> None:
        self.problems: Sequence[str] = problems
        if len(problems) > 1:
            super().__init__(f"{len(problems)} problems:\n" + "\n".join(f"  - {p}" for p in problems))
        else:
            super().__init__(*problems)


class UnknownScheme(ConfigurationError):
    """No installed adapter answers for the scheme of an address."""


class AdapterNotInstalled(ConfigurationError):
    """The adapter is known, but the package it needs is missing; the message names the extra."""


class UnsupportedByAdapter(ConfigurationError):
    """The adapter cannot do what the configuration asks of it."""


class AdapterError(EventKitError):
    """Something failed between an adapter and its provider; the SDK's error is the `__cause__`."""


class TransientAdapterError(AdapterError):
    """A failure that may pass: the core waits and tries again.

    `retry_after` is the provider's own advice in seconds, where it gave one.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Throttled(TransientAdapterError):
    """The provider asked us to slow down."""


class ConnectionLost(TransientAdapterError):
    """The provider could not be reached, or the connection broke."""


class PermanentAdapterError(AdapterError):
    """A failure no waiting mends: the worker drains and ends with this error."""


class SourceNotFound(PermanentAdapterError):
    """The queue, subscription or file an address names does not exist."""


class AccessDenied(PermanentAdapterError):
    """The credentials in use do not allow the call."""


class DecodeError(EventKitError):
    """A delivery that cannot be read as an event; the text names the place, never a value."""


class HandlerTimeout(EventKitError):
    """A handler ran longer than its timeout and was cancelled. Counts as an attempt."""


class HandlerSignal(EventKitError):
    """Raised by a handler to say what becomes of its event. Returning one means the same."""


class Retry(HandlerSignal):
    """Try this event again later; counts as an attempt, and at the last one it is dead-lettered.

    `after` is the delay in seconds; without it the worker's backoff decides.
    """

    def __init__(self, reason: str = "retry", *, after: float | None = None) -> None:
        if after is not None and not 0 <= after < float("inf"):
            raise ValueError(f"Retry(after={after!r}): must be zero or more seconds")
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Reject(HandlerSignal):
    """Dead-letter this event now; `reason` is stored beside it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Skip(HandlerSignal):
    """This event is not wanted: settle it as done and log `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BatchFailure(HandlerSignal):
    """Raised by a batch handler: these events failed, every other one is done.

    An error may be any exception; `Retry`, `Reject` and `Skip` steer as they do when raised.
    """

    def __init__(self, failures: Mapping[Event[Any], BaseException]) -> None:
        super().__init__(f"{len(failures)} events of the batch failed")
        self.failures = dict(failures)
