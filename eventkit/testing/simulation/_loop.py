"""An asyncio event loop on simulated time: nothing in it waits, and nothing can leave it."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, NoReturn

__all__ = ["Deadlock", "Escaped", "Livelock", "VirtualLoop"]

MOST_TURNS = 200_000
"""Turns of the loop without a step of the clock after which it is taken for a livelock."""

MANY_CANCELLED = 200
"""Cancelled timers in the heap before it is worth while to look for them."""


class Escaped(BaseException):
    """Simulated code tried to leave the simulation: a thread, a socket, a process or a real sleep."""


class Deadlock(BaseException):
    """Every task waits, and no timer will ever wake one."""


class Livelock(BaseException):
    """Tasks run on and on, and the clock does not move."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks as asyncio does, and moves its clock to the next timer when none is ready.

    `frozen` says of a handle's context whether it belongs to something that is stopped: such handles are kept back,
    in order, until `release`. `clock` counts seconds from 0, and only `_run_once` and `block` move it.
    """

    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.turns = 0
        self.frozen: Callable[[Context], bool] | None = None
        self._kept: deque[Any] = deque()
        self._turns_at_step = 0
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """The simulated time in seconds."""
        return self.clock

    def block(self, seconds: float) -> None:
        """Let time pass with nothing running, as a handler does that computes for so long."""
        self.clock += seconds

    def release(self) -> None:
        """What is stopped has changed: look again at what was kept back, before what came after it."""
        self._ready.extendleft(reversed(self._kept))
        self._kept.clear()

    def _run_once(self) -> None:
        """One turn. The order is that of asyncio: what is ready now, then what that made ready."""
        ready, scheduled = self._ready, self._scheduled
        self.turns += 1
        if not ready and not self._stopping:
            self._step()
        now = self.clock
        while scheduled and scheduled[0]._when <= now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if handle._cancelled:
                self._timer_cancelled_count -= 1
            else:
                ready.append(handle)
        frozen = self.frozen
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if frozen is not None and frozen(handle._context):
                self._kept.append(handle)
            else:
                handle._run()
        if self._timer_cancelled_count > MANY_CANCELLED:
            self._sweep()
        if self.turns - self._turns_at_step > MOST_TURNS:
            raise Livelock(f"{MOST_TURNS} turns of the loop at {self.clock:g} s")

    def _step(self) -> None:
        """Move the clock to the next timer."""
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        if not scheduled:
            raise Deadlock(f"every task waits at {self.clock:g} s, and no timer is set")
        if scheduled[0]._when > self.clock:
            self.clock = scheduled[0]._when
            self._turns_at_step = self.turns

    def _sweep(self) -> None:
        """Drop cancelled timers. The heap is changed in place: the turn that runs holds on to it."""
        live = [handle for handle in self._scheduled if not handle._cancelled]
        for handle in self._scheduled:
            handle._scheduled = not handle._cancelled
        self._scheduled[:] = live
        heapq.heapify(self._scheduled)
        self._timer_cancelled_count = 0

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing fails unseen."""
        raise context.get("exception") or RuntimeError(context["message"])

    # -- what would leave the simulation ---------------------------------------------------------

    def _escape(self, *_: object, **__: object) -> NoReturn:
        raise Escaped("a thread, socket or process was asked of the simulated loop: run such code inline, or fake it")

    run_in_executor = _escape
    call_soon_threadsafe = _escape
    getaddrinfo = _escape
    create_connection = _escape
    create_server = _escape
    create_datagram_endpoint = _escape
    add_reader = _escape
    add_writer = _escape
    add_signal_handler = _escape
    subprocess_exec = _escape
    subprocess_shell = _escape

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody waits in a selector."""
