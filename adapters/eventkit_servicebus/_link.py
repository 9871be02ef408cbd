"""One receiver of the SDK, and what was received on it.

All that is on the wire of a receiver goes through one lock of the SDK, frame by frame, and whoever reads an answer
that another call waits for leaves that one to wait for a frame that does not come. So receiving and settling take
turns here, and what is to be settled at the same time goes in one round.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
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
from eventkit_servicebus._wire import ANSWER_WITHIN, Beside

Verb: TypeAlias = Callable[[ServiceBusReceiver, Hold], Awaitable[Any]]

MOST_MANAGED: Final = 5_000
"""Calls on the management link of one receiver. The SDK gives that link credit for 10,000 answers, once: the call
after them waits in vain."""
_OTHERS_WITHIN: Final = 0.25
"""Seconds that a receive leaves to what else is done on its link; it takes milliseconds."""
_BUSY: Final = 0.02
"""Seconds for which several are waited for: if none come, one is."""
_SOONER: Final = 0.5
"""Part of its wait after which an empty receive has ended too soon: the SDK's receiver is dead."""
_MOST_HELD: Final = 10_000


class _Asked:
    """What one call asked to settle: an answer for each, and when all have one."""

    __slots__ = ("answers", "done", "left")

    def __init__(self, number: int) -> None:
        self.answers: list[Exception | None] = [None] * number
        self.left = number
        self.done = anyio.Event()

    def answer(self, position: int, answer: Exception | None) -> None:
        self.answers[position] = answer
        self.left -= 1
        if not self.left:
            self.done.set()


