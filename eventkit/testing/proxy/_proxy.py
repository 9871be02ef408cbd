"""The proxy: where it listens, and the faults that can be set on it."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal, Self

import anyio
from anyio import current_time
from anyio.abc import TaskGroup

from eventkit._worker import ungrouped
from eventkit.errors import ConfigurationError
from eventkit.testing.proxy._counts import ProxyCounts
from eventkit.testing.proxy._faults import LONGEST_MATCH, Cut, Standing
from eventkit.testing.proxy._link import Link
from eventkit.testing.proxy._sockets import accept, close, connect, listen


class FaultProxy(anyio.AsyncContextManagerMixin):
    """Forwards a loopback port to another, until told to break connections. Use it as a context manager.

    Within it, `host` and `port` are where it listens; at its end every connection is closed. Faults are set from
    the loop it runs on and take effect at once, on connections that exist and on new ones, until `heal`. They add
    up; a fault that strikes a request or reply strikes once.

    It has a door for every fault, so more than seven.
    """

    def __init__(self, upstream_host: str, upstream_port: int) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.counts = ProxyCounts()
        self._upstream = (upstream_host, upstream_port)
        self._faults = Standing()
        self._links: dict[Link, None] = {}
        self._server: socket.socket | None = None
        self._tasks: TaskGroup

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        with ungrouped():
            async with anyio.create_task_group() as self._tasks:
                self._listen()
                try:
                    yield self
                finally:
                    self.refuse()
                    self._tasks.cancel_scope.cancel()

    # -- faults of all connections ---------------------------------------------------------------

    def delay(self, seconds: float) -> None:
        """Let every piece of data, of up to 256 KiB, come `seconds` later, each way."""
        self._faults.delay = _positive("delay", seconds)
        self._faults.changed()

    def slow(self, rate: float) -> None:
        """Let at most `rate` bytes a second through, each way of each connection."""
        if not rate > 0:
            raise ConfigurationError(f"slow({rate!r}): must be above 0 bytes a second; for none, blackhole()")
        self._faults.rate = rate

    def blackhole(self, seconds: float | None = None) -> None:
        """Swallow everything, for `seconds` or until `heal`; connections can be made all the same.

        One that has lost bytes stays silent afterwards, as nobody knows of it any more: reset it, or let it time out.
        """
        self._faults.swallows_until = math.inf if seconds is None else _positive("blackhole", seconds) + current_time()

    def reset(self, *, new: bool = False) -> None:
        """Break every connection with an RST; with `new`, each new one too, as soon as it is made."""
        self._faults.resets_new = self._faults.resets_new or new
        self.counts.faults["reset"] += len(self._links)
        for link in list(self._links):
            link.reset()

    def half_close(self, towards: Literal["client", "upstream"]) -> None:
        """End one direction of every connection there is now; the other goes on."""
        self.counts.faults["half_close"] += len(self._links)
        for link in self._links:
            link.end(towards)

    def refuse(self) -> None:
        """Stop listening: new connections are refused, those that exist go on. `heal` listens on the same port."""
        if self._server is not None:
            close(self._server)
            self._server = None

    def heal(self) -> None:
        """Take every fault back. Raises OSError when the port was refused, and somebody else has taken it since."""
        self._faults.heal()
        if self._server is None:
            self._listen()

    # -- faults of one reply ---------------------------------------------------------------------

    def lose_reply(self, *, when: bytes = b"", linger: float = 0.0) -> None:
        """Forward the next request, and break its connection with an RST when the reply begins: done, unanswered.

        Only a request with `when` in its bytes counts; each call of this method is good for one request. For
        `linger` seconds the connection stays, silent towards the client. Meant for protocols that answer requests in
        turn, such as HTTP/1.1; where others come in between, the first bytes back count as the reply: have them linger.
        """
        self._cut("lose_reply", when, 0, linger)

    def truncate(self, size: int, *, when: bytes = b"") -> None:
        """As `lose_reply`, after `size` bytes of the reply have been forwarded."""
        if size < 1:
            raise ConfigurationError(f"truncate({size!r}): must be at least 1 byte; for none, lose_reply()")
        self._cut("truncate", when, size, 0.0)

    def _cut(self, name: str, when: bytes, left: int, linger: float) -> None:
        if len(when) > LONGEST_MATCH:
            raise ConfigurationError(f"{name}(when=…): {len(when)} bytes to match, the limit is {LONGEST_MATCH}")
        self._faults.cuts.append(Cut(name=name, when=when, left=left, linger=_positive("linger", linger)))

    # -- connections -------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._server = listen(self.host, self.port)
        self.port = self._server.getsockname()[1]
        self._tasks.start_soon(self._accept, self._server, name="eventkit fault proxy")

    async def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client = await accept(server)
            except (OSError, anyio.ClosedResourceError):
                if server is not self._server:
                    return  # refused
                await anyio.sleep(0.05)  # out of file descriptors, say: one that is closed makes room
                continue
            self._tasks.start_soon(self._serve, client, name="eventkit fault proxy connection")

    async def _serve(self, client: socket.socket) -> None:
        self.counts.connections += 1
        if self._faults.resets_new:
            self.counts.faults["reset"] += 1
            close(client, reset=True)
            return
        try:
            upstream = await connect(*self._upstream)
        except OSError:
            close(client, reset=True)
            return
        except BaseException:
            close(client)
            raise
        link = Link(client, upstream, self._faults, self.counts)
        self._links[link] = None
        self.counts.open += 1
        try:
            await link.run()
        finally:
            del self._links[link]
            self.counts.open -= 1


def _positive(what: str, seconds: float) -> float:
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(f"{what} of {seconds!r} s: must be zero or more seconds")
    return seconds
