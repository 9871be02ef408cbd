"""One queue: the rules of Service Bus for messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from eventkit_servicebus._local._content import Content, with_application
from eventkit_servicebus._local._duplicates import Duplicates
from eventkit_servicebus._local._errors import AmqpError, CodecError
from eventkit_servicebus._local._settings import Settings
from eventkit_servicebus._local._shelf import Shelf
from eventkit_servicebus._local._stored import ACTIVE, SCHEDULED, Stored, Taken, Tally

LOST_LOCK: Final = AmqpError(
    "com.microsoft:message-lock-lost",
    "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue.",
)
LONGEST: Final = 10.0**10
"""Seconds that a message is scheduled ahead, at most: three hundred years."""


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
        self._tally = Tally()
        self._wall = wall
        self._duplicates = Duplicates(settings.duplicates)
        most = settings.max_deliveries if dead_letters is not None else None
        self._shelf = Shelf(name, lock=settings.lock, most=most, wall=wall)

    def watch(self, on_ready: Callable[[], None]) -> None:
        """Call `on_ready` when there may be more to deliver, or to wait for sooner."""
        self._shelf.on_ready = on_ready

    @property
    def next_due(self) -> float:
        """When time alone may change something: perhaps later, never sooner."""
        return self._shelf.next_due

    # -- what goes in --------------------------------------------------------------------------

    def accept(self, contents: Sequence[Content], now: float) -> list[int]:
        """Accept these messages, and return their sequence numbers: 0 for one that was sent lately.

        Raises AmqpError if there is one that cannot be, and then accepts none.
        """
        sessions = self.check(contents)
        return [self._accept(content, session, now) for content, session in zip(contents, sessions, strict=True)]

    def check(self, contents: Sequence[Content]) -> list[str]:
        """The sessions of these messages. Raises AmqpError if there is one that cannot be accepted."""
        if self._duplicates.window:
            for content in contents:
                content.properties()
        return [self._session(content) for content in contents]

    def _session(self, content: Content) -> str:
        if not self.settings.sessions:
            return ""
        session = content.session
        if not session:
            text = f"The entity {self.name!r} requires sessions: the message has no session id."
            raise AmqpError("amqp:not-allowed", text)
        return session

    def _accept(self, content: Content, session: str, now: float) -> int:
        if self._duplicates.window and self._duplicates.known(content.id, now):
            return 0
        message = Stored.of(content, session)
        delay = min(max(0.0, (content.scheduled or 0.0) - self._wall()), LONGEST)
        ttl = math.inf if content.ttl is None else content.ttl
        message.state = SCHEDULED if delay else ACTIVE
        message.expires = now + delay + min(self.settings.ttl, ttl)
        self._shelf.add(message, delay, now)
        message.enqueued_at += delay
        self._tally.published += 1
        return message.sequence

    def cancel(self, sequences: Sequence[int], now: float) -> None:
        """Forget what is scheduled under these numbers. Raises AmqpError if there is one that is not, and does none."""
        self.catch_up(now)
        stored = self._shelf.stored
        if any(number not in stored or stored[number].state != SCHEDULED for number in sequences):
            raise AmqpError("com.microsoft:message-not-found", "No scheduled message has this sequence number.")
        for number in set(sequences):
            del stored[number]
            self._tally.published -= 1

    # -- what goes out -------------------------------------------------------------------------

    def take(self, limit: int, now: float, *, session: str = "", lease: float | None = None) -> list[Taken]:
        """Hand over up to `limit` messages, for `lease` seconds or the length of a lock."""
        lease = self.settings.lock if lease is None else lease
        taken: list[Taken] = []
        while len(taken) < limit:
            found = self._shelf.take(session, limit - len(taken), lease, now)
            taken += self._fresh(found, now)
            if not found:
                break
        self._bury(now)
        self._tally.delivered += len(taken)
        return taken

    def _fresh(self, found: Iterable[tuple[int, Stored]], now: float) -> list[Taken]:
        """What has not outlived its time, of what was taken."""
        taken = []
        for receipt, message in found:
            if message.expires <= now:
                self._expire(receipt, now)
            else:
                taken.append(Taken(message, receipt, message.count - 1))
        return taken

    def _expire(self, receipt: int, now: float) -> None:
        message = self._shelf.end(receipt, now)
        if message is not None:
            message.count -= 1
            if self.settings.dead_letter_expired:
                self._lay(message, "TTLExpiredException", "The message expired and was dead lettered.", now)

    def take_deferred(self, sequences: Sequence[int], now: float, *, session: str | None = None) -> list[Taken]:
        """Lock these deferred messages. Raises AmqpError if one is not there, or locked, and then locks none."""
        shelf = self._shelf
        there = [shelf.has_deferred(sequence, now) for sequence in sequences]
        self._bury(now)
        if not all(there) or len(set(sequences)) < len(sequences):
            raise AmqpError(
                "com.microsoft:message-not-found",
                "Failed to lock one or more specified messages: they do not exist, or are locked.",
            )
        lease = self.settings.lock if session is None else math.inf
        taken = [taken for number in sequences for taken in self._fresh(shelf.take_deferred(number, lease, now), now)]
        self._tally.delivered += len(taken)
        return taken

    # -- settling ------------------------------------------------------------------------------

    def complete(self, receipt: int, now: float) -> bool:
        """End a message as done, and say whether that was still possible."""
        done = self._shelf.end(receipt, now) is not None
        self._bury(now)
        self._tally.acked += done
        return done

    def abandon(self, receipt: int, now: float) -> bool:
        """Give a message back: it is counted as a failure, and comes again at once, or is dead."""
        return self._give_back(receipt, now, counts=True)

    def release(self, receipt: int, now: float) -> bool:
        """Give a message back that nobody has looked at: it does not count."""
        return self._give_back(receipt, now, counts=False)

    def _give_back(self, receipt: int, now: float, *, counts: bool) -> bool:
        done = self._shelf.give_back(receipt, now, counts=counts)
        self._bury(now)
        self._tally.nacked += done
        return done

    def dead_letter(self, receipt: int, reason: str, description: str, now: float) -> bool:
        """Move a message to the dead letters."""
        message = self._shelf.end(receipt, now)
        self._bury(now)
        if message is not None:
            self._lay(message, reason, description, now)
        return message is not None

    def defer(self, receipt: int, now: float) -> bool:
        """Put a message aside, until it is asked for by its number."""
        done = self._shelf.defer(receipt, now)
        self._bury(now)
        return done

    def renew(self, receipt: int, now: float) -> float | None:
        """Lock a message for the whole length again; until when, or None if it is lost."""
        until = self._shelf.renew(receipt, self.settings.lock, now)
        self._bury(now)
        return until

    def leave_session(self, session: str, now: float, *, counts: bool) -> None:
        """Nobody holds this session any more: what was locked in it goes back, and may count as failed."""
        for receipt in self._shelf.held_of(session):
            done = self._shelf.give_back(receipt, now, counts=counts)
            if counts:
                self._tally.expired += done
            else:
                self._tally.nacked += done
        self._bury(now)
        self._shelf.leave_session(session, now)

    # -- dead letters --------------------------------------------------------------------------

    def _bury(self, now: float) -> None:
        """Move what was delivered too often."""
        if self._shelf.buried:
            for message in self._shelf.dig(now):
                text = f"Message could not be consumed after {message.count} delivery attempts."
                self._lay(message, "MaxDeliveryCountExceeded", text, now)

    def _lay(self, message: Stored, reason: str, description: str, now: float) -> None:
        """`message`, which is here no more, is a dead letter."""
        self._tally.dead += 1
        if self.dead_letters is not None:
            texts = {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
            message.body = _with(message.body, {name: text for name, text in texts.items() if text})
            message.dead_from = self.name
            self.dead_letters.adopt(message, now)

    def adopt(self, message: Stored, now: float) -> None:
        """Take over a message that is in no queue: it keeps its age and its count, and never expires."""
        message.first_sequence = message.first_sequence or message.sequence
        message.place, message.due, message.session, message.key = 0, 0.0, "", ""
        message.state, message.expires = ACTIVE, math.inf
        enqueued_at = message.enqueued_at
        self._shelf.add(message, 0.0, now)
        message.enqueued_at = enqueued_at

    # -- looking at it -------------------------------------------------------------------------

    def peek(self, first: int, limit: int, session: str | None, now: float) -> list[Taken]:
        """Up to `limit` messages from number `first` on, in any state, locked or not; those of a session."""
        self.catch_up(now)
        locked = self._shelf.locked()
        found = (
            Taken(message, 0, message.count - (number in locked))
            for number, message in self._shelf.stored.items()
            if number >= first and (session is None or message.session == session) and message.expires > now
        )
        return list(islice(found, limit))

    def sessions(self, now: float) -> list[str]:
        """The sessions that have something to deliver, the longest waiting first."""
        self.catch_up(now)
        locked = self._shelf.locked()
        stored = self._shelf.stored.items()
        return list(
            dict.fromkeys(
                message.session
                for number, message in stored
                if message.state == ACTIVE and number not in locked and message.expires > now
            )
        )

    def next_session(self, locked: Container[str], now: float) -> str | None:
        """A session that has something to deliver, and is not locked: the one that has waited for its turn longest."""
        found = self._shelf.next_session(locked, now)
        self._bury(now)
        return found

    def catch_up(self, now: float) -> None:
        """See what time has done until now."""
        self._shelf.catch_up(now)
        self._bury(now)
        self._drop_expired(now)

    def _drop_expired(self, now: float) -> None:
        """Let what has outlived its time leave its line: what waits before it is taken, and put back uncounted."""
        stored = self._shelf.stored
        late = [each for each in stored.values() if each.expires <= now and each.state == ACTIVE]
        locked = self._shelf.locked() if late else set()
        for session in {message.session for message in late if message.sequence not in locked}:
            for fresh in self._fresh(self._shelf.take(session, len(stored), math.inf, now), now):
                self._shelf.give_back(fresh.receipt, now, counts=False)

    def tally(self) -> Tally:
        """What has been done."""
        return msgspec.structs.replace(self._tally, expired=self._tally.expired + self._shelf.expired)


def _with(bare: bytes, texts: dict[str, str]) -> bytes:
    """The message with these application properties; as it is, where its own cannot be read."""
    try:
        return with_application(bare, texts)
    except CodecError:
        return bare
