"""Settling: outcomes gathered into calls of one verb, per-item results read, unsure ones repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Literal

import anyio
from anyio.abc import TaskGroup

from eventkit._pipeline.calls import CALL_LIMIT, Calls
from eventkit._pipeline.counters import Counters
from eventkit._pipeline.inflight import SETTLING, InFlight, Table
from eventkit._pipeline.outbox import Outbox
from eventkit._pipeline.wakeup import Waiters
from eventkit._policies.history import History
from eventkit._telemetry.observer import Fanout
from eventkit._telemetry.records import SettleFailed
from eventkit.errors import AdapterError
from eventkit.spi import DONE, UNKNOWN, Letter, NativeDeadLetter, Outgoing, Settled, SettledKind, Sink, Source

if TYPE_CHECKING:
    from eventkit._pipeline.judge import Judge

__all__ = ["LETTER_ATTRIBUTE", "Settler"]

LETTER_ATTRIBUTE = "eventkit-dead-letter"
"""The one attribute a dead letter in a sink carries beside those of its original."""

ACK_SENDERS = 4
LETTER_SENDERS = 2
REPEAT_FIRST = 0.05
REPEAT_LONGEST = 2.0


class Settler:
    """Three outboxes and their senders. An event leaves the table here, whatever the answer."""

    judge: Judge

    def __init__(
        self,
        *,
        source: Source,
        letters_to: Sink | Literal["native", "discard"],
        table: Table,
        history: History,
        counters: Counters,
        room: Waiters,
        emit: Fanout,
        calls: Calls,
    ) -> None:
        self._source = source
        self._calls = calls
        self._letters_to = letters_to
        self._table = table
        self._history = history
        self._counters = counters
        self._room = room
        self._emit = emit
        limits = source.info.limits
        letters = limits.settle if isinstance(letters_to, str) else letters_to.limits.publish
        self._acks = Outbox("ack", limits.settle)
        self._nacks = Outbox("nack", limits.settle)
        self._letters = Outbox("dead-letter", letters)

    def ack(self, entries: Sequence[InFlight]) -> None:
        """End these deliveries as done."""
        for entry in entries:
            entry.state = SETTLING
        self._acks.put(entries)

    def nack(self, entry: InFlight, delay: float) -> None:
        """Give the delivery back, to come again after `delay` seconds."""
        entry.state, entry.delay = SETTLING, delay
        self._nacks.put((entry,))

    def dead_letter(self, entry: InFlight) -> None:
        """Store `entry.letter` and the event among the dead letters, then end the delivery."""
        entry.state = SETTLING
        if self._letters_to == "discard":
            self._stored(entry)
        else:
            self._letters.put((entry,))

    def start(self, tasks: TaskGroup) -> None:
        """Start the senders. One sends nacks, so that events of a key go back in order."""
        for _ in range(ACK_SENDERS):
            tasks.start_soon(self._send_acks, name="eventkit ack sender")
        for _ in range(LETTER_SENDERS):
            tasks.start_soon(self._send_letters, name="eventkit dead-letter sender")
        tasks.start_soon(self._send_nacks, name="eventkit nack sender")

    def close(self) -> None:
        """Send what is left, then end the senders."""
        for outbox in (self._letters, self._acks, self._nacks):
            outbox.close()

    async def _send_acks(self) -> None:
        while group := await self._acks.take():
            results = await self._call("ack", group, self._source.ack([entry.delivery.receipt for entry in group]))
            self._acked(group, results)

    async def _send_nacks(self) -> None:
        while group := await self._nacks.take():
            items = [(entry.delivery.receipt, entry.delay) for entry in group]
            results = await self._call("nack", group, self._source.nack(items))
            now = anyio.current_time()
            for entry in group:
                entry.due = now + entry.delay
            self._resolve(self._nacks, group, results)

    async def _send_letters(self) -> None:
        while group := await self._letters.take():
            self._resolve(self._letters, group, await self._call("dead-letter", group, self._store(group)))

    def _store(self, group: Sequence[InFlight]) -> Awaitable[Sequence[Settled]]:
        if isinstance(self._letters_to, str):
            assert isinstance(self._source, NativeDeadLetter), "checked when the worker started"
            return self._source.dead_letter([_letter(entry) for entry in group])
        return self._letters_to.publish([_outgoing(entry) for entry in group])

    async def _call(
        self, verb: str, group: Sequence[InFlight], call: Awaitable[Sequence[Settled]]
    ) -> Sequence[Settled]:
        """The answers, one an event; UNKNOWN for all when the call failed or took too long."""
        for entry in group:
            entry.sent = True
        cause = f"no answer within {CALL_LIMIT:g} s, or by the end of the drain"
        with self._calls.limited():
            try:
                return await call
            except AdapterError as exc:
                cause = f"{type(exc).__name__}: {exc}"
        self._emit(SettleFailed(verb=verb, events=len(group), final=False, cause=cause))
        return [UNKNOWN] * len(group)

    def _acked(self, group: Sequence[InFlight], results: Sequence[Settled]) -> None:
        """Most answers of all: one tight loop."""
        remove, forget = self._table.remove, self._history.forget
        known, done = self._history.known, SettledKind.DONE
        for entry, settled in zip(group, results, strict=True):
            entry.sent = False
            if settled.kind is not done:
                self._unsettled(self._acks, entry, settled)
                continue
            remove(entry)
            if known:
                forget(entry.delivery.message_id)
        self._room.wake_all()

    def _resolve(self, outbox: Outbox, group: Sequence[InFlight], results: Sequence[Settled]) -> None:
        for entry, settled in zip(group, results, strict=True):
            entry.sent = False
            if settled.kind is not SettledKind.DONE:
                self._unsettled(outbox, entry, settled)
            elif outbox is self._letters:
                self._stored(entry)
            else:
                self._table.remove(entry)
        self._room.wake_all()

    def _stored(self, entry: InFlight) -> None:
        """The dead letter is safe: now, and not before, the delivery may end."""
        self.judge.stored(entry)
        entry.letter = None
        if self._letters_to == "native":
            self._acked([entry], [DONE])
        else:
            self._acks.put((entry,))

    def _unsettled(self, outbox: Outbox, entry: InFlight, settled: Settled) -> None:
        match settled.kind:
            case SettledKind.LOST if entry.unknown:
                self._counters.settle_unknown += 1
                self._table.remove(entry)
                entry.lost_at(anyio.current_time())
                # A dead letter whose first answer was lost: most likely it is stored, but if not, it comes again.
                self.judge.lanes.went_back(entry)
            case SettledKind.LOST:
                entry.lost_at(anyio.current_time())
                self.judge.lost(entry)
            case SettledKind.REFUSED:
                self._refused(outbox, entry, settled.cause)
            case SettledKind.RETRY | SettledKind.UNKNOWN:
                entry.unknown |= settled.kind is SettledKind.UNKNOWN
                self._repeat(outbox, entry, settled.after)
            case SettledKind.DONE:
                raise AssertionError("a settled event is not unsettled")

    def _refused(self, outbox: Outbox, entry: InFlight, cause: str) -> None:
        """Nobody will take it: an event whose dead letter is refused goes back, anything else is left to its lease."""
        self._emit(SettleFailed(verb=outbox.verb, events=1, final=True, cause=cause))
        if outbox is self._letters:
            entry.letter = None
            self.judge.letter_refused(entry)
            return
        self._table.remove(entry)
        if outbox is self._nacks:
            self.judge.lanes.stays_out(entry)

    def _repeat(self, outbox: Outbox, entry: InFlight, after: float) -> None:
        """Send it once more while the lease lives; then it is unknown what became of it."""
        now = anyio.current_time()
        delay = max(after, min(REPEAT_FIRST * 2.0**entry.repeats, REPEAT_LONGEST))
        entry.repeats += 1
        if now + delay < min(entry.leased_until, self._calls.last):
            outbox.put_later(entry, now + delay)
            return
        self._emit(
            SettleFailed(verb=outbox.verb, events=1, final=True, cause="the lease, or the drain, ends before an answer")
        )
        self._counters.settle_unknown += 1
        self._table.remove(entry)
        self.judge.lanes.went_back(entry)


def _letter(entry: InFlight) -> Letter:
    assert entry.letter is not None, "only an event with a letter is dead-lettered"
    return Letter(receipt=entry.delivery.receipt, reason=entry.letter.reason, detail=entry.letter.detail)


def _outgoing(entry: InFlight) -> Outgoing:
    assert entry.letter is not None, "only an event with a letter is dead-lettered"
    delivery = entry.delivery
    return Outgoing(
        body=delivery.body,
        attributes={**delivery.attributes, LETTER_ATTRIBUTE: entry.letter.detail},
        content_type=delivery.content_type,
        key=delivery.key,
        event_id=entry.letter.id,
        spare=(LETTER_ATTRIBUTE,),
    )
