"""The command line of the simulator."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import msgspec

from eventkit.testing.simulation._minimise import minimise
from eventkit.testing.simulation._plan import Plan, expand
from eventkit.testing.simulation._run import Result, run
from eventkit.testing.simulation._sweep import Found, Sweep, sweep
from eventkit.testing.simulation._switches import SWITCHES
from eventkit.testing.simulation._witness import INVARIANTS

__all__ = ["main"]

SHOWN = 10
"""Violations told in full; of the others, only their seeds."""

ENOUGH = 2000
"""Seeds among which every fault must have happened."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep over seeds, or look closely at one. The exit code: 0, or 1 when an invariant was broken."""
    options = _parser().parse_args(arguments)
    if options.digests:
        for seed in map(int, sys.stdin.read().split()):
            print(run(expand(seed, options.size, options.engine)).digest)
        return 0
    if options.seed is not None:
        return _one(options)
    return _many(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eventkit.testing.simulation",
        description="Runs real workers against a simulated broker, with faults, on simulated time.",
    )
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many seeds to run (1000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (0)")
    parser.add_argument("--size", choices=["large", "small"], default="large", help="3 workers and 40 events, or less")
    parser.add_argument("--engine", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument("--trio-every", type=int, default=0, metavar="N", help="run every Nth seed on trio too")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="processes side by side (one a core)")
    parser.add_argument("--once", action="store_true", help="do not repeat one seed of a hundred elsewhere")
    parser.add_argument("--stop", action="store_true", help="end at the first violation")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--seed", type=int, metavar="SEED", help="run this seed alone, and show its trace")
    parser.add_argument("--lines", type=int, default=50, metavar="N", help="lines of the trace to show (50)")
    parser.add_argument("--minimise", action="store_true", help="with --seed: look for the smallest run that fails so")
    parser.add_argument("--digests", action="store_true", help=argparse.SUPPRESS)
    return parser


# -- one seed ------------------------------------------------------------------------------------------


def _one(options: argparse.Namespace) -> int:
    result = run(expand(options.seed, options.size, options.engine))
    if options.minimise and result.violations:
        result = minimise(result.plan, result.violations[0].invariant, _tell)
    show(result, options.lines)
    return bool(result.violations)


def show(result: Result, lines: int = 50) -> None:
    """Print a run: its options, the end of its trace, and what it broke."""
    plan = result.plan
    print(f"seed {plan.seed}, {plan.size}, {plan.engine}:\n{plan.shown()}\nthe last {lines} lines of its trace:")
    print(result.tail(lines))
    for broken in result.violations[:3]:
        print(f"{broken.invariant} at {broken.at:g} s: {broken.message}\n  ({INVARIANTS[broken.invariant]})")
    if not result.violations:
        print(f"no violation in {result.seconds:g} s of simulated time; digest {result.digest}")


# -- many seeds ----------------------------------------------------------------------------------------


def _many(options: argparse.Namespace) -> int:
    seeds = range(options.first, options.first + options.seeds)
    total = sweep(
        seeds,
        size=options.size,
        engine=options.engine,
        trio_every=options.trio_every,
        jobs=options.jobs,
        twice=not options.once,
        stop=options.stop,
        progress=_Progress(len(seeds)).tell,
    )
    silent = _silent(total, seeds)
    if options.json:
        print(msgspec.json.encode({**msgspec.to_builtins(total), "silent": silent}).decode())
    else:
        _report(total, silent)
    return bool(total.violations or silent)


def _silent(total: Sweep, seeds: range) -> list[str]:
    """Faults that never happened, although there were seeds enough."""
    if len(seeds) < ENOUGH or total.violations:
        return []
    return [name for name in SWITCHES if not total.fired[name]]


def _report(total: Sweep, silent: Sequence[str]) -> None:
    rate = 60.0 * total.seeds / max(total.seconds, 1e-9)
    hours = total.virtual / 3600.0
    print(
        f"{total.seeds} seeds in {total.seconds:.1f} s: {rate:.0f} a minute, {hours:.1f} simulated hours; "
        f"{sum(map(len, total.digests.values()))} repeated in another process; {len(total.violations)} violations"
    )
    print("faults: " + ", ".join(f"{name} {total.fired[name]}" for name in SWITCHES if total.fired[name]))
    if silent:
        print(f"faults that never happened: {', '.join(silent)}")
    for found in total.violations[:SHOWN]:
        print(f"\n{found.invariant} by seed {found.seed} ({found.size}, {found.engine}): {found.message}")
        print(f"  again: python -m eventkit.testing.simulation --seed {found.seed} " + _flags(found))
    if total.violations:
        show(run(_plan(total.violations[0])))
    if len(total.violations) > SHOWN:
        print("more: " + ", ".join(f"{found.seed} ({found.invariant})" for found in total.violations[SHOWN:]))


def _plan(found: Found) -> Plan:
    return expand(found.seed, found.size, found.engine)


def _flags(found: Found) -> str:
    return f"--size {found.size} --engine {found.engine}"


class _Progress:
    """A line to standard error for each tenth of the way, and for each violation as it is found."""

    def __init__(self, seeds: int) -> None:
        self._seeds = seeds
        self._next = 0.1
        self._told = 0

    def tell(self, total: Sweep) -> None:
        """Say how far the sweep is."""
        for found in total.violations[self._told :][:SHOWN]:
            _tell(f"{found.invariant} by seed {found.seed} ({found.size}, {found.engine}): {found.message}")
        self._told = len(total.violations)
        if self._seeds >= ENOUGH and total.seeds >= self._next * self._seeds:
            self._next += 0.1
            _tell(f"{total.seeds} seeds, {len(total.violations)} violations, {total.seconds:.0f} s")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
