"""The command: figures for those who publish them, and everything one needs about a seed that fails."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventkit._pipeline.inflight import InFlight
from eventkit._pipeline.judge import Judge
from eventkit.testing.simulation import _minimise
from eventkit.testing.simulation._command import ENOUGH, _silent, main
from eventkit.testing.simulation._minimise import minimise
from eventkit.testing.simulation._plan import expand
from eventkit.testing.simulation._run import run
from eventkit.testing.simulation._sweep import Found, Sweep, sweep
from eventkit.testing.simulation._switches import SWITCHES
from eventkit.testing.simulation._witness import INVARIANTS

HERE = ("--jobs", "1", "--size", "small")
"""In this process, so that it may be patched."""


@pytest.fixture
def broken_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was handled is given up: noticed in nearly every run, whatever its faults."""

    def handled(judge: Judge, entries: Sequence[InFlight]) -> None:
        for entry in entries:
            judge.rejected(entry, "by mistake")

    monkeypatch.setattr(Judge, "handled", handled)


@pytest.fixture
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two neighbours are enough for a defect that shows at once."""
    monkeypatch.setattr(_minimise, "NEIGHBOURS", 2)


def failing() -> int:
    """A seed with faults that the broken core fails at."""
    return next(
        seed
        for seed in range(100)
        if len((plan := expand(seed, "small")).faults) > 3
        and [broken.invariant for broken in run(plan).violations[:1]] == ["I7"]
    )


# -- a sweep -------------------------------------------------------------------------------------


def test_a_sweep_ends_well_and_states_its_figures(tmp_path: Path) -> None:
    """The whole way, as it is written in the documentation: processes, progress and a repeated seed included."""
    command = [sys.executable, "-m", "eventkit.testing.simulation", "--seeds", "5", "--size", "small", "--jobs", "1"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    figures, faults = done.stdout.splitlines()
    assert re.fullmatch(
        r"5 seeds in \d+\.\d s: \d+ a minute, \d+\.\d simulated hours; "
        r"1 repeated in another process; 0 violations",
        figures,
    )
    counts = dict(fault.rsplit(" ", 1) for fault in faults.removeprefix("faults: ").split(", "))
    assert counts.keys() <= SWITCHES.keys()
    assert all(int(count) > 0 for count in counts.values())


def test_a_sweep_prints_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """A report collects the figures of many."""
    assert main([*HERE, "--seeds", "4", "--first", "1", "--trio-every", "2", "--json"]) == 0

    figures = msgspec.json.decode(capsys.readouterr().out)
    assert figures["seeds"] == 6
    assert figures["virtual"] > 0 < figures["seconds"]
    assert (figures["violations"], figures["silent"]) == ([], [])
    assert figures["fired"].keys() <= SWITCHES.keys()


def test_a_sweep_may_run_on_trio_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """The second engine finds what leans on the first."""
    assert main([*HERE, "--seeds", "2", "--engine", "trio", "--once"]) == 0
    assert capsys.readouterr().out.startswith("2 seeds in ")


def test_several_processes_come_to_the_same_sum() -> None:
    """Which process runs a seed decides nothing."""
    alone, together = (sweep(range(1, 9), size="small", jobs=jobs) for jobs in (1, 2))
    alone.seconds = together.seconds = 0.0

    assert together == alone


# -- a sweep that finds something ----------------------------------------------------------------


@pytest.mark.usefixtures("broken_core")
def test_a_seed_that_fails_is_shown_with_its_options_and_the_end_of_its_trace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All that is needed to understand it, and the line that runs it again."""
    seed = failing()
    assert main([*HERE, "--seeds", "1", "--first", str(seed)]) == 1

    out, told = capsys.readouterr()
    plan = expand(seed, "small")
    assert told.startswith(f"I7 by seed {seed} (small, asyncio): event ")
    assert "1 violations" in out
    assert f"\nI7 by seed {seed} (small, asyncio): event " in out
    assert f"again: python -m eventkit.testing.simulation --seed {seed} --size small --engine asyncio" in out
    assert plan.shown() in out
    assert INVARIANTS["I7"] in out
    assert "VIOLATES I7" in out
    assert 1 < len(trace_in(out)) <= 50


