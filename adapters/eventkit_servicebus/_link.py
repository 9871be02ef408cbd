"""One receiver of the SDK, and what was received on it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import anyio
from anyio import current_time
from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver
from azure.servicebus.exceptions import MessageAlreadySettled

from eventkit_servicebus._errors import LinkDown, is_answer
from eventkit_servicebus._hold import Hold, fresh_lock, lease_of, new_lock
from eventkit_servicebus._opened import Opened
from eventkit_servicebus._wire import ANSWER_WITHIN

Verb: TypeAlias = Callable[[ServiceBusReceiver, Hold], Awaitable[Any]]

MOST_MANAGED: Final = 5_000
"""Calls on the management link of one receiver. The SDK gives that link credit for 10,000 answers, once: the call
after them waits in vain."""
_MOST_HELD: Final = 10_000


class Link:
    """One receiver of the SDK, open. `down` once it is of no use for new calls."""

    def __init__(self, opened: Opened[ServiceBusReceiver]) -> None:
        self.down = False
        self.closed = False
        self._opened = opened
        self._empty_at = current_time()
        """When nothing was kept for the next receive: what comes from one was locked after that."""
        self.loose = False
        """Whether something may come that nobody has asked for: what the last receive asked for in vain."""
        self._credit = False
        self._managed = 0
        self._calls = 0
        self._held: set[Hold] = set()
        self._settling: set[Hold] = set()
        self._settled = anyio.Event()
        self._call: anyio.CancelScope | None = None

    @property
    def spent(self) -> bool:
        """Whether its management link runs dry: it settles what it brought, and brings no more."""
        return self._managed >= MOST_MANAGED

    @property
    def idle(self) -> bool:
        """Whether it can be closed: no call runs on it, and nothing that it brought is still to be settled on it."""
        return not self._calls and (self.down or not self.holds_any())

    def holds_any(self) -> bool:
        """Whether something that it brought is ours still."""
        now = current_time()
        self._held = {hold for hold in self._held if hold.until > now}
        return bool(self._held)

    async def receive(self, limit: int, wait: float) -> list[Hold]:
        """Up to `limit` messages after at most `wait` seconds. Raises what the SDK does, or LinkDown."""
        messages = await self._received(limit, wait)
        now = current_time()
        if messages and self._credit:
            self._credit = False
            await self._opened.no_more()
        holds = self._taken(messages, now, now - self._empty_at)
        if len(messages) < limit:
            self._empty_at = now
        self._held.update(holds)
        if len(self._held) > _MOST_HELD:
            self.holds_any()
        return holds

    async def _received(self, limit: int, wait: float) -> list[ServiceBusReceivedMessage]:
        try:
            messages = await self._opened.kept(limit)
            if not messages:
                self._empty_at = current_time()
                with anyio.CancelScope(deadline=self._empty_at + wait) as self._call:
                    messages = await self._opened.receive(limit)
                self.loose = self._credit = len(messages) < limit  # and nothing is kept, then
                if self._call.cancelled_caught:
                    messages = await self._opened.kept(limit)
        except ValueError as exc:
            raise self._gone(exc) from exc
        except (AzureError, OSError):
            # Detached by "server-busy", "timeout" or "resource-limit-exceeded", the SDK's receiver stays so for good.
            self.down = True
            raise
        finally:
            self._call = None
        return messages

    def interrupt(self) -> None:
        """End a receive that waits; what has come is kept."""
        if self._call is not None:
            self._call.cancel()

    def _taken(self, messages: Sequence[ServiceBusReceivedMessage], now: float, age: float) -> list[Hold]:
        wall = time.time()
        holds = []
        for message in messages:
            lock = fresh_lock(message, wall=wall, age=math.inf if self._opened.ahead else age)
            if lock > 0:
                holds.append(Hold(message, self, now + lease_of(lock)))
        return holds

    async def rest(self) -> None:
        """Ask for nothing: what the last receive asked for in vain would come, and lie there locked."""
        if self.loose and not self.down:
            self.loose = False
            await self._opened.drain()

    async def settle(self, holds: Sequence[Hold], verb: Verb) -> list[Exception | None]:
        """Do it to all of them side by side; for each None, or what its call raised."""
        answers: list[Exception | None] = [None] * len(holds)
        left = list(range(len(holds)))
        self._calls += 1
        try:
            while left:
                # Settled twice at a time, the SDK waits for an answer that the other one has read.
                now = [position for position in left if self._enter(holds[position])]
                left = [] if len(now) == len(left) else sorted({*left} - {*now})
                if now:
                    for position, answer in zip(now, await self._settle(holds, now, verb), strict=True):
                        answers[position] = answer
                else:
                    await self._settled.wait()
        finally:
            self._calls -= 1
        return answers

    def _enter(self, hold: Hold) -> bool:
        if hold in self._settling:
            return False
        self._settling.add(hold)
        return True

    async def _settle(self, holds: Sequence[Hold], positions: Sequence[int], verb: Verb) -> list[Exception | None]:
        now = [holds[position] for position in positions]
        try:
            if self.closed:
                return [LinkDown()] * len(now)
            told = self._told(await answered([verb(self._opened.made, hold) for hold in now]))
        finally:
            self._settling.difference_update(now)
            self._settled.set()
            self._settled = anyio.Event()
        for hold, answer in zip(now, told, strict=True):
            if hold.link is not self:
                self._managed += 1  # it came on another one: settled by its token
            if answer is None or is_answer(answer):
                hold.link.let_go(hold)
        return told

    async def renew(self, holds: Sequence[Hold]) -> list[Exception | None]:
        """Renew their locks, each by a call on the management link."""
        self._managed += len(holds)
        self._calls += 1
        try:
            return self._told(await answered([self._renew(hold) for hold in holds]))
        finally:
            self._calls -= 1

    async def _renew(self, hold: Hold) -> None:
        asked_at = current_time()
        until = await self._opened.made.renew_message_lock(hold.message, timeout=ANSWER_WITHIN)
        wall = time.time()
        lock = new_lock(until.timestamp(), wall=wall)
        if until.timestamp() <= wall:
            # The clocks differ; the SDK would settle it no more.
            hold.message._expiry = datetime.fromtimestamp(wall + lock, UTC)  # noqa: SLF001 - no public name
        hold.until = asked_at + lock

    def _told(self, answers: Sequence[Exception | None]) -> list[Exception | None]:
        """What the answers of calls mean; the link is down unless they were the service's."""
        return [answer if answer is None else self._meaning(answer) for answer in answers]

    def _meaning(self, exc: Exception) -> Exception:
        if isinstance(exc, ValueError) and not isinstance(exc, MessageAlreadySettled):
            return self._gone(exc)
        if not is_answer(exc):
            self.down = True
        return exc

    def _gone(self, exc: ValueError) -> LinkDown:
        # Arguments are ours and were checked: what is left is a handler that was shut down under the call.
        self.down = True
        gone = LinkDown()
        gone.__cause__ = exc
        return gone

    async def give_back(self, hold: Hold) -> None:
        """Send back what nobody has seen yet, and not as a delivery that failed."""
        self.let_go(hold)
        await self._opened.release(hold.message)

    def let_go(self, hold: Hold) -> None:
        """It is settled, or lost."""
        self._held.discard(hold)

    async def close(self) -> None:
        """Idempotent."""
        if not self.closed:
            self.closed = self.down = True
            await self._opened.close()


async def answered(calls: Iterable[Awaitable[Any]]) -> list[Exception | None]:
    """Run these side by side; for each None, or what it raised: TimeoutError where no answer came in time."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        await asyncio.wait(tasks, timeout=ANSWER_WITHIN)
    finally:
        late = [task for task in tasks if not task.done()]
        if late:
            for task in late:
                task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait(late)
    return [_error_of(task) for task in tasks]


def _error_of(task: asyncio.Future[Any]) -> Exception | None:
    if task.cancelled():
        return TimeoutError(f"no answer within {ANSWER_WITHIN:g} s")
    error = task.exception()
    if error is None or isinstance(error, Exception):
        return error
    raise error
