"""The work to measure. Each scenario exists twice: through the worker, and as a minimal hand-written loop."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
from eventkit_sqlite import adapter as sqlite_adapter

from eventkit import Batch, BatchHandler, Batching, Event, Handler, Worker
from eventkit._handler import AnyHandler
from eventkit._telemetry.records import Level, Record
from eventkit.spi import Address, Outgoing
from eventkit.testing import MemoryAdapter, MemoryBroker

GROUP = 100


class Order(msgspec.Struct):
    """What the 200 bytes of JSON hold."""

    id: str
    amount: float
    customer: str
    items: list[str]
    note: str


BODY = msgspec.json.encode(Order("abc123", 12.5, "cust-99", ["a" * 20, "b" * 20, "c" * 20], "n" * 60))


class Single(Handler[Order]):
    """One event at a time, one after the other."""

    concurrency = 1

    async def handle(self, event: Event[Order]) -> None:
        """Do nothing."""


class Single100(Single):
    """One event at a time, a hundred side by side."""

    concurrency = 100


class Hundreds(BatchHandler[Order]):
    """Batches of a hundred."""

    batching = Batching(max_size=GROUP)

    async def handle(self, batch: Batch[Order]) -> None:
        """Do nothing."""


class Counting(Hundreds):
    """Knows how many it has handled."""

    seen = 0

    async def handle(self, batch: Batch[Order]) -> None:
        """Count."""
        self.seen += len(batch)


class Quiet:
    """An observer at the level a production worker logs at, that writes nothing: terminals differ."""

    level = Level.INFO

    def observe(self, record: Record) -> None:
        """Take no notice."""


async def noop(order: object) -> None:
    """The handler of the hand-written loops."""


# -- in memory -----------------------------------------------------------------------------------


async def memory_worker(handler: AnyHandler, events: int) -> None:
    """The worker on the in-memory source."""
    broker = MemoryBroker()
    broker.feed("bench", repeat(BODY, events))
    adapter = MemoryAdapter()
    adapter.use(broker)
    worker = Worker("memory://bench", handler, adapter=adapter, observers=[Quiet()])
    await until(worker, lambda: broker.counts("bench").acked >= events)


async def memory_loop(events: int, *, batches: bool) -> None:
    """Receive, decode, call, ack: what anybody would write first."""
    broker = MemoryBroker()
    broker.feed("bench", repeat(BODY, events))
    decode = msgspec.json.Decoder(Order).decode
    done = 0
    async with broker.source("bench") as source:
        while done < events:
            deliveries = await source.receive(GROUP, 5)
            if batches:
                await noop([decode(delivery.body) for delivery in deliveries])
            else:
                for delivery in deliveries:
                    await noop(decode(delivery.body))
            await source.ack([delivery.receipt for delivery in deliveries])
            done += len(deliveries)


# -- SQLite, from publish to ack -----------------------------------------------------------------


async def sqlite_worker(handler: Counting, events: int) -> None:
    """Publish through the sink, then consume with the worker, on a file."""
    with folder() as path:
        address = Address.parse(f"sqlite:///{path}/queue.db?queue=bench")
        async with sqlite_adapter.open_sink(address) as sink:
            for _ in range(events // GROUP):
                await sink.publish([Outgoing(body=BODY)] * GROUP)
        worker = Worker(str(address), handler, adapter=sqlite_adapter, observers=[Quiet()])
        await until(worker, lambda: handler.seen >= events)


async def sqlite_loop(events: int) -> None:
    """The same by hand: insert in batches, lease in batches, call, delete in batches; SQL in a thread."""
    decode = msgspec.json.Decoder(Order).decode
    with folder() as path:
        database = await anyio.to_thread.run_sync(open_database, path / "hand.db")
        for _ in range(events // GROUP):
            await anyio.to_thread.run_sync(insert, database, [(BODY, time.time())] * GROUP)
        done = 0
        while done < events:
            rows = await anyio.to_thread.run_sync(lease, database)
            await noop([decode(body) for _, body in rows])
            await anyio.to_thread.run_sync(delete, database, [(number,) for number, _ in rows])
            done += len(rows)
        database.close()


def open_database(path: Path) -> sqlite3.Connection:
    """As durable as the adapter: write-ahead log, full synchronisation."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE events (number INTEGER PRIMARY KEY, body BLOB, due REAL, count INTEGER DEFAULT 0)")
    database.execute("CREATE INDEX due ON events (due)")
    return database


def insert(database: sqlite3.Connection, rows: Sequence[tuple[bytes, float]]) -> None:
    """Publish one batch."""
    with transaction(database):
        database.executemany("INSERT INTO events (body, due) VALUES (?, ?)", rows)


def lease(database: sqlite3.Connection) -> list[tuple[int, bytes]]:
    """Take the next batch."""
    now = time.time()
    with transaction(database):
        return database.execute(
            "UPDATE events SET due = ?, count = count + 1 WHERE number IN"
            " (SELECT number FROM events WHERE due <= ? ORDER BY due, number LIMIT ?) RETURNING number, body",
            (now + 30, now, GROUP),
        ).fetchall()


def delete(database: sqlite3.Connection, rows: Sequence[tuple[int]]) -> None:
    """Ack one batch."""
    with transaction(database):
        database.executemany("DELETE FROM events WHERE number = ?", rows)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Commit, or roll back."""
    database.execute("BEGIN IMMEDIATE")
    with database:
        yield


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


async def until(worker: Worker, done: Callable[[], bool]) -> None:
    """Run the worker until `done`, then drain it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        while not done():
            await anyio.sleep(0.02)
        worker.drain()


SCENARIOS: dict[str, tuple[Callable[[int], Awaitable[None]], Callable[[int], Awaitable[None]]]] = {
    "memory, Handler, 1 slot": (lambda n: memory_worker(Single(), n), lambda n: memory_loop(n, batches=False)),
    "memory, Handler, 100 slots": (lambda n: memory_worker(Single100(), n), lambda n: memory_loop(n, batches=False)),
    "memory, BatchHandler(100)": (lambda n: memory_worker(Hundreds(), n), lambda n: memory_loop(n, batches=True)),
    "SQLite, publish to ack": (lambda n: sqlite_worker(Counting(), n), sqlite_loop),
}
"""Name -> the worker's way and the hand-written one."""
