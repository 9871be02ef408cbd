"""Trying a handler without a broker: the real worker on the in-memory one, event by event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self

import anyio
import msgspec

from eventkit._handler import AnyHandler, BatchHandler
from eventkit._telemetry.records import (
    EventDeadLettered,
    EventHandled,
    EventParked,
    EventReleased,
    EventRetried,
    EventSkipped,
    Level,
    Record,
)
from eventkit._worker import Worker
from eventkit.testing.memory import MemoryAdapter, MemoryBroker

__all__ = ["Harness", "Outcome"]

QUEUE = "harness"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one delivery. `delay` is in seconds; `error` is the qualified class of the exception."""

    kind: Literal["ok", "skip", "retry", "reject", "transient", "released"]
    reason: str = ""
    delay: float = 0.0
    error: str = ""
    message: str = ""
    attempt: int = 1


class Harness:
    """Runs handlers on events you send, through decoding, routing, batching and the failure policy.

        async with Harness(RecordQuake()) as harness:
            outcome = await harness.send({"magnitude": 5.1}, type="quake.recorded")
        assert outcome.kind == "ok"

    `options` are those of `Worker`. Batches do not wait for company: what one `send_all` publishes is a batch.
    Raises ConfigurationError as `Worker` does.
    """

    def __init__(self, *handlers: AnyHandler, timeout: float = 10.0, **options: Any) -> None:
        self.broker = MemoryBroker()
        self.records: list[Record] = []
        self.level = Level.DEBUG
        self._timeout = timeout
        self._outcomes: dict[str, Outcome] = {}
        self._changed = anyio.Event()
        self._stack = AsyncExitStack()
        for handler in handlers:
            if isinstance(handler, BatchHandler):
                # An instance attribute shadows the option of the class for this test only.
                handler.__dict__["batching"] = replace(handler.batching, max_wait=0.0)
        adapter = MemoryAdapter()
        adapter.use(self.broker)
        options.setdefault("seed", 0)
        self.worker = Worker(f"memory://{QUEUE}", *handlers, adapter=adapter, observers=[self], **options)
        self._type = _first_exact_type(handlers)

    async def __aenter__(self) -> Self:
        """Start the worker."""
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(self.worker.drain)
        tasks.start_soon(self.worker.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Drain the worker."""
        return await self._stack.__aexit__(kind, error, trace)

    async def send(
        self,
        data: object,
        *,
        type: str | None = None,
        key: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Publish one event and wait for its first outcome. `data` is bytes, or anything JSON can say.

        `type` is by default the first exact type the first handler takes. Raises TimeoutError when there is no
        outcome within the harness's `timeout` seconds.
        """
        return (await self.send_all([data], type=type, key=key, attributes=attributes))[0]

    async def send_all(
        self,
        data: Iterable[object],
        *,
        type: str | None = None,
        key: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> list[Outcome]:
        """Publish several events at once and wait for the first outcome of each, in order."""
        wanted = type if type is not None else self._type
        ids = [self.broker.publish(QUEUE, item, type=wanted or None, key=key, attributes=attributes) for item in data]
        with anyio.move_on_after(self._timeout):
            while not all(id in self._outcomes for id in ids):
                await self._changed.wait()
        late = [id for id in ids if id not in self._outcomes]
        if late:
            raise TimeoutError(f"{len(late)} of {len(ids)} events had no outcome within {self._timeout:g} s")
        return [self._outcomes[id] for id in ids]

    def observe(self, record: Record) -> None:
        """Take a telemetry record; the harness is its worker's observer."""
        self.records.append(record)
        outcome = _outcome(record)
        if outcome is not None:
            self._outcomes.setdefault(outcome[0], outcome[1])
            self._changed.set()
            self._changed = anyio.Event()


def _outcome(record: Record) -> tuple[str, Outcome] | None:
    """The message id and outcome a record tells, if it tells one."""
    match record:
        case EventHandled():
            outcome = Outcome(kind="ok", attempt=record.attempt)
        case EventSkipped(reason=reason):
            outcome = Outcome(kind="skip", reason=reason, attempt=record.attempt)
        case EventRetried(delay=delay, error=error, message=message):
            outcome = Outcome(kind="retry", delay=delay, error=error, message=message, attempt=record.attempt)
        case EventDeadLettered(reason=reason, error=error, message=message):
            outcome = Outcome(kind="reject", reason=reason, error=error, message=message, attempt=record.attempt)
        case EventParked(delay=delay, error=error, message=message):
            outcome = Outcome(kind="transient", delay=delay, error=error, message=message, attempt=record.attempt)
        case EventReleased(reason=reason):
            outcome = Outcome(kind="released", reason=reason, attempt=record.attempt)
        case _:
            return None
    return record.message_id, outcome


def _first_exact_type(handlers: tuple[AnyHandler, ...]) -> str:
    types = [name for handler in handlers for name in handler.types if not name.endswith("*")]
    return types[0] if types else ""
