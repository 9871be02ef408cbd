"""From before a message is sent until its handler starts, for idle consumers that wait side by side."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Iterator

from bench.cloud.payload import body
from bench.cloud.sides import NAME, Command
from bench.cloud.stand import Connect, consumer, server

SHARES = (50, 90, 99)
GAP = (0.05, 0.15)
"""Seconds between two messages of one consumer."""
SETTLE = 2.0
"""Seconds after which they have started."""
MOST_LATER = 10.0


def goals(scheme: str, connect: Connect, worker: Command, raw: Command, *, messages: int) -> Iterator[tuple[str, bool]]:
    """Measure, print the table, and say what came of the goal."""
    late = measure(scheme, connect, {"worker": worker, "raw": raw}, messages)
    print(f"\n{'from send to handler, idle, ms':<{NAME}}" + "".join(f"{f'p{share}':>8}" for share in SHARES))
    found = {name: percentiles(values) for name, values in late.items()}
    found["difference"] = {share: found["worker"][share] - found["raw"][share] for share in SHARES}
    for name, values in found.items():
        print(f"{name:<{NAME}}" + "".join(f"{value:>8.2f}" for value in values.values()))
    worst = max(found["difference"].values())
    yield f"latency of the idle worker: {worst:+.2f} ms at worst of these, at most {MOST_LATER:g}", worst <= MOST_LATER


def measure(scheme: str, connect: Connect, commands: dict[str, Command], messages: int) -> dict[str, list[float]]:
    """How long each message was on its way to each consumer, in ms. Each has a queue of its name; they take turns."""
    (one, run_one), (other, run_other) = commands.items()
    with (
        server(scheme, one, other) as at,
        consumer(run_one(at, one), at) as first,
        consumer(run_other(at, other), at) as second,
    ):
        time.sleep(SETTLE)
        send = connect(at)
        rng, turns = random.Random(1), [one, other]
        for _ in range(messages):
            for queue in turns:
                time.sleep(rng.uniform(*GAP) / len(turns))
                send(queue, [body(time.time())])
            turns.reverse()
        time.sleep(GAP[1])
        first.stop()
        second.stop()
    late: dict[str, list[float]] = {one: first.report["late"], other: second.report["late"]}
    for name, values in late.items():
        if len(values) != messages:
            sys.exit(f"{name} handled {len(values)} of {messages} messages")
    return late


def percentiles(values: list[float]) -> dict[int, float]:
    """By share in percent."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {share: cuts[share - 1] for share in SHARES}
