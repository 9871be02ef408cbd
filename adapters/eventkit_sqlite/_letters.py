"""The dead letters of one queue. Synchronous: one connection's work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from eventkit.errors import PermanentAdapterError
from eventkit.spi import DONE, LOST, DeadLetter, Settled
from eventkit_sqlite import _lanes
from eventkit_sqlite._session import Session

_PEEK: Final = """
    SELECT d.id, d.reason, d.detail, c.message_id, c.body, c.attributes, c.content_type, d.key, d.deliveries,
           c.published, d.died
    FROM dead AS d JOIN content AS c ON c.id = d.event WHERE d.queue = ? AND d.id > ? ORDER BY d.id LIMIT ?"""
_TAKE: Final = "DELETE FROM dead WHERE id = ? AND queue = ? RETURNING event, key"
_FORGET: Final = "DELETE FROM content WHERE id = ?"
_REVIVE: Final = "INSERT INTO event (id, queue, key) VALUES (?, ?, ?)"

_decode_attributes = msgspec.json.Decoder(dict[str, str]).decode


class Letters:
    """Shows dead letters and takes them out again."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._db = session.db

    def peek(self, limit: int, after: str | None) -> list[DeadLetter]:
        """A page of them, in the order they died. Raises PermanentAdapterError for an `after` that is no id."""
        number = 0 if after is None else _number(after)
        if number is None:
            raise PermanentAdapterError(f"{after!r} is not the id of a dead letter of {self._session.place.path}")
        return [_dead_letter(row) for row in self._db.execute(_PEEK, (self._session.queue, number, max(0, limit)))]

    def take(self, ids: Sequence[str]) -> list[Settled]:
        """Remove these for good. Raises sqlite3.Error."""
        with self._session.transaction():
            taken = [self._take(id) for id in ids]
            self._db.executemany(_FORGET, [(event,) for event, _ in filter(None, taken)])
        return [LOST if one is None else DONE for one in taken]

    def put_back(self, ids: Sequence[str]) -> list[Settled]:
        """Make these ready again, in their first place in publish order. Raises sqlite3.Error."""
        with self._session.transaction():
            taken = [self._take(id) for id in ids]
            revived = list(filter(None, taken))
            self._db.executemany(_REVIVE, [(event, self._session.queue, key) for event, key in revived])
            keys = [key for _, key in revived if key is not None]
            _lanes.revive(self._session, keys)
        return [LOST if one is None else DONE for one in taken]

    def _take(self, id: str) -> tuple[int, str | None] | None:
        number = _number(id)
        if number is None:
            return None
        rows: list[tuple[int, str | None]] = self._db.execute(_TAKE, (number, self._session.queue)).fetchall()
        return rows[0] if rows else None


def _number(id: str) -> int | None:
    """The row an id names; None for one that cannot be ours."""
    return int(id) if id.isascii() and id.isdigit() and len(id) < 19 else None


def _dead_letter(row: tuple[Any, ...]) -> DeadLetter:
    number, reason, detail, message_id, body, attributes, content_type, key, deliveries, published, died = row
    return DeadLetter(
        id=str(number),
        reason=reason,
        detail=detail,
        message_id=message_id,
        body=body,
        attributes=_decode_attributes(attributes),
        content_type=content_type,
        key=key,
        delivery_count=deliveries,
        enqueued_at=published,
        dead_at=died,
    )
