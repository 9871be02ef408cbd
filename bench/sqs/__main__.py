"""`make bench-sqs`: the worker, the loop by hand and Celery, and what came of the goals."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from bench.cloud import latency, sides
from bench.cloud.payload import body
from bench.cloud.sides import QUEUE, Race, Results, Side, filled, program, worker
from bench.cloud.stand import ROOT, Server
from bench.sqs.send import MOST, connect

EVENTS = int(os.environ.get("BENCH_SQS_EVENTS", "20000"))
CELERY_EVENTS = int(os.environ.get("BENCH_SQS_CELERY_EVENTS", str(EVENTS // 10)))
MESSAGES = int(os.environ.get("BENCH_SQS_MESSAGES", "200"))
PEERS = ROOT / ".venv-peers/bin/python"

MOST_OF_RAW = 1.25
MOST_OF_CELERY = 1 / 8


def celery(at: Server, queue: str) -> list[str]:
    return [str(PEERS), "-m", "bench.sqs.celery_worker", at.endpoint, queue]


def send_tasks(at: Server, events: int) -> None:
    """Fill the queue with Celery's messages."""
    command = [*celery(at, QUEUE), "fill", str(events), body()]
    subprocess.run(command, cwd=ROOT, env=os.environ | at.environment, check=True, timeout=600)


send = filled(connect, MOST)
WORKERS = (
    Side(name="worker, Handler", events=EVENTS, fill=send, command=worker("Single")),
    Side(name="worker, Handler, 80 in flight", events=EVENTS, fill=send, command=worker("Single", "80")),
    Side(name="worker, BatchHandler", events=EVENTS, fill=send, command=worker("Batches")),
)
CELERY = Side(
    name="Celery, prefork of 2",
    events=CELERY_EVENTS,
    fill=send_tasks,
    command=lambda at, queue: [*celery(at, queue), "run"],
)
RACE = Race(
    scheme="sqs",
    raw=Side(name="aiobotocore by hand", events=EVENTS, fill=send, command=program("bench.sqs.raw", "nothing")),
    sides=(*WORKERS, CELERY),
    peer=CELERY,
    peer_name="Celery",
)


def main() -> None:
    """Print one table of cost, one of latency, and the goals."""
    if not PEERS.exists():
        sys.exit("Celery has no environment yet: make bench-sqs makes it")
    sides.introduce(f"{EVENTS:,} events ({CELERY_EVENTS:,} for Celery)")
    results = RACE.run()
    results.show()
    late = latency.goals("sqs", connect, worker("Note"), program("bench.sqs.raw", "note"), messages=MESSAGES)
    sides.show([*cost_goals(results), *late])


def cost_goals(results: Results) -> Iterator[tuple[str, bool]]:
    """Each way to run the worker, against both."""
    for name in (side.name for side in WORKERS):
        of_raw, of_celery = statistics.median(results.of_raw(name)), statistics.median(results.of_peer(name))
        yield f"{name}: {of_raw:.2f} times the CPU by hand, at most {MOST_OF_RAW}", of_raw <= MOST_OF_RAW
        yield f"{name}: {of_celery:.3f} of Celery's CPU, at most {MOST_OF_CELERY}", of_celery <= MOST_OF_CELERY


if __name__ == "__main__":
    main()
