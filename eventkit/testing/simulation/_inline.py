"""Threads that are none: what code sends to a thread runs at once, on the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from anyio.lowlevel import checkpoint

from eventkit.testing.simulation._engines import Engine

__all__ = ["threads_inline"]

T = TypeVar("T")


@contextmanager
def threads_inline(engine: Engine) -> Iterator[None]:
    """Let `anyio.to_thread.run_sync` call its function on the loop: a simulation has no threads.

    It is replaced below its public name, which the user's modules may have imported.
    """
    backend = _backend(engine)
    before = backend.__dict__["run_sync_in_worker_thread"]
    backend.run_sync_in_worker_thread = _run_inline
    try:
        yield
    finally:
        backend.run_sync_in_worker_thread = before


def _backend(engine: Engine) -> Any:
    if engine == "asyncio":
        from anyio._backends._asyncio import AsyncIOBackend

        return AsyncIOBackend
    from anyio._backends._trio import TrioBackend

    return TrioBackend


async def _run_inline(func: Callable[..., T], args: tuple[Any, ...], **_: object) -> T:
    await checkpoint()
    return func(*args)
