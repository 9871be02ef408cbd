"""One connection through a proxy: two pumps, and what faults make of them."""

from __future__ import annotations

import math
import socket
from typing import Literal, TypeAlias

import anyio
from anyio import current_time

from eventkit.testing.proxy._counts import ProxyCounts
from eventkit.testing.proxy._faults import LONGEST_MATCH, Cut, Standing
from eventkit.testing.proxy._sockets import close, receive, send

End: TypeAlias = Literal["client", "upstream"]

SLICE = 0.05
"""Seconds between two bits of a slow connection."""

TAKEN = 0.05
"""Seconds the other side gets to take what was sent before a reset, which on some systems drops what it holds."""


class Link:
    """A client and its connection upstream. `deaf` is set once it swallowed something: it never forwards again.

    No TCP connection loses bytes in its middle and goes on, so neither does this one when the proxy is healed.
    """

    def __init__(self, client: socket.socket, upstream: socket.socket, faults: Standing, counts: ProxyCounts) -> None:
        self._ends: dict[End, socket.socket] = {"client": client, "upstream": upstream}
        self._faults = faults
        self._counts = counts
        self._deaf = False
        self._ended: set[End] = set()
        self._request = b""
        self._cut: Cut | None = None

    async def run(self) -> None:
        """Forward until both sides are at their end, or the connection is broken."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pump, "client", "upstream")
                tasks.start_soon(self._pump, "upstream", "client")
        finally:
            for sock in self._ends.values():
                close(sock)

    def reset(self) -> None:
        """Break it: both sides get an RST."""
        for sock in self._ends.values():
            close(sock, reset=True)

    def end(self, towards: End) -> None:
        """Tell one side that nothing more comes; what still comes for it is swallowed."""
        if towards not in self._ended and self._ends[towards].fileno() >= 0:
            self._ended.add(towards)
            self._ends[towards].shutdown(socket.SHUT_WR)

    async def _pump(self, source: End, target: End) -> None:
        try:
            while data := await receive(self._ends[source]):
                await self._pass(data, target)
            if not self._deaf and not self._faults.swallows:
                self.end(target)
        except (OSError, anyio.ClosedResourceError):
            self.reset()

    async def _pass(self, data: bytes, target: End) -> None:
        if target == "upstream":
            self._look_at(data)
        if await self._faults.wait_delay(current_time()):
            self._counts.faults["delay"] += 1
        cut = self._cut if target == "client" else None
        if cut is None:
            await self._forward(data, target)
            return
        passing = data[: cut.left]
        cut.left -= len(passing)
        await self._forward(passing, target)
        if not cut.left:
            self._counts.swallowed += len(data) - len(passing)
            await self._break_off(cut)

    async def _break_off(self, cut: Cut) -> None:
        await anyio.sleep(max(cut.linger, TAKEN if cut.name == "truncate" else 0.0))
        self._counts.faults[cut.name] += 1
        self.reset()

    async def _forward(self, data: bytes, target: End) -> None:
        if self._faults.swallows:
            self._deaf = True
            self._counts.faults["blackhole"] += 1
        if self._deaf or target in self._ended:
            self._counts.swallowed += len(data)
            return
        await self._send(data, target)
        if target == "client":
            self._counts.to_client += len(data)
        else:
            self._counts.to_upstream += len(data)

    async def _send(self, data: bytes, target: End) -> None:
        """Send at the rate of now, which may change on the way."""
        if self._faults.rate < math.inf:
            self._counts.faults["slow"] += 1
        while data and (rate := self._faults.rate) < math.inf:
            bit = max(1, int(rate * SLICE))
            await anyio.sleep(min(bit, len(data)) / rate)
            await send(self._ends[target], data[:bit])
            data = data[bit:]
        await send(self._ends[target], data)

    def _look_at(self, data: bytes) -> None:
        """A request goes by: is it one whose reply is to be cut?"""
        request = self._request + data
        self._request = request[-LONGEST_MATCH:]
        if self._cut is None:
            self._cut = self._faults.cut_for(request, len(data))
