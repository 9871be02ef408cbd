"""Runs cases at one source: side by side on one loop, each at a place and with a limit of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import anyio
import pytest
import trio.testing
from anyio import current_time

from tests.adapters.contract.cases import CASES
from tests.adapters.contract.results import Case, ContractBroken, NotApplicable, Report, Result
from tests.adapters.contract.stage import Stage
from tests.adapters.contract.variant import Variant

REPEATS = 2
"""Times a failed case is run again, alone, if the loop stood still meanwhile: the machine had too much to do."""


def run(variant: Variant, cases: Sequence[Case] = CASES) -> Report:
    """What comes of all `cases`. A failure is a result: `require` raises it."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for name, value in variant.environment.items():
            patch.setenv(name, value)
        if not variant.virtual:
            return anyio.run(_run_all, variant, cases, Path(folder))
        clock = trio.testing.MockClock(autojump_threshold=0)
        return anyio.run(_run_all, variant, cases, Path(folder), backend="trio", backend_options={"clock": clock})


async def _run_all(variant: Variant, cases: Sequence[Case], folder: Path) -> Report:
    results: dict[Case, Result] = {}
    numbers = count()

    async def one(case: Case) -> None:
        own = folder / str(next(numbers))
        own.mkdir()
        results[case] = await _run_one(variant, case, own)

    async with anyio.create_task_group() as tasks:
        for case in cases:
            tasks.start_soon(one, case)
    for case in cases:
        for _ in range(REPEATS):
            if results[case].error is None or not results[case].blocked:
                break
            await one(case)
    return Report([results[case] for case in cases])


async def _run_one(variant: Variant, case: Case, folder: Path) -> Result:
    began = current_time()
    error: ContractBroken | None = None
    ruled_out = ""
    stages: list[Stage] = []
    try:
        async with variant.place(folder) as place, Stage.set_up(variant, case.name, place) as stage:
            stages.append(stage)
            with anyio.move_on_after(variant.limit) as scope:
                await case.run(stage)
            if scope.cancelled_caught:
                stage.fail(f"not finished after {variant.limit:g} s")
    except Exception as raised:  # noqa: BLE001  # it runs the code of adapters: whatever they raise is the result
        first = next(_leaves(raised))
        if isinstance(first, NotApplicable):
            ruled_out = str(first)
        elif isinstance(first, ContractBroken):
            error = first
        else:
            timeline = stages[0].timeline if stages else ""
            error = ContractBroken(f"{variant}, {case.name}: {type(first).__name__}: {first}\n{timeline}")
            error.__cause__ = first
    blocked = any(stage.blocked for stage in stages)
    return Result(case=case, seconds=current_time() - began, error=error, ruled_out=ruled_out, blocked=blocked)


def _leaves(raised: Exception) -> Iterator[Exception]:
    """The errors themselves, what the case found before all others: task groups wrap what passes through them."""
    if isinstance(raised, ExceptionGroup):
        leaves = [leaf for inner in raised.exceptions for leaf in _leaves(inner)]
        yield from sorted(leaves, key=lambda leaf: not isinstance(leaf, ContractBroken | NotApplicable))
    else:
        yield raised