class Link:
    """One receiver of the SDK, open. `down` once it is of no use for new calls."""

    def __init__(self, opened: Opened[ServiceBusReceiver], beside: Beside) -> None:
        self.down = False
        self.closed = False
        self.choked = False
        """Whether it is down because of a message that cannot be read, which must be left to its lock to be counted."""
        self._opened = opened
        self._beside = beside
        self._empty_at = current_time()
        """When nothing was kept for the next receive: what comes from one was locked after that."""
        self.loose = False
        """Whether something may come that nobody has asked for: what the last receive asked for in vain."""
        self._managed = 0
        self._held: set[Hold] = set()
        self._waiting: list[tuple[Hold, Verb, _Asked, int]] = []
        self._settling = False
        self._others = 0
        self._alone = anyio.Event()
        self._received: anyio.Event | None = None
        self._call: anyio.CancelScope | None = None

    @property
    def spent(self) -> bool:
        """Whether its management link runs dry: it settles what it brought, and brings no more."""
        return self._managed >= MOST_MANAGED

    @property
    def idle(self) -> bool:
        """Whether it can be closed: no call runs on it, and nothing that it brought is still to be settled on it."""
        return not self._others and (self.down or not self.holds_any())

    def holds_any(self) -> bool:
        """Whether something that it brought is ours still."""
        now = current_time()
        self._held = {hold for hold in self._held if hold.until > now}
        return bool(self._held)

    async def receive(self, limit: int, wait: float) -> list[Hold]:
        """Up to `limit` messages, or what has come when something is to be settled. Raises what the SDK does, LinkDown.

        One is waited for up to `wait` seconds, several hardly at all.
        """
        if self._others:
            with anyio.move_on_after(_OTHERS_WITHIN):
                await self._alone.wait()
        messages = await self._called(limit, wait if limit == 1 else min(wait, _BUSY))
        now = current_time()
        if messages and self.loose:
            await self._opened.no_more()
        holds = self._taken(messages, now, now - self._empty_at)
        if len(messages) < limit:
            self._empty_at = now
        self._held.update(holds)
        if len(self._held) > _MOST_HELD:
            self.holds_any()
        return holds

    async def _called(self, limit: int, wait: float) -> list[ServiceBusReceivedMessage]:
        began = current_time()
        received = self._received = anyio.Event()
        try:
            messages = await self._opened.kept(limit)
            if not messages:
                self._empty_at = began
                with anyio.CancelScope() as self._call:
                    messages = await self._opened.receive(limit, wait, alone=not self._others)
                self.loose = len(messages) < limit  # and the SDK keeps nothing, then
                if self._call.cancelled_caught:
                    messages = await self._opened.kept(limit)
                elif not messages and current_time() - began < wait * _SOONER:
                    # A message that the SDK cannot decode ends its receiver: it returns at once, empty, for ever.
                    self.down = self.choked = True
        except ValueError as exc:
            raise self._gone(exc) from exc
        except (AzureError, OSError):
            # Detached by "server-busy", "timeout" or "resource-limit-exceeded", the SDK's receiver stays so for good.
            self.down = True
            raise
        finally:
            self._received = self._call = None
            received.set()
        return messages

    def interrupt(self) -> None:
        """End a receive that waits; what has come is kept for it."""
        if self._call is not None:
            self._call.cancel()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Time for everything else than receiving."""
        self._others += 1
        try:
            self.interrupt()
            if self._received is not None:
                await self._received.wait()
            yield
        finally:
            self._others -= 1
            if not self._others:
                self._alone.set()
                self._alone = anyio.Event()

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
            async with self._turn():
                await self._opened.drain()

    async def settle(self, holds: Sequence[Hold], verb: Verb) -> list[Exception | None]:
        """Do it to all of them, with all else that waits; for each None, or what its call raised."""
        if self.closed:
            return [LinkDown()] * len(holds)
        asked = _Asked(len(holds))
        self._waiting += [(hold, verb, asked, position) for position, hold in enumerate(holds)]
        if not self._settling:
            self._settling = True
            self._beside(self._settle_all)
        await asked.done.wait()
        return asked.answers

    async def _settle_all(self) -> None:
        """Round after round, until nothing waits."""
        try:
            async with self._turn():
                while self._waiting:
                    await self._settle_round()
        finally:
            self._settling = False
            for _, _, asked, position in self._waiting:  # cancelled: the source ends
                asked.answer(position, LinkDown())
            self._waiting = []

    async def _settle_round(self) -> None:
        this = object()
        now, later = [], []
        for item in self._waiting:
            hold = item[0]
            if hold.round is this:
                # Settled twice at a time, the SDK waits for an answer that the other one has read.
                later.append(item)
            else:
                hold.round = this
                now.append(item)
        self._waiting = later
        receiver = self._opened.made
        try:
            answers = await answered([verb(receiver, hold) for hold, verb, _, _ in now])
        except BaseException:
            self._waiting = [*now, *self._waiting]
            raise
        for (hold, _, asked, position), answer in zip(now, answers, strict=True):
            if hold.link is not self:
                self._managed += 1  # it came on another one: settled by its token
            told = answer if answer is None else self._told(answer)
            if told is None or is_answer(told):
                hold.link.let_go(hold)
            asked.answer(position, told)

    async def renew(self, holds: Sequence[Hold]) -> list[Exception | None]:
        """Renew their locks, each by a call on the management link."""
        self._managed += len(holds)
        async with self._turn():
            answers = await answered([self._renew(hold) for hold in holds])
        return [answer if answer is None else self._told(answer) for answer in answers]

    async def _renew(self, hold: Hold) -> None:
        asked_at = current_time()
        until = await self._opened.made.renew_message_lock(hold.message, timeout=ANSWER_WITHIN)
        wall = time.time()
        lock = new_lock(until.timestamp(), wall=wall)
        if until.timestamp() <= wall:
            # The clocks differ; the SDK would settle it no more.
            hold.message._expiry = datetime.fromtimestamp(wall + lock, UTC)  # noqa: SLF001 - no public name
        hold.until = asked_at + lock

    def _told(self, exc: Exception) -> Exception:
        """What a call that raised means; the link is down unless it was an answer."""
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
        async with self._turn():
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
