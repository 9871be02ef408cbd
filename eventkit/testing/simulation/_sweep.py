"""Many seeds, on several processes: what was found, what was covered, and how fast."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.pool import Pool

import msgspec

from eventkit.testing.simulation._engines import Engine
from eventkit.testing.simulation._plan import Size, expand
from eventkit.testing.simulation._run import run
from eventkit.testing.simulation._witness import Violation

__all__ = ["Found", "Sweep", "digest_elsewhere", "sweep"]

CHECKED_TWICE = 100
"""One seed of so many is run once more in another process, with other hashes and another layout of memory."""


class Found(msgspec.Struct, frozen=True):
    """A seed that broke an invariant."""

    seed: int
    size: Size
    engine: Engine
    invariant: str
    message: str


class Sweep(msgspec.Struct, kw_only=True):
    """The sum of many runs. `virtual` is simulated seconds, `seconds` real ones."""

    seeds: int = 0
    virtual: float = 0.0
    seconds: float = 0.0
    checked_twice: int = 0
    fired: Counter[str] = msgspec.field(default_factory=Counter)
    violations: list[Found] = msgspec.field(default_factory=list)

    def add(self, other: Sweep) -> None:
        """Count what another part of the sweep has come to."""
        self.seeds += other.seeds
        self.virtual += other.virtual
        self.checked_twice += other.checked_twice
        self.fired += other.fired
        self.violations += other.violations


class _Chunk(msgspec.Struct, frozen=True):
    seeds: Sequence[int]
    size: Size
    engine: Engine
    trio_every: int
    twice: bool
    stop: bool


def sweep(
    seeds: range,
    *,
    size: Size = "large",
    engine: Engine = "asyncio",
    trio_every: int = 0,
    jobs: int = 0,
    twice: bool = True,
    stop: bool = False,
    progress: Callable[[Sweep], None] | None = None,
) -> Sweep:
    """Run these seeds; every `trio_every`th on trio too.

    `jobs` processes work side by side, by default one a core. `twice` checks one seed of a hundred for
    determinism, `stop` ends at the first violation, `progress` is called now and then.
    """
    began = time.perf_counter()
    total = Sweep()
    jobs = jobs or os.cpu_count() or 1
    step = max(1, min(50, len(seeds) // (4 * jobs)))
    chunks = [_Chunk(seeds[i : i + step], size, engine, trio_every, twice, stop) for i in range(0, len(seeds), step)]
    with _workers(jobs) as run_all:
        for part in run_all(chunks):
            total.add(part)
            total.seconds = time.perf_counter() - began
            if progress is not None:
                progress(total)
            if stop and total.violations:
                break
    total.violations.sort(key=lambda found: found.seed)
    total.seconds = time.perf_counter() - began
    return total


@contextmanager
def _workers(jobs: int) -> Iterator[Callable[[Sequence[_Chunk]], Iterator[Sweep]]]:
    if jobs == 1:
        yield lambda chunks: map(_run_chunk, chunks)
        return
    with Pool(jobs, context=multiprocessing.get_context("spawn")) as pool:
        yield lambda chunks: pool.imap(_run_chunk, chunks)


def _run_chunk(chunk: _Chunk) -> Sweep:
    part = Sweep()
    for seed in chunk.seeds:
        _run_one(part, seed, chunk.size, chunk.engine, twice=chunk.twice)
        if chunk.trio_every and seed % chunk.trio_every == 0:
            _run_one(part, seed, chunk.size, "trio", twice=chunk.twice)
        if chunk.stop and part.violations:
            break
    return part


def _run_one(part: Sweep, seed: int, size: Size, engine: Engine, *, twice: bool) -> None:
    result = run(expand(seed, size, engine))
    part.seeds += 1
    part.virtual += result.seconds
    part.fired += result.fired
    violations = result.violations[:1]
    if not violations and twice and seed % CHECKED_TWICE == 0:
        part.checked_twice += 1
        other = digest_elsewhere(seed, size, engine)
        if other != result.digest:
            message = f"the trace has digest {result.digest} here, and {other} in another process"
            violations = [Violation("I17", message, result.seconds)]
    part.violations += [Found(seed, size, engine, broken.invariant, broken.message) for broken in violations]


def digest_elsewhere(seed: int, size: Size, engine: Engine) -> str:
    """The digest of a seed's trace in a process with other hashes."""
    environment = {**os.environ, "PYTHONHASHSEED": str(seed % 1000 + 1), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "eventkit.testing.simulation", "--digest", str(seed)]
    command += ["--size", size, "--engine", engine]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - our own
    return done.stdout.strip()