@pytest.mark.usefixtures("broken_core")
def test_many_seeds_that_fail_are_counted_and_ten_of_them_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A broken core fails at every seed: nobody reads a thousand reports."""
    assert main([*HERE, "--seeds", "20", "--once"]) == 1

    out = capsys.readouterr().out
    assert out.count(" by seed ") == 10
    assert re.search(r"^more: \d+ \(I\d+\), ", out, re.MULTILINE)


@pytest.mark.usefixtures("broken_core")
def test_a_sweep_may_stop_at_the_first_violation(capsys: pytest.CaptureFixture[str]) -> None:
    """While looking for any seed that fails."""
    assert main([*HERE, "--seeds", "40", "--stop", "--json"]) == 1

    figures = msgspec.json.decode(capsys.readouterr().out)
    assert len(figures["violations"]) == 1
    assert figures["seeds"] < 40


# -- one seed ------------------------------------------------------------------------------------


def trace_in(out: str) -> list[str]:
    return re.findall(r"^ +\d+\.\d{4}  w\d.*$", out, re.MULTILINE)


@pytest.mark.parametrize(("options", "lines"), [([], 50), (["--lines", "7"], 7)])
def test_one_seed_is_shown_whole(capsys: pytest.CaptureFixture[str], options: list[str], lines: int) -> None:
    """Also one that is green: to see what it plays."""
    assert main([*HERE, "--seed", "3", *options]) == 0

    out = capsys.readouterr().out
    assert out.startswith("seed 3, small, asyncio:\n" + expand(3, "small").shown())
    assert len(trace_in(out)) == lines
    assert f"digest {run(expand(3, 'small')).digest}" in out


@pytest.mark.usefixtures("broken_core")
def test_one_seed_that_fails_ends_badly(capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts that search."""
    assert main([*HERE, "--seed", str(failing())]) == 1
    assert re.search(r"^I7 at [\d.]+ s: event ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.usefixtures("broken_core", "shrunk")
def test_a_seed_that_fails_is_made_small(capsys: pytest.CaptureFixture[str]) -> None:
    """A defect that needs no fault is left with none, and with one event and one worker."""
    assert main([*HERE, "--seed", str(failing()), "--minimise"]) == 1

    out, told = capsys.readouterr()
    assert "  events = 1\n" in out
    assert "  workers = 1\n" in out
    assert "  fault " not in out
    assert "still breaks I7" in told


@pytest.mark.usefixtures("broken_core", "shrunk")
def test_what_is_left_after_shrinking_breaks_the_same_promise() -> None:
    """Not some other one that a smaller world happens to break."""
    steps: list[str] = []
    result = minimise(expand(failing(), "small"), "I7", steps.append)

    assert "I7" in {broken.invariant for broken in result.violations}
    assert run(result.plan).digest == result.digest
    assert steps


def test_a_seed_that_does_not_fail_cannot_be_made_small() -> None:
    """A wrong number is no reason to search for minutes."""
    with pytest.raises(ValueError, match="seed 3 does not break I2"):
        minimise(expand(3, "small"), "I2", print)


# -- faults that never happen --------------------------------------------------------------------


def total(*silent: str, **changes: Any) -> Sweep:
    fired = Counter({name: 1 for name in SWITCHES if name not in silent})
    return msgspec.structs.replace(Sweep(fired=fired), **changes)


def test_a_fault_that_never_happened_among_many_seeds_is_an_error() -> None:
    """It would be a promise without a test."""
    assert _silent(total(), range(ENOUGH)) == []
    assert _silent(total("freeze", "late"), range(ENOUGH)) == ["late", "freeze"]


def test_few_seeds_need_not_see_every_fault() -> None:
    """A rare one may well not have happened yet, nor when a sweep ends early."""
    found = Found(seed=1, size="small", engine="asyncio", invariant="I1", message="")

    assert _silent(total("freeze"), range(ENOUGH - 1)) == []
    assert _silent(total("freeze", violations=[found]), range(ENOUGH)) == []


def test_a_fault_that_never_happened_fails_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its exit code, and by name: one seed cannot have them all."""
    monkeypatch.setattr("eventkit.testing.simulation._command.ENOUGH", 1)

    assert main([*HERE, "--seeds", "1", "--once"]) == 1
    assert "faults that never happened: " in capsys.readouterr().out
