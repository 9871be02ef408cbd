"""Ending deliveries: as handled, or in the dead letters. Synchronous: one connection's work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eventkit.spi import DONE, LOST, Letter, Settled
from eventkit_sqlite import _lanes
from eventkit_sqlite._leases import Receipt, keys, settle_each
from eventkit_sqlite._session import Session

_ACK: Final = "DELETE FROM event WHERE id = ? AND receipt = ? AND due > ?"
_FORGET: Final = "DELETE FROM content WHERE id = ?"
_BURY: Final = """
    INSERT INTO dead (queue, event, key, deliveries, reason, detail, died)
    SELECT queue, id, key, deliveries, ?, ?, ? FROM event WHERE id = ? AND receipt = ? AND due > ?"""
_LEAVE: Final = "DELETE FROM event WHERE id = ?"


class Ends:
    """Takes leased events out of a queue."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._db = session.db

    def ack(self, receipts: Sequence[Receipt]) -> list[Settled]:
        """End these for good. Raises sqlite3.Error."""
        with self._session.transaction() as now:
            settled = settle_each(self._db, _ACK, [(event, token, now) for event, token, _ in receipts])
            ended = [(event,) for (event, _, _), one in zip(receipts, settled, strict=True) if one is DONE]
            self._db.executemany(_FORGET, ended)
            _lanes.refresh(self._session, keys(receipts))
        return settled

    def bury(self, letters: Sequence[Letter]) -> list[Settled]:
        """Move these to the dead letters; the content stays where it is. Raises sqlite3.Error."""
        with self._session.transaction() as now:
            settled = [self._bury(letter, now) for letter in letters]
            _lanes.refresh(self._session, keys(letter.receipt for letter in letters))
        return settled

    def _bury(self, letter: Letter, now: float) -> Settled:
        event, token, _ = letter.receipt
        texts = (_storable(letter.reason), _storable(letter.detail))
        if not self._db.execute(_BURY, (*texts, now, event, token, now)).rowcount:
            return LOST
        self._db.execute(_LEAVE, (event,))
        return DONE


def _storable(text: str) -> str:
    """SQLite keeps UTF-8: a lone surrogate is written out, rather than the letter refused."""
    return text.encode("utf-8", "backslashreplace").decode()
