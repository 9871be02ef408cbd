"""A round: one queue file, the workers that live and die on it, and what must hold when it has been worked off."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from random import Random
from typing import Final

from tests.process.deaths import audit, ledger, queue_file
from tests.process.deaths.ledger import Line
from tests.process.deaths.lives import ERRORS, Life, Lives
from tests.process.deaths.queue_file import Published
from tests.process.deaths.worker import Options, work

PATIENCE: Final = 20.0
"""Seconds undisturbed workers get to work off what is left."""

GATE_PATIENCE: Final = 60.0
"""Seconds more, where a batch of nothing but poison has closed the gate: by design it is probed now and then."""

AFTER_DRAIN: Final = 5.0
"""Seconds a worker may take beyond its drain budget: cut handlers end, the last settlements are sent."""

QUICK: Final = 0.001
"""Seconds a handler takes for an event, at most, once nobody is killed any more."""

KEYS: Final = 12


@dataclass(kw_only=True)
class Tally:
    """What was done and seen. `worst_` fields are the largest seen, in seconds; all others are sums."""

    rounds: int = 0
    events: int = 0
    kills: int = 0
    kills_in_drain: int = 0
    kills_at_work: int = 0
    kill_doubles: int = 0
    kill_seconds: float = 0.0
    terms: int = 0
    terms_before_start: int = 0
    terms_cut: int = 0
    term_doubles: int = 0
    term_seconds: float = 0.0
    worst_exit: float = 0.0
    worst_reaction: float = 0.0
    stops: int = 0
    stops_in_transaction: int = 0
    overtaken: int = 0
    stale_settles: int = 0
    stop_doubles: int = 0
    stop_seconds: float = 0.0
    lost: int = 0
    leases_lost_awake: int = 0
    problems: int = 0

    def add(self, other: Tally) -> None:
        """Take in what another round saw."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            worst = each.name.startswith("worst_")
            setattr(self, each.name, max(mine, theirs) if worst else mine + theirs)


@dataclass(kw_only=True)
class Round:
    """What the three kinds of round share. `name` and `seed` say everything that is random about it, but the clock."""

    name: str
    seed: int
    folder: Path
    lives: Lives
    ordered: bool
    workers: int
    options: Options
    rng: Random = field(init=False)
    published: list[Published] = field(init=False)
    tally: Tally = field(default_factory=lambda: Tally(rounds=1))
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = Random(f"{self.seed}/{self.name}")
        self.published = []
        if self.ordered:
            self.options = replace(self.options, ordering="key")

    def publish(self, amount: int, kinds: str = "good " * 24 + "flaky flaky poison unwanted") -> None:
        """Fill the queue. `kinds` are drawn from evenly."""
        choices = kinds.split()
        for n in range(amount):
            key = f"key-{self.rng.randrange(KEYS)}" if self.ordered or self.rng.random() < 0.2 else None
            route = self.rng.choice(("single", "batch"))
            self.published.append(Published(n, self.rng.choice(choices), route, key))
        queue_file.publish(self.folder, self.published)
        self.tally.events += amount

    def born(self, options: Options | None = None) -> Life:
        """Start one worker."""
        chosen = options or self.options

        def live(number: int) -> int:
            return work(self.folder, number, chosen, Random(f"{self.seed}/{self.name}/{number}"))

        return self.lives.born(live)

    def lines(self) -> list[Line]:
        """The ledger so far."""
        return ledger.read(self.folder)

    def lines_of(self, life: Life) -> list[Line]:
        """What one worker has written down."""
        return [line for line in self.lines() if line.life == life.number]

    def ended_before_start(self, life: Life) -> bool:
        """Whether SIGTERM came before there was a worker in the process: it wrote nothing, and had nothing in hand."""
        return life.code == -signal.SIGTERM and not self.lines_of(life)

    def wait_for(self, happened: Callable[[], bool], patience: float) -> bool:
        """Look again and again; False when it had not happened after `patience` seconds."""
        until = time.monotonic() + patience
        while not happened():
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        return True

    def next_line(self, patience: float) -> bool:
        """Wait until something happens."""
        before = ledger.size(self.folder)
        return self.wait_for(lambda: ledger.size(self.folder) > before, patience)

    def drained(self, life: Life, *, codes: tuple[int, ...] = (0,), told: float | None = None) -> None:
        """Wait for the end of a worker that got SIGTERM, at `told` on the monotonic clock."""
        told = time.monotonic() if told is None else told
        budget = self.options.drain + AFTER_DRAIN
        code = life.ended(budget)
        self.tally.worst_exit = max(self.tally.worst_exit, time.monotonic() - told)
        if code is None:
            self.problems.append(f"worker {life.number} still runs {budget:g} s after SIGTERM")
        elif code not in codes:
            self.problems.append(f"worker {life.number} ended with {code} after SIGTERM; see {ERRORS}")

    def check_lost(self) -> None:
        """P1, P2 at this instant, workers alive or not."""
        contents = queue_file.look(self.folder)
        if missing := audit.lost(self.published, contents, self.lines()):
            self.tally.lost += len(missing)
            self.problems.append(f"LOST: left the queue without effect or dead letter: {missing}")

    def finish(self) -> None:
        """Work off what is left with undisturbed workers, end them, and look at everything."""
        self._work_off()
        for life in self.lives.alive:
            life.send(signal.SIGTERM)
        told = time.monotonic()
        for life in self.lives.alive:
            self.drained(life, told=told)
        self.check_lost()
        contents, lines = queue_file.look(self.folder), self.lines()
        broken = {life.number for life in self.lives.all if life.killed or life.stopped}
        self.problems += audit.at_the_end(
            self.published,
            contents,
            lines,
            broken=broken,
            ordered=self.ordered,
            source=queue_file.address(self.folder),
        )
        if (state := queue_file.integrity(self.folder)) != "ok":
            self.problems.append(f"the file is damaged: {state}")
        self.tally.leases_lost_awake += sum(
            line.what in ("lost", "stale") and line.life not in broken for line in lines
        )

    def _work_off(self) -> None:
        options = replace(self.options, pace=QUICK, pace_again=QUICK, drain=2.0)
        while len(self.lives.alive) < self.workers:
            self.born(options)
        if not (self._emptied(PATIENCE) or (self._gate_closed() and self._emptied(GATE_PATIENCE))):
            self.problems.append(f"{queue_file.left(self.folder)} events are not worked off after {PATIENCE:g} s")
        here = {life.number for life in self.lives.alive}
        self.wait_for(lambda: here <= {line.life for line in self.lines() if line.what == "up"}, PATIENCE)

    def _emptied(self, patience: float) -> bool:
        return self.wait_for(lambda: not queue_file.left(self.folder), patience)

    def _gate_closed(self) -> bool:
        return any(line.what == "gate" for line in self.lines())
