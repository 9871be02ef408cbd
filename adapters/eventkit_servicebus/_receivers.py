"""The receivers of a source: opened side by side, one reader each, replaced when they are of no use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio import current_time
from anyio.abc import TaskGroup
from azure.servicebus import ServiceBusReceivedMessage

from eventkit.errors import AdapterError
from eventkit_servicebus._errors import translated_errors
from eventkit_servicebus._link import Link
from eventkit_servicebus._wire import Wire

SLICE: Final = 0.5
"""Seconds that one call of the SDK waits: a stop is seen then, at the latest."""
_AT_ONCE: Final = 0.01
"""Seconds in which a message comes that was there before it was asked for."""
_MORE: Final = 0.05
"""Seconds that those behind it have to follow."""
_FULL: Final = 0.25
"""Seconds to wait where the last call brought all that it asked for."""


class Slot:
    """The place of one receiver in the pool, and who is there now."""

    def __init__(self, wire: Wire, link: Link) -> None:
        self.busy = False
        """Whether the last receive brought all that it asked for."""
        self._wire = wire
        self._link = link
        self._old: list[Link] = []
        # Whoever finds the receiver gone opens the next one, and everybody else must wait for that one.
        self._opening = anyio.Lock()

    async def link(self) -> Link:
        """The receiver to use, a new one if need be. Raises AdapterError."""
        if self._link.down or self._link.spent:
            async with self._opening:
                if self._link.down or self._link.spent:
                    made = Link(await self._wire.receiver())
                    self._old.append(self._link)
                    self._link = made
        return self._link

    def idle(self) -> list[Link]:
        """Those that were replaced and can be closed; they are no more of this slot."""
        idle = [link for link in self._old if link.idle]
        if idle:
            self._old = [link for link in self._old if link not in idle]
        return idle

    @property
    def links(self) -> Sequence[Link]:
        """All that are open."""
        return [self._link, *self._old]

    async def receive(self, limit: int, wait: float) -> tuple[Link, list[ServiceBusReceivedMessage]]:
        """What one call brings, or two.

        Asked for several, the SDK waits 0.2 s for more when fewer are there. So one is asked for; if it was there
        already, those behind it after it; and all at once as long as that is what comes.
        """
        link = await self.link()
        if self.busy or limit == 1:
            messages = await link.receive(limit, min(wait, _FULL) if limit > 1 else wait)
        else:
            asked_at = current_time()
            messages = await link.receive(1, wait)
            if messages and current_time() - asked_at < _AT_ONCE:
                messages += await self._more(link, limit - 1)
        self.busy = len(messages) == limit
        return link, messages

    async def _more(self, link: Link, limit: int) -> list[ServiceBusReceivedMessage]:
        try:
            with translated_errors("receive from", self._wire.place):
                return await link.receive(limit, _MORE)
        except AdapterError:
            return []  # the first one is here all the same; the next receive finds the link down


class Receivers:
    """The pool. A receive has one to itself: of two at a time on one, the second gets nothing."""

    def __init__(self, wire: Wire, tasks: TaskGroup, links: Sequence[Link]) -> None:
        self._wire = wire
        self._tasks = tasks
        self._slots = [Slot(wire, link) for link in links]
        self._free = list(self._slots)
        self._stopped = False

    async def receive(self, limit: int, wait: float) -> tuple[Link, list[ServiceBusReceivedMessage]] | None:
        """What comes first, and on which receiver; None if nothing does. Raises AdapterError."""
        if not self._free or self._stopped:
            return None
        slot = self._free.pop()
        until = current_time() + wait
        try:
            while not self._stopped and (left := until - current_time()) > 0:
                self._tidy()
                with translated_errors("receive from", self._wire.place):
                    link, messages = await slot.receive(limit, min(left, SLICE))
                if messages:
                    return link, messages
            return None
        finally:
            self._free.append(slot)

    async def link_for(self, link: Link, *, managed: bool = False) -> Link:
        """The receiver for a call about something that came on `link`: that one, or the one in its place.

        A lock belongs to a message and not to the link: on another one it is settled by its token. Raises
        AdapterError.
        """
        if not link.down and not (managed and link.spent):
            return link
        slot = next((slot for slot in self._slots if link in slot.links), self._slots[0])
        return await slot.link()

    def stop(self) -> None:
        """Receive no more."""
        self._stopped = True

    def _tidy(self) -> None:
        for slot in self._slots:
            for link in slot.idle():
                self._tasks.start_soon(link.close)

    @property
    def links(self) -> list[Link]:
        """All that are open."""
        return [link for slot in self._slots for link in slot.links]


@asynccontextmanager
async def receivers(wire: Wire, number: int) -> AsyncIterator[Receivers]:
    """So many receivers, until the context ends. Raises AdapterError."""
    raised: Exception | None = None
    links = await _opened(wire, number)
    async with anyio.create_task_group() as tasks:
        pool = Receivers(wire, tasks, links)
        try:
            yield pool
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is to be raised as it is, and not in a group
            raised = exc
        finally:
            await _closed(pool.links)
    if raised is not None:
        raise raised


async def _opened(wire: Wire, number: int) -> list[Link]:
    """All of them, or none: half a second for one as for ten. Raises AdapterError."""
    links: list[Link] = []
    errors: list[AdapterError] = []

    async def open_one() -> None:
        try:
            links.append(Link(await wire.receiver()))
        except AdapterError as exc:
            errors.append(exc)

    async with anyio.create_task_group() as opening:
        for _ in range(number):
            opening.start_soon(open_one)
    if errors:
        await _closed(links)
        raise errors[0]
    return links


async def _closed(links: Sequence[Link]) -> None:
    """Close them side by side: each takes a second, and limits itself."""
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as closing:
            for link in links:
                closing.start_soon(link.close)
