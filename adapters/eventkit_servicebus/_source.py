"""Receiving from a queue or subscription, and settling what came."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import anyio
from anyio import current_time
from anyio.lowlevel import checkpoint
from azure.servicebus.aio import ServiceBusReceiver

from eventkit.errors import AdapterError, PermanentAdapterError
from eventkit.spi import DONE, LOST, Delivery, Depth, Extended, Letter, Receipt, Settled, SourceInfo
from eventkit_servicebus._config import Place
from eventkit_servicebus._content import Message, Refused, delivery_of
from eventkit_servicebus._copy import copy_of
from eventkit_servicebus._errors import SOON, partly, settled_of
from eventkit_servicebus._hold import Hold
from eventkit_servicebus._link import Link, Verb
from eventkit_servicebus._managed import Managed
from eventkit_servicebus._outbox import Outbox
from eventkit_servicebus._receivers import Pool

Answer: TypeAlias = Settled | AdapterError
Act: TypeAlias = Callable[[Link, Sequence[Hold]], Awaitable[list[Exception | None]]]

_MOST_OF_A_REASON: Final = 4_096  # characters, of a reason and of a description each


class ServicebusSource:
    """A queue or subscription to receive from. See `eventkit.spi.Source`. Delayed retries go through `outbox`."""

    def __init__(
        self, info: SourceInfo, place: Place, pool: Pool, outbox: Outbox | None, managed: Managed, *, sessions: bool
    ) -> None:
        self.info = info
        self._place = place
        self._pool = pool
        self._outbox = outbox
        self._managed = managed
        self._sessions = sessions

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """See `Source.receive`. Of a call that is cancelled, messages come again when their locks end."""
        await checkpoint()
        holds = await self._pool.receive(limit, wait)
        return [delivery_of(hold.message, hold, hold.until, sessions=self._sessions) for hold in holds]

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        """See `Source.ack`."""
        return partly(await self._settled(receipts, _complete))

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        """See `Source.nack`. A delay is that of a scheduled copy, which is stored before the original is completed."""
        results: list[Answer] = [LOST] * len(items)
        at_once = [position for position, (_, delay) in enumerate(items) if delay <= 0]
        later = [position for position, (_, delay) in enumerate(items) if delay > 0]
        answers = await self._settled([items[position][0] for position in at_once], _abandon)
        answers += await self._postponed([items[position] for position in later])
        for position, answer in zip([*at_once, *later], answers, strict=True):
            results[position] = answer
        return partly(results)

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        """See `Source.extend`. A lease is as long as the lock duration of the queue, whatever is asked for."""
        renewed = partly(await self._each(receipts, lambda link, some: link.renew(some), managed=True))
        return [
            Extended(hold.until) if answer is DONE else answer for hold, answer in zip(receipts, renewed, strict=True)
        ]

    def stop(self) -> None:
        """See `Source.stop`. What is on its way is handed over by the pending receive, or given back by the SDK."""
        self._pool.stop()

    async def depth(self) -> Depth | None:
        """See `Backlog.depth`. Needs the right Manage."""
        return await self._managed.depth()

    async def _postponed(self, items: Sequence[tuple[Hold, float]]) -> list[Answer]:
        """Those whose copy is stored are completed; of a copy whose answer was lost, nothing is known."""
        results: list[Answer] = [DONE] * len(items)
        copies: list[tuple[int, Message]] = []
        for position, (hold, delay) in enumerate(items):
            if any(hold is earlier for earlier, _ in items[:position]):
                results[position] = LOST
                continue
            copy = None if hold.copied else self._copy(hold, delay)
            if isinstance(copy, Settled):
                results[position] = copy
            elif copy is not None:
                copies.append((position, copy))
        if self._outbox is not None and copies:
            sent = await self._outbox.send([copy for _, copy in copies])
            for (position, _), answer in zip(copies, sent, strict=True):
                # For good: nothing was sent, and nothing will be.
                wrong = isinstance(answer, PermanentAdapterError)
                results[position] = Settled.refused(str(answer)) if wrong else answer
                items[position][0].copied = answer is DONE
        stored = [position for position, answer in enumerate(results) if answer is DONE]
        completed = await self._settled([items[position][0] for position in stored], _complete)
        for position, answer in zip(stored, completed, strict=True):
            results[position] = answer
        return results

    def _copy(self, hold: Hold, delay: float) -> Message | Settled:
        if self._outbox is None:
            return Settled.refused(f"{self.info.name} cannot delay a retry")
        if hold.until <= current_time():
            return LOST
        copy = copy_of(hold.message, delay_until=time.time() + delay, token=hold.token, most=self._outbox.most)
        return Settled.refused(copy.cause) if isinstance(copy, Refused) else copy

    async def _settled(self, holds: Sequence[Hold], verb: Verb) -> list[Answer]:
        """Do it to all of them at once: there is no call for several, and each waits for its own answer."""
        return await self._each(holds, lambda link, some: link.settle(some, verb))

    async def _each(self, holds: Sequence[Hold], act: Act, *, managed: bool = False) -> list[Answer]:
        """`act` on each with those of its link, the links side by side."""
        by_link: dict[Link, list[int]] = {}
        for position, hold in enumerate(holds):
            by_link.setdefault(hold.link, []).append(position)
        results: list[Answer] = [LOST] * len(holds)

        async def act_on(link: Link, positions: Iterable[int]) -> None:
            answers = await self._acted(link, [holds[position] for position in positions], act, managed=managed)
            for position, answer in zip(positions, answers, strict=True):
                results[position] = answer

        if len(by_link) == 1:
            await act_on(*by_link.popitem())
        else:
            async with anyio.create_task_group() as tasks:
                for link, positions in by_link.items():
                    tasks.start_soon(act_on, link, positions)
        return results

    async def _acted(self, came_on: Link, holds: Sequence[Hold], act: Act, *, managed: bool) -> list[Answer]:
        try:
            link = await self._pool.link_for(came_on, managed=managed)
        except PermanentAdapterError as exc:
            return [Settled.refused(str(exc))] * len(holds)
        except AdapterError as exc:  # nothing was sent
            return [Settled.retry(SOON, str(exc))] * len(holds)
        answers = await act(link, holds)
        return [DONE if answer is None else settled_of(answer, self._place) for answer in answers]


class DeadLetteringSource(ServicebusSource):
    """A source with dead letters of its own: all but those that hold dead letters. See `NativeDeadLetter`."""

    async def dead_letter(self, letters: Sequence[Letter]) -> Sequence[Settled]:
        """See `NativeDeadLetter.dead_letter`. The reason and the description of the dead letter are its texts."""
        texts = {letter.receipt: (letter.reason, letter.detail) for letter in letters}
        return partly(await self._settled([letter.receipt for letter in letters], partial(_bury, texts)))


def _complete(receiver: ServiceBusReceiver, hold: Hold) -> Awaitable[None]:
    return receiver.complete_message(hold.message)


def _abandon(receiver: ServiceBusReceiver, hold: Hold) -> Awaitable[None]:
    return receiver.abandon_message(hold.message)


def _bury(texts: dict[Any, tuple[str, str]], receiver: ServiceBusReceiver, hold: Hold) -> Awaitable[None]:
    reason, detail = (text[:_MOST_OF_A_REASON] for text in texts[hold])
    return receiver.dead_letter_message(hold.message, reason=reason, error_description=detail)
