"""The queue seen from outside, by its tables: what a round publishes, and what is left of it.

Nothing here stays open: SQLite does not survive a fork with a file open. Looking is read-only, so that it is the
next worker that finds the file as the last one left it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
from eventkit_sqlite._config import Place
from eventkit_sqlite._publish import Publisher
from eventkit_sqlite._session import Session

from eventkit.spi import DONE, Address, Outgoing

NAME = "queue.db"

_LEASED = """
    SELECT c.event_id, e.deliveries, e.receipt FROM event AS e JOIN content AS c USING (id)
    WHERE e.owner IS NOT NULL AND e.due > (julianday('now') - 2440587.5) * 86400.0"""


class Published(NamedTuple):
    """One event of a round. `kind`: good, flaky (fails at first), poison (always fails) or unwanted (rejected)."""

    n: int
    kind: str
    route: str
    key: str | None

    @property
    def dies(self) -> bool:
        """Whether it must end among the dead letters."""
        return self.kind in ("poison", "unwanted")


class Leased(NamedTuple):
    """One delivery whose lease is alive."""

    event: int
    deliveries: int
    receipt: int


class Dead(NamedTuple):
    """One dead letter, and the stable id in its detail."""

    event: int
    reason: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a queue holds: `strays` are contents that belong to no event and no dead letter."""

    waiting: frozenset[int]
    leased: Sequence[Leased]
    dead: Sequence[Dead]
    strays: int
    lanes: int


def address(folder: Path) -> str:
    """The queue of a round."""
    return f"sqlite:///{folder / NAME}?queue=orders"


def publish(folder: Path, events: Sequence[Published]) -> None:
    """Make the file and put these in."""
    session = Session(Place.from_address(Address.parse(address(folder))))
    with closing(session.db):
        assert Publisher(session).publish([_outgoing(event) for event in events]) == [DONE] * len(events)


def look(folder: Path) -> Contents:
    """All that is in the queue now."""
    with _reading(folder) as db, _transaction(db, "BEGIN"):
        waiting = frozenset(int(n) for (n,) in db.execute("SELECT event_id FROM event JOIN content USING (id)"))
        (strays,) = db.execute(
            "SELECT count(*) FROM content WHERE id NOT IN (SELECT id FROM event UNION SELECT event FROM dead)"
        ).fetchone()
        (lanes,) = db.execute("SELECT count(*) FROM lane").fetchone()
        letters = db.execute("SELECT c.event_id, d.reason, d.detail FROM dead AS d JOIN content AS c ON c.id = d.event")
        dead = [Dead(int(n), reason, str(json.loads(detail).get("id"))) for n, reason, detail in letters]
        return Contents(waiting=waiting, leased=_leased(db), dead=dead, strays=strays, lanes=lanes)


def leased(folder: Path) -> list[Leased]:
    """The deliveries whose leases are alive."""
    with _reading(folder) as db:
        return _leased(db)


def left(folder: Path) -> int:
    """How many events are not settled."""
    with _reading(folder) as db:
        (number,) = db.execute("SELECT count(*) FROM event").fetchone()
        return int(number)


def integrity(folder: Path) -> str:
    """What SQLite says of the file: "ok", or what is wrong with it."""
    with _reading(folder) as db:
        return "; ".join(text for (text,) in db.execute("PRAGMA integrity_check"))


def is_locked(folder: Path) -> bool:
    """Whether somebody is in the midst of writing to the file."""
    with closing(sqlite3.connect(folder / NAME, timeout=0, isolation_level=None)) as db:
        try:
            with _transaction(db, "BEGIN IMMEDIATE"):
                return False
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep everybody from writing to the file. Nothing may be forked meanwhile."""
    with (
        closing(sqlite3.connect(folder / NAME, timeout=5, isolation_level=None)) as db,
        _transaction(db, "BEGIN IMMEDIATE"),
    ):
        yield


@contextmanager
def _reading(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{folder / NAME}?mode=ro", uri=True, timeout=5, isolation_level=None)) as db:
        yield db


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str) -> Iterator[None]:
    db.execute(begin)
    try:
        yield
    finally:
        db.execute("ROLLBACK")


def _leased(db: sqlite3.Connection) -> list[Leased]:
    return [Leased(int(n), deliveries, receipt) for n, deliveries, receipt in db.execute(_LEASED)]


def _outgoing(event: Published) -> Outgoing:
    envelope = {
        "specversion": "1.0",
        "id": str(event.n),
        "source": "deaths",
        "type": f"{event.route}.{event.kind}",
        "data": {"n": event.n},
    }
    body = msgspec.json.encode(envelope)
    return Outgoing(body=body, content_type="application/cloudevents+json", key=event.key, event_id=str(event.n))
