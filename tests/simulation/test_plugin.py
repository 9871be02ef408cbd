"""The fixtures for pytest: in this project's own run, and in runs of a user's, with options and other loops."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventkit import Backoff, Event, Handler, Worker
from eventkit.errors import ConfigurationError
from eventkit.testing import MemoryBroker, chaos
from eventkit.testing.fixtures import SimulationFactory, WorkerFactory
from eventkit.testing.simulation import Result, Scenario, SimulationFailed

Data = dict[str, Any]

SETTINGS = """
[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    ignore:Module already imported so cannot be rewritten
"""

USERS_TEST = """
import pytest
from eventkit import Event, Handler, Worker
from eventkit.testing import chaos
from eventkit.testing.simulation import Scenario

RAN = []

class Note(Handler[dict]):
    def __init__(self, seen):
        self.seen = seen

    async def handle(self, event: Event[dict]) -> None:
        self.seen.append(event.data["n"])
"""

SIMULATION = (
    USERS_TEST
    + """
class Numbers(Scenario):
    def __init__(self):
        self.seen = []

    def worker(self):
        return Worker("sqlite:///x.db", Note(self.seen))

    def events(self):
        return [{"n": 1}, {"n": 2}]

    def check(self, result):
        RAN.append(result.conditions.seed)
        assert result.conditions.seed != 5, "the fifth"

def test_numbers(simulation):
    try:
        simulation(Numbers).sweep(seeds=4)
    finally:
        print("ran", RAN)
"""
)

LOOPS = (
    USERS_TEST
    + """
@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request):
    return request.param

@pytest.mark.anyio
async def test_numbers(worker, broker):
    seen = []
    broker.publish("events", {"n": 1})
    async with worker(Note(seen)) as running:
        await running.settled()
    assert seen == [1]

@pytest.mark.anyio
async def test_faults(broker, anyio_backend):
    chaos(7, only=["reorder"]).attach(broker)
    assert anyio_backend == "trio", "on purpose"
"""
)


@pytest.fixture
def users_pytest(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Run pytest as a user does, on one file of tests; give its exit code and what it printed."""

    def run(code: str, *options: str, mode: str = "auto") -> tuple[int, str]:
        (tmp_path / "pytest.ini").write_text(SETTINGS.format(mode=mode))
        (tmp_path / "test_it.py").write_text(code)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


class Note(Handler[Data]):
    def __init__(self) -> None:
        self.seen: list[int] = []

    async def handle(self, event: Event[Data]) -> None:
        self.seen.append(event.data["n"])
        if event.data["n"] < 0 and event.attempt == 1:
            raise ValueError("not at once")


async def test_a_worker_runs_on_the_broker_and_drains_at_the_end(worker: WorkerFactory, broker: MemoryBroker) -> None:
    """The shortest way to a real worker in the loop of a test, failures and delays included."""
    handler = Note()
    for n in (1, -2, 3):
        broker.publish("events", {"n": n})

    async with worker(handler, retry=Backoff(initial=0.01)) as running:
        await running.settled()
        assert running.worker.handlers == (handler,)

    assert sorted(handler.seen) == [-2, -2, 1, 3]
    assert broker.acked_ids == ["1", "3", "2"]
    names = [type(record).__name__ for record in running.records]
    assert names[0] == "WorkerStarted"
    assert names[-1] == "WorkerStopped"
    assert names.count("EventRetried") == 1


async def test_several_workers_share_the_broker(worker: WorkerFactory, broker: MemoryBroker) -> None:
    """A test of two services, or of two copies of one, needs both on one broker."""
    one, other = Note(), Note()

    async with worker(one, source="memory://a") as first, worker(other, source="memory://b") as second:
        broker.publish("a", {"n": 1})
        broker.publish("b", {"n": 2})
        await first.settled()
        await second.settled()

    assert (one.seen, other.seen) == ([1], [2])


async def test_what_does_not_settle_is_said_with_its_depth(worker: WorkerFactory, broker: MemoryBroker) -> None:
    """A test that waits for ever says nothing."""
    broker.publish("events", {"n": 1}, delay=60.0)

    async with worker(Note()) as running:
        with pytest.raises(TimeoutError, match=r"not settled within 0\.01 s: .*delayed=1"):
            await running.settled(within=0.01)


async def test_the_failure_of_a_test_is_its_own(worker: WorkerFactory) -> None:
    """The worker runs beside the test in a task group, whose wrapping is nobody's business."""
    with pytest.raises(ZeroDivisionError):
        async with worker(Note()):
            raise ZeroDivisionError


async def test_what_a_worker_refuses_is_refused_at_once(worker: WorkerFactory) -> None:
    """As `Worker` itself does."""
    with pytest.raises(ConfigurationError, match="lease=-1"):
        async with worker(Note(), lease=-1):
            pass


async def test_every_test_has_a_broker_of_its_own(worker: WorkerFactory, broker: MemoryBroker) -> None:
    """What another test published must not arrive here, not even in a queue of the same name."""
    handler = Note()

    async with worker(handler) as running:
        await running.settled()

    assert handler.seen == []
    assert broker.counts().published == 0


class Numbers(Scenario):
    def worker(self) -> Worker:
        return Worker("sqlite:///x.db", Note())

    def events(self) -> list[object]:
        return [{"n": 1}]


def test_a_simulation_is_made_with_its_own_options(simulation: SimulationFactory) -> None:
    """The factory adds the seeds of the command line, and nothing else."""
    assert simulation(Numbers, workers=1, only=["kill"]).run(3).conditions.workers == 1
    with pytest.raises(ConfigurationError, match="workers=0"):
        simulation(Numbers, workers=0)


@pytest.mark.parametrize(
    ("seeds", "seed", "ran"), [(None, None, [4, 5, 6]), (2, None, [4, 5]), (None, 9, [9]), (2, 9, [9])]
)
def test_the_seeds_of_the_command_line_come_first(seeds: int | None, seed: int | None, ran: list[int]) -> None:
    """CI runs more of them than a developer, and a failure is repeated alone."""
    found: list[int] = []

    class Noted(Numbers):
        def check(self, result: Result) -> None:
            found.append(result.conditions.seed)

    SimulationFactory(seeds, seed, "test_it.py::test_numbers")(Noted).sweep(seeds=3, first=4)

    assert found == ran


@pytest.mark.timeout(60)  # a pytest of its own; the machine may be busy
def test_a_failure_names_the_command_that_repeats_it(users_pytest: Callable[..., tuple[int, str]]) -> None:
    """What is copied from the output of CI has to work."""
    code, output = users_pytest(SIMULATION, "--eventkit-seeds", "100")
    again, repeated = users_pytest(SIMULATION, "test_it.py::test_numbers", "--eventkit-seed", "5")

    assert code == again == 1
    assert "ran [0, 1, 2, 3, 4, 5]" in output
    assert "again: pytest 'test_it.py::test_numbers' --eventkit-seed 5" in output
    assert "ran [5]" in repeated
    assert SimulationFailed.__name__ in repeated


@pytest.mark.timeout(60)
def test_the_fixtures_run_on_trio_too_and_a_failing_test_shows_its_faults(
    users_pytest: Callable[..., tuple[int, str]],
) -> None:
    """They take the loop they find, here that of anyio's plugin; without the seed, a failure cannot be repeated."""
    code, output = users_pytest(LOOPS, mode="strict")

    assert code == 1, output
    assert "1 failed, 3 passed" in output
    assert f"the faults of the broker: {chaos(7, only=['reorder'])!r}" in output
