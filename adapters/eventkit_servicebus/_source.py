"""Receiving from a queue or subscription, and settling what came."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import anyio
from anyio import current_time
from anyio.lowlevel import checkpoint
from azure.core.exceptions import AzureError
from azure.servicebus.aio import ServiceBusReceiver
from azure.servicebus.exceptions import MessageAlreadySettled

from eventkit.errors import AdapterError, PermanentAdapterError
from eventkit.spi import DONE, LOST, Delivery, Extended, Letter, Receipt, Settled, SourceInfo
from eventkit_servicebus._config import Place
from eventkit_servicebus._content import Message, Refused, delivery_of
from eventkit_servicebus._copy import copy_of
from eventkit_servicebus._errors import SOON, LinkDown, partly, settled_of
from eventkit_servicebus._link import Hold, lock_of
from eventkit_servicebus._outbox import Outbox
from eventkit_servicebus._receivers import Receivers
from eventkit_servicebus._wire import ANSWER_WITHIN

Verb: TypeAlias = Callable[[ServiceBusReceiver, Hold], Awaitable[Any]]

_MOST_OF_A_REASON: Final = 4_096  # characters, of a reason and of a description each


class ServicebusSource:
    """A queue or subscription to receive from. See `eventkit.spi.Source`. Delayed retries go through `outbox`."""

    def __init__(self, info: SourceInfo, place: Place, pool: Receivers, outbox: Outbox | None) -> None:
        self.info = info
        self._place = place
        self._pool = pool
        self._outbox = outbox

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """See `Source.receive`. Of a call that is cancelled, messages come again when their locks end."""
        await checkpoint()
        taken = await self._pool.receive(limit, wait)
        if taken is None:
            return ()
        link, messages = taken
        now = current_time()
        holds = [link.hold(message, now) for message in messages if lock_of(message) > 0]
        return [delivery_of(hold.message, hold, hold.until, sessions=False) for hold in holds]

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        """See `Source.ack`."""
        return partly(await self._settled(receipts, _complete))

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        """See `Source.nack`. A delay is that of a scheduled copy, which is stored before the original is completed."""
        results: list[Settled | AdapterError] = [LOST] * len(items)
        at_once = [position for position, (_, delay) in enumerate(items) if delay <= 0]
        later = [position for position, (_, delay) in enumerate(items) if delay > 0]
        answers = await self._settled([items[position][0] for position in at_once], _abandon)
        answers += await self._postponed([items[position] for position in later])
        for position, answer in zip([*at_once, *later], answers, strict=True):
            results[position] = answer
        return partly(results)

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        """See `Source.extend`. A lease is as long as the lock duration of the queue, whatever is asked for."""
        asked_at = current_time()
        results = partly(await self._settled(receipts, _renew, extending=True))
        extended: list[Extended | Settled] = []
        for hold, result in zip(receipts, results, strict=True):
            if result is DONE:
                hold.until = asked_at + lock_of(hold.message)
                extended.append(Extended(hold.until))
            else:
                extended.append(result)
        return extended

    def stop(self) -> None:
        """See `Source.stop`. What is on its way is handed over by the pending receive, or given back by the SDK."""
        self._pool.stop()

    async def _postponed(self, items: Sequence[tuple[Hold, float]]) -> list[Settled | AdapterError]:
        """Those whose copy is stored are completed; of a copy whose answer was lost, nothing is known."""
        results: list[Settled | AdapterError] = [DONE] * len(items)
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
                results[position] = answer
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

    async def _settled(
        self, holds: Sequence[Hold], verb: Verb, *, extending: bool = False
    ) -> list[Settled | AdapterError]:
        """Do it to all of them at once: there is no call for several, and each waits for its own answer."""
        if len(holds) == 1:
            return [await self._settle(holds[0], verb, extending=extending)]
        results: list[Settled | AdapterError] = [LOST] * len(holds)

        async def settle(position: int) -> None:
            results[position] = await self._settle(holds[position], verb, extending=extending)

        async with anyio.create_task_group() as tasks:
            for position in range(len(holds)):
                tasks.start_soon(settle, position)
        return results

    async def _settle(self, hold: Hold, verb: Verb, *, extending: bool) -> Settled | AdapterError:
        if extending:
            return await self._call(hold, verb, extending=True)
        async with hold.turn:
            return await self._call(hold, verb, extending=False)

    async def _call(self, hold: Hold, verb: Verb, *, extending: bool) -> Settled | AdapterError:
        try:
            link = await self._pool.link_for(hold.link, managed=extending)
        except PermanentAdapterError as exc:
            return Settled.refused(str(exc))
        except AdapterError as exc:  # nothing was sent
            return Settled.retry(SOON, str(exc))
        try:
            with anyio.fail_after(ANSWER_WITHIN):
                async with link.call(managed=extending or link is not hold.link) as receiver:
                    await verb(receiver, hold)
        except (AzureError, LinkDown, MessageAlreadySettled, OSError, TimeoutError) as exc:
            link.down = link.down or isinstance(exc, TimeoutError)
            answer = settled_of(exc, self._place)
            if answer is LOST:
                hold.link.let_go(hold)
            return answer
        if not extending:
            hold.link.let_go(hold)
        return DONE


class DeadLetteringSource(ServicebusSource):
    """A source with dead letters of its own: all but those that hold dead letters. See `NativeDeadLetter`."""

    async def dead_letter(self, letters: Sequence[Letter]) -> Sequence[Settled]:
        """See `NativeDeadLetter.dead_letter`. The reason and the description of the dead letter are its texts."""
        texts = {letter.receipt: (letter.reason, letter.detail) for letter in letters}

        async def bury(receiver: ServiceBusReceiver, hold: Hold) -> None:
            reason, detail = (text[:_MOST_OF_A_REASON] for text in texts[hold])
            await receiver.dead_letter_message(hold.message, reason=reason, error_description=detail)

        return partly(await self._settled([letter.receipt for letter in letters], bury))


async def _complete(receiver: ServiceBusReceiver, hold: Hold) -> None:
    await receiver.complete_message(hold.message)


async def _abandon(receiver: ServiceBusReceiver, hold: Hold) -> None:
    await receiver.abandon_message(hold.message)


async def _renew(receiver: ServiceBusReceiver, hold: Hold) -> None:
    await receiver.renew_message_lock(hold.message, timeout=ANSWER_WITHIN)
