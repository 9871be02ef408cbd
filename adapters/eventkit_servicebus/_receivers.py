"""The receivers of a source: opened side by side, one reader each, replaced when they are of no use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import anyio
from anyio import current_time

from eventkit_servicebus._errors import detached_errors
from eventkit_servicebus._hold import Hold
from eventkit_servicebus._link import Link
from eventkit_servicebus._wire import Wire

SLICE: Final = 0.5
"""Seconds that one call of the SDK waits: a stop is seen then, at the latest."""
UNUSED: Final = 2.0
"""Seconds after which a receiver that is not used gives back what it asked for in vain."""


class Pool(Protocol):
    """What a source receives through. A message is settled on the link that it came on, or another."""

    async def receive(self, limit: int, wait: float) -> list[Hold]:
        """What comes first, up to `limit`; nothing after at most `wait` seconds. Raises AdapterError."""
        ...

    async def link_for(self, link: Link, *, managed: bool = False) -> Link:
        """The link for a call about something that came on `link`. Raises AdapterError."""
        ...

    def stop(self) -> None:
        """Receive no more."""
        ...

    @property
    def links(self) -> Sequence[Link]:
        """All that are open."""
        ...


class Slot:
    """The place of one receiver in the pool, and who is there now."""

    def __init__(self, wire: Wire, link: Link) -> None:
        self._wire = wire
        self._link = link
        self.used_at = current_time()
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

    def tidy(self) -> None:
        """Close those that were replaced and are idle."""
        for link in [link for link in self._old if link.idle]:
            self._old.remove(link)
            self._wire.beside(link.close)

    @property
    def links(self) -> Sequence[Link]:
        """All that are open."""
        return [self._link, *self._old]

    async def receive(self, limit: int, wait: float) -> list[Hold]:
        """What one call brings. Raises AdapterError."""
        link = await self.link()
        with detached_errors(self._wire.place):
            return await link.receive(limit, wait)

    async def rest(self) -> None:
        """Let nothing come that nobody has asked for."""
        await self._link.rest()

    def interrupt(self) -> None:
        """End a receive that waits."""
        self._link.interrupt()


class Receivers:
    """The pool. A receive has one to itself: of two at a time on one, the second gets nothing."""

    def __init__(self, wire: Wire, links: Sequence[Link]) -> None:
        self._wire = wire
        self._slots = [Slot(wire, link) for link in links]
        self._free = list(self._slots)
        self._freed = anyio.Event()
        self._stopped = False
        wire.beside(self._rest_of_the_unused)

    async def receive(self, limit: int, wait: float) -> list[Hold]:
        """See `Pool.receive`."""
        until = current_time() + wait
        while not self._free and not self._stopped and (left := until - current_time()) > 0:
            with anyio.move_on_after(left):
                await self._freed.wait()
        if not self._free or self._stopped:
            return []
        slot = self._free.pop()
        holds: list[Hold] = []
        try:
            while not holds and not self._stopped and (left := until - current_time()) > 0:
                for each in self._slots:
                    each.tidy()
                holds = await slot.receive(limit, min(left, SLICE))
            return holds
        finally:
            slot.used_at = current_time()
            if len(self._slots) > 1 or self._stopped:
                self._wire.beside(self._rest, slot)
            else:
                self._free_again(slot)

    async def _rest_of_the_unused(self) -> None:
        """Who receives no more, for want of room, is not to keep what others could have."""
        while True:
            await anyio.sleep(UNUSED / 2)
            for slot in list(self._free):
                if current_time() - slot.used_at > UNUSED:
                    await slot.rest()

    async def _rest(self, slot: Slot) -> None:
        """Nobody may ask it again for long: let it ask for nothing, and give back what is on its way."""
        await slot.rest()
        self._free_again(slot)

    def _free_again(self, slot: Slot) -> None:
        self._free.append(slot)
        self._freed.set()
        self._freed = anyio.Event()

    async def link_for(self, link: Link, *, managed: bool = False) -> Link:
        """See `Pool.link_for`. A lock belongs to a message, not to the link: on another it is settled by its token."""
        if not link.down and not (managed and link.spent):
            return link
        slot = next((slot for slot in self._slots if link in slot.links), self._slots[0])
        return await slot.link()

    def stop(self) -> None:
        """See `Pool.stop`."""
        self._stopped = True
        for slot in self._slots:
            slot.interrupt()
        for slot in self._free:
            self._wire.beside(slot.rest)

    @property
    def links(self) -> list[Link]:
        """All that are open."""
        return [link for slot in self._slots for link in slot.links]
