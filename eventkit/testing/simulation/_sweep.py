"""Many seeds, on several processes: what was found, what was covered, and how fast."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.pool import Pool
from typing import Final

import msgspec

from eventkit.testing.simulation._engines import Engine
from eventkit.testing.simulation._plan import Size, expand
from eventkit.testing.simulation._run import run

__all__ = ["Found", "Sweep", "digests_elsewhere", "sweep"]

CHECKED_TWICE = 100
"""One seed of so many is run once more in another process, with other hashes and another layout of memory."""

OTHER_HASHES: Final = "4"
"""The seed of the hashes there: the same each time, so that what is noticed once is noticed again."""


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
    digests: dict[Engine, dict[int, str]] = msgspec.field(default_factory=dict)
    """Of the seeds that are to be repeated in another process."""
    fired: Counter[str] = msgspec.field(default_factory=Counter)
    violations: list[Found] = msgspec.field(default_factory=list)

    def add(self, other: Sweep) -> None:
        """Count what another part of the sweep has come to."""
        self.seeds += other.seeds
        self.virtual += other.virtual
        for engine, digests in other.digests.items():
            self.digests.setdefault(engine, {}).update(digests)
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
    if not total.violations:
        for repeated, digests in total.digests.items():
            total.violations += _unequal(size, repeated, digests)
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
    part.violations += [Found(seed, size, engine, broken.invariant, broken.message) for broken in result.violations[:1]]
    if twice and seed % CHECKED_TWICE == 0:
        part.digests.setdefault(engine, {})[seed] = result.digest


def _unequal(size: Size, engine: Engine, digests: Mapping[int, str]) -> list[Found]:
    """Seeds whose trace is another one in another process."""
    others = digests_elsewhere(list(digests), size, engine)
    return [
        Found(seed, size, engine, "I17", f"the trace has digest {digest} here, and {others[seed]} in another process")
        for seed, digest in digests.items()
        if others[seed] != digest
    ]


def digests_elsewhere(seeds: Sequence[int], size: Size, engine: Engine) -> dict[int, str]:
    """The digests of these seeds in a process with other hashes, and another layout of memory."""
    environment = {**os.environ, "PYTHONHASHSEED": OTHER_HASHES, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "eventkit.testing.simulation", "--size", size, "--engine", engine, "--digests"]
    done = subprocess.run(  # noqa: S603 - our own
        command, input=" ".join(map(str, seeds)), env=environment, capture_output=True, text=True, check=True
    )
    return dict(zip(seeds, done.stdout.split(), strict=True))
