"""The fixtures of eventkit for pytest: `broker`, `worker` and `simulation`. Installed with the package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from eventkit.testing.fixtures import SimulationFactory, WorkerFactory
    from eventkit.testing.memory import MemoryBroker

# Every run of pytest loads this module: what a fixture needs is imported when it is asked for.


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of simulations."""
    group = parser.getgroup("eventkit", "simulations of eventkit")
    group.addoption("--eventkit-seeds", type=int, metavar="N", help="run N seeds of every simulation")
    group.addoption("--eventkit-seed", type=int, metavar="S", help="run seed S of every simulation, and no other")


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    """A new in-memory broker, to which the `memory://` addresses of `worker` lead. Its faults are shown on failure."""
    from eventkit.testing.fixtures import fresh_broker

    yield from fresh_broker()


@pytest.fixture
def worker(broker: MemoryBroker) -> WorkerFactory:
    """Runs real workers on `broker`, in the loop of the test, for as long as their contexts last."""
    from eventkit.testing.fixtures import WorkerFactory

    return WorkerFactory(broker)


@pytest.fixture
def simulation(request: pytest.FixtureRequest) -> SimulationFactory:
    """Makes simulations, whose sweeps run the seeds of the command line where there are any."""
    from eventkit.testing.fixtures import SimulationFactory

    option = request.config.getoption
    return SimulationFactory(option("--eventkit-seeds"), option("--eventkit-seed"), request.node.nodeid)
