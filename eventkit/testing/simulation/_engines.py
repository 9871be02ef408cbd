"""Running one coroutine on simulated time: on asyncio or on trio, the same way every time."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, TypeVar

import anyio
import anyio._backends._asyncio as anyio_asyncio

from eventkit.testing.simulation._loop import Deadlock, Escaped, Livelock, VirtualLoop

if TYPE_CHECKING:
    import trio

__all__ = ["Engine", "Ordered", "engine_clock", "run_simulated", "start_and_forget"]

T = TypeVar("T")

Engine: TypeAlias = Literal["asyncio", "trio"]

MOST_STEPS = 300_000
"""Steps of trio's tasks without a step of its clock after which it is taken for a livelock."""

HORIZON = 10_000_000.0
"""Seconds on trio's clock at which a run that still waits has met a deadlock: nothing else waits so long."""

_ESCAPES = frozenset({"socket.__new__", "socket.getaddrinfo", "subprocess.Popen", "os.fork"})


class Ordered(dict[Any, None]):
    """A set in order of insertion, as far as anyio uses sets.

    anyio keeps the tasks and child scopes of a scope in sets, whose order is that of memory addresses: which of
    two tasks is cancelled first would differ from process to process.
    """

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__(dict.fromkeys(items))

    add = dict.setdefault
    remove = dict.__delitem__

    def discard(self, item: Any) -> None:
        self.pop(item, None)

    def update(self, items: Iterable[Any]) -> None:  # type: ignore[override]
        for item in items:
            self[item] = None


def run_simulated(main: Callable[[], Awaitable[T]], engine: Engine = "asyncio", *, seed: int = 0) -> T:
    """Run `main` to its end without waiting; its clock starts at 0.

    `seed` decides the order of tasks on trio; asyncio has but one. Raises Deadlock when every task waits for ever,
    Livelock when the clock does not move any more, Escaped when a thread is started or a socket used.
    """
    if engine == "asyncio":
        with _ordered_sets(anyio_asyncio), _confined():
            return anyio.run(main, backend_options={"loop_factory": VirtualLoop})
    return _run_on_trio(main, seed)


def engine_clock(engine: Engine) -> Callable[[], float]:
    """The clock of the loop that runs, without asking each time which loop that is."""
    if engine == "asyncio":
        return asyncio.get_running_loop().time
    from trio import current_time

    return current_time


def start_and_forget(seconds: float, engine: Engine) -> None:
    """Start a task that nobody owns, and that ends by itself: what a careless handler leaves behind."""
    if engine == "asyncio":
        task = asyncio.get_running_loop().create_task(asyncio.sleep(seconds))
        _forgotten.add(task)
        task.add_done_callback(_forgotten.discard)
        return
    import trio

    trio.lowlevel.spawn_system_task(trio.sleep, seconds)


_forgotten: set[asyncio.Task[None]] = set()
"""asyncio itself keeps but weak references to tasks."""


@contextmanager
def _ordered_sets(module: ModuleType) -> Iterator[None]:
    """Let `set()` in the module of anyio's asyncio backend make ordered ones: a global shadows the builtin."""
    module.__dict__["set"] = Ordered
    try:
        yield
    finally:
        del module.__dict__["set"]


def _run_on_trio(main: Callable[[], Awaitable[T]], seed: int) -> T:
    import trio
    import trio.testing
    from trio._core import _run

    clock = trio.testing.MockClock(autojump_threshold=0)
    watch = _trio_watch(clock)
    # The switch trio keeps for Hypothesis: the order of tasks is drawn from its own generator, which can be seeded.
    before, state = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    _run._r.seed(seed)
    try:
        return anyio.run(
            partial(_watched, main, watch), backend="trio", backend_options={"clock": clock, "instruments": [watch]}
        )
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        _run._r.setstate(state)


async def _watched(main: Callable[[], Awaitable[T]], watch: Any) -> T:
    with anyio.CancelScope(deadline=anyio.current_time() + HORIZON) as scope, _confined():
        watch.scope = scope
        return await main()
    if watch.stuck:
        raise Livelock(f"{MOST_STEPS} steps of tasks at {anyio.current_time():g} s")
    raise Deadlock("every task waits, and no timer is set")


def _trio_watch(clock: trio.testing.MockClock) -> Any:
    import trio

    class Watch(trio.abc.Instrument):
        """Counts the steps of tasks between two steps of the clock."""

        def __init__(self) -> None:
            self.scope: anyio.CancelScope | None = None
            self.stuck = False
            self._steps = 0
            self._at = -1.0

        def before_task_step(self, task: object) -> None:
            self._steps += 1
            if self._steps < MOST_STEPS:
                return
            if clock.current_time() != self._at:
                self._steps, self._at = 0, clock.current_time()
            elif self.scope is not None:
                self.stuck = True
                self.scope.cancel()
                _unshield(trio.lowlevel.current_root_task())

        def before_io_wait(self, timeout: float) -> None:
            if self.scope is not None and self.scope.cancel_called:
                _unshield(trio.lowlevel.current_root_task())

    return Watch()


def _unshield(task: Any) -> None:
    """Let the end of a run that is stuck reach what is shielded."""
    status = task._cancel_status
    while status is not None:
        status._scope.shield = False
        status = status._parent
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            _unshield(child)


_confined_thread: int | None = None
_hooked = False


@contextmanager
def _confined() -> Iterator[None]:
    """Refuse threads, sockets, processes and real sleeps in this thread meanwhile."""
    global _confined_thread, _hooked  # noqa: PLW0603 - an audit hook is the process's, and for ever
    if not _hooked:
        _hooked = True
        sys.addaudithook(_audit)
    before, _confined_thread = _confined_thread, threading.get_ident()
    # Not every Python audits these two.
    start, sleep = threading.Thread.start, time.sleep
    threading.Thread.start = _refused(start, "a thread was started")  # type: ignore[method-assign]
    time.sleep = _refused(sleep, "time.sleep")
    try:
        yield
    finally:
        threading.Thread.start, time.sleep = start, sleep  # type: ignore[method-assign]
        _confined_thread = before


def _audit(event: str, _: object) -> None:
    if event in _ESCAPES and threading.get_ident() == _confined_thread:
        _refuse(event)


def _refused(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        if threading.get_ident() == _confined_thread:
            _refuse(what)
        return function(*args)

    return call


def _refuse(what: str) -> NoReturn:
    raise Escaped(f"{what} in a simulation: run such code inline, or fake it")
