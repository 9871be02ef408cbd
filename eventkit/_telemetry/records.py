"""Telemetry records: the closed set of things a worker reports. Field names are those of the log lines.

A record never holds a payload, a receipt, an attribute or an exception's full text: `error` is the
exception's class, `message` its text, redacted and cut. Times are in seconds.
"""

from __future__ import annotations

import enum
from typing import ClassVar, TypeAlias

import msgspec

__all__ = [
    "BatchBisected",
    "DrainEnded",
    "DrainStarted",
    "EventDeadLettered",
    "EventHandled",
    "EventParked",
    "EventReleased",
    "EventRetried",
    "EventSkipped",
    "GateClosed",
    "GateOpened",
    "GateProbed",
    "HandlerFailed",
    "HandlerStuck",
    "LeaseLost",
    "Level",
    "LoopBlocked",
    "ReceiveFailed",
    "Record",
    "SettleFailed",
    "Summary",
    "WorkerStarted",
    "WorkerStopped",
    "WorkerWarning",
]


class Level(enum.IntEnum):
    """How loud a record is; the numbers are those of the standard library's `logging`."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    level: ClassVar[Level] = Level.INFO


class _EventRecord(_Record, frozen=True, kw_only=True):
    """About one event. `handler` is "" for an event that reached none."""

    event_id: str
    event_type: str
    message_id: str
    handler: str
    attempt: int


class WorkerStarted(_Record, frozen=True, kw_only=True):
    """The source is open and the handlers are ready. `warnings` are counted apart, as `WorkerWarning`."""

    source: str
    handlers: tuple[str, ...]
    retry: str
    dead_letter: str
    ordering: str
    idempotency: str


class WorkerWarning(_Record, frozen=True, kw_only=True):
    """Something in the configuration that works, and will surprise."""

    level: ClassVar[Level] = Level.WARNING

    warning: str


class WorkerStopped(_Record, frozen=True, kw_only=True):
    """The worker has ended; `cut` is how many handler calls were cancelled by the drain."""

    clean: bool
    cut: int
    error: str = ""
    message: str = ""


class EventHandled(_EventRecord, frozen=True, kw_only=True):
    """A handler returned. Sent only to observers that listen at debug level."""

    level: ClassVar[Level] = Level.DEBUG


class EventSkipped(_EventRecord, frozen=True, kw_only=True):
    """Not wanted, and settled as done."""

    reason: str


class EventRetried(_EventRecord, frozen=True, kw_only=True):
    """A counted failure; the event is tried again after `delay` seconds."""

    level: ClassVar[Level] = Level.WARNING

    delay: float
    error: str
    message: str


class EventDeadLettered(_EventRecord, frozen=True, kw_only=True):
    """The event is among the dead letters, and stored there. `dead_letter_id` names it for ever."""

    level: ClassVar[Level] = Level.ERROR

    reason: str
    error: str
    message: str
    dead_letter_id: str


class EventReleased(_EventRecord, frozen=True, kw_only=True):
    """Given back uncounted: drain, closed gate, full parking, end of `max_processing`."""

    reason: str


class EventParked(_EventRecord, frozen=True, kw_only=True):
    """A transient failure: the event waits under its lease and runs again from hand, uncounted."""

    level: ClassVar[Level] = Level.WARNING

    delay: float
    error: str
    message: str


class HandlerFailed(_Record, frozen=True, kw_only=True):
    """A call of a handler on more than one event raised; what becomes of each event follows."""

    level: ClassVar[Level] = Level.WARNING

    handler: str
    events: int
    failure: str
    error: str
    message: str


class BatchBisected(_Record, frozen=True, kw_only=True):
    """A batch that raised has been searched for its bad events, in `calls` calls."""

    handler: str
    events: int
    failed: int
    calls: int
    stopped: str = ""


class LeaseLost(_EventRecord, frozen=True, kw_only=True):
    """The lease ended before the event was settled; it will be delivered again."""

    level: ClassVar[Level] = Level.WARNING

    state: str


class SettleFailed(_Record, frozen=True, kw_only=True):
    """A settle call did not take effect for `events` events; `final` when it will not be tried again."""

    level: ClassVar[Level] = Level.WARNING

    verb: str
    events: int
    final: bool
    cause: str


class ReceiveFailed(_Record, frozen=True, kw_only=True):
    """Receiving failed; tried again after `delay` seconds."""

    level: ClassVar[Level] = Level.WARNING

    delay: float
    error: str
    message: str


class GateClosed(_Record, frozen=True, kw_only=True):
    """The intake is paused; the first probe runs after `delay` seconds."""

    level: ClassVar[Level] = Level.WARNING

    reason: str
    delay: float
    detail: str


class GateProbed(_Record, frozen=True, kw_only=True):
    """A probe did not open the gate; the next one runs after `delay` seconds."""

    reason: str
    delay: float
    result: str


class GateOpened(_Record, frozen=True, kw_only=True):
    """The intake goes on, after `seconds`."""

    reason: str
    seconds: float


class HandlerStuck(_Record, frozen=True, kw_only=True):
    """A handler did not end when it was cancelled: it swallows cancellation, or runs in a thread."""

    level: ClassVar[Level] = Level.ERROR

    handler: str
    events: int
    cause: str


class LoopBlocked(_Record, frozen=True, kw_only=True):
    """Something kept the event loop from running for `seconds` so far; `frame` is where it was then."""

    level: ClassVar[Level] = Level.WARNING

    seconds: float
    frame: str


class DrainStarted(_Record, frozen=True, kw_only=True):
    """No more events are taken; running handlers have `budget` seconds."""

    reason: str
    running: int
    held: int
    budget: float


class DrainEnded(_Record, frozen=True, kw_only=True):
    """Every event in hand is settled or given back."""

    seconds: float
    cut: int


class Summary(_Record, frozen=True, kw_only=True):
    """Counts since the last summary (one a minute and a last one at the end), and what is in hand now."""

    seconds: float
    received: int
    handled: int
    skipped: int
    retried: int
    dead_lettered: int
    released: int
    transient: int
    lease_lost: int
    settle_unknown: int
    in_flight: int
    parked: int


EventRecord: TypeAlias = (
    EventHandled | EventSkipped | EventRetried | EventDeadLettered | EventReleased | EventParked | LeaseLost
)

Record: TypeAlias = (
    EventRecord
    | WorkerStarted
    | WorkerWarning
    | WorkerStopped
    | HandlerFailed
    | BatchBisected
    | SettleFailed
    | ReceiveFailed
    | GateClosed
    | GateProbed
    | GateOpened
    | HandlerStuck
    | LoopBlocked
    | DrainStarted
    | DrainEnded
    | Summary
)
