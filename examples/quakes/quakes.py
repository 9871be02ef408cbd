"""A worker that keeps the strongest earthquakes by place: the whole of the application."""

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from eventkit import Batch, BatchHandler, Event

READ_MODEL = Path(__file__).parent / "run" / "quakes.db"

SCHEMA = """
CREATE TABLE IF NOT EXISTS quakes (id TEXT PRIMARY KEY, place TEXT, magnitude REAL, depth REAL, at TEXT);
CREATE VIEW IF NOT EXISTS strongest AS
    SELECT place, max(magnitude) AS magnitude, depth, at, count(*) AS quakes
    FROM quakes GROUP BY place ORDER BY magnitude DESC, place;
"""

DISTANCE = re.compile(r"^\d+km [NSEW]+ of ")


@dataclass(frozen=True, slots=True)
class Quake:
    """The fields we use of those the feed sends; checked before the handler runs, the others are ignored."""

    type: str
    place: str
    mag: float
    coordinates: tuple[float, float, float]
    """Longitude, latitude, and depth in kilometres."""


class RecordQuakes(BatchHandler[Quake]):
    """Writes earthquakes to a SQLite read model, and skips what shook the ground otherwise."""

    types = ("usgs.quake",)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Open the read model for as long as the worker runs."""
        self.db = await to_thread.run_sync(open_read_model, READ_MODEL)
        try:
            yield
        finally:
            self.db.close()

    def handle(self, batch: Batch[Quake]) -> None:
        """Write one batch. A plain `def` runs in a thread, so that SQLite does not hold up the event loop."""
        rows = []
        for event in batch:
            if event.data.type == "earthquake":
                rows.append(row_of(event))
            else:
                batch.skip(event, f"not an earthquake: {event.data.type}")
        # One transaction: a call that raises has written nothing, so eventkit may repeat it with half the batch.
        # An event may also be delivered twice; its id makes the second write replace the first.
        with self.db:
            self.db.executemany("REPLACE INTO quakes VALUES (?, ?, ?, ?, ?)", rows)


def open_read_model(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(exist_ok=True)
    # Batches come one at a time, but not always on the same thread.
    db = sqlite3.connect(path, check_same_thread=False)
    db.executescript(SCHEMA)
    return db


def row_of(event: Event[Quake]) -> tuple[str, str, float, float, str | None]:
    quake, at = event.data, event.time
    place = DISTANCE.sub("", quake.place)  # "22km NNE of Hualian, Taiwan" is counted for Hualian
    return event.id, place, quake.mag, quake.coordinates[2], at.isoformat() if at else None
