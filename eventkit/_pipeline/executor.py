"""Calling user code: slots, their cancel scopes, and a context of its own for every call."""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread

from eventkit._pipeline.inflight import InFlight

__all__ = ["Cause", "Invoke", "Slot", "inline", "invoker"]

BUSY_SECONDS = 0.005
"""Longest time a slot runs handlers that never suspend before it lets the keeper and signals in."""


class Cause(enum.Enum):
    """Why a running call is cancelled."""

    TIMEOUT = "timeout"
    LEASE_LOST = "lease lost"
    DRAIN = "drain"


class Work(Protocol):
    """What a slot does, over and over."""

    async def work(self, slot: Slot) -> bool:
        """Do one piece of work; False when there will be no more."""
        ...

    def suspended(self) -> None:
        """The call that runs has suspended for the first time."""
        ...


class Slot:
    """One long-lived task that calls a handler, again and again. A cancel hits the call it is meant for.

    While a call runs, `entries` holds its events and `deadline` the loop time at which the keeper cancels it.
    """

    __slots__ = ("cause", "deadline", "entries", "interrupted", "job", "now", "reported", "scope", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.now = 0.0
        """The loop's clock when the last call ended, or when the slot last woke up."""
        self.scope = anyio.CancelScope()
        self.entries: Sequence[InFlight] = ()
        self.deadline = 0.0
        self.job: object = None
        """What is left to do between two calls that belong together: a batch that is searched."""
        self.cause: Cause | None = None
        self.interrupted = False
        """The cancellation reached the handler, whatever it made of it."""
        self.reported = False

    def begin(self, entries: Sequence[InFlight], deadline: float) -> None:
        """A call starts."""
        self.entries, self.deadline = entries, deadline
        self.cause, self.interrupted, self.reported = None, False, False

    def cancel(self, cause: Cause) -> None:
        """Cancel the running call; the first cause stands."""
        if self.entries and self.cause is None:
            self.cause = cause
            self.scope.cancel()

    async def serve(self) -> None:
        """Work until there is no more. Each cancelled call costs its scope, so a late cancel cannot hit the next."""
        more = True
        while more:
            with anyio.CancelScope() as self.scope:
                more = await self._serve_in_scope()

    async def _serve_in_scope(self) -> bool:
        work, clock = self.work.work, anyio.current_time
        self.now = rested = clock()
        while await work(self):
            if self.scope.cancel_called:
                return True
            self.now = clock()
            if self.now - rested > BUSY_SECONDS:
                await anyio.lowlevel.checkpoint()
                self.now = rested = clock()
        return False


Invoke = Callable[[Slot, Context, Any], Awaitable[Any]]
"""Calls a handler with an event or a batch, in the given context."""


@types.coroutine
def _resumed(
    slot: Slot, context: Context, coroutine: Coroutine[Any, Any, Any], yielded: object
) -> Generator[Any, Any, Any]:
    """Drive a coroutine that has suspended to its end, each step inside `context`."""
    step: Callable[[Any], Any]
    while True:
        try:
            sent = yield yielded
        except BaseException as exc:  # noqa: BLE001 - whatever is thrown in belongs to the coroutine
            slot.interrupted |= slot.cause is not None
            step, value = coroutine.throw, exc
        else:
            # trio hands exceptions in as values, to be raised by what was awaited.
            slot.interrupted |= slot.cause is not None and getattr(sent, "error", None) is not None
            step, value = coroutine.send, sent
        try:
            yielded = context.run(step, value)
        except StopIteration as stop:
            return stop.value


async def _drive(slot: Slot, context: Context, coroutine: Coroutine[Any, Any, Any]) -> object:
    """Run a coroutine inside `context` on this task: a task of its own would cost twenty times as much."""
    try:
        yielded = context.run(coroutine.send, None)
    except StopIteration as stop:
        return stop.value
    slot.work.suspended()
    return await _resumed(slot, context, coroutine, yielded)


def invoker(handle: Callable[[Any], Any], run_sync: Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]) -> Invoke:
    """How to call `handle`: on the loop when it is `async def`, else through `run_sync`."""

    def call_async(slot: Slot, context: Context, argument: object) -> Awaitable[object]:
        return _drive(slot, context, handle(argument))

    async def call_sync(slot: Slot, context: Context, argument: object) -> object:
        result = await _drive(slot, context, run_sync(partial(handle, argument)))
        # A plain wrapper around an `async def` hands its coroutine back.
        if inspect.iscoroutine(result):
            return await _drive(slot, context, result)
        return result

    return call_async if inspect.iscoroutinefunction(handle) else call_sync


async def inline(function: Callable[[], Any]) -> object:
    """Run a plain function on the loop itself, for simulations without threads."""
    return function()
