"""The thread that does a queue's work, so that the event loop never waits for a disk or a lock.

One long-lived thread for a source or a sink, not `anyio.to_thread`: half the price a call (40 us for 77), and calls
that an event loop abandons still run one after another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Generic, ParamSpec, TypeVar

import anyio

from eventkit.errors import PermanentAdapterError
from eventkit_sqlite._config import Place
from eventkit_sqlite._errors import translated_errors
from eventkit_sqlite._session import Session

P = ParamSpec("P")
T = TypeVar("T")


class _Call(Generic[T]):
    """One piece of work and what came of it."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.done = anyio.Event()
        self.result: T
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as exc:  # noqa: BLE001  # raised again where the call is awaited
            self.error = exc


class WorkThread:
    """Does the work of one queue's sessions, one call at a time, first come first served."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._calls: SimpleQueue[_Call[object] | None] = SimpleQueue()
        self._on_loop = _caller_from_threads()
        self._ended = False

    @classmethod
    @asynccontextmanager
    async def running(cls, place: Place) -> AsyncIterator[WorkThread]:
        """A thread for the context; what was asked for is done before it ends."""
        self = cls(place)
        Thread(target=self._work, name=f"eventkit_sqlite {place.path.name}", daemon=True).start()
        try:
            yield self
        finally:
            self._ended = True
            self._calls.put(None)

    async def run(self, doing: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`, which uses a session. `doing` completes "cannot … FILE". Raises AdapterError.

        Cancellation waits until the work is done: for a lock, at most `BUSY_TIMEOUT`.
        """
        if self._ended:
            raise PermanentAdapterError(f"cannot {doing} {self._place.path}: it is closed")
        call = _Call(lambda: work(*args, **kwargs))
        self._calls.put(call)  # type: ignore[arg-type]  # the queue takes calls of any result
        with anyio.CancelScope(shield=True):
            await call.done.wait()
        if call.error is None:
            return call.result
        with translated_errors(doing, self._place.path):
            raise call.error

    @asynccontextmanager
    async def session(self, *, relaxed: bool = False) -> AsyncIterator[Session]:
        """A session for the context. Entering raises ConfigurationError or AdapterError."""
        session = await self.run("open", Session, self._place, relaxed=relaxed)
        try:
            yield session
        finally:
            await self.run("close", session.db.close)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
                self._on_loop(call.done.set)


def _caller_from_threads() -> Callable[[Callable[[], object]], object]:
    """What calls a function on the running event loop from another thread, without waiting for it."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        from trio.lowlevel import current_trio_token  # only where trio runs

        return current_trio_token().run_sync_soon
