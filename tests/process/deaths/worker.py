"""The worker that is killed: what a user would write, and a witness that writes telemetry records down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import anyio
import eventkit_sqlite

import eventkit
from eventkit import Backoff, Batch, BatchHandler, Batching, Event, FlowLimits, Handler, Reject, Worker
from eventkit._config import Order
from eventkit._telemetry import records
from eventkit._telemetry.records import Level, Record
from tests.process.deaths import queue_file
from tests.process.deaths.ledger import Pen

ATTEMPTS = 3

RECORDS: Final[Mapping[type[object], str]] = {
    records.WorkerStarted: "up",
    records.DrainStarted: "drain",
    records.WorkerStopped: "down",
    records.LeaseLost: "lost",
    records.EventReleased: "released",
    records.EventRetried: "retried",
    records.EventDeadLettered: "dead",
    records.EventParked: "parked",
    records.SettleFailed: "unsettled",
    records.ReceiveFailed: "unreceived",
    records.GateClosed: "gate",
    records.HandlerStuck: "stuck",
    records.LoopBlocked: "blocked",
}
"""What a line of the ledger calls each record that is written down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the workers of a round are set up.

    pace, pace_again: seconds a handler takes for an event, at most, at its first attempt and at later ones.
    """

    ordering: Order = "none"
    lease: float = 0.4
    drain: float = 2.0
    in_flight: int = 24
    pace: float = 0.004
    pace_again: float = 0.004


class _Work:
    """What both handlers do with an event: write down that it is theirs, take some time, fail or take effect."""

    def __init__(self, pen: Pen, options: Options, rng: Random) -> None:
        self._pen = pen
        self._options = options
        self._rng = rng

    def start(self, event: Event[dict[str, int]]) -> None:
        self._pen.write("start", event.data["n"], event.attempt)

    async def do(self, event: Event[dict[str, int]]) -> None:
        pace = self._options.pace if event.attempt == 1 else self._options.pace_again
        await anyio.sleep(self._rng.uniform(0.25, 1.0) * pace)
        match event.type.partition(".")[2]:
            case "poison":
                raise ValueError("poison")
            case "unwanted":
                raise Reject("unwanted")
            case "flaky" if event.attempt == 1:
                raise RuntimeError("at first it fails")
        self._pen.write("effect", event.data["n"], event.attempt)


class Ship(Handler[dict[str, int]]):
    """One event at a time, some side by side."""

    types = ("single.*",)
    concurrency = 4

    def __init__(self, work: _Work) -> None:
        self._work = work

    async def handle(self, event: Event[dict[str, int]]) -> None:
        self._work.start(event)
        await self._work.do(event)


class ShipMany(BatchHandler[dict[str, int]]):
    """A batch that a poison event takes down; what took effect before is marked, as a careful user would."""

    types = ("batch.*",)
    batching = Batching(max_size=8, max_wait=0.01)

    def __init__(self, work: _Work) -> None:
        self._work = work

    async def handle(self, batch: Batch[dict[str, int]]) -> None:
        for event in batch:
            self._work.start(event)
        for event in batch:
            await self._work.do(event)
            batch.done(event)


class Witness:
    """Writes telemetry records into the ledger, in their place among starts and effects."""

    level = Level.INFO

    def __init__(self, pen: Pen) -> None:
        self._pen = pen

    def observe(self, record: Record) -> None:
        """Write one line, for the records that matter here. A lease lost to a settlement already sent is `stale`."""
        if (what := RECORDS.get(type(record))) is not None:
            if isinstance(record, records.LeaseLost) and record.state == "settling":
                what = "stale"
            self._pen.write(what, _number(record), getattr(record, "attempt", 0))


def _number(record: Record) -> int:
    """The event a record is about. What was lost before it was decoded has only its message id: `PREFIX-SERIAL`."""
    if event := getattr(record, "event_id", ""):
        return int(event)
    serial = getattr(record, "message_id", "").rpartition("-")[2]
    return int(serial) - 1 if serial else -1


def work(folder: Path, life: int, options: Options, rng: Random) -> int:
    """Be worker number `life` of a round, until a signal ends it; the exit code."""
    pen = Pen(folder, life)
    doing = _Work(pen, options, rng)
    worker = Worker(
        queue_file.address(folder),
        Ship(doing),
        ShipMany(doing),
        retry=Backoff(initial=0.02, maximum=0.05, attempts=ATTEMPTS),
        limits=FlowLimits(in_flight=options.in_flight),
        lease=options.lease,
        drain=options.drain,
        ordering=options.ordering,
        observers=[Witness(pen)],
        adapter=eventkit_sqlite.adapter,
        seed=rng.getrandbits(32),
    )
    return eventkit.run(worker)
