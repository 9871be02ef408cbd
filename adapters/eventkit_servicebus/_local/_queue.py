"""One queue: the rules of Service Bus for messages, on the in-memory broker's for leases, delays and order.

A message that went back is delivered next, in the order of sequence numbers: to the broker, all messages of a queue
have one key, and those of a session that of their session. Each session has a broker's queue of its own, since who
holds it gets its messages and nobody else; so has each deferred message, since only who names it gets it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Final

from eventkit.spi import LOST, Extended, Traits
from eventkit.testing.memory import Change, Kind, MemoryQueue
from eventkit.testing.memory import Settings as Rules
from eventkit_servicebus._local._content import Content, with_application
from eventkit_servicebus._local._duplicates import Duplicates
from eventkit_servicebus._local._errors import AmqpError, CodecError
from eventkit_servicebus._local._settings import Settings
from eventkit_servicebus._local._stored import ACTIVE, DEFERRED, SCHEDULED, Stored, Taken, Tally

LOST_LOCK: Final = AmqpError(
    "com.microsoft:message-lock-lost",
    "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue.",
)
LONGEST: Final = 10.0**10
"""Seconds that a message is scheduled ahead, at most: three hundred years."""
TAKER: Final = 1
"""The number of the one source that the broker's queues have: who takes is decided here."""

_receipts = count(1)


class Held:
    """A message that is locked, and the line it came from."""

    __slots__ = ("line", "message")

    def __init__(self, message: Stored, line: MemoryQueue) -> None:
        self.message = message
        self.line = line


