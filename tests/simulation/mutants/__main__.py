"""`python -m tests.simulation.mutants`: break the core in each known way, and see that the simulator notices.

By default every mutant runs from seed 0, the small scenario first, until it is noticed. With `--known` each runs at
the seed in `first_kills.toml` alone. The core as it is must be green on the same seeds. The exit code is 1 when a
mutant survives, or is noticed by an invariant that it does not break, or when the core itself is not green.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

from tests.simulation.mutants.patches import Mutant, PatchError, find
from tests.simulation.mutants.trials import (
    SIZES,
    Kill,
    Seeds,
    TrialError,
    copied,
    known_kills,
    search,
    simulate,
    write_kills,
)

GAP = 10
"""Seeds between two known ones that are run along, rather than starting another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of one mutant."""

    mutant: Mutant
    kill: Kill | None = None
    seconds: float = 0.0
    problem: str = ""

    @property
    def verdict(self) -> str:
        """What is wrong with it; empty when it was killed as it should be."""
        if self.problem:
            return self.problem
        if self.kill is None:
            return "SURVIVED"
        if self.kill.invariant not in self.mutant.expects:
            return f"UNEXPECTED: {self.kill.message or 'by this invariant'}"
        return ""

    def __str__(self) -> str:
        kill = self.kill
        found = f"{kill.size:5} {kill.seed:5}  {kill.invariant:9}" if kill else f"{'-':>11}  {'-':9}"
        return f"{self.mutant.name:42} {found} {self.seconds:7.1f} s  {self.verdict}".rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _options(arguments)
    began = time.monotonic()
    try:
        mutants = find(options.only)
    except PatchError as exc:
        print(exc, file=sys.stderr)
        return 1
    known = known_kills()
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = []
        for row in pool.map(lambda mutant: _tried(mutant, known.get(mutant.name), options), mutants):
            rows.append(row)
            print(row, flush=True)
        kills = {row.mutant.name: row.kill for row in rows if row.kill and not row.verdict}
        unmutated = _merged(kills.values()) if options.known else _from_zero(kills.values())
        reds = [red for found in pool.map(lambda seeds: _red(seeds, options.limit), unmutated) for red in found]
    if options.write:
        names = {mutant.name for mutant in find()}
        # Read again: another search may have written meanwhile.
        write_kills({name: kill for name, kill in {**known_kills(), **kills}.items() if name in names})
    _sum_up(rows, unmutated, reds, time.monotonic() - began)
    return int(bool(reds) or any(row.verdict for row in rows))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.mutants", description="Break the core on purpose; the simulator must notice."
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="this mutant; may be given more than once")
    parser.add_argument("--known", action="store_true", help="each mutant at its known seed alone")
    parser.add_argument("--write", action="store_true", help="write the seeds found into first_kills.toml")
    parser.add_argument("--seeds", type=int, default=2000, help="seeds to search, from 0 (default: 2000)")
    parser.add_argument("--sizes", nargs="+", default=SIZES, choices=SIZES, help="scenarios to search, in this order")
    parser.add_argument("--engine", default="asyncio", choices=("asyncio", "trio"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants side by side (default: cores)")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds one search of the simulator may take")
    return parser.parse_args(arguments)


def _tried(mutant: Mutant, known: Kill | None, options: argparse.Namespace) -> Row:
    if options.known and known is None:
        return Row(mutant=mutant, problem="no known seed: run with --write")
    if options.known and known is not None:
        seeds = [known.seeds]
    else:
        seeds = [Seeds(count=options.seeds, size=size, engine=options.engine) for size in options.sizes]
    try:
        kill, seconds = search(mutant, seeds, limit=options.limit)
    except (PatchError, TrialError) as exc:
        return Row(mutant=mutant, problem=str(exc))
    return Row(mutant=mutant, kill=kill, seconds=seconds)


def _red(seeds: Seeds, limit: float) -> list[str]:
    """The violations of the core as it is."""
    try:
        with copied() as root:
            return [
                f"{kill.size} {kill.engine} {kill.seed} {kill.invariant}: {kill.message}"
                for kill in simulate(root, seeds, limit=limit)
            ]
    except TrialError as exc:
        return [f"{seeds.size} {seeds.engine} from {seeds.first}: {exc}"]


def _from_zero(kills: Iterable[Kill]) -> list[Seeds]:
    """Every seed up to the last that a mutant needed, a scenario at a time."""
    merged = _by_scenario(kills)
    return [Seeds(count=max(seeds) + 1, size=size, engine=engine) for size, engine, seeds in merged]


def _merged(kills: Iterable[Kill]) -> list[Seeds]:
    """The seeds of these kills, those close together as one run of the simulator."""
    return [
        Seeds(first=first, count=last - first + 1, size=size, engine=engine)
        for size, engine, seeds in _by_scenario(kills)
        for first, last in _spans(seeds)
    ]


def _by_scenario(kills: Iterable[Kill]) -> Iterator[tuple[str, str, list[int]]]:
    ordered = sorted(kills, key=lambda kill: (kill.size, kill.engine, kill.seed))
    for (size, engine), group in groupby(ordered, key=lambda kill: (kill.size, kill.engine)):
        yield size, engine, [kill.seed for kill in group]


def _spans(seeds: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = seeds[0]
    for seed in seeds:
        if seed > last + GAP:
            yield first, last
            first = seed
        last = seed
    yield first, last


def _sum_up(rows: Sequence[Row], unmutated: Sequence[Seeds], reds: Sequence[str], seconds: float) -> None:
    killed = [row for row in rows if not row.verdict]
    print(f"\n{len(killed)} of {len(rows)} mutants killed, in {seconds:.0f} s")
    for row in rows:
        if row.verdict:
            print(f"  {row.mutant.name}: {row.verdict}\n    {row.mutant.breaks}")
    seeds = sum(some.count for some in unmutated)
    print(f"the core as it is: {'NOT green' if reds else 'green'} on the same {seeds} seeds")
    for red in reds:
        print(f"  {red}")


if __name__ == "__main__":
    sys.exit(main())
