"""Leasing events, extending leases and giving them back. Synchronous: one connection's work."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from eventkit.spi import DONE, LOST, Delivery, Depth, Extended, Settled
from eventkit_sqlite import _lanes
from eventkit_sqlite._session import Session

_PROMOTED_AT_ONCE: Final = 1000

# INDEXED BY throughout: without statistics the planner prefers indexes that it has to scan.
_LOOK: Final = """
    SELECT EXISTS (SELECT 1 FROM event INDEXED BY ready_plain WHERE queue = :queue AND due IS NULL AND key IS NULL)
        OR CASE WHEN :ordered
            THEN EXISTS (SELECT 1 FROM lane INDEXED BY lane_open
                         WHERE queue = :queue AND owner IS NULL AND head IS NOT NULL AND due IS NULL)
              OR EXISTS (SELECT 1 FROM lane INDEXED BY lane_open
                         WHERE queue = :queue AND owner = :owner AND head IS NOT NULL AND due IS NULL)
            ELSE EXISTS (SELECT 1 FROM event INDEXED BY ready_keyed
                         WHERE queue = :queue AND due IS NULL AND key IS NOT NULL)
        END,
        (SELECT min(due) FROM event INDEXED BY waiting WHERE queue = :queue AND due IS NOT NULL)"""
_PROMOTE: Final = """
    UPDATE event SET due = NULL, owner = NULL, receipt = NULL WHERE id IN (
        SELECT id FROM event INDEXED BY waiting WHERE queue = ? AND due <= ? ORDER BY due LIMIT ?)
    RETURNING key"""
# A CROSS JOIN keeps the order of its left side: no sorter, which would hold every body.
_READY: Final = """
    SELECT e.id, e.key, e.deliveries, c.message_id, c.content_type, c.published, c.attributes, c.body FROM (
        SELECT id, key, deliveries FROM event INDEXED BY ready_plain
        WHERE queue = :queue AND due IS NULL AND key IS NULL
        UNION ALL
        SELECT id, key, deliveries FROM event INDEXED BY ready_keyed
        WHERE queue = :queue AND due IS NULL AND key IS NOT NULL
        ORDER BY id LIMIT :limit) AS e CROSS JOIN content AS c ON c.id = e.id"""
_ONE: Final = """
    SELECT e.id, e.key, e.deliveries, c.message_id, c.content_type, c.published, c.attributes, c.body
    FROM event AS e JOIN content AS c ON c.id = e.id WHERE e.id = ?"""
_LEASE: Final = "UPDATE event SET due = ?, owner = ?, receipt = ?, deliveries = deliveries + 1 WHERE id = ?"
# Without order, what is leased is the first ready events up to one id: one statement, at half the price.
_LEASE_PLAIN: Final = """
    UPDATE event INDEXED BY ready_plain SET due = ?, owner = ?, receipt = ?, deliveries = deliveries + 1
    WHERE queue = ? AND due IS NULL AND key IS NULL AND id <= ?"""
_LEASE_KEYED: Final = """
    UPDATE event INDEXED BY ready_keyed SET due = ?, owner = ?, receipt = ?, deliveries = deliveries + 1
    WHERE queue = ? AND due IS NULL AND key IS NOT NULL AND id <= ?"""

# A lease that has ended is nobody's, even if nobody has taken the event since: hence `due > ?`.
_NACK: Final = "UPDATE event SET due = ?, owner = NULL, receipt = NULL WHERE id = ? AND receipt = ? AND due > ?"
_EXTEND: Final = "UPDATE event SET due = ? WHERE id = ? AND receipt = ? AND due > ?"

_READY_COUNT: Final = """
    SELECT (SELECT count(*) FROM event INDEXED BY ready_plain WHERE queue = :queue AND due IS NULL AND key IS NULL)
         + (SELECT count(*) FROM event INDEXED BY ready_keyed
            WHERE queue = :queue AND due IS NULL AND key IS NOT NULL)"""
_WAITING_COUNT: Final = """
    SELECT count(*) FILTER (WHERE due <= :now), count(*) FILTER (WHERE due > :now AND owner IS NULL),
           count(*) FILTER (WHERE due > :now AND owner IS NOT NULL), min(id)
    FROM event INDEXED BY waiting WHERE queue = :queue AND due IS NOT NULL"""
_DEAD_COUNT: Final = "SELECT count(*) FROM dead WHERE queue = ?"
_OLDEST: Final = """
    SELECT min(published) FROM content WHERE id IN (
        (SELECT min(id) FROM event INDEXED BY ready_plain WHERE queue = :queue AND due IS NULL AND key IS NULL),
        (SELECT min(id) FROM event INDEXED BY ready_keyed
         WHERE queue = :queue AND due IS NULL AND key IS NOT NULL), :first)"""

_decode_attributes = msgspec.json.Decoder(dict[str, str]).decode
Receipt: TypeAlias = tuple[int, int, str | None]
"""One delivery of one event: its number, a token that is new at each delivery, and its key."""
_Row = tuple[int, str | None, int, str, str | None, float, bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look into the queue brought. `due_in` is the time to the next delayed or leased event, in seconds."""

    deliveries: Sequence[Delivery] = ()
    due_in: float = float("inf")
    version: int = 0


