"""Where the messages of a queue are: the in-memory broker has each of them waiting, held back, or leased.

A message that went back is delivered next, in the order of sequence numbers: to the broker, all messages of a queue
have one key, and those of a session that of their session. Each session has a broker's queue of its own, a *line*,
since who holds it gets its messages and nobody else; so has each deferred message, since only who names it gets it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator
from itertools import count
from typing import Final

from eventkit.spi import LOST, Extended, Traits
from eventkit.testing.memory import Change, Kind, MemoryQueue
from eventkit.testing.memory import Settings as Rules
from eventkit_servicebus._local._stored import ACTIVE, DEFERRED, Stored

TAKER: Final = 1
"""The number of the one source that a line has: who takes is decided elsewhere."""

_receipts = count(1)


class Held:
    """A message that is locked, and the line it came from."""

    __slots__ = ("line", "message")

    def __init__(self, message: Stored, line: MemoryQueue) -> None:
        self.message = message
        self.line = line


class Shelf:
    """The messages of one queue by sequence number, and what moves them. It has a door for each move, so many.

    `most` is how many deliveries may fail, None for any number: then a message is among `buried`, and in no line.
    """

    def __init__(self, name: str, *, lock: float, most: int | None, wall: Callable[[], float]) -> None:
        self.on_ready: Callable[[], None] = _nothing
        self.stored: dict[int, Stored] = {}
        """By sequence number, in the order of those."""
        self.held: dict[int, Held] = {}
        """What is locked, by receipt."""
        self.buried: list[Stored] = []
        self.expired = 0
        """How many locks have ended by themselves."""
        self._name = name
        self._rules = Rules(traits=Traits(key_release="hold", native_receive_limit=most), lease=lock)
        self._wall = wall
        self._sequences = count(1)
        self._lines: dict[str, MemoryQueue] = {}
        self._deferred: dict[int, MemoryQueue] = {}

    def _line(self, session: str) -> MemoryQueue:
        line = self._lines.get(session)
        if line is None:
            line = self._lines[session] = self._made(session)
        return line

    def _made(self, name: str) -> MemoryQueue:
        queue = MemoryQueue(f"{self._name}/{name}", self._rules, _receipts, lambda _: self._wall())
        queue.watch(self._ring, self._told)
        return queue

    def _ring(self) -> None:
        self.on_ready()

    def _number(self, message: Stored) -> None:
        """Give it the next number. The broker knows it by that, too."""
        message.sequence = next(self._sequences)
        message.message_id = str(message.sequence)
        message.fixed = b""
        self.stored[message.sequence] = message

    # -- moves ---------------------------------------------------------------------------------

    def add(self, message: Stored, delay: float, now: float) -> None:
        """A message comes in, with a new number; with a delay, it gets another one when that is over."""
        line = self._line(message.session)
        line.counts(now)  # what was due before has the numbers before
        self._number(message)
        line.publish(message, delay, now)

    def take(self, session: str, limit: int, lease: float, now: float) -> list[tuple[int, Stored]]:
        """Lock up to `limit` messages of a session that wait: (receipt, message) of each."""
        line = self._lines.get(session)
        return self._take(line, limit, lease, now) if line is not None else []

    def _take(self, line: MemoryQueue, limit: int, lease: float, now: float) -> list[tuple[int, Stored]]:
        taken: list[tuple[int, Stored]] = []
        while len(taken) < limit:
            found = line.take(limit - len(taken), lease, TAKER, now)
            for delivery in found:
                message = self.stored.get(int(delivery.message_id))
                if message is None:  # it was forgotten while it was scheduled
                    line.ack((delivery.receipt,), now)
                else:
                    self.held[delivery.receipt] = Held(message, line)
                    taken.append((delivery.receipt, message))
            if not found:
                break
        return taken

    def take_deferred(self, sequence: int, lease: float, now: float) -> list[tuple[int, Stored]]:
        """Lock a deferred message, if it is there and not locked."""
        line = self._deferred.get(sequence)
        return self._take(line, 1, lease, now) if line is not None else []

    def has_deferred(self, sequence: int, now: float) -> bool:
        """Whether that would succeed."""
        line = self._deferred.get(sequence)
        return line is not None and line.depth(now).ready > 0

    def end(self, receipt: int, now: float) -> Stored | None:
        """Take a locked message out of here; None if its lock is lost."""
        held = self.held.get(receipt)
        if held is None or held.line.ack((receipt,), now)[0] is LOST:
            return None
        message = held.message
        del self.stored[message.sequence]
        if message.state == DEFERRED:
            self._deferred.pop(message.sequence, None)
        return message

    def give_back(self, receipt: int, now: float, *, counts: bool) -> bool:
        """Let a locked message wait again, or be buried; whether that was still possible."""
        held = self.held.get(receipt)
        if held is None:
            return False
        held.line.counts(now)  # what time has done comes first
        if receipt not in self.held:
            return False
        if not counts:
            held.message.count -= 1
        held.line.nack(((receipt, 0.0),), now)
        return True

    def defer(self, receipt: int, now: float) -> bool:
        """Put a locked message aside, uncounted, where only who names its number finds it."""
        held = self.held.get(receipt)
        if held is None or held.line.ack((receipt,), now)[0] is LOST:
            return False
        message = held.message
        message.state, message.place, message.fixed = DEFERRED, 0, b""
        message.count -= 1
        born, enqueued_at = message.born, message.enqueued_at
        line = self._deferred[message.sequence] = self._made(f"deferred/{message.sequence}")
        line.publish(message, 0.0, now)
        message.born, message.enqueued_at = born, enqueued_at
        return True

    def renew(self, receipt: int, lock: float, now: float) -> float | None:
        """Lock a message for so long from now; until when, or None if it is lost."""
        held = self.held.get(receipt)
        if held is None:
            return None
        [result] = held.line.extend((receipt,), lock, now)
        return result.until if isinstance(result, Extended) else None

    def dig(self, now: float) -> list[Stored]:
        """What was buried since the last time, out of here."""
        buried, self.buried = self.buried, []
        for message in buried:
            line = self._deferred.pop(message.sequence, None) or self._line(message.session)
            line.remove_dead([letter.id for letter in line.dead_letters], now)
            del self.stored[message.sequence]
        return buried

    def leave_session(self, session: str, now: float) -> None:
        """Let the line of a session that has nothing be gone, and another one be the last in turn."""
        line = self._lines.pop(session, None)
        if line is not None:
            depth = line.depth(now)
            if depth.ready or depth.delayed or depth.leased:
                self._lines[session] = line

    def next_session(self, locked: Container[str], now: float) -> str | None:
        """The first session in turn that is not locked and has something to deliver."""
        lines = ((session, line) for session, line in self._lines.items() if session not in locked)
        return next((session for session, line in lines if line.depth(now).ready), None)

    # -- time, and looking at it ---------------------------------------------------------------

    @property
    def next_due(self) -> float:
        """When time alone may change something: perhaps later, never sooner."""
        return min((line.next_due for line in self._all_lines()), default=math.inf)

    def catch_up(self, now: float) -> None:
        """See what time has done until now."""
        for line in list(self._all_lines()):
            line.counts(now)

    def locked(self) -> set[int]:
        """The numbers of what is locked."""
        return {held.message.sequence for held in self.held.values()}

    def held_of(self, session: str) -> list[int]:
        """The receipts of what is locked in a session."""
        return [receipt for receipt, held in self.held.items() if held.message.session == session]

    def _all_lines(self) -> Iterator[MemoryQueue]:
        yield from self._lines.values()
        yield from self._deferred.values()

    def _told(self, change: Change) -> None:
        """The broker has done something. It must not be asked anything from here."""
        kind = change.kind
        if kind is Kind.DELIVERED or kind is Kind.PUBLISHED or kind is Kind.EXTENDED:
            return
        if kind is Kind.DUE:
            self._due(int(change.message_id))
            return
        self.held.pop(change.receipt, None)
        if kind is Kind.EXPIRED:
            self.expired += 1
        elif kind is Kind.DEAD:
            self.buried.append(self.stored[int(change.message_id)])

    def _due(self, sequence: int) -> None:
        """A scheduled message is active, under a new number."""
        message = self.stored.pop(sequence, None)
        if message is not None:
            message.state, message.first_sequence = ACTIVE, sequence
            self._number(message)


def _nothing() -> None:
    pass
