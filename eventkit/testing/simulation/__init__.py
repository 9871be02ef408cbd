"""Simulated worlds: real workers, a broker that fails, processes that die, on time that does not pass.

    class Orders(Scenario): ...                # state, a worker, events, and what must hold of them

    Simulation(Orders).sweep(seeds=100)        # raises SimulationFailed for the first seed that breaks it

`run_simulated` runs any coroutine on simulated time. `python -m eventkit.testing.simulation` is the framework's
own proof.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventkit.testing.simulation._engines import run_simulated
    from eventkit.testing.simulation._loop import Deadlock, Escaped, Livelock, VirtualLoop
    from eventkit.testing.simulation._scenario import Publish, Result, Scenario
    from eventkit.testing.simulation._simulation import Simulation, SimulationFailed, Swept

__all__ = [
    "Deadlock",
    "Escaped",
    "Livelock",
    "Publish",
    "Result",
    "Scenario",
    "Simulation",
    "SimulationFailed",
    "Swept",
    "VirtualLoop",
    "run_simulated",
]

# `chaos` needs a part of this package that is cheap to import; the others bring an event loop along.
_HOMES = {
    "_engines": ("run_simulated",),
    "_loop": ("Deadlock", "Escaped", "Livelock", "VirtualLoop"),
    "_scenario": ("Publish", "Result", "Scenario"),
    "_simulation": ("Simulation", "SimulationFailed", "Swept"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
