"""Run one scenario in this process and print what it took as JSON: `python -m bench.one NAME worker|hand EVENTS`."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import anyio

from bench.scenarios import SCENARIOS

LAG_LIMITS = (1, 2, 5, 10, 20, 50)
"""Upper ends of the lag histogram's classes, in milliseconds."""

PROBE_EVERY = 0.005


def main() -> None:
    """Measure CPU of the whole process, wall time, peak memory and, for the worker, how late the loop's timers are."""
    name, side, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
    scenario = SCENARIOS[name][0 if side == "worker" else 1]
    lags: list[float] = []
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    anyio.run(observed, scenario, events, lags)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        json.dumps(
            {
                "cpu": cpu / events * 1e6,
                "wall": wall / events * 1e6,
                "grown": (after.ru_maxrss - before.ru_maxrss) / 1024,
                "peak": after.ru_maxrss / 1024,
                "lag": histogram(lags),
            }
        )
    )


async def observed(scenario: Callable[[int], Awaitable[None]], events: int, lags: list[float]) -> None:
    """Run the scenario beside a task that notes how late it wakes up."""

    async def probe() -> None:
        while True:
            asleep = time.perf_counter()
            await anyio.sleep(PROBE_EVERY)
            lags.append((time.perf_counter() - asleep - PROBE_EVERY) * 1000)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(probe)
        await scenario(events)
        tasks.cancel_scope.cancel()


def histogram(lags: list[float]) -> list[int]:
    """How many wake-ups were late by up to 1, 2, 5, 10, 20, 50 ms, and by more."""
    edges = (float("-inf"), *LAG_LIMITS, float("inf"))
    return [sum(low < lag <= high for lag in lags) for low, high in pairwise(edges)]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
