"""`make bench-servicebus`: the worker and loops by hand, how long events wait, and what came of the goals."""

from __future__ import annotations

import os
import statistics

from bench.cloud import sides
from bench.cloud.sides import Command, Goals, Race, Results, Side, filled, program, worker
from bench.servicebus import stalls
from bench.servicebus.send import MOST, connect

EVENTS = int(os.environ.get("BENCH_SERVICEBUS_EVENTS", "20000"))
MESSAGES = int(os.environ.get("BENCH_SERVICEBUS_MESSAGES", "500"))

MOST_OF_RAW = 1.15
LEAST_RATE = 4_000
"""Events a second, of a `Handler` as it comes: one receiver."""


def side(name: str, command: Command) -> Side:
    return Side(name=name, events=EVENTS, fill=filled(connect, MOST), command=command)


HANDLER = side("worker, Handler", worker("Single"))
WORKERS = (
    HANDLER,
    side("worker, Handler, 50 in flight", worker("Single", "50")),
    side("worker, Handler, 1000 in flight", worker("Single", "1000")),
    side("worker, BatchHandler", worker("Batches")),
)
DOCUMENTED = side("SDK by hand, as documented", program("bench.servicebus.raw", "nothing", "documented"))
RACE = Race(
    scheme="servicebus",
    raw=side("SDK by hand, gathered", program("bench.servicebus.raw", "nothing", "gathered")),
    sides=(
        *WORKERS,
        side("SDK by hand, ahead", program("bench.servicebus.raw", "nothing", "ahead")),
        DOCUMENTED,
    ),
    peer=DOCUMENTED,
    peer_name="documented",
)


def main() -> None:
    """Print one table of cost, one of waits, and the goals."""
    sides.introduce(f"{EVENTS:,} events")
    results = RACE.run()
    results.show()
    waits = list(stalls.goals(few=MESSAGES, many=20 * MESSAGES))
    sides.show([*cost_goals(results), *waits])


def cost_goals(results: Results) -> Goals:
    """Each way to run the worker against the best loop by hand, and how fast it is as it comes."""
    for name in (side.name for side in WORKERS):
        of_raw = statistics.median(results.of_raw(name))
        yield f"{name}: {of_raw:.2f} times the CPU by hand, at most {MOST_OF_RAW}", of_raw <= MOST_OF_RAW
    rate = statistics.median(pair.run.rate for pair in results.pairs[HANDLER.name])
    yield f"{HANDLER.name}: {rate:,.0f} events/s through one receiver, at least {LEAST_RATE:,}", rate >= LEAST_RATE


if __name__ == "__main__":
    main()
