"""The sessions of a source: accepted one after another, each with a receiver and a lock of its own, left when empty."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import anyio
from anyio import current_time

from eventkit.errors import AdapterError
from eventkit_servicebus._errors import SessionLost, detached_errors
from eventkit_servicebus._hold import Hold
from eventkit_servicebus._link import Link
from eventkit_servicebus._receivers import SLICE
from eventkit_servicebus._session_link import SessionLink
from eventkit_servicebus._wire import NoSession, Wire

_QUIET: Final = 0.1
"""Seconds without a message after which a session makes room for another that has some."""
_QUIET_AT_FIRST: Final = 2.0
"""The same for one that has brought nothing yet: it was given because it has messages."""
_QUIET_ALONE: Final = 5.0
"""The same when there is no room, and nothing says that others wait for it."""
_QUIET_WITH_ROOM: Final = 30.0
_TURN: Final = 30.0
"""Seconds after which a session that never is empty makes room for another."""
_SIDE_BY_SIDE: Final = (4, 8)
"""Sessions that are accepted at the same time, at first, and as long as there are some: each takes half a second."""
_AT_ONCE: Final = 1.5
"""Seconds within which a session is accepted that had messages before it was asked for."""


class Sessions:
    """The pool: up to `number` sessions at a time, whichever have messages. A receive reads all of them."""

    def __init__(self, wire: Wire, number: int) -> None:
        self._wire = wire
        self._number = number
        self.links: list[SessionLink] = []
        """All that are open."""
        self._free: deque[SessionLink] = deque()
        self._ending: list[SessionLink] = []
        self._ready: deque[Hold] = deque()
        self._receives = 0
        self._watching = False
        self._last_receive = current_time()
        self._limit = 1
        self._accepting: dict[anyio.CancelScope, float] = {}
        self._at_once = _SIDE_BY_SIDE[0]
        self._others_wait = False
        self._error: AdapterError | None = None
        self._news = anyio.Event()
        self._stopped = False

    async def receive(self, limit: int, wait: float) -> list[Hold]:
        """See `Pool.receive`."""
        if self._wire.closed:
            return []
        until = current_time() + wait
        self._receives += 1
        self._limit = limit
        try:
            while not (holds := self._taken(limit)) and not self._stopped and (left := until - current_time()) > 0:
                self._raise_error()
                self._leave_idle()
                self._read_free()
                self._accept()
                with anyio.move_on_after(left):
                    await self._news.wait()
            return holds
        finally:
            self._receives -= 1
            self._last_receive = current_time()
            self._watch()

    def _taken(self, limit: int) -> list[Hold]:
        """What has come, up to `limit`; what was lost while it waited here comes again."""
        now = current_time()
        taken: list[Hold] = []
        while self._ready and len(taken) < limit:
            hold = self._ready.popleft()
            if not hold.link.down and hold.until > now:
                taken.append(hold)
        return taken

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _read_free(self) -> None:
        while self._free:
            self._wire.beside(self._read, self._free.popleft())

    async def _read(self, link: SessionLink) -> None:
        """Read a session until it brings something, as long as somebody waits for that."""
        share = max(self._limit // len(self.links), 1)
        holds: list[Hold] = []
        while not holds and self._receives and not self._stopped and not link.down and not self._is_over(link):
            try:
                with detached_errors(self._wire.place):
                    holds = await link.receive(share, _QUIET if self._others_wait else SLICE)
            except SessionLost:
                break  # whoever settles or extends what it brought is told
            except AdapterError as exc:
                self._error = exc
                break
        self._ready += holds
        if self._stopped or link.down or self._is_over(link):
            self._ending.append(link)
            await self._end(link)
        else:
            self._free.append(link)
        self._tell()
        self._watch()

    async def _end(self, link: SessionLink) -> None:
        """Take nothing more from it: it is left when all that it brought is settled."""
        await link.rest()  # what is given back would come again at once, being first in its session
        await self._give_back([hold for hold in self._ready if hold.link is link and self._stopped])
        self._leave_idle()

    def _is_over(self, link: SessionLink) -> bool:
        """Whether it makes room for another: it is empty, or has had its turn, or cannot go on."""
        now = current_time()
        if link.spent or link.forsaken:
            return True
        if link.holds_any():
            link.heard = now
        full = len(self.links) >= self._number
        if full and now - link.since > _TURN:
            return True
        return now - link.heard >= self._patience(link, full=full)

    def _patience(self, link: SessionLink, *, full: bool) -> float:
        """Seconds without a message after which it is empty."""
        if self._others_wait:
            return _QUIET if link.heard > link.since else _QUIET_AT_FIRST
        return _QUIET_ALONE if full else _QUIET_WITH_ROOM

    def _leave_idle(self) -> None:
        for link in [link for link in self._ending if link.idle]:
            self._ending.remove(link)
            self.links.remove(link)
            self._wire.beside(link.close)
            self._tell()

    def _watch(self) -> None:
        if self._ready and not self._receives and not self._watching:
            self._watching = True
            self._wire.beside(self._give_back_late)

    async def _give_back_late(self) -> None:
        """Give back what came for a receive that had enough, if none takes it within a third of its lease."""
        while self._ready and not self._receives:
            third = max(min(hold.until for hold in self._ready) - current_time(), 0.0) / 3
            if current_time() - self._last_receive >= third:
                await self._give_back(list(self._ready))
            else:
                await anyio.sleep(third)
        self._watching = False

    async def _give_back(self, holds: Sequence[Hold]) -> None:
        """In order, so that each comes again before those behind it."""
        for hold in holds:
            self._ready.remove(hold)
        for hold in holds:
            await hold.link.give_back(hold)

    def _accept(self) -> None:
        """Ask for as many sessions as there is room for, a few at a time."""
        now = current_time()
        if any(now - asked_at > _AT_ONCE for asked_at in self._accepting.values()):
            self._others_wait = False
        while len(self._accepting) < min(self._at_once, self._number - len(self.links)):
            scope = anyio.CancelScope()
            self._accepting[scope] = now
            self._wire.beside(self._accept_one, scope)

    async def _accept_one(self, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                link = SessionLink(await self._wire.session(), self._leave_idle)
                self.links.append(link)
                self._free.append(link)
                self._at_once = min(2 * self._at_once, _SIDE_BY_SIDE[1])
                self._others_wait = current_time() - self._accepting[scope] < _AT_ONCE
        except NoSession:
            self._at_once = 1
        except AdapterError as exc:
            self._at_once = 1
            self._error = exc
        finally:
            del self._accepting[scope]
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def link_for(self, link: Link, *, managed: bool = False) -> Link:
        """See `Pool.link_for`. What came on the link of a session can be settled on no other."""
        return link

    def stop(self) -> None:
        """See `Pool.stop`. A session of which nothing is held is left: others may have it."""
        if self._stopped:
            return
        self._stopped = True
        for scope in self._accepting:
            scope.cancel()
        self._read_free()  # each ends at once
        for link in self.links:
            link.interrupt()
        self._tell()
