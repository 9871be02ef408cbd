"""Every side in turn, each in a process of its own, and the table of what they cost."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from bench.cloud.payload import SIZE, body
from bench.cloud.stand import Connect, Server, consumer, drained, server

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
QUEUE = "bench"
NAME = 32
"""Columns of a name in a table."""

Command: TypeAlias = Callable[[Server, str], list[str]]
"""How to run a consumer of this queue there."""
Fill: TypeAlias = Callable[[Server, int], None]
"""Puts so many messages into `QUEUE`."""
Goals: TypeAlias = Iterable[tuple[str, bool]]
"""What was to be, and whether it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one process took: CPU µs an event, events a second, MiB."""

    cpu: float
    rate: float
    peak: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to handle events."""

    name: str
    events: int
    fill: Fill
    command: Command

    def run(self, scheme: str) -> Run:
        """On a server of its own."""
        with server(scheme, QUEUE) as at:
            self.fill(at, self.events)
            with consumer(self.command(at, QUEUE), at) as process:
                seconds = drained(at, process, self.events)
                process.stop()
        report = process.report
        return Run(cpu=report["cpu"] / self.events * 1e6, rate=self.events / seconds, peak=report["peak"])


class Pair(NamedTuple):
    """Two runs, one right after the other."""

    run: Run
    raw: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Who runs against whom: each of `sides` beside the loop by hand, `raw`. One of them, `peer`, has a short name."""

    scheme: str
    raw: Side
    sides: tuple[Side, ...]
    peer: Side
    peer_name: str

    def run(self) -> Results:
        """Some rounds, in each of which everybody has a turn."""
        pairs: dict[str, list[Pair]] = {side.name: [] for side in self.sides}
        for number in range(ROUNDS):
            for side in self.sides:
                pairs[side.name].append(self._pair(side, raw_first=number % 2 == 0))
        return Results(self, pairs)

    def _pair(self, side: Side, *, raw_first: bool) -> Pair:
        """A run of `side` right before or after one of the loop by hand: the machine may be another a minute later."""
        raw = self.raw.run(self.scheme) if raw_first else None
        run = side.run(self.scheme)
        return Pair(run, raw or self.raw.run(self.scheme))


@dataclass(frozen=True, slots=True)
class Results:
    """What came of a race."""

    race: Race
    pairs: dict[str, list[Pair]]

    def show(self) -> None:
        """CPU, its ratios, events a second and memory of each side."""
        race = self.race
        heads = ("CPU µs/event", "of raw", f"of {race.peer_name}")
        print(" " * NAME, *(f"{head:>20}" for head in heads), f"{'events/s':>9} {'peak MiB':>9}")
        every = [each.raw for mine in self.pairs.values() for each in mine]
        print(f"{race.raw.name:<{NAME}} {cost(every):>20} {'':>20} {'':>20} {pace(every)}")
        for name, mine in self.pairs.items():
            runs = [each.run for each in mine]
            of_raw, of_peer = spread(self.of_raw(name), ".2f"), spread(self.of_peer(name), ".3f")
            print(f"{name:<{NAME}} {cost(runs):>20} {of_raw:>20} {of_peer:>20} {pace(runs)}")

    def cpu(self, name: str) -> float:
        """CPU µs an event."""
        return statistics.median(each.run.cpu for each in self.pairs[name])

    def of_raw(self, name: str) -> list[float]:
        """CPU as a multiple of that of the loop by hand, pair by pair."""
        return [each.run.cpu / each.raw.cpu for each in self.pairs[name]]

    def of_peer(self, name: str) -> list[float]:
        """CPU as a multiple of that of the peer, round by round."""
        mine, theirs = self.pairs[name], self.pairs[self.race.peer.name]
        return [one.run.cpu / other.run.cpu for one, other in zip(mine, theirs, strict=True)]


def filled(connect: Connect, most: int) -> Fill:
    """Sends the one message again and again, up to `most` in a call."""

    def fill(at: Server, events: int) -> None:
        send = connect(at)
        for start in range(0, events, most):
            send(QUEUE, [body()] * min(most, events - start))

    return fill


def program(module: str, *arguments: str) -> Command:
    """A program of ours, told which queue and what else."""
    return lambda _, queue: [sys.executable, "-m", module, queue, *arguments]


def worker(*arguments: str) -> Command:
    """The worker, told the address of the queue and what else."""
    return lambda at, queue: [sys.executable, "-m", "bench.cloud.worker", at.addresses[queue], *arguments]


def cost(runs: list[Run]) -> str:
    values = [run.cpu for run in runs]
    return spread(values, ".1f" if max(values) < 100 else ".0f")


def pace(runs: list[Run]) -> str:
    return f"{statistics.median(run.rate for run in runs):>9,.0f} {max(run.peak for run in runs):>9.0f}"


def spread(values: list[float], form: str) -> str:
    """Median and range."""
    return f"{statistics.median(values):{form}} [{min(values):{form}}-{max(values):{form}}]"


def introduce(events: str) -> None:
    """The line above all tables; `events` says how many there are."""
    print(f"{ROUNDS} rounds, median [lowest-highest]; {events} of {SIZE} bytes, a handler that does nothing\n")


def show(goals: Goals) -> None:
    """What came of them."""
    lines = [f"  {'met' if met else 'MISSED':<6}  {text}" for text, met in goals]
    print("\ngoals", *lines, sep="\n")
