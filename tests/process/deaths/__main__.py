"""Kill, drain and stop real workers: `python -m tests.process.deaths --kills 100 --terms 50 --stops 10 --seed 7`.

Everything random is drawn from `--seed`: what is published, how each worker is set up, and at which instants it is
hit. The instants are real time, so two runs of one seed hit the same workers after the same delays, and not at the
same lines of code: to see a failure again, repeat its round some times.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path

from tests.process.deaths import ledger
from tests.process.deaths.kills import kill_round
from tests.process.deaths.lives import ERRORS, Lives, lives, raise_when_told_to_end
from tests.process.deaths.rounds import Round, Tally
from tests.process.deaths.stops import stop_round
from tests.process.deaths.terms import term_round
from tests.process.deaths.worker import Options

MOST_KILLS = 25
MOST_TERMS = 13
SHAPES = 4
"""Rounds it takes to meet each of: in order or not, one worker or two."""

SHOWN = 30
"""Last lines of the ledger that a failure shows."""

REPORT_EVERY = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One round to come; `amount` is how many kills, terms or stops it has."""

    kind: str
    number: int
    amount: int

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.number}"

    def __str__(self) -> str:
        return f"{self.name}:{self.amount}"

    @classmethod
    def parse(cls, text: str) -> Planned:
        """The opposite of `str`. Raises ValueError."""
        kind, number, amount = text.replace(":", "/").split("/")
        return cls(kind=kind, number=int(number), amount=int(amount))


def planned(kills: int, terms: int, stops: int) -> Iterator[Planned]:
    """The rounds, in order: sizes as even as can be, each shape met where there is enough to share out."""
    for kind, amount, most in (("kills", kills, MOST_KILLS), ("terms", terms, MOST_TERMS), ("stops", stops, 1)):
        rounds = min(amount, max(SHAPES, math.ceil(amount / most)))
        for number in range(rounds):
            share = amount // rounds + (number < amount % rounds)
            yield Planned(kind=kind, number=number, amount=share)


def play(plan: Planned, seed: int, folder: Path) -> Round:
    """One round, in a folder of its own, which is removed unless something was wrong."""
    here = folder / plan.name.replace("/", "-")
    here.mkdir()
    with lives(here) as born:
        round = _round(plan, seed, here, born)
        try:
            if plan.kind == "kills":
                kill_round(round, plan.amount)
            elif plan.kind == "terms":
                term_round(round, plan.amount, cut=plan.number % 3 == 2)
            else:
                stop_round(round, in_ack=plan.number % 4 < 2)
        except Exception as exc:  # noqa: BLE001 - what went wrong here is told with the round it went wrong in
            round.problems.append(f"the harness failed: {type(exc).__name__}: {exc}")
    round.tally.problems = len(round.problems)
    if not round.problems:
        shutil.rmtree(here)
    return round


def _round(plan: Planned, seed: int, folder: Path, born: Lives) -> Round:
    return Round(
        name=plan.name,
        seed=seed,
        folder=folder,
        lives=born,
        ordered=plan.number % 2 == 1,
        workers=2 if plan.kind == "stops" else 1 + plan.number // 2 % 2,
        options=Options(),
    )


def tell(round: Round, plan: Planned) -> None:
    """What went wrong in a round, and how to see it again."""
    print(f"\nFAILED: round {plan.name} of seed {round.seed}; its files: {round.folder}")
    for problem in round.problems:
        print(f"  {problem}")
    for life in round.lives.all:
        print(f"  worker {life.number}: pid {life.pid}, {'stopped, ' if life.stopped else ''}ended with {life.code}")
    print(f"last of {ledger.NAME} (what, event, worker, pid, attempt, at):")
    for line in ledger.read(round.folder)[-SHOWN:]:
        print(f"  {line.at:.4f} {line.what:<10} {line.event:>5} {line.life:>3} {line.pid} {line.attempt}")
    errors = round.folder / ERRORS
    if errors.exists() and (text := errors.read_text()):
        print(f"last of {ERRORS}:\n{text[-3000:]}")
    print(f"again: python -m tests.process.deaths --seed {round.seed} --only {plan}\n")


