"""`make bench-sqs`: every side in turn, each in a process of its own, and what came of the goals."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bench.sqs import latency
from bench.sqs.payload import SIZE, body
from bench.sqs.stand import ROOT, Server, consumer, drained, server

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
EVENTS = int(os.environ.get("BENCH_SQS_EVENTS", "20000"))
CELERY_EVENTS = int(os.environ.get("BENCH_SQS_CELERY_EVENTS", str(EVENTS // 10)))
MESSAGES = int(os.environ.get("BENCH_SQS_MESSAGES", "200"))
PEERS = ROOT / ".venv-peers/bin/python"
QUEUE = "bench"

MOST_OF_RAW = 1.25
MOST_OF_CELERY = 1 / 8
MOST_LATER = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one process took: CPU µs an event, events a second, MiB."""

    cpu: float
    rate: float
    peak: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to handle events. `command` gets the server's endpoint."""

    name: str
    events: int
    fill: Callable[[Server, int], None]
    command: Callable[[Server], list[str]]

    def run(self) -> Run:
        """On a server of its own."""
        with server(QUEUE) as at:
            self.fill(at, self.events)
            with consumer(self.command(at), at) as process:
                seconds = drained(at, process, self.events)
                process.stop()
        report = process.report
        return Run(cpu=report["cpu"] / self.events * 1e6, rate=self.events / seconds, peak=report["peak"])


class Pair(NamedTuple):
    """Two runs, one right after the other."""

    run: Run
    raw: Run


def send(at: Server, events: int) -> None:
    """Fill the queue in batches of ten."""
    for start in range(0, events, 10):
        at.send(QUEUE, [body()] * min(10, events - start))


def send_tasks(at: Server, events: int) -> None:
    """Fill the queue with Celery's messages."""
    subprocess.run(
        [*celery(at), "fill", str(events), body()], cwd=ROOT, env=os.environ | at.environment, check=True, timeout=600
    )


def celery(at: Server) -> list[str]:
    return [str(PEERS), "-m", "bench.sqs.celery_worker", at.endpoint, QUEUE]


def by(module: str, *arguments: str) -> Callable[[Server], list[str]]:
    """Runs a module of this package in this environment."""
    return lambda _: [sys.executable, "-m", f"bench.sqs.{module}", QUEUE, *arguments]


RAW = Side(name="aiobotocore by hand", events=EVENTS, fill=send, command=by("raw", "nothing"))
WORKERS = (
    Side(name="worker, Handler", events=EVENTS, fill=send, command=by("worker", "Single")),
    Side(name="worker, Handler, 80 in flight", events=EVENTS, fill=send, command=by("worker", "Single", "80")),
    Side(name="worker, BatchHandler", events=EVENTS, fill=send, command=by("worker", "Batches")),
)
CELERY = Side(
    name="Celery, prefork of 2", events=CELERY_EVENTS, fill=send_tasks, command=lambda at: [*celery(at), "run"]
)


def main() -> None:
    """Print one table of cost, one of latency, and the goals."""
    if not PEERS.exists():
        sys.exit("Celery has no environment yet: make bench-sqs makes it")
    print(
        f"{ROUNDS} rounds, median [lowest-highest]; {EVENTS:,} events of {SIZE} bytes ({CELERY_EVENTS:,} for Celery), "
        "a handler that does nothing\n"
    )
    sides = (*WORKERS, CELERY)
    pairs: dict[str, list[Pair]] = {side.name: [] for side in sides}
    for number in range(ROUNDS):
        for side in sides:
            pairs[side.name].append(pair(side, raw_first=number % 2 == 0))
    show_cost(pairs)
    goals = [*cost_goals(pairs), *latency_goals(latency.measure(MESSAGES))]
    print("\ngoals")
    for text, met in goals:
        print(f"  {'met' if met else 'MISSED':<6}  {text}")


def pair(side: Side, *, raw_first: bool) -> Pair:
    """A run of `side` right before or after one of the loop by hand: the machine may be another a minute later."""
    raw = RAW.run() if raw_first else None
    run = side.run()
    return Pair(run, raw or RAW.run())


def show_cost(pairs: dict[str, list[Pair]]) -> None:
    """CPU, its ratios, events a second and memory of each side."""
    print(f"{'':<30} {'CPU µs/event':>20} {'of raw':>20} {'of Celery':>20} {'events/s':>9} {'peak MiB':>9}")
    every = [each.raw for mine in pairs.values() for each in mine]
    print(f"{RAW.name:<30} {cost(every):>20} {'':>20} {'':>20} {pace(every)}")
    for name, mine in pairs.items():
        runs = [each.run for each in mine]
        of_raw, of_celery = spread(of_hand(mine), ".2f"), spread(ratios(mine, pairs[CELERY.name]), ".3f")
        print(f"{name:<30} {cost(runs):>20} {of_raw:>20} {of_celery:>20} {pace(runs)}")


def cost(runs: list[Run]) -> str:
    return spread([run.cpu for run in runs], ".0f")


def pace(runs: list[Run]) -> str:
    return f"{statistics.median(run.rate for run in runs):>9,.0f} {max(run.peak for run in runs):>9.0f}"


def cost_goals(pairs: dict[str, list[Pair]]) -> Iterator[tuple[str, bool]]:
    """Each way to run the worker, against both."""
    for side in WORKERS:
        mine = pairs[side.name]
        of_raw, of_celery = statistics.median(of_hand(mine)), statistics.median(ratios(mine, pairs[CELERY.name]))
        yield f"{side.name}: {of_raw:.2f} times the CPU by hand, at most {MOST_OF_RAW}", of_raw <= MOST_OF_RAW
        yield f"{side.name}: {of_celery:.3f} of Celery's CPU, at most {MOST_OF_CELERY}", of_celery <= MOST_OF_CELERY


def latency_goals(late: dict[str, list[float]]) -> Iterator[tuple[str, bool]]:
    """Print the table of latency, too."""
    print(f"\n{'from send to handler, idle, ms':<30}" + "".join(f"{f'p{share}':>8}" for share in latency.SHARES))
    found = {name: latency.percentiles(values) for name, values in late.items()}
    found["difference"] = {share: found["worker"][share] - found["raw"][share] for share in latency.SHARES}
    for name, values in found.items():
        print(f"{name:<30}" + "".join(f"{value:>8.2f}" for value in values.values()))
    worst = max(found["difference"].values())
    yield f"latency of the idle worker: {worst:+.2f} ms at worst of these, at most {MOST_LATER:g}", worst <= MOST_LATER


def of_hand(mine: list[Pair]) -> list[float]:
    """CPU as a multiple of that of the loop by hand, pair by pair."""
    return [each.run.cpu / each.raw.cpu for each in mine]


def ratios(mine: list[Pair], others: list[Pair]) -> list[float]:
    """Of CPU, round by round."""
    return [one.run.cpu / other.run.cpu for one, other in zip(mine, others, strict=True)]


def spread(values: list[float], form: str) -> str:
    """Median and range."""
    return f"{statistics.median(values):{form}} [{min(values):{form}}-{max(values):{form}}]"


if __name__ == "__main__":
    main()
