"""The worker: options in, a long-lived consumer out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import anyio
import anyio.to_thread

from eventkit._codec import Codec, Decoding
from eventkit._config import FlowLimits, KeyFailure, Options, Order, Unroutable
from eventkit._handler import AnyHandler, BatchHandler, Handler, data_type
from eventkit._pipeline.executor import invoker
from eventkit._pipeline.pipeline import Pipeline
from eventkit._pipeline.routes import BatchRoute, Route, RouteTable, SingleRoute
from eventkit._policies.backoff import Backoff
from eventkit._policies.history import History
from eventkit._policies.letter import describe_error
from eventkit._registry import adapter_for
from eventkit._telemetry.context import current_handler
from eventkit._telemetry.observer import Fanout, Observer
from eventkit._telemetry.records import WorkerStarted, WorkerStopped, WorkerWarning
from eventkit.errors import ConfigurationError, UnsupportedByAdapter
from eventkit.spi import Adapter, Address, NativeDeadLetter, Sink, Source, SourceInfo

__all__ = ["Report", "Worker", "ungrouped"]

TIMEOUT_SHARE = 0.9
"""The default timeout of a handler, as a share of `max_processing`."""

RunSync = Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a worker ended. `cut` handler calls were cancelled by the drain; `clean` means none was."""

    handled: int
    skipped: int
    dead_lettered: int
    retried: int
    released: int
    cut: int

    @property
    def clean(self) -> bool:
        """Nothing was cut."""
        return not self.cut