class Progress:
    """A line that is written over on a terminal; elsewhere one per 100 deaths."""

    def __init__(self) -> None:
        self._told = time.monotonic()
        self._hundreds = 0

    def show(self, tally: Tally) -> None:
        text = f"{tally.kills} kills, {tally.terms} terms, {tally.stops} stops; {tally.lost} lost"
        hundreds = (tally.kills + tally.terms + tally.stops) // 100
        if sys.stdout.isatty() and time.monotonic() - self._told > REPORT_EVERY:
            print(f"\r{text} ", end="", flush=True)
            self._told = time.monotonic()
        elif not sys.stdout.isatty() and hundreds > self._hundreds:
            print(text, flush=True)
        self._hundreds = hundreds


def summary(tally: Tally, seconds: float) -> Iterator[str]:
    """What to print at the end."""
    if tally.kills:
        yield (
            f"SIGKILL  {tally.kills} kills ({tally.kills_at_work} at work, {tally.kills_in_drain} in a drain), "
            f"{tally.kill_doubles} doubles, {tally.kill_doubles / tally.kills:.2f} a kill; "
            f"{tally.kill_seconds:.1f} s, {tally.kills * 60 / tally.kill_seconds:.0f} kills a minute"
        )
    if tally.terms:
        yield (
            f"SIGTERM  {tally.terms} drains ({tally.terms_cut} cut; {tally.terms_before_start} more before the worker "
            f"was up), {tally.term_doubles} doubles; slowest exit {tally.worst_exit:.2f} s, slowest to begin "
            f"{tally.worst_reaction:.2f} s; {tally.term_seconds:.1f} s"
        )
    if tally.stops:
        yield (
            f"SIGSTOP  {tally.stops} stops ({tally.stops_in_transaction} more in a transaction), {tally.overtaken} "
            f"events taken over, {tally.stale_settles} settled too late, {tally.stop_doubles} doubles; "
            f"{tally.stop_seconds:.1f} s"
        )
    yield (
        f"deaths: {tally.kills} kills, {tally.terms} terms, {tally.stops} stops, {tally.events} events, "
        f"{tally.lost} lost, {tally.problems} problems, {seconds:.0f} s"
    )


def main() -> int:
    """Play the rounds; 0, or 1 when something was wrong."""
    options = _options()
    raise_when_told_to_end()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what is told in a long run is seen at once, in a file too
    plans = [options.only] if options.only else planned(options.kills, options.terms, options.stops)
    began, tally, progress = time.monotonic(), Tally(), Progress()
    folder = Path(tempfile.mkdtemp(prefix="eventkit-deaths-", dir=options.folder))
    try:
        for plan in plans:
            round = play(plan, options.seed, folder)
            tally.add(round.tally)
            progress.show(tally)
            if round.problems:
                tell(round, plan)
    finally:
        if not tally.problems:
            shutil.rmtree(folder)
    seconds = time.monotonic() - began
    print(json.dumps(asdict(tally)) if options.json else "\n".join(summary(tally, seconds)))
    return 1 if tally.problems else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.process.deaths", description="Kill, drain and stop real workers on SQLite files."
    )
    parser.add_argument("--kills", type=int, default=100, help="SIGKILL (default 100)")
    parser.add_argument("--terms", type=int, default=50, help="SIGTERM (default 50)")
    parser.add_argument("--stops", type=int, default=10, help="SIGSTOP for longer than the lease (default 10)")
    parser.add_argument("--seed", type=int, default=7, help="where everything random comes from (default 7)")
    parser.add_argument("--only", type=Planned.parse, metavar="ROUND", help="one round, as a failure names it")
    parser.add_argument("--folder", type=Path, help="where the files of the rounds are made (default: the system's)")
    parser.add_argument("--json", action="store_true", help="print the sums as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
