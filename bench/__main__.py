"""`make bench`: every scenario by the worker and by hand, alternating, each in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.one import LAG_LIMITS
from bench.scenarios import SCENARIOS

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
EVENTS = int(os.environ.get("BENCH_EVENTS", "200000"))
SQLITE_EVENTS = EVENTS // 4
MEMORY_EVENTS = 1_000_000
ROOT = Path(__file__).parent.parent


def main() -> None:
    """Print one table, the loop's lag, and memory over a million events."""
    print(f"{ROUNDS} rounds, median [lowest-highest]; {EVENTS:,} events in memory, {SQLITE_EVENTS:,} on SQLite\n")
    print(f"{'scenario':<28} {'CPU µs/event':>20} {'by hand':>20} {'ratio':>6} {'wall µs/event':>14}")
    lags: dict[str, list[int]] = {}
    for name in SCENARIOS:
        events = SQLITE_EVENTS if name.startswith("SQLite") else EVENTS
        worker, hand = [], []
        for _ in range(ROUNDS):
            worker.append(measure(name, "worker", events))
            hand.append(measure(name, "hand", events))
        lags[name] = [sum(column) for column in zip(*(run["lag"] for run in worker), strict=True)]
        ratio = statistics.median(w["cpu"] / h["cpu"] for w, h in zip(worker, hand, strict=True))
        wall = statistics.median(run["wall"] for run in worker)
        print(f"{name:<28} {spread(worker):>20} {spread(hand):>20} {ratio:>6.2f} {wall:>14.2f}")
    show_lags(lags)
    show_memory()


def measure(name: str, side: str, events: int) -> dict[str, Any]:
    """One run in a fresh process."""
    command = [sys.executable, "-m", "bench.one", name, side, str(events)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr}")
    measured: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return measured


def spread(runs: list[dict[str, Any]]) -> str:
    """Median and range of the CPU of some runs."""
    values = [run["cpu"] for run in runs]
    return f"{statistics.median(values):.2f} [{min(values):.2f}-{max(values):.2f}]"


def show_lags(lags: dict[str, list[int]]) -> None:
    """How late timers of the worker's loop were, as shares of all wake-ups."""
    heads = [f"<={limit}" for limit in LAG_LIMITS] + [f">{LAG_LIMITS[-1]}"]
    print("\nlateness of the worker's loop, % of wake-ups, ms" + "".join(f"{head:>8}" for head in heads))
    for name, counts in lags.items():
        total = sum(counts) or 1
        print(f"{name:<48}" + "".join(f"{100 * count / total:>8.1f}" for count in counts))


def show_memory() -> None:
    """Peak memory must not depend on how many events went through."""
    few = measure("memory, Handler, 100 slots", "worker", MEMORY_EVENTS // 10)
    many = measure("memory, Handler, 100 slots", "worker", MEMORY_EVENTS)
    print(
        f"\npeak memory: {few['peak']:.1f} MiB over {MEMORY_EVENTS // 10:,} events, "
        f"{many['peak']:.1f} MiB over {MEMORY_EVENTS:,}"
    )


if __name__ == "__main__":
    main()