class LocalQueue:
    """A queue, a subscription, or the dead letters of either. Times are on the server's clock, `wall` in Unix seconds.

    What Service Bus does with messages, and nothing else, but that is more than seven methods.
    """

    def __init__(
        self, name: str, settings: Settings, *, wall: Callable[[], float], dead_letters: LocalQueue | None
    ) -> None:
        self.name = name
        self.settings = settings
        self.dead_letters = dead_letters
        self.tally = Tally()
        self.on_ready: Callable[[], None] = _nothing
        self._wall = wall
        self._sequences = count(1)
        self._ids = count(1)
        self._duplicates = Duplicates(settings.duplicates)
        self._stored: dict[str, Stored] = {}
        """What is here, by the id that the broker knows it by."""
        self._lines: dict[str, MemoryQueue] = {}
        """The broker's queue of each session; without sessions there is one, for all."""
        self._deferred: dict[int, MemoryQueue] = {}
        self._held: dict[int, Held] = {}
        self._buried: list[Stored] = []
        """What the broker has given up since it was last asked."""

    def line(self, session: str = "") -> MemoryQueue:
        """The broker's queue for a session; without sessions, the only one."""
        line = self._lines.get(session)
        if line is None:
            line = self._lines[session] = self._made(session)
        return line

    def _made(self, name: str) -> MemoryQueue:
        most = self.settings.max_deliveries if self.dead_letters is not None else None
        rules = Rules(traits=Traits(key_release="hold", native_receive_limit=most), lease=self.settings.lock)
        queue = MemoryQueue(f"{self.name}/{name}", rules, _receipts, lambda _: self._wall())
        queue.watch(self._ring, self._told)
        return queue

    def _ring(self) -> None:
        self.on_ready()

    # -- what goes in --------------------------------------------------------------------------

    def accept(self, contents: Sequence[Content], now: float) -> list[int]:
        """Accept these messages, and return their sequence numbers: 0 for one that was sent lately.

        Raises AmqpError if there is one that cannot be, and then accepts none.
        """
        sessions = self.check(contents)
        return [self._accept(content, session, now) for content, session in zip(contents, sessions, strict=True)]

    def check(self, contents: Sequence[Content]) -> list[str]:
        """The sessions of these messages. Raises AmqpError if there is one that cannot be accepted."""
        return [self._session(content) for content in contents]

    def _accept(self, content: Content, session: str, now: float) -> int:
        if self._duplicates.window and self._duplicates.known(content.id, now):
            return 0
        message = Stored.of(content, str(next(self._ids)), session)
        delay = min(max(0.0, (content.scheduled or 0.0) - self._wall()), LONGEST)
        self.tally.published += 1
        self._add(message, now, delay=delay, ttl=content.ttl)
        return message.sequence

    def _session(self, content: Content) -> str:
        if not self.settings.sessions:
            return ""
        session = content.session
        if session is None:
            raise AmqpError(
                "amqp:not-allowed", f"The entity {self.name!r} requires sessions: the message has no session id."
            )
        return session

    def _add(self, message: Stored, now: float, *, delay: float = 0.0, ttl: float | None = None) -> None:
        message.sequence = next(self._sequences)
        message.state = SCHEDULED if delay else ACTIVE
        message.expires = now + delay + min(self.settings.ttl, math.inf if ttl is None else ttl)
        message.fixed = b""
        self._stored[message.message_id] = message
        self.line(message.session).publish(message, delay, now)
        if delay:
            message.enqueued_at = self._wall() + delay

    def cancel(self, sequences: Sequence[int], now: float) -> None:
        """Forget what is scheduled under these numbers. Raises AmqpError if there is one that is not, and does none."""
        self.catch_up(now)
        found = [self._numbered(sequence) for sequence in sequences]
        for message in found:
            if message is None or message.state != SCHEDULED:
                raise AmqpError("com.microsoft:message-not-found", "No scheduled message has this sequence number.")
        for message in found:
            if message is not None:
                self._stored.pop(message.message_id, None)  # when it is due, the broker's copy is skipped
                self.tally.published -= 1

    def _numbered(self, sequence: int) -> Stored | None:
        return next((each for each in self._stored.values() if each.sequence == sequence), None)

    # -- what goes out -------------------------------------------------------------------------

    @property
    def next_due(self) -> float:
        """When time alone may change something: perhaps later, never sooner."""
        return min((line.next_due for line in self._all_lines()), default=math.inf)

    def take(self, limit: int, now: float, *, session: str = "", lease: float | None = None) -> list[Taken]:
        """Hand over up to `limit` messages, for `lease` seconds or the length of a lock."""
        return self._take(self.line(session), limit, now, self.settings.lock if lease is None else lease)

    def _take(self, line: MemoryQueue, limit: int, now: float, lease: float) -> list[Taken]:
        taken: list[Taken] = []
        while len(taken) < limit:
            found = line.take(limit - len(taken), lease, TAKER, now)
            for delivery in found:
                message = self._stored.get(delivery.message_id)
                if message is None:  # it was cancelled
                    line.ack((delivery.receipt,), now)
                    continue
                self._held[delivery.receipt] = Held(message, line)
                if message.expires <= now:
                    self._expired(delivery.receipt, now)
                else:
                    taken.append(Taken(message, delivery.receipt, message.count - 1))
            if not found:
                break
        self.tally.delivered += len(taken)
        self._bury(now)
        return taken

    def _expired(self, receipt: int, now: float) -> None:
        message = self._end(receipt, now)
        if message is None:
            return
        message.count -= 1
        if self.settings.dead_letter_expired:
            self._to_dead_letters(message, "TTLExpiredException", "The message expired and was dead lettered.", now)

    def take_deferred(self, sequences: Sequence[int], now: float, *, session: str | None = None) -> list[Taken]:
        """Lock these deferred messages. Raises AmqpError if one is not there, or locked, and then locks none."""
        lease = self.settings.lock if session is None else math.inf
        lines = [self._deferred.get(sequence) for sequence in sequences]
        free = [line for line in lines if line is not None and line.depth(now).ready]
        self._bury(now)
        if len(free) < len(sequences) or len(set(sequences)) < len(sequences):
            raise AmqpError(
                "com.microsoft:message-not-found",
                "Failed to lock one or more specified messages: they do not exist, or are locked.",
            )
        return [taken for line in free for taken in self._take(line, 1, now, lease)]

    # -- settling ------------------------------------------------------------------------------

    def complete(self, receipt: int, now: float) -> bool:
        """End a message as done, and say whether that was still possible."""
        done = self._end(receipt, now) is not None
        self.tally.acked += done
        return done

    def abandon(self, receipt: int, now: float) -> bool:
        """Give a message back: it is counted as a failure, and comes again at once, or is dead."""
        done = self._give_back(receipt, now)
        self.tally.nacked += done
        return done

    def release(self, receipt: int, now: float) -> bool:
        """Give a message back that nobody has looked at: it does not count."""
        self._catch_up_with(receipt, now)
        held = self._held.get(receipt)
        if held is not None:
            held.message.count -= 1
        done = self._give_back(receipt, now)
        self.tally.nacked += done
        return done

    def _catch_up_with(self, receipt: int, now: float) -> None:
        held = self._held.get(receipt)
        if held is not None:
            held.line.counts(now)
            self._bury(now)

    def held_of(self, session: str) -> list[int]:
        """The receipts of what is locked in a session."""
        return [receipt for receipt, held in self._held.items() if held.message.session == session]

    def fail(self, receipt: int, now: float) -> None:
        """The session that held a message has lost its lock: that counts."""
        self.tally.expired += self._give_back(receipt, now)

    def _give_back(self, receipt: int, now: float) -> bool:
        held = self._held.get(receipt)
        if held is None:
            return False
        [settled] = held.line.nack(((receipt, 0.0),), now)
        self._bury(now)
        return settled is not LOST

    def dead_letter(self, receipt: int, reason: str, description: str, now: float) -> bool:
        """Move a message to the dead letters."""
        message = self._end(receipt, now)
        if message is None:
            return False
        self._to_dead_letters(message, reason, description, now)
        return True

    def defer(self, receipt: int, now: float) -> bool:
        """Put a message aside, until it is asked for by its number."""
        message = self._end(receipt, now)
        if message is None:
            return False
        message.state, message.count, message.place, message.fixed = DEFERRED, message.count - 1, 0, b""
        line = self._deferred[message.sequence] = self._made(f"deferred/{message.sequence}")
        self._stored[message.message_id] = message
        born, enqueued_at = message.born, message.enqueued_at
        line.publish(message, 0.0, now)
        message.born, message.enqueued_at = born, enqueued_at
        return True

    def renew(self, receipt: int, now: float) -> float | None:
        """Lock a message for the whole length again; until when, or None if it is lost."""
        held = self._held.get(receipt)
        if held is None:
            return None
        [result] = held.line.extend((receipt,), self.settings.lock, now)
        self._bury(now)
        return result.until if isinstance(result, Extended) else None

    def _end(self, receipt: int, now: float) -> Stored | None:
        """Take a locked message out of here; None if its lock is lost."""
        held = self._held.get(receipt)
        if held is None or held.line.ack((receipt,), now)[0] is LOST:
            self._bury(now)
            return None
        message = held.message
        del self._stored[message.message_id]
        if message.state == DEFERRED:
            self._deferred.pop(message.sequence, None)
        self._bury(now)
        return message

    # -- dead letters --------------------------------------------------------------------------

    def _to_dead_letters(self, message: Stored, reason: str, description: str, now: float) -> None:
        self.tally.dead += 1
        if self.dead_letters is not None:
            self.dead_letters.adopt(message, reason, description, self.name, now)

    def adopt(self, message: Stored, reason: str, description: str, source: str, now: float) -> None:
        """Take over a dead letter of `source`, which is in no queue: it keeps its age and its count."""
        texts = {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
        message.body = _with_reason(message.body, {name: text for name, text in texts.items() if text})
        message.dead_from = source
        message.place, message.due, message.session, message.key = 0, 0.0, "", ""
        message.message_id = str(next(self._ids))
        enqueued_at = message.enqueued_at
        message.first_sequence = message.first_sequence or message.sequence
        self._add(message, now)
        message.expires = math.inf
        message.enqueued_at = enqueued_at

    def _told(self, change: Change) -> None:
        """The broker has done something. It must not be asked anything from here."""
        kind = change.kind
        if kind is Kind.DELIVERED or kind is Kind.PUBLISHED or kind is Kind.EXTENDED:
            return
        if kind is Kind.DUE:
            self._due(change)
            return
        held = self._held.pop(change.receipt, None)
        if kind is Kind.EXPIRED:
            self.tally.expired += 1
        elif kind is Kind.DEAD:
            self._buried.append(self._stored[change.message_id] if held is None else held.message)

    def _due(self, change: Change) -> None:
        message = self._stored.get(change.message_id)
        if message is None:
            return
        message.first_sequence, message.sequence = message.sequence, next(self._sequences)
        message.state, message.fixed = ACTIVE, b""
        del self._stored[message.message_id]
        self._stored[message.message_id] = message  # in the order of their numbers

    def _bury(self, now: float) -> None:
        """Move what was delivered too often."""
        if not self._buried:
            return
        buried, self._buried = self._buried, []
        for message in buried:
            line = self._deferred.pop(message.sequence, None) or self.line(message.session)
            line.remove_dead([letter.id for letter in line.dead_letters], now)
            del self._stored[message.message_id]
            text = f"Message could not be consumed after {message.count} delivery attempts."
            self._to_dead_letters(message, "MaxDeliveryCountExceeded", text, now)

    # -- looking at it -------------------------------------------------------------------------

    def peek(self, first: int, limit: int, session: str | None, now: float) -> list[Taken]:
        """Up to `limit` messages from number `first` on, in any state, locked or not; those of a session."""
        self.catch_up(now)
        locked = {held.message.message_id for held in self._held.values()}
        found = (
            message
            for message in self._stored.values()
            if message.sequence >= first and (session is None or message.session == session) and message.expires > now
        )
        first_found = sorted(found, key=_sequence)[:limit]
        return [Taken(message, 0, message.count - (message.message_id in locked)) for message in first_found]

    def sessions(self, now: float) -> list[str]:
        """The sessions that have something to deliver, the longest waiting first."""
        self.catch_up(now)
        waiting: dict[str, None] = {}
        held = {id(each.message) for each in self._held.values()}
        for message in self._stored.values():
            if message.state == ACTIVE and id(message) not in held and message.expires > now:
                waiting[message.session] = None
        return list(waiting)

    def catch_up(self, now: float) -> None:
        """See what time has done until now."""
        for line in list(self._all_lines()):
            line.counts(now)
        self._bury(now)
        self._drop_expired(now)

    def _drop_expired(self, now: float) -> None:
        """Let what has outlived its time leave its line: what waits before it is taken, and put back uncounted."""
        late = [each for each in self._stored.values() if each.expires <= now and each.state == ACTIVE]
        locked = {held.message.message_id for held in self._held.values()} if late else set()
        for session in {message.session for message in late if message.message_id not in locked}:
            delivered, nacked = self.tally.delivered, self.tally.nacked
            for taken in self._take(self.line(session), len(self._stored), now, math.inf):
                self.release(taken.receipt, now)
            self.tally.delivered, self.tally.nacked = delivered, nacked

    def _all_lines(self) -> Iterator[MemoryQueue]:
        yield from self._lines.values()
        yield from self._deferred.values()


def _with_reason(bare: bytes, texts: dict[str, str]) -> bytes:
    """The message with these application properties; as it is, where its own cannot be read."""
    try:
        return with_application(bare, texts)
    except CodecError:
        return bare


def _sequence(message: Stored) -> int:
    return message.sequence


def _nothing() -> None:
    pass
