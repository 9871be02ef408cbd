"""Publishing to one queue. Synchronous: one connection's work."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple

import msgspec

from eventkit.spi import DONE, Outgoing, Settled
from eventkit_sqlite import _lanes
from eventkit_sqlite._config import LIMITS
from eventkit_sqlite._leases import due_at
from eventkit_sqlite._session import Session

_TEXT_LIMIT: Final = 64 * 1024
_ATTRIBUTES_LIMIT: Final = 1024 * 1024

_NUMBERS: Final = "UPDATE counter SET event = event + ? RETURNING event"
_CONTENT: Final = "INSERT INTO content VALUES (?, ?, ?, ?, ?, ?, ?)"
_EVENT: Final = "INSERT INTO event (id, queue, key, due) VALUES (?, ?, ?, ?)"
# All at once where nothing has a key or a delay: a quarter of the price of a publish.
_PLAIN_EVENTS: Final = "INSERT INTO event (id, queue) SELECT id, ? FROM content WHERE id BETWEEN ? AND ?"

_encode = msgspec.json.Encoder().encode


class _Refused(Exception):
    """This message cannot be kept as it is; the text says why, without payload."""


class _Ready(NamedTuple):
    message: Outgoing
    attributes: bytes


class Publisher:
    """Appends events to one queue."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # Not the row's number: that starts again with a new file, and a message id must never come twice.
        self._prefix = secrets.token_hex(8)
        self._serial = count(1)

    def publish(self, messages: Sequence[Outgoing]) -> list[Settled]:
        """Store these in one transaction; what cannot be kept is refused, the others go on. Raises sqlite3.Error."""
        ready: list[_Ready] = []
        results: list[Settled] = []
        for message in messages:
            try:
                ready.append(_Ready(message, _checked(message)))
                results.append(DONE)
            except _Refused as refused:
                results.append(Settled.refused(str(refused)))
        if ready:
            self._store(ready)
        return results

    def _store(self, ready: Sequence[_Ready]) -> None:
        db, queue = self._session.db, self._session.queue
        with self._session.transaction() as now:
            ((last,),) = db.execute(_NUMBERS, (len(ready),)).fetchall()
            ids = range(last - len(ready) + 1, last + 1)
            db.executemany(_CONTENT, self._contents(ids, ready, now))
            if all(x.message.key is None and x.message.delay <= 0 for x in ready):
                db.execute(_PLAIN_EVENTS, (queue, ids[0], last))
                return
            events = [(id, x.message.key, due_at(now, x.message.delay)) for id, x in zip(ids, ready, strict=True)]
            db.executemany(_EVENT, [(id, queue, key, due) for id, key, due in events])
            _lanes.append(self._session, [(id, key, due) for id, key, due in events if key is not None])

    def _contents(
        self, ids: Iterable[int], ready: Iterable[_Ready], now: float
    ) -> list[tuple[int, str, str, str | None, float, bytes, bytes]]:
        return [
            (id, f"{self._prefix}-{serial}", m.event_id, m.content_type, now, attributes, m.body)
            for id, serial, (m, attributes) in zip(ids, self._serial, ready, strict=False)
        ]


def _checked(message: Outgoing) -> bytes:
    """The attributes as they are stored. Raises _Refused for what would not survive byte for byte."""
    if not isinstance(message.body, bytes):
        raise _Refused(f"the body is {type(message.body).__name__}, not bytes")
    if len(message.body) > LIMITS.body:
        raise _Refused(f"the body has {len(message.body):,} bytes, over the limit of {LIMITS.body:,}")
    if not math.isfinite(message.delay):
        raise _Refused(f"the delay is {message.delay} s")
    for name, text in (("key", message.key), ("content type", message.content_type), ("event id", message.event_id)):
        if text is not None:
            _check_text(name, text)
    return _encoded(message.attributes) if message.attributes else b"{}"


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise _Refused(f"the {name} is {type(text).__name__}, not str")
    if len(text) > _TEXT_LIMIT:
        raise _Refused(f"the {name} has {len(text):,} characters, over the limit of {_TEXT_LIMIT:,}")
    if not _is_utf8(text):
        raise _Refused(f"the {name} has a lone surrogate, which UTF-8 cannot hold")


def _encoded(attributes: Mapping[str, str]) -> bytes:
    for name, value in attributes.items():
        if not isinstance(name, str):
            raise _Refused(f"attribute name is {type(name).__name__}, not str")
        if not _is_utf8(name):
            raise _Refused("attribute name has a lone surrogate, which UTF-8 cannot hold")
        if not isinstance(value, str):
            raise _Refused(f"attribute {name!r} is {type(value).__name__}, not str")
        if not _is_utf8(value):
            raise _Refused(f"attribute {name!r} has a lone surrogate, which UTF-8 cannot hold")
    encoded = _encode(dict(attributes))
    if len(encoded) > _ATTRIBUTES_LIMIT:
        raise _Refused(f"the attributes have {len(encoded):,} bytes, over the limit of {_ATTRIBUTES_LIMIT:,}")
    return encoded


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
