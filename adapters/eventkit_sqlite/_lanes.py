"""Order per key.

A lane is one key of one queue. It is open to a source when its first event that is not leased is ready, and what
is leased of it, if anything, is leased to that same source. A receive looks at open lanes only, however many
events wait behind a closed one. From the first source that asks for order, everybody keeps the lanes of the
queue up to date, each change in the transaction that causes it; before, keys cost nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from eventkit_sqlite._session import Session

_KEPT: Final = "SELECT ordered FROM queue WHERE id = ?"
_KEEP: Final = "UPDATE queue SET ordered = 1 WHERE id = ?"
_CREATE_ALL: Final = """
    INSERT INTO lane (queue, key, owner, head, due)
    SELECT :queue, key, CASE WHEN low IS high THEN low ELSE 0 END, head, (SELECT due FROM event WHERE id = head)
    FROM (
        SELECT key, min(owner) AS low, max(owner) AS high, min(CASE WHEN owner IS NULL THEN id END) AS head
        FROM event INDEXED BY keyed WHERE queue = :queue AND key IS NOT NULL GROUP BY key)"""
_APPEND: Final = """
    INSERT INTO lane (queue, key, head, due) VALUES (?, ?, ?, ?)
    ON CONFLICT (queue, key) DO UPDATE SET head = excluded.head, due = excluded.due WHERE head IS NULL"""
_CREATE: Final = "INSERT INTO lane (queue, key) VALUES (?, ?) ON CONFLICT DO NOTHING"
# The owner is 0 while several share a lane, after receives without order: it is open to nobody.
# Two subqueries, because SQLite answers only a lone min() or max() from the end of an index.
_REFRESH: Final = """
    UPDATE lane SET
        owner = (SELECT CASE WHEN low IS high THEN low ELSE 0 END FROM (SELECT
            (SELECT min(owner) FROM event INDEXED BY keyed
             WHERE queue = :queue AND key = :key AND owner IS NOT NULL) AS low,
            (SELECT max(owner) FROM event INDEXED BY keyed
             WHERE queue = :queue AND key = :key AND owner IS NOT NULL) AS high)),
        (head, due) = (
            SELECT id, due FROM event INDEXED BY keyed
            WHERE queue = :queue AND key = :key AND owner IS NULL ORDER BY id LIMIT 1)
    WHERE queue = :queue AND key = :key"""
_REMOVE: Final = "DELETE FROM lane WHERE queue = ? AND key = ? AND owner IS NULL AND head IS NULL"

_OPEN: Final = """
    SELECT head, key FROM lane INDEXED BY lane_open
    WHERE queue = ? AND owner IS ? AND head IS NOT NULL AND due IS NULL ORDER BY head LIMIT ?"""
_PLAIN: Final = """
    SELECT id FROM event INDEXED BY ready_plain WHERE queue = ? AND due IS NULL AND key IS NULL ORDER BY id LIMIT ?"""
_NEXT: Final = """
    SELECT id, due FROM event INDEXED BY keyed
    WHERE queue = ? AND key = ? AND owner IS NULL AND id > ? ORDER BY id LIMIT 1"""


def keep(session: Session) -> None:
    """Keep the lanes of this queue from now on. The first time takes a few seconds a million keys."""
    with session.transaction():
        if not _kept(session):
            session.db.execute(_KEEP, (session.queue,))
            session.db.execute(_CREATE_ALL, {"queue": session.queue})


def append(session: Session, rows: Sequence[tuple[int, str, float | None]]) -> None:
    """Take in new events, each its id, key and due time."""
    if rows and _kept(session):
        session.db.executemany(_APPEND, [(session.queue, key, event, due) for event, key, due in rows])


def revive(session: Session, keys: Sequence[str]) -> None:
    """Take in events that come back among older and newer ones."""
    if keys and _kept(session):
        session.db.executemany(_CREATE, [(session.queue, key) for key in keys])
        refresh(session, keys)


def refresh(session: Session, keys: Collection[str]) -> None:
    """Work out these lanes again, after events of theirs were leased, given back or removed."""
    if keys and _kept(session):
        lanes = [(session.queue, key) for key in dict.fromkeys(keys)]
        session.db.executemany(_REFRESH, [{"queue": queue, "key": key} for queue, key in lanes])
        session.db.executemany(_REMOVE, lanes)


def deliverable(session: Session, owner: int, limit: int, *, own: bool) -> Iterator[int]:
    """The ids of the first events that `owner` may have now, in publish order: at most `limit`.

    Without `own`, none of the lanes it holds: while there are leases that have ended and are not promoted, one of
    them may be an earlier event of such a lane. In a lane nobody holds that would be the head, which closes it.
    Looks at no more than three times `limit` rows and lanes, and one row more for each id taken.
    """
    db, queue = session.db, session.queue
    heads: list[tuple[int, str | None]] = [(event, None) for (event,) in db.execute(_PLAIN, (queue, limit))]
    heads += db.execute(_OPEN, (queue, None, limit))
    if own:
        heads += db.execute(_OPEN, (queue, owner, limit))
    heapq.heapify(heads)
    for _ in range(limit):
        if not heads:
            return
        event, key = heapq.heappop(heads)
        yield event
        if key is not None:
            following = db.execute(_NEXT, (queue, key, event)).fetchone()
            if following is not None and following[1] is None:
                heapq.heappush(heads, (following[0], key))


def _kept(session: Session) -> bool:
    ((kept,),) = session.db.execute(_KEPT, (session.queue,)).fetchall()
    return bool(kept)
