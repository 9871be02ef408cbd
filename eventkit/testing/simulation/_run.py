"""One run of one plan, and how to tell two runs apart."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from eventkit.testing.simulation._engines import run_simulated
from eventkit.testing.simulation._loop import Deadlock, Escaped, Livelock
from eventkit.testing.simulation._plan import Plan
from eventkit.testing.simulation._play import Play
from eventkit.testing.simulation._witness import Violation
from eventkit.testing.simulation._world import World

__all__ = ["Result", "run"]


class Result(msgspec.Struct, kw_only=True):
    """What a run came to. `seconds` is simulated time; `fired` how often each fault happened."""

    plan: Plan
    violations: list[Violation]
    seconds: float
    fired: Counter[str]
    trace: Sequence[tuple[Any, ...]]

    @property
    def digest(self) -> str:
        """A hash of all that happened, equal for equal runs."""
        digest = blake2b(digest_size=16)
        for line in self.trace:
            digest.update(repr(line).encode())
        return digest.hexdigest()

    def tail(self, lines: int = 50) -> str:
        """The last lines of the trace."""
        return "\n".join(
            f"  {at:10.4f}  w{who:<4} {' '.join(map(str, what))}" for at, who, *what in self.trace[-lines:]
        )


def run(plan: Plan) -> Result:
    """Run a plan to its end. Whatever goes wrong is in the result, never raised."""
    world = World(plan, lambda world: Play(world, plan))
    violations = world.violations
    try:
        run_simulated(world.run, plan.engine, seed=plan.seed)
    except (Deadlock, Livelock, Escaped) as exc:
        violations.append(Violation("I15", f"{type(exc).__name__}: {exc}", world.seconds))
    except Exception as exc:
        violations.append(Violation("I15", f"the simulation fell over: {exc!r}", world.seconds))
        raise
    finally:
        gc.collect(0)
    return Result(plan=plan, violations=violations, seconds=world.seconds, fired=world.faults_fired, trace=world.trace)
