"""`make bench-pubsub`: the worker, a loop by hand and Google's threaded client, and what came of the goals."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

from bench.cloud import latency, sides
from bench.cloud.sides import Command, Race, Results, Side, filled, program, worker
from bench.pubsub.send import MOST, connect

EVENTS = int(os.environ.get("BENCH_PUBSUB_EVENTS", "100000"))
MESSAGES = int(os.environ.get("BENCH_PUBSUB_MESSAGES", "200"))

MOST_CPU = 25.0
"""µs an event, of a `Handler` as it comes."""


def side(name: str, command: Command) -> Side:
    return Side(name=name, events=EVENTS, fill=filled(connect, MOST), command=command)


HANDLER = side("worker, Handler", worker("Single"))
THREADS = side("SDK, threads", program("bench.pubsub.threaded"))
RACE = Race(
    scheme="pubsub",
    raw=side("SDK by hand, bare protobuf", program("bench.pubsub.raw", "nothing")),
    sides=(
        side("SDK by hand, as documented", program("bench.pubsub.raw", "nothing", "documented")),
        HANDLER,
        side("worker, Handler, 1000 in flight", worker("Single", "1000")),
        side("worker, BatchHandler", worker("Batches")),
        THREADS,
    ),
    peer=THREADS,
    peer_name="threads",
)


def main() -> None:
    """Print one table of cost, one of latency, and the goals."""
    sides.introduce(f"{EVENTS:,} events")
    results = RACE.run()
    results.show()
    late = latency.goals("pubsub", connect, worker("Note"), program("bench.pubsub.raw", "note"), messages=MESSAGES)
    sides.show([*cost_goals(results), *late])


def cost_goals(results: Results) -> Iterator[tuple[str, bool]]:
    """What a `Handler` costs, with its ratios for whoever reads only this."""
    name = HANDLER.name
    cpu, of_raw, of_threads = results.cpu(name), *map(statistics.median, (results.of_raw(name), results.of_peer(name)))
    also = f"{of_raw:.2f} times that by hand, {of_threads:.2f} of the threaded client's"
    yield f"{name}: {cpu:.1f} µs of CPU an event, at most {MOST_CPU:g} ({also})", cpu <= MOST_CPU


if __name__ == "__main__":
    main()
