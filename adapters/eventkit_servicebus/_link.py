"""One receiver of the SDK, and what was received on it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

import anyio
from anyio import current_time
from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver
from azure.servicebus.exceptions import MessageAlreadySettled

from eventkit_servicebus._errors import LinkDown, is_answer
from eventkit_servicebus._wire import Opened

MOST_MANAGED: Final = 5_000
"""Calls on the management link of one receiver. The SDK gives that link credit for 10,000 answers, once: the call
after them waits in vain."""
LONGEST_LOCK: Final = 300.0
_MOST_HELD: Final = 10_000


class Hold:
    """What a receipt is here."""

    __slots__ = ("copied", "link", "message", "token", "turn", "until")

    def __init__(self, message: ServiceBusReceivedMessage, link: Link, until: float) -> None:
        self.message = message
        self.link = link
        self.until = until
        """When its lease ends, on the loop's clock."""
        self.token = uuid4().hex
        """The id of its copy, which a second one has too: where duplicates are detected, it is dropped."""
        # Settled twice at a time, the SDK waits for an answer that the other one has read, and the link goes down.
        self.turn = anyio.Lock()
        self.copied = False
        """Whether a copy is confirmed: what is left to do is to complete the original."""


class Link:
    """One receiver of the SDK, open. `down` once it is of no use for new calls."""

    def __init__(self, opened: Opened[ServiceBusReceiver]) -> None:
        self._opened = opened
        self.down = False
        self.closed = False
        self._managed = 0
        self._calls = 0
        self._held: set[Hold] = set()

    @property
    def spent(self) -> bool:
        """Whether its management link runs dry: it settles what it brought, and brings no more."""
        return self._managed >= MOST_MANAGED

    @property
    def idle(self) -> bool:
        """Whether it can be closed: no call runs on it, and nothing that it brought is still to be settled on it."""
        return not self._calls and (self.down or not self._alive())

    def _alive(self) -> bool:
        now = current_time()
        self._held = {hold for hold in self._held if hold.until > now}
        return bool(self._held)

    @asynccontextmanager
    async def call(self, *, managed: bool = False) -> AsyncIterator[ServiceBusReceiver]:
        """A call on it. Raises LinkDown where the SDK says ValueError of a handler that is down."""
        self._calls += 1
        self._managed += managed
        try:
            yield self._opened.made
        except MessageAlreadySettled:  # a ValueError, too
            raise
        except ValueError as exc:
            # Arguments are ours and were checked: what is left is a handler that was shut down under the call.
            self.down = True
            raise LinkDown from exc
        except (AzureError, OSError, TimeoutError) as exc:
            if not is_answer(exc):
                self.down = True
            raise
        finally:
            self._calls -= 1

    async def receive(self, limit: int, wait: float) -> list[ServiceBusReceivedMessage]:
        """Up to `limit` messages after at most `wait` seconds."""
        try:
            async with self.call() as receiver:
                return await receiver.receive_messages(limit, max_wait_time=wait)
        except AzureError:
            # Detached by "server-busy", "timeout" or "resource-limit-exceeded", the SDK's receiver stays so for good.
            self.down = True
            raise

    def hold(self, message: ServiceBusReceivedMessage, now: float) -> Hold:
        """A receipt for what has just arrived, whose lease began a little before `now`."""
        lock = lock_of(message)
        held = Hold(message, self, now + max(lock - 1.0, lock / 2))
        self._held.add(held)
        if len(self._held) > _MOST_HELD:
            self._alive()
        return held

    def let_go(self, hold: Hold) -> None:
        """It is settled, or lost."""
        self._held.discard(hold)

    async def close(self) -> None:
        """Idempotent."""
        if not self.closed:
            self.closed = self.down = True
            await self._opened.close()


def lock_of(message: ServiceBusReceivedMessage) -> float:
    """Seconds that its lock lasts from now, by the clock of this machine: the SDK judges by it too."""
    until = message.locked_until_utc
    if until is None:
        return LONGEST_LOCK
    return min(max(until.timestamp() - time.time(), 0.0), LONGEST_LOCK)
