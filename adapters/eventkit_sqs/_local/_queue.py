"""One queue: SQS's rules for messages, on the in-memory broker's for leases, delays and order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Final
from uuid import uuid4

from eventkit.spi import LOST, Settled, Traits
from eventkit.testing.memory import MemoryQueue
from eventkit.testing.memory import Settings as Rules
from eventkit_sqs._local._attempts import Attempts
from eventkit_sqs._local._attributes import Settings, defaults
from eventkit_sqs._local._content import Content
from eventkit_sqs._local._duplicates import Duplicates
from eventkit_sqs._local._errors import SqsError, invalid
from eventkit_sqs._local._stored import Stored, Taken, Tally
from eventkit_sqs._local._wire import Sent

MAX_LEASE: Final = 43_200.0
"""Seconds from a receive in which a message is visible again, however often put off. [doc: ChangeMessageVisibility]"""

INSTANT: Final = 1e-6
"""The lease of a receive with a visibility timeout of 0: over at the next call, but not within this one."""

_SOURCE: Final = 1
_receipts = count(1)
_sequences = count(18_850_000_000_000_000_000, 256)


class LocalQueue:
    """A queue with its attributes. Times are on the server's clock but for `wall`, in Unix seconds.

    A receipt handle names its message and the receive. One that is not the newest, or whose visibility timeout is
    over, settles nothing: SQS promises no more, though a standard queue often deletes by an expired handle too.
    What SQS does with messages, and nothing else, but that is more than seven methods.
    """

    def __init__(self, name: str, *, arn: str, url: str, wall: Callable[[], float], tally: Tally) -> None:
        self.name, self.arn, self.url = name, arn, url
        self.fifo = name.endswith(".fifo")
        self.tags: dict[str, str] = {}
        self.created = self.modified = int(wall())
        self.attributes: dict[str, str] = {}
        self.settings = Settings.of(defaults(fifo=self.fifo))
        self.on_ready: Callable[[], None] = _nothing
        self._wall = wall
        self.tally = tally
        self._tag = uuid4().hex[:12]
        self._id = str(uuid4())[:24]
        self._ids = count(1)
        self._expired = 0
        self._last_due = 0.0
        self._duplicates = Duplicates()
        self._attempts = Attempts()
        self._stored: dict[str, Stored] = {}
        self._queue = self._made()

    def set(self, attributes: Mapping[str, str]) -> None:
        """Change attributes, which are checked; an empty text takes one back to its default."""
        self.attributes = {name: text for name, text in (self.attributes | dict(attributes)).items() if text}
        self.settings = Settings.of(defaults(fifo=self.fifo) | self.attributes)
        self.modified = int(self._wall())

    def purge(self, now: float) -> None:
        """Forget every message, those in flight too. What was sent lately is still remembered as sent."""
        self._expired, self._last_due = self.expired(now), 0.0
        self._stored.clear()
        self._queue = self._made()

    def _made(self) -> MemoryQueue:
        rules = Rules(traits=Traits(key_release="followers" if self.fifo else "none"))
        queue = MemoryQueue(self.name, rules, _receipts, lambda _: self._wall())
        queue.watch(self._ring, None)
        return queue

    def _ring(self) -> None:
        self.on_ready()

    # -- sending -------------------------------------------------------------------------------

    def send(
        self, content: Content, *, delay: int | None, group: str | None, deduplication: str | None, now: float
    ) -> Sent:
        """Accept a message; a FIFO queue accepts and drops what it was sent five minutes ago or less."""
        key = None
        if self.fifo:
            deduplication = deduplication or hashlib.sha256(content.body).hexdigest()
            key = group if self.settings.per_group else None, deduplication
            known = self._duplicates.find(key, now)
            if known is not None:
                return known
        message = Stored(
            content.body,
            self.new_id(),
            key=group,
            content_attributes=content.attributes,
            body_md5=content.body_md5,
            attributes_md5=content.attributes_md5,
            deduplication=deduplication,
            sequence=_sequence() if self.fifo else None,
            trace=content.trace,
        )
        self._put(message, self.settings.delay if delay is None else delay, now)
        self.tally.published += 1
        sent = Sent(
            message_id=message.message_id,
            body_md5=content.body_md5,
            attributes_md5=content.attributes_md5,
            system_md5=content.trace_md5,
            sequence_number=message.sequence,
        )
        if key is not None:
            self._duplicates.add(key, sent, now)
        return sent

    def new_id(self) -> str:
        """A message id that nobody else has: a UUID to look at, cheaper to make."""
        return f"{self._id}{next(self._ids):012x}"

    def adopt(self, message: Stored, now: float, *, source: str | None, aged: bool) -> None:
        """Take over a message that is in no queue, as dead letter of `source` if it is one; `aged` keeps its age."""
        born, sent_at = message.born, message.enqueued_at
        message.dead_from = source
        message.place, message.receipt = 0, 0
        message.sequence = _sequence() if self.fifo else None
        self._put(message, 0.0, now)
        if aged:
            message.born, message.enqueued_at = born, sent_at

    def _put(self, message: Stored, delay: float, now: float) -> None:
        if self.fifo:  # whatever its delay was set to meanwhile, a FIFO queue keeps its order
            self._last_due = max(self._last_due, now + delay)
            delay = self._last_due - now
        self._stored[message.message_id] = message
        self._queue.publish(message, delay, now)

    # -- receiving -----------------------------------------------------------------------------

    @property
    def next_due(self) -> float:
        """When time alone may bring something to receive: perhaps later, never sooner."""
        return self._queue.next_due

    def receive(self, limit: int, lease: float, now: float, *, dead_letters: LocalQueue | None = None) -> list[Taken]:
        """Hand over up to `limit` messages; what is too old, or was received too often, leaves instead.

        The latter goes to `dead_letters`; without them, it is handed over for ever.
        """
        taken: list[Taken] = []
        while len(taken) < limit:
            gone: list[Stored] = []
            for delivery in self._queue.take(limit - len(taken), lease or INSTANT, _SOURCE, now):
                message = self._stored[delivery.message_id]
                message.receipt = delivery.receipt
                if self._too_old(message, now) or (dead_letters and self._too_often(message)):
                    gone.append(message)
                else:
                    taken.append(Taken(message, f"{self._tag}.{message.message_id}.{delivery.receipt}"))
            if not gone:
                break
            self._remove(gone, dead_letters, now)
        self._delivered(taken)
        return taken

    def _too_old(self, message: Stored, now: float) -> bool:
        return message.born + self.settings.retention <= now

    def _too_often(self, message: Stored) -> bool:
        redrive = self.settings.redrive
        return redrive is not None and message.count > redrive.most

    def _remove(self, messages: Sequence[Stored], dead_letters: LocalQueue | None, now: float) -> None:
        """These were taken, but nobody is to see them."""
        self._queue.ack([message.receipt for message in messages], now)
        for message in messages:
            del self._stored[message.message_id]
            message.count -= 1
            if dead_letters and not self._too_old(message, now):
                dead_letters.adopt(message, now, source=self.arn, aged=not self.fifo)  # a FIFO queue starts anew
                self.tally.dead += 1

    def _delivered(self, taken: Sequence[Taken]) -> None:
        self.tally.delivered += len(taken)
        for message, _ in taken:
            if not message.first_received:
                message.first_received = int(self._wall() * 1000)

    def repeat(self, attempt: str, lease: float, now: float) -> Sequence[Taken]:
        """What this attempt at a receive took before, for another `lease` seconds; nothing if that cannot be."""
        taken = self._attempts.find(attempt, now)
        if not taken or not lease:
            return ()
        self._queue.extend([message.receipt for message, _ in taken], lease, now)
        self._attempts.add(attempt, taken, now)
        return taken

    def remember(self, attempt: str, taken: Sequence[Taken], now: float) -> None:
        """Let this attempt at a receive be repeated."""
        self._attempts.add(attempt, taken, now)

    def give_back(self, taken: Sequence[Taken], now: float) -> None:
        """Nobody was there to take these: they were never handed over."""
        settled = self._queue.nack([(message.receipt, 0.0) for message, _ in taken], now)
        self.tally.delivered -= len(taken)
        for (message, _), result in zip(taken, settled, strict=True):
            if result is not LOST:
                message.count -= 1
                message.first_received = message.first_received if message.count else 0

    def take_out(self, now: float) -> list[Stored]:
        """Everything that could be received now; it is here no more."""
        out: list[Stored] = []
        while found := self._queue.take(1_000, INSTANT, _SOURCE, now):
            self._queue.ack([delivery.receipt for delivery in found], now)
            out += [self._stored.pop(delivery.message_id) for delivery in found]
        return [message for message in out if not self._too_old(message, now)]

    # -- settling ------------------------------------------------------------------------------

    def delete(self, handles: Sequence[str], now: float) -> list[SqsError | None]:
        """Delete what these handles stand for. One that is worth nothing any more is no error.

        But in a FIFO queue it is, while the message is there ("The receipt handle has expired").
        """
        read = [self._read(handle) for handle in handles]
        settled = self._queue.ack([receipt for _, receipt in read], now)
        return [
            self._deleted(handle, id, result) for handle, (id, _), result in zip(handles, read, settled, strict=True)
        ]

    def _deleted(self, handle: str, id: str, settled: Settled) -> SqsError | None:
        if not id:
            return _malformed(handle)
        if settled is not LOST:
            self._stored.pop(id).receipt = 0
            self.tally.acked += 1
        elif self.fifo and id in self._stored:
            return invalid("ReceiptHandle", handle, "The receipt handle has expired.")
        return None

    def change(self, handle: str, lease: int, now: float) -> SqsError | None:
        """Let the message of this handle be visible `lease` seconds from now, at once if that is 0."""
        id, receipt = self._read(handle)
        if not id:
            return _malformed(handle)
        if not 0 <= lease <= MAX_LEASE:
            return invalid("VisibilityTimeout", lease, "Must be between 0 and 43200, if provided.")
        message = self._stored.get(id)
        if message is None or message.receipt != receipt:
            reason = "Message does not exist or is not available for visibility timeout change."
            return invalid("ReceiptHandle", handle, reason)
        if message.until > now and now + lease > message.leased_at + MAX_LEASE:
            reason = "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]."
            return invalid("VisibilityTimeout", lease, reason)
        [result] = self._queue.extend([receipt], lease, now) if lease else self._queue.nack([(receipt, 0.0)], now)
        if result is LOST:
            return SqsError("MessageNotInflight", "The specified message isn't in flight.")
        if not lease:
            message.until = now
            self.tally.nacked += 1
        return None

    def _read(self, handle: str) -> tuple[str, int]:
        """The id and the receipt in a handle; an empty id if it is none of this queue's."""
        tag, _, rest = handle.partition(".")
        id, _, receipt = rest.partition(".")
        return (id, int(receipt)) if tag == self._tag and receipt.isdecimal() else ("", 0)

    # -- looking at it -------------------------------------------------------------------------

    def depth(self, now: float) -> tuple[int, int, int]:
        """How many messages are visible, delayed and in flight."""
        depth = self._queue.depth(now)
        old = sum(message.until <= now and self._too_old(message, now) for message in self._stored.values())
        return max(0, depth.ready - old), depth.delayed, depth.leased

    def expired(self, now: float) -> int:
        """How often a visibility timeout has ended."""
        return self._expired + self._queue.counts(now).expired


def _malformed(handle: str) -> SqsError:
    return SqsError("ReceiptHandleIsInvalid", f'The input receipt handle "{handle}" is not a valid receipt handle.')


def _sequence() -> str:
    return str(next(_sequences))


def _nothing() -> None:
    pass
