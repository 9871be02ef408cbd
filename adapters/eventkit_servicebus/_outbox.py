"""Sending: messages in batches that fit, one operation at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import anyio
from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch
from azure.servicebus.aio import ServiceBusSender
from azure.servicebus.exceptions import MessageSizeExceededError

from eventkit.errors import AdapterError, TransientAdapterError
from eventkit.spi import DONE, Settled
from eventkit_servicebus._errors import SOON, is_answer, refusals, translated_errors
from eventkit_servicebus._opened import Opened
from eventkit_servicebus._wire import Wire

ENVELOPE: Final = 1_024
"""Bytes that a batch has beside its messages, at most: it repeats the ids of the first one."""

_NOT_SENT: Final = Settled.retry(cause="a message before it was not sent")


class Outbox:
    """One sender, and another one after an error."""

    def __init__(self, wire: Wire, sender: Opened[ServiceBusSender], most: int) -> None:
        self.most = most
        """Bytes that one message may have, as the SDK counts them."""
        self._wire = wire
        self._sender: Opened[ServiceBusSender] | None = sender
        # When a connection goes down with several sends on it, the SDK reports all of them as failed, sent or not.
        self._one_at_a_time = anyio.Lock()

    async def send(self, messages: Sequence[ServiceBusMessage]) -> list[Settled | AdapterError]:
        """Send these, each of at most `most` bytes. Of a batch whose answer was lost, an AdapterError for each.

        A batch holds messages of one session. After one that failed, nothing of its session is sent any more.
        """
        results: list[Settled | AdapterError] = [_NOT_SENT] * len(messages)
        groups: dict[tuple[str | None, str | None], list[int]] = {}
        for position, message in enumerate(messages):
            groups.setdefault((message.session_id, message.partition_key), []).append(position)
        async with self._one_at_a_time:
            for positions in groups.values():
                answers = await self._send_group([messages[position] for position in positions])
                for position, answer in zip(positions, answers, strict=False):
                    results[position] = answer
        return results

    async def _send_group(self, messages: Sequence[ServiceBusMessage]) -> list[Settled | AdapterError]:
        """The answers as far as it came."""
        answers: list[Settled | AdapterError] = []
        for batch in self._batches(messages):
            answers += await self._send(batch)
            if answers[-1] is not DONE:
                break
        return answers

    def _batches(self, messages: Sequence[ServiceBusMessage]) -> Iterator[ServiceBusMessageBatch]:
        batch = self._batch()
        for message in messages:
            try:
                batch.add_message(message)
            except MessageSizeExceededError:
                yield batch
                batch = self._batch()
                batch.add_message(message)
        yield batch

    def _batch(self) -> ServiceBusMessageBatch:
        return ServiceBusMessageBatch(self.most + ENVELOPE)

    async def _send(self, batch: ServiceBusMessageBatch) -> Sequence[Settled | AdapterError]:
        try:
            if self._sender is None:
                self._sender = await self._wire.sender()
        except TransientAdapterError as exc:  # nothing was sent
            return [Settled.retry(exc.retry_after or SOON, str(exc))] * len(batch)
        except AdapterError as exc:
            return [exc] * len(batch)
        try:
            with translated_errors("publish to", self._wire.place):
                await self._sender.made.send_messages(batch)
        except AdapterError as exc:
            if not is_answer(exc.__cause__):
                # Closing one that is broken takes a while, for which nobody is to wait.
                self._wire.beside(self._sender.close)
                self._sender = None
            try:
                return refusals(exc, len(batch))
            except AdapterError as unknown:
                return [unknown] * len(batch)
        return [DONE] * len(batch)

    async def close(self) -> None:
        """Close the sender. Idempotent."""
        sender, self._sender = self._sender, None
        if sender is not None:
            await sender.close()


async def outbox(wire: Wire) -> Outbox:
    """An open sender; who asks for it closes it. Raises AdapterError."""
    sender = await wire.sender()
    try:
        most = (await sender.made.create_message_batch()).max_size_in_bytes
    except BaseException:
        await sender.close()
        raise
    return Outbox(wire, sender, most - ENVELOPE)