class Worker:
    """Receives events from `source` and runs `handlers` on them, until drained.

    `source` is an address such as `sqlite:///orders.db` (see `eventkit.spi.Address`). Everything is checked here,
    and once more against the source when `run` opens it. Raises ConfigurationError with every problem found.

    retry: backoff of failed events, and after how many attempts they are dead-lettered.
    limits: how much is held at once.
    lease: seconds a delivery is leased at a time; extended while the worker holds it.
    max_processing: seconds a delivery may stay with the worker; a call that still runs then is cancelled.
    wait: seconds one receive waits for events.
    drain: seconds running handlers have to finish after SIGTERM or `drain()`.
    ordering: "key" runs one event per ordering key at a time, in the source's order.
    on_key_failure: whether the followers of a failed event wait for it ("block") or go on ("skip").
    dead_letter: address of a sink for dead letters, or "discard"; None leaves it to the source.
    unroutable: what becomes of an event no handler takes.
    decoding: formats and limits of bodies.
    observers: who receives telemetry records; None logs to standard error.
    adapter: answers for `source` and `dead_letter` instead of the installed adapters (for tests).
    seed: seeds backoff and jitter; None draws from the system.
    """

    def __init__(
        self,
        source: str,
        *handlers: AnyHandler,
        retry: Backoff | None = None,
        limits: FlowLimits | None = None,
        lease: float = 30.0,
        max_processing: float = 600.0,
        wait: float = 5.0,
        drain: float = 20.0,
        ordering: Order = "none",
        on_key_failure: KeyFailure = "block",
        dead_letter: str | None = None,
        unroutable: Unroutable = "reject",
        decoding: Decoding | None = None,
        observers: Sequence[Observer] | None = None,
        adapter: Adapter | None = None,
        seed: int | None = None,
    ) -> None:
        self.options = Options(
            retry=retry or Backoff(),
            limits=limits or FlowLimits(),
            decoding=decoding or Decoding(),
            lease=lease,
            max_processing=max_processing,
            wait=wait,
            drain=drain,
            ordering=ordering,
            on_key_failure=on_key_failure,
            dead_letter=dead_letter,
            unroutable=unroutable,
        )
        self.handlers = handlers
        self._adapter = adapter
        self._observers = observers
        self._rng = Random(seed)  # noqa: S311 - jitter, not a secret
        self._wall: Callable[[], float] = time.time
        self._run_sync: RunSync | None = None
        self._watch_loop = True
        self._pipeline: Pipeline | None = None
        self._drain_reason = ""
        problems = list(self.options.problems(handlers))
        self.address = self._checked(problems, Address.parse, source)
        self._letters = None
        if dead_letter is not None and dead_letter != "discard":
            self._letters = self._checked(problems, Address.parse, dead_letter)
        for handler in handlers:
            self._checked(problems, self._check_handler, handler)
        if not problems:
            self._checked(problems, RouteTable, self._routes(Codec(self.options.decoding, source), History()))
        if problems:
            raise ConfigurationError(*problems)

    @staticmethod
    def _checked(problems: list[str], check: Callable[[Any], Any], argument: object) -> Any:
        try:
            return check(argument)
        except ConfigurationError as exc:
            problems.extend(exc.problems)
            return None

    def _check_handler(self, handler: object) -> None:
        if isinstance(handler, type):
            raise ConfigurationError(
                f"{handler.__name__} is a class: give the worker an instance, {handler.__name__}()"
            )
        if not isinstance(handler, Handler | BatchHandler):
            raise ConfigurationError(f"{type(handler).__name__} is neither a Handler nor a BatchHandler")
        Codec(self.options.decoding, "").decoder(data_type(handler))

    def _routes(self, codec: Codec, history: History) -> list[Route]:
        names = _names(self.handlers)
        return [self._route(handler, name, codec, history) for handler, name in zip(self.handlers, names, strict=True)]

    def _route(self, handler: AnyHandler, name: str, codec: Codec, history: History) -> Route:
        timeout = handler.timeout
        # Copied for each call: what `lifespan` bound is seen by every call, what a call binds by none but itself.
        context = copy_context()
        context.run(current_handler.set, name)
        rest: dict[str, Any] = {
            "name": name,
            "decode": codec.decoder(data_type(handler)),
            "invoke": invoker(handler.handle, self._run_sync or _in_thread(handler.concurrency)),
            "timeout": self.options.max_processing * TIMEOUT_SHARE if timeout is None else timeout,
            "context": context,
        }
        if isinstance(handler, BatchHandler):
            return BatchRoute(handler, history=history, **rest)
        return SingleRoute(handler, **rest)

    def drain(self, reason: str = "asked to") -> None:
        """Finish what runs, give back the rest and let `run` return. Idempotent; call it on the worker's loop."""
        self._drain_reason = self._drain_reason or reason
        if self._pipeline is not None:
            self._pipeline.drain(reason)

    def stop(self) -> None:
        """End now: running handlers are cancelled and their events released."""
        self.drain("stopped")
        if self._pipeline is not None:
            self._pipeline.hurry()

    async def run(self, *, abandon: Callable[[], None] | None = None) -> Report:
        """Consume until drained; cancelling it drains too. Runs once per worker.

        Raises ConfigurationError or AdapterError when the source cannot be opened or fails for good, and
        whatever a handler's `lifespan` raises. `abandon` is called when a handler survives its cancellation at
        the end of a drain, before waiting for it on and on.
        """
        emit = Fanout(self._default_observers() if self._observers is None else self._observers)
        with ungrouped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._drain_when_cancelled)
                with anyio.CancelScope(shield=True):
                    report = await self._run_open(emit, abandon or _no_abandon)
                tasks.cancel_scope.cancel()
        return report

    async def _drain_when_cancelled(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.drain("cancelled")

    async def _run_open(self, emit: Fanout, abandon: Callable[[], None]) -> Report:
        async with AsyncExitStack() as stack:
            source, letters_to = await self._open(stack, emit)
            for handler in self.handlers:
                await stack.enter_async_context(handler.lifespan())
            history = History()
            codec = Codec(self.options.decoding, source.info.name)
            pipeline = Pipeline(
                source=source,
                letters_to=letters_to,
                routes=self._routes(codec, history),
                history=history,
                codec=codec,
                options=self.options,
                emit=emit,
                rng=self._rng,
                wall=self._wall,
            )
            self._pipeline = pipeline
            emit(self._started(source.info, letters_to))
            if self._drain_reason:
                pipeline.drain(self._drain_reason)
            async with self._loop_watched(emit):
                await pipeline.run(abandon)
            counters, failure = pipeline.counters, pipeline.failure
            name, message = describe_error(failure)
            emit(
                WorkerStopped(clean=not pipeline.cut and failure is None, cut=pipeline.cut, error=name, message=message)
            )
            if failure is not None:
                raise failure
        return Report(
            handled=counters.handled,
            skipped=counters.skipped,
            dead_lettered=counters.dead_lettered,
            retried=counters.retried,
            released=counters.released,
            cut=pipeline.cut,
        )

    async def _open(self, stack: AsyncExitStack, emit: Fanout) -> tuple[Source, Sink | Literal["native", "discard"]]:
        adapter = self._adapter or adapter_for(self.address)
        source = await stack.enter_async_context(adapter.open_source(self.address, self.options.demand()))
        native = isinstance(source, NativeDeadLetter)
        for warning in source.info.warnings:  # they may explain a problem
            emit(WorkerWarning(warning=warning))
        problems = list(self.options.source_problems(source.info, native_dead_letter=native))
        if problems:
            raise UnsupportedByAdapter(*problems)
        for warning in self.options.source_warnings(source.info):
            emit(WorkerWarning(warning=warning))
        if self._letters is None and self.options.dead_letter is None and not native:
            self._letters = Address.parse(source.info.dead_letters or "")
        if self._letters is not None:
            letters = self._adapter or adapter_for(self._letters)
            return source, await stack.enter_async_context(letters.open_sink(self._letters))
        return source, "discard" if self.options.dead_letter == "discard" else "native"

    def _started(self, info: SourceInfo, letters_to: Sink | str) -> WorkerStarted:
        retry = self.options.retry
        longest = info.traits.max_retry_delay
        how = "parked" if longest == 0 else "by the source"
        return WorkerStarted(
            source=info.name,
            handlers=tuple(_names(self.handlers)),
            retry=f"{retry.attempts} attempts, up to {retry.maximum:g} s apart, delayed {how}",
            dead_letter=letters_to if isinstance(letters_to, str) else str(self._letters),
            ordering=self.options.ordering,
            idempotency="none",
        )

    @asynccontextmanager
    async def _loop_watched(self, emit: Fanout) -> AsyncIterator[None]:
        if not self._watch_loop:
            yield
            return
        from eventkit._telemetry.loop_watch import LoopWatch

        with LoopWatch(emit) as watch:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch.run)
                yield
                tasks.cancel_scope.cancel()

    @staticmethod
    def _default_observers() -> Sequence[Observer]:
        from eventkit._telemetry.log import LogObserver

        return (LogObserver(),)


@contextmanager
def ungrouped() -> Iterator[None]:
    """Raise what a task group wraps, where that is one exception: callers catch it by its class."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        raise error from error.__cause__


def _names(handlers: Sequence[AnyHandler]) -> list[str]:
    """Class names, made unique where two handlers share one."""
    names = [type(handler).__name__ for handler in handlers]
    return [
        name if names.count(name) == 1 else f"{name}-{names[:position].count(name) + 1}"
        for position, name in enumerate(names)
    ]


def _in_thread(concurrency: int) -> RunSync:
    """Run plain functions in threads of their own limiter; a thread is never abandoned."""
    limiter: anyio.CapacityLimiter | None = None

    async def run_sync(function: Callable[[], Any]) -> Any:
        nonlocal limiter
        if limiter is None:
            limiter = anyio.CapacityLimiter(concurrency)
        return await anyio.to_thread.run_sync(function, limiter=limiter)

    return run_sync


def _no_abandon() -> None:
    """Wait for handlers that survive their cancellation."""
