"""Making a failing run small: fewer faults, events and workers that still break the same invariant."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from eventkit.testing.simulation._plan import Plan
from eventkit.testing.simulation._run import Result, run

__all__ = ["minimise"]

NEIGHBOURS = 40
"""Seeds tried for each smaller plan: to take something away may need other luck to fail."""


def minimise(plan: Plan, invariant: str, tell: Callable[[str], None]) -> Result:
    """The smallest run found that breaks the same invariant. Raises ValueError if `plan` itself does not."""
    best = run(plan)
    if not _breaks(best, invariant):
        raise ValueError(f"seed {plan.seed} does not break {invariant}")
    smaller = True
    while smaller:
        smaller = False
        for candidate, what in _smaller(best.plan):
            found = _failing_neighbour(candidate, invariant)
            if found is not None:
                tell(f"{what}: still breaks {invariant}, with seed {found.plan.seed}")
                best, smaller = found, True
                break
    return best


def _smaller(plan: Plan) -> Iterator[tuple[Plan, str]]:
    for name in plan.faults:
        yield plan.without(name), f"without {name}"
    for events in (plan.events // 2, plan.events - 1):
        if events >= 1:
            yield replace(plan, events=events), f"{events} events"
    if plan.workers > 1:
        yield replace(plan, workers=plan.workers - 1), f"{plan.workers - 1} workers"
    if plan.latency:
        yield replace(plan, latency=0.0), "no latency"
    if plan.keys > 1:
        yield replace(plan, keys=1), "one key"


def _failing_neighbour(plan: Plan, invariant: str) -> Result | None:
    """The same plan under this seed or one of those after it."""
    for offset in range(NEIGHBOURS):
        result = run(replace(plan, seed=plan.seed + offset * 1_000_003))
        if _breaks(result, invariant):
            return result
    return None


def _breaks(result: Result, invariant: str) -> bool:
    return any(broken.invariant == invariant for broken in result.violations)
