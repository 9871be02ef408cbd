"""One subscription: Pub/Sub's rules for messages, on the in-memory broker's for leases, delays and order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Protocol
from uuid import uuid4
from weakref import WeakValueDictionary

from eventkit.spi import LOST, Letter, Traits
from eventkit.testing.memory import Change, Kind, MemoryQueue
from eventkit.testing.memory import Settings as Rules
from eventkit_pubsub._local._errors import invalid
from eventkit_pubsub._local._raw import Raw
from eventkit_pubsub._local._settings import Settings
from eventkit_pubsub._local._stored import Holder, Lease, Stored, Taken, Tally

_receipts = count(1)


class DeadLetters(Protocol):
    """Where messages go that were delivered too often."""

    def takes(self, topic: str) -> bool:
        """Whether there is such a topic."""
        ...

    def put(self, topic: str, message: Stored, subscription: str) -> None:
        """Publish `message`, of `subscription`, to that topic."""
        ...


class LocalSubscription:
    """A subscription and its messages. Times are on the server's clock but for `wall`, in Unix seconds.

    What Pub/Sub does with messages, and nothing else, but that is more than seven methods.
    """

    def __init__(self, config: Raw, *, wall: Callable[[], float], dead_letters: DeadLetters) -> None:
        self.name: str = config.name
        self.config = config
        self.settings = Settings.of(config)
        self.tally = Tally()
        self.on_ready: Callable[[], None] = _nothing
        self.largest = 1
        """Bytes of the largest message so far."""
        self._dead_letters = dead_letters
        self._wall = wall
        self._tag = f"{uuid4().hex}."
        self._stored: WeakValueDictionary[str, Stored] = WeakValueDictionary()
        """What the broker holds, by message id: no longer than that."""
        self._acked: dict[str, Stored] = {}
        self._out: dict[int, Lease] = {}
        self._recalled: set[int] = set()
        """What the broker has brought back since the last take began."""
        self._sources: set[int] = set()
        self._queue = self._made()

    def _made(self) -> MemoryQueue:
        ordered, once = self.config.enable_message_ordering, self.settings.exactly_once
        rules = Rules(traits=Traits(key_release="redelivers" if ordered else "none"), redelivers_acked=not once)
        queue = MemoryQueue(self.name, rules, _receipts, lambda _: self._wall())
        queue.watch(self._ring, self._told)
        for source in self._sources:
            queue.join(source)
        return queue

    def set(self, config: Raw, now: float) -> None:
        """Change it; whether delivery is exactly-once changes what the broker does, and ends all leases."""
        turned = config.enable_exactly_once_delivery != self.settings.exactly_once
        self.config, self.settings = config, Settings.of(config)
        if turned:
            self._restart(self._live().values(), now)
        self._ring()

    def _ring(self) -> None:
        self.on_ready()

    # -- what goes in --------------------------------------------------------------------------

    def publish(self, message: Stored, now: float) -> None:
        """Accept a message, which is this subscription's own."""
        self._stored[message.message_id] = message
        self.largest = max(self.largest, len(message.body))
        self._queue.publish(message, 0.0, now)
        self.tally.published += 1

    # -- what goes out -------------------------------------------------------------------------

    def join(self, source: int) -> None:
        """A holder with this number will take from here."""
        self._sources.add(source)
        self._queue.join(source)

    def leave(self, source: int) -> None:
        """It takes no more; what it holds stays out until its deadline."""
        self._sources.discard(source)
        self._queue.leave(source)

    @property
    def next_due(self) -> float:
        """When time alone may bring something to take: perhaps later, never sooner."""
        return self._queue.next_due

    def take(self, limit: int, lease: float, holder: Holder, now: float) -> list[Taken]:
        """Hand over up to `limit` messages for `lease` seconds."""
        settings, tag = self.settings, self._tag
        oldest, attempts, counted = now - settings.retention, self._most_attempts(), bool(settings.dead_letter_topic)
        taken: list[Taken] = []
        self._recalled.clear()
        while len(taken) < limit:
            aside: list[tuple[int, Stored]] = []
            for delivery in self._queue.take(limit - len(taken), lease, holder.source, now):
                message, receipt = self._stored[delivery.message_id], delivery.receipt
                if message.born <= oldest or message.count > attempts or message.retry_at > now:
                    aside.append((receipt, message))
                else:
                    taken.append(Taken(message, receipt, f"{tag}{receipt}", message.count if counted else 0))
            if not aside:
                break
            # Of a key, one that is put off takes the later ones along.
            for receipt, message in aside:
                if receipt not in self._recalled:
                    self._put_aside(receipt, message, oldest, now)
            taken = [each for each in taken if each.receipt not in self._recalled]
        for each in taken:
            self._out[each.receipt] = Lease(each.message, holder)
        self.tally.delivered += len(taken)
        return taken

    def _most_attempts(self) -> float:
        """How often a message is delivered at most; without a topic for the others, for ever."""
        settings = self.settings
        return settings.attempts if self._dead_letters.takes(settings.dead_letter_topic) else math.inf

    def _put_aside(self, receipt: int, message: Stored, oldest: float, now: float) -> None:
        """This was taken, but nobody is to see it: it is too old, too often delivered, or not due yet."""
        message.count -= 1
        if message.born > oldest and message.count < self._most_attempts():
            self._queue.nack([(receipt, message.retry_at - now)], now)
            return
        self._queue.dead_letter([Letter(receipt=receipt, reason="", detail="")], now)
        self._queue.remove_dead([letter.id for letter in self._queue.dead_letters], now)
        if message.born > oldest:
            self._dead_letters.put(self.settings.dead_letter_topic, message, self.name)
            self.tally.dead += 1

    def give_back(self, taken: Iterable[Taken], now: float) -> None:
        """These were never sent, and are as if they had not been taken."""
        for message, receipt, _, _ in taken:
            self.tally.delivered -= 1
            if receipt in self._out:
                self._queue.nack([(receipt, 0.0)], now)
                message.count -= 1

    def _told(self, change: Change) -> None:
        """The broker has done something: to a message that was out, or that it brings back once more."""
        kind = change.kind
        if kind is Kind.PUBLISHED or kind is Kind.DELIVERED or kind is Kind.EXTENDED:
            return
        lease = self._out.pop(change.receipt, None)
        if kind is Kind.RECALLED:
            self._recalled.add(change.receipt)
            message = self._stored[change.message_id]
            message.count -= 1
            message.acked = False
        elif kind is Kind.EXPIRED and lease is not None:
            self.tally.expired += 1
            lease.message.retry_at = change.at + self._delay(lease.message)
        if lease is not None:
            lease.holder.freed(lease.message)

    def _delay(self, message: Stored) -> float:
        """Seconds to wait until `message` comes again; its way to the dead letters is not put off."""
        return 0.0 if message.count >= self._most_attempts() else self.settings.delay(message.count)

    # -- settling ------------------------------------------------------------------------------

    def receipts(self, ack_ids: Sequence[str]) -> dict[str, int]:
        """The receipts in these ack ids. Raises PubsubError if one is none of this subscription's."""
        tag = self._tag
        receipts = {}
        for ack_id in ack_ids:
            own, number = ack_id[: len(tag)], ack_id[len(tag) :]
            if own != tag or not (number.isascii() and number.isdigit()):
                raise invalid(f"You have passed an invalid ack ID to the service (ack_id={ack_id[:100]}).")
            receipts[ack_id] = int(number)
        return receipts

    def ack(self, receipts: Sequence[int], now: float) -> list[bool]:
        """End these deliveries as done, and say for each whether that was still possible."""
        messages = {receipt: lease.message for receipt in receipts if (lease := self._out.get(receipt))}
        done = [settled is not LOST for settled in self._queue.ack(receipts, now)]
        for receipt, was_done in zip(receipts, done, strict=True):
            if was_done:
                self._done(messages[receipt], now)
        self.tally.acked += sum(done)
        return done

    def _done(self, message: Stored, now: float) -> None:
        message.acked = True
        if self.config.retain_acked_messages:
            self._acked[message.message_id] = message

    def nack(self, receipts: Sequence[int], now: float) -> list[bool]:
        """Give these back, to be delivered again at once, or when the retry policy says."""
        done = [self._nack(receipt, now) for receipt in receipts]
        self.tally.nacked += sum(done)
        return done

    def _nack(self, receipt: int, now: float) -> bool:
        lease = self._out.get(receipt)
        if lease is None:
            return False
        [settled] = self._queue.nack([(receipt, self._delay(lease.message))], now)
        return settled is not LOST

    def extend(self, receipts: Sequence[int], lease: float, now: float) -> list[bool]:
        """Let these come again only `lease` seconds from now."""
        return [settled is not LOST for settled in self._queue.extend(receipts, lease, now)]

    # -- the whole -----------------------------------------------------------------------------

    def seek(self, since: float, now: float) -> None:
        """Let what was published from `since` on, in Unix seconds, be unacked, and everything else be acked.

        What was acked comes back where the subscription retains it. Every lease ends.
        """
        oldest = now - self.settings.retention
        self._acked = {id: message for id, message in self._acked.items() if message.born > oldest}
        kept = self._live() | self._acked
        self._acked = {}
        self._restart((message for message in kept.values() if message.published >= since), now)

    def _live(self) -> dict[str, Stored]:
        return {id: message for id, message in self._stored.items() if not message.acked}

    def drop(self, now: float) -> None:
        """Forget every message."""
        self._restart((), now)

    def _restart(self, messages: Iterable[Stored], now: float) -> None:
        """Start anew, with these messages, none of them ever delivered, in the order they were published."""
        kept = sorted(messages, key=lambda message: message.number)
        out, self._out = self._out, {}
        self._queue = self._made()
        for message in kept:
            born = message.born
            message.count, message.place, message.due, message.retry_at, message.acked = 0, 0, 0.0, 0.0, False
            self._queue.publish(message, 0.0, now)
            message.born = born
        for lease in out.values():
            lease.holder.freed(lease.message)

    def catch_up(self, now: float) -> None:
        """See what time has done until now: what is over makes room."""
        self._queue.counts(now)


def _nothing() -> None:
    pass
