"""Trials: the simulator on a copy of the package, mutated or not, and the first seeds at which it noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.mutants.patches import FOLDER, Mutant, copy_package, mutated

__all__ = ["Kill", "Seeds", "TrialError", "copied", "known_kills", "search", "simulate", "write_kills"]

KILLS = FOLDER / "first_kills.toml"
SIZES = ("small", "large")
"""In the order in which they are searched: a small run costs a fraction of a large one."""


class TrialError(Exception):
    """The simulator gave no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Which runs to make: `count` seeds from `first`."""

    first: int = 0
    count: int = 1
    size: str = "small"
    engine: str = "asyncio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """The run in which the simulator noticed, and by which invariant."""

    size: str
    engine: str
    seed: int
    invariant: str
    message: str = ""

    @property
    def seeds(self) -> Seeds:
        """That run alone."""
        return Seeds(first=self.seed, size=self.size, engine=self.engine)


@contextmanager
def copied(mutant: Mutant | None = None) -> Iterator[Path]:
    """A folder with a copy of the package, broken if there is a mutant, for the time of the context."""
    with tempfile.TemporaryDirectory(prefix="eventkit-mutant-") as folder:
        root = Path(folder).resolve()
        copy_package(root)
        if mutant is not None:
            for path, text in mutated(mutant, root).items():
                path.write_text(text)
        yield root


def simulate(root: Path, seeds: Seeds, *, limit: float) -> list[Kill]:
    """Run the simulator of the copy below `root`, up to the first violation. Raises TrialError.

    `limit` is in seconds: a mutant may never come to an end.
    """
    _require_copy(root)
    options = {
        "--first": seeds.first,
        "--seeds": seeds.count,
        "--size": seeds.size,
        "--engine": seeds.engine,
        "--jobs": 1,
    }
    arguments = [str(part) for option in options.items() for part in option]
    try:
        done = _python(root, "-m", "eventkit.testing.simulation", *arguments, "--stop", "--json", limit=limit)
    except subprocess.TimeoutExpired as exc:
        raise TrialError(f"no end within {limit:g} s") from exc
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 1) or not lines:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise TrialError(f"the simulator ended with {done.returncode}: {''.join(said)}")
    names = Kill.__dataclass_fields__
    return [Kill(**{name: each[name] for name in names}) for each in json.loads(lines[-1])["violations"]]


def _require_copy(root: Path) -> None:
    """Make sure that the copy stands before the package that is installed. Raises TrialError."""
    found = _python(root, "-c", "import eventkit; print(eventkit.__file__)", limit=60).stdout.strip()
    if not found.startswith(f"{root}/"):
        raise TrialError(f"not the copy in {root} would run, but {found or 'nothing'}")


def _python(root: Path, *arguments: str, limit: float) -> subprocess.CompletedProcess[str]:
    # With hashes of its own in every process, one that iterates a set would be noticed at other seeds each time.
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )


def search(mutant: Mutant, seeds: Sequence[Seeds], *, limit: float) -> tuple[Kill | None, float]:
    """The first kill among these runs and the seconds it took; one by an expected invariant, if there is one."""
    began = time.monotonic()
    kill: Kill | None = None
    with copied(mutant) as root:
        for some in seeds:
            kills = simulate(root, some, limit=limit)
            if kills:
                kill = next((each for each in kills if each.invariant in mutant.expects), kills[0])
                break
    return kill, time.monotonic() - began


def known_kills() -> dict[str, Kill]:
    """By the name of the mutant: where it was first noticed."""
    if not KILLS.exists():
        return {}
    return {name: Kill(**values) for name, values in tomllib.loads(KILLS.read_text()).items()}


def write_kills(kills: Mapping[str, Kill]) -> None:
    """Write down where each mutant was first noticed."""
    lines = [
        "# Where the simulator first noticed each mutant: written by `python -m tests.simulation.mutants --write`."
    ]
    for name, kill in sorted(kills.items()):
        run = f'size = "{kill.size}", engine = "{kill.engine}", seed = {kill.seed}, invariant = "{kill.invariant}"'
        lines.append(f"{name} = {{ {run} }}")
    KILLS.write_text("\n".join(lines) + "\n")