class Leases:
    """Leases events of one queue to one owner."""

    def __init__(self, session: Session, *, ordered: bool, lease: float, limit_bytes: int) -> None:
        """Begin. Raises sqlite3.Error."""
        self._session = session
        self._db = session.db
        self._ordered = ordered
        self._lease = lease
        self._limit_bytes = limit_bytes
        if ordered:
            _lanes.keep(session)
        self._owner = 1 + secrets.randbits(62)  # 0 is taken, by lanes with several owners

    def version(self) -> int:
        """A number that changes when another connection has written to the file.

        Raises SourceNotFound when the file is no longer where it was, sqlite3.Error.
        """
        self._session.check_file()
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        return int(version)

    def receive(self, limit: int, asked_at: float) -> Found:
        """Lease up to `limit` events. `asked_at` is on the loop's clock. Raises sqlite3.Error.

        Stops early at the bytes the core wants to hold, so that a few hundred large bodies are not read at once.
        """
        version = self.version()  # before looking: a change from here on will be seen
        looker = {"queue": self._session.queue, "ordered": self._ordered, "owner": self._owner}
        ready, due = self._db.execute(_LOOK, looker).fetchone()
        due_in = float("inf") if due is None else due - self._session.wall()
        if limit < 1 or not (ready or due_in <= 0):
            return Found(due_in=due_in, version=version)
        with self._session.transaction() as now:
            whole = self._promote(now)
            rows = list(self._take(limit, whole=whole))
            token = secrets.randbits(62)
            self._hold(rows, (now + self._lease, self._owner, token))
            deliveries = [_delivery(row, token, asked_at + self._lease) for row in rows]
        return Found(deliveries=deliveries, due_in=due_in, version=version)

    def nack(self, items: Sequence[tuple[Receipt, float]]) -> list[Settled]:
        """Give these back, each after its own delay in seconds. Raises sqlite3.Error."""
        with self._session.transaction() as now:
            rows = [(due_at(now, delay), event, token, now) for (event, token, _), delay in items]
            settled = settle_each(self._db, _NACK, rows)
            _lanes.refresh(self._session, keys(receipt for receipt, _ in items))
        return settled

    def extend(self, receipts: Sequence[Receipt], lease: float, asked_at: float) -> list[Extended | Settled]:
        """Keep these for `lease` seconds more. `asked_at` is on the loop's clock. Raises sqlite3.Error."""
        with self._session.transaction() as now:
            rows = [(now + lease, event, token, now) for event, token, _ in receipts]
            settled = settle_each(self._db, _EXTEND, rows)
        extended = Extended(asked_at + lease)
        return [extended if one is DONE else one for one in settled]

    def depth(self) -> Depth:
        """How much waits; the age is that of the oldest event not settled, None without one. Raises sqlite3.Error."""
        now, queue = self._session.wall(), self._session.queue
        (ready,) = self._db.execute(_READY_COUNT, {"queue": queue}).fetchone()
        over, delayed, leased, first = self._db.execute(_WAITING_COUNT, {"queue": queue, "now": now}).fetchone()
        (dead,) = self._db.execute(_DEAD_COUNT, (queue,)).fetchone()
        (oldest,) = self._db.execute(_OLDEST, {"queue": queue, "first": first}).fetchone()
        age = None if oldest is None else max(0.0, now - oldest)
        return Depth(ready=ready + over, delayed=delayed, leased=leased, dead=dead, oldest_age=age)

    def _promote(self, now: float) -> bool:
        """Make ready what was delayed or leased until now. Returns False when there is more of it."""
        promoted = self._db.execute(_PROMOTE, (self._session.queue, now, _PROMOTED_AT_ONCE)).fetchall()
        _lanes.refresh(self._session, {key for (key,) in promoted if key is not None})
        return len(promoted) < _PROMOTED_AT_ONCE

    def _take(self, limit: int, *, whole: bool) -> Iterator[_Row]:
        taken = 0
        for row in self._ordered_rows(limit, own=whole) if self._ordered else self._rows(limit):
            yield row
            taken += len(row[-1])
            if taken >= self._limit_bytes:
                return

    def _rows(self, limit: int) -> Iterable[_Row]:
        rows: Iterable[_Row] = self._db.execute(_READY, {"queue": self._session.queue, "limit": limit})
        return rows

    def _ordered_rows(self, limit: int, *, own: bool) -> Iterator[_Row]:
        for event in _lanes.deliverable(self._session, self._owner, limit, own=own):
            yield from self._db.execute(_ONE, (event,))

    def _hold(self, rows: Sequence[_Row], lease: tuple[float, int, int]) -> None:
        touched = [row[1] for row in rows if row[1] is not None]
        if self._ordered:
            self._db.executemany(_LEASE, [(*lease, row[0]) for row in rows])
        elif rows:
            self._db.execute(_LEASE_PLAIN, (*lease, self._session.queue, rows[-1][0]))
            if touched:
                self._db.execute(_LEASE_KEYED, (*lease, self._session.queue, rows[-1][0]))
        _lanes.refresh(self._session, touched)


def due_at(now: float, delay: float) -> float | None:
    """What `due` says of an event delayed by `delay` seconds."""
    return now + delay if delay > 0 else None


def settle_each(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> list[Settled]:
    """DONE for each row for which `statement` found its lease, else LOST. In a transaction."""
    db.execute("SAVEPOINT together")  # cheaper by a tenth, and nearly always no lease is lost
    if db.executemany(statement, rows).rowcount == len(rows):
        return [DONE] * len(rows)
    db.execute("ROLLBACK TO together")
    return [DONE if db.execute(statement, row).rowcount else LOST for row in rows]


def keys(receipts: Iterable[Receipt]) -> list[str]:
    """The keys of those that have one."""
    return [key for _, _, key in receipts if key is not None]


def _delivery(row: _Row, token: int, leased_until: float) -> Delivery:
    event, key, deliveries, message_id, content_type, published, attributes, body = row
    return Delivery(
        receipt=(event, token, key),
        body=body,
        attributes=_decode_attributes(attributes) if attributes != b"{}" else {},
        content_type=content_type,
        message_id=message_id,
        key=key,
        delivery_count=deliveries + 1,
        enqueued_at=published,
        leased_until=leased_until,
        raw=row,
    )
