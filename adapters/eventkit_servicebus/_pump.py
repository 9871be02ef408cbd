"""One task that reads a connection of the SDK, for all that wait for a frame on it: see record 0009."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext, suppress
from typing import Any, Final

_TICK: Final = 0.5
"""Seconds after which whoever waits for a frame looks at its own time, and the connection at when it last wrote."""


class Pump:
    """Reads all that comes, and lets whoever waits for it look.

    Left alone, each call of the SDK reads by itself, under a lock that keeps writers out: who waits for what another
    has read waits in vain, and nobody writes meanwhile. `failed` is what was raised by a frame that cannot be read.
    """

    def __init__(self, connection: Any) -> None:
        self.failed: Exception | None = None
        self._connection = connection
        self._listen_itself = connection.listen
        self._read = asyncio.Event()
        self._telling = False
        connection.listen = self._listen
        # One task reads, and a frame is written in one piece: there is nothing left that a lock would keep apart.
        connection._transport.socket_lock = nullcontext()
        self._tasks = [asyncio.ensure_future(self._run()), asyncio.ensure_future(self._tick())]

    async def _listen(self, wait: float | bool = False, batch: int = 1) -> None:  # noqa: FBT001, FBT002 - as the SDK's
        """Wait until frames have been read, or for a moment, in place of reading one."""
        if self.failed is not None:
            raise ConnectionError(f"what came cannot be read ({type(self.failed).__name__}: {self.failed})")
        if self._tasks[0].done():
            await self._listen_itself(wait=wait, batch=batch)  # which says why
        else:
            await self._read.wait()

    async def _run(self) -> None:
        connection = self._connection
        try:
            while connection._error is None and connection._can_read():
                await self._listen_itself(wait=True)
                if not self._telling:
                    # It runs when there is nothing more to read without waiting for it.
                    self._telling = True
                    asyncio.get_running_loop().call_soon(self._tell)
        except Exception as exc:  # noqa: BLE001 - what its decoder raises for a message is not for it to choose
            self.failed = exc
        finally:
            self._tell()

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
