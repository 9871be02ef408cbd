"""One task that reads a connection of the SDK, for all that wait for a frame on it: see record 0009."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import Any, Final

_TICK: Final = 0.5
"""Seconds after which whoever waits for a frame looks at its own time, and the connection at when it last wrote."""


class Pump:
    """Reads all that comes, and lets whoever waits for it look.

    Left alone, each call of the SDK reads by itself, under a lock that keeps writers out: who waits for what another
    has read waits in vain, and nobody writes meanwhile. And what its decoder raises for one message ends the receiver;
    here, `unreadable` is told, which may settle it.
    """

    def __init__(self, handler: Any, unreadable: Callable[[Exception], Awaitable[None]]) -> None:
        self._link = handler._link
        self._unreadable = unreadable
        self._failed: Exception | None = None
        connection = self._connection = handler._connection
        self._listen_itself = connection.listen
        self._read = asyncio.Event()
        self._telling = False
        connection.listen = self._listen
        # One task reads, and a frame is written in one piece: there is nothing left that a lock would keep apart.
        connection._transport.socket_lock = nullcontext()
        self._tasks = [asyncio.ensure_future(self._run()), asyncio.ensure_future(self._tick())]

    async def _listen(self, wait: float | bool = False, batch: int = 1) -> None:  # noqa: FBT001, FBT002 - as the SDK's
        """Wait until frames have been read, or for a moment, in place of reading one."""
        if self._failed is not None:
            raise ConnectionError(f"what came cannot be read ({type(self._failed).__name__}: {self._failed})")
        if self._tasks[0].done():
            await self._listen_itself(wait=wait, batch=batch)  # which says why
        else:
            await self._read.wait()

    async def _run(self) -> None:
        connection = self._connection
        try:
            while connection._error is None and connection._can_read():
                await self._listen_once()
                if not self._telling:
                    # It runs when there is nothing more to read without waiting for it.
                    self._telling = True
                    asyncio.get_running_loop().call_soon(self._tell)
        except Exception as exc:  # noqa: BLE001 - what its decoder raises for a message is not for it to choose
            self._failed = exc
        finally:
            self._tell()

    async def _listen_once(self) -> None:
        brought = self._link.delivery_count
        try:
            await self._listen_itself(wait=True)
        except Exception as exc:
            if self._link.delivery_count == brought:  # it was no message
                raise
            await self._unreadable(exc)

    async def _tick(self) -> None:
        while not self._tasks[0].done():
            await asyncio.sleep(_TICK)
            with suppress(Exception):  # that it cannot write is found out by who reads
                await self._connection._get_remote_timeout(time.time())
            self._tell()

    def _tell(self) -> None:
        self._telling = False
        self._read.set()
        self._read = asyncio.Event()

    async def end(self) -> None:
        """Let the SDK read by itself again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._connection.listen = self._listen_itself
        self._tell()
