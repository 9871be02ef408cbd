"""One run of one plan, and how to tell two runs apart."""

from __future__ import annotations

import gc
from collections import Counter

import msgspec

from eventkit.testing.simulation._engines import run_simulated
from eventkit.testing.simulation._loop import Deadlock, Escaped, Livelock
from eventkit.testing.simulation._plan import Plan
from eventkit.testing.simulation._play import Play
from eventkit.testing.simulation._trace import Trace, digest_of, tail_of
from eventkit.testing.simulation._witness import Violation
from eventkit.testing.simulation._world import World

__all__ = ["Result", "run"]


class Result(msgspec.Struct, kw_only=True):
    """What a run came to. `seconds` is simulated time; `fired` how often each fault happened."""

    plan: Plan
    violations: list[Violation]
    seconds: float
    fired: Counter[str]
    trace: Trace

    @property
    def digest(self) -> str:
        """A hash of all that happened, equal for equal runs."""
        return digest_of(self.trace)

    def tail(self, lines: int = 50) -> str:
        """The last lines of the trace."""
        return tail_of(self.trace, lines)


def run(plan: Plan) -> Result:
    """Run a plan to its end. Whatever goes wrong is in the result, never raised."""
    world = World(plan, lambda world: Play(world, plan))
    violations = world.violations
    try:
        run_simulated(world.run, plan.engine, seed=plan.seed)
    except (Deadlock, Livelock, Escaped, Exception, BaseExceptionGroup) as exc:  # noqa: BLE001 - a sweep goes on
        # First: what the workers made of it while they were taken down follows from it.
        violations.insert(0, Violation("I15", _told(exc), world.seconds))
    finally:
        gc.collect(0)
    return Result(plan=plan, violations=violations, seconds=world.seconds, fired=world.faults_fired, trace=world.trace)


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Deadlock | Livelock | Escaped):
        return f"{type(error).__name__}: {error}"
    return f"the simulation fell over: {error!r}"
