"""Receiving from a queue and settling what came."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from uuid import uuid4

from anyio import current_time

from eventkit.errors import AccessDenied, AdapterError, TransientAdapterError
from eventkit.spi import Delivery, Depth, Extended, Receipt, Settled, SettledKind, SourceInfo
from eventkit_sqs._config import Place
from eventkit_sqs._content import delivery_of
from eventkit_sqs._errors import answers, refusals, translated_errors
from eventkit_sqs._facts import LONGEST_LEASE

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

_LONGEST_POLL = 20
_EVERYTHING: Any = ["All"]


class Hold(NamedTuple):
    """What a receipt is here."""

    handle: str
    received_at: float
    """When the receive was asked for, on the loop's clock: the twelve hours of a lease count from then."""

    def left(self, now: float) -> int:
        """Whole seconds that its lease, or the delay it goes back with, may still last."""
        return max(0, math.floor(LONGEST_LEASE - (now - self.received_at)))


Change: TypeAlias = tuple[str, int]
"""(receipt handle, seconds from now)."""


class SqsSource:
    """A queue to receive from, and its backlog. See `eventkit.spi.Source`.

    Nothing is fetched ahead: after `stop`, what a poll on the wire still brings is handed over.
    """

    def __init__(
        self,
        info: SourceInfo,
        place: Place,
        *,
        url: str,
        letters_url: str | None,
        lease: float,
        wait: float,
        poll: SQSClient,
        settle: SQSClient,
    ) -> None:
        self.info = info
        self._place = place
        self._url = url
        self._letters_url = letters_url
        self._lease = max(1, math.ceil(lease))
        self._wait = max(1, min(math.ceil(wait), _LONGEST_POLL))
        self._poll = poll
        self._settle = settle
        self._stopped = False
        self._polls = count(1)
        self._own = uuid4().hex
        self._unanswered: deque[str] = deque()

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """See `Source.receive`. SQS waits whole seconds; one call of it at most as long as the worker said it would.

        So a `stop` is seen then, at the latest.
        """
        until = current_time() + wait
        while limit > 0 and not self._stopped:
            asked_at = current_time()
            left = math.ceil(until - asked_at)
            reply = await self._receive(limit, max(0, min(left, self._wait)))
            if messages := reply.get("Messages"):
                return self._deliveries(messages, asked_at)
            if current_time() >= until:
                break
        return ()

    def _deliveries(self, messages: Sequence[Any], asked_at: float) -> list[Delivery]:
        leased_until = current_time() + max(self._lease - 1.0, self._lease / 2)
        fifo, unwrap = self._place.fifo, self._place.unwrap
        return [
            delivery_of(message, Hold(message["ReceiptHandle"], asked_at), leased_until, fifo=fifo, unwrap=unwrap)
            for message in messages
        ]

    async def _receive(self, limit: int, wait: int) -> Any:
        options: dict[str, Any] = {}
        if self._place.fifo:
            # Of a call whose answer was lost, the next one with its id gets the same messages, and others could not.
            attempt = self._unanswered.popleft() if self._unanswered else f"{self._own}-{next(self._polls)}"
            options["ReceiveRequestAttemptId"] = attempt
        try:
            with translated_errors("receive from", self._place.address):
                return await self._poll.receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=limit,
                    WaitTimeSeconds=wait,
                    VisibilityTimeout=self._lease,
                    MessageSystemAttributeNames=_EVERYTHING,
                    MessageAttributeNames=_EVERYTHING,
                    **options,
                )
        except TransientAdapterError:
            if options:
                self._unanswered.append(options["ReceiveRequestAttemptId"])
            raise

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        """See `Source.ack`. SQS says DONE to an old receipt too, and deletes nothing."""
        entries: Any = [{"Id": str(position), "ReceiptHandle": hold.handle} for position, hold in enumerate(receipts)]
        try:
            with translated_errors("ack in", self._place.address):
                reply = await self._settle.delete_message_batch(QueueUrl=self._url, Entries=entries)
        except AdapterError as exc:
            return refusals(exc, len(receipts))
        return answers(reply, len(receipts))

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        """See `Source.nack`. Delays are rounded up to seconds, and end twelve hours after the receive."""
        now, longest = current_time(), self.info.traits.max_retry_delay or LONGEST_LEASE
        too_long = Settled.refused(f"SQS delays a retry by {longest:g} s at most")
        fit = [(hold.handle, min(math.ceil(delay), hold.left(now))) for hold, delay in items if 0 <= delay <= longest]
        settled = iter(await self._change("nack in", fit) if fit else ())
        return [next(settled) if 0 <= delay <= longest else too_long for _, delay in items]

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        """See `Source.extend`. A lease ends twelve hours after the receive."""
        now = current_time()
        seconds = max(1, math.ceil(lease))
        changes = [(hold.handle, max(1, min(seconds, hold.left(now)))) for hold in receipts]
        results = await self._change("extend leases in", changes)
        return [
            Extended(now + length) if result.kind is SettledKind.DONE else result
            for (_, length), result in zip(changes, results, strict=True)
        ]

    async def _change(self, doing: str, changes: Sequence[Change]) -> list[Settled]:
        entries: Any = [
            {"Id": str(position), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
            for position, (handle, seconds) in enumerate(changes)
        ]
        try:
            with translated_errors(doing, self._place.address):
                reply = await self._settle.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
        except AdapterError as exc:
            return refusals(exc, len(changes))
        return answers(reply, len(changes))

    def stop(self) -> None:
        """See `Source.stop`. A poll on the wire cannot be ended: what SQS sends to nobody stays leased."""
        self._stopped = True

    async def depth(self) -> Depth | None:
        """See `Backlog.depth`. The numbers of SQS are approximate; it does not tell the oldest age."""
        try:
            counts = await self._counts(self._url)
            dead = await self._counts(self._letters_url) if self._letters_url is not None else (0, 0, 0)
        except AccessDenied:
            return None
        return Depth(ready=counts[0], delayed=counts[1], leased=counts[2], dead=sum(dead))

    async def _counts(self, url: str) -> tuple[int, int, int]:
        names: Any = [f"ApproximateNumberOfMessages{which}" for which in ("", "Delayed", "NotVisible")]
        with translated_errors("count", self._place.address):
            reply = await self._settle.get_queue_attributes(QueueUrl=url, AttributeNames=names)
        ready, delayed, leased = (int(reply.get("Attributes", {}).get(name, 0)) for name in names)
        return ready, delayed, leased
