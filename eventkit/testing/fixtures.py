"""What the fixtures of the pytest plugin give: the types to annotate them with."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from eventkit._handler import AnyHandler
from eventkit._telemetry.records import Level, Record
from eventkit._worker import Worker, ungrouped
from eventkit.testing.memory import Change, MemoryAdapter, MemoryBroker

if TYPE_CHECKING:
    from eventkit.testing.simulation import Scenario, Simulation

__all__ = ["RunningWorker", "SimulationFactory", "WorkerFactory"]

QUEUE = "events"


def fresh_broker() -> Iterator[MemoryBroker]:
    """A broker for one test."""
    broker = MemoryBroker(history=10_000)
    yield broker
    if broker.faults is not None:
        # pytest shows it beside the failure of the test, and not otherwise.
        sys.stdout.write(f"the faults of the broker: {broker.faults!r}\n")


class WorkerFactory:
    """The fixture `worker`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._adapter = MemoryAdapter()
        self._adapter.use(broker)

    def __call__(
        self, *handlers: AnyHandler, source: str = f"memory://{QUEUE}", **options: Any
    ) -> AbstractAsyncContextManager[RunningWorker]:
        """Run a worker on the fixture `broker` while the context lasts, then drain it; `options` are its own.

        Raises ConfigurationError as `Worker` does, and whatever ends the worker.
        """
        return self._run(source, handlers, options)

    @asynccontextmanager
    async def _run(
        self, source: str, handlers: tuple[AnyHandler, ...], options: dict[str, Any]
    ) -> AsyncIterator[RunningWorker]:
        running = RunningWorker(self._broker, source, handlers, self._adapter, options)
        with ungrouped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(running.worker.run)
                try:
                    yield running
                finally:
                    running.worker.drain()


class RunningWorker:
    """A worker that runs. `worker` is the worker itself, `records` what it has reported."""

    def __init__(
        self,
        broker: MemoryBroker,
        source: str,
        handlers: tuple[AnyHandler, ...],
        adapter: MemoryAdapter,
        options: dict[str, Any],
    ) -> None:
        self.records: list[Record] = []
        self.level = Level.DEBUG
        self._broker = broker
        self._changed = anyio.Event()
        observers = [self, *options.pop("observers", ())]
        self.worker = Worker(source, *handlers, **{"seed": 0, "adapter": adapter, **options}, observers=observers)
        self._queue = self.worker.address.host
        broker.observe(self._notice)

    async def settled(self, within: float = 10.0) -> None:
        """Wait until every event published is acked or dead-lettered. Raises TimeoutError after `within` seconds."""
        with anyio.move_on_after(within):
            while self._open():
                self._changed = anyio.Event()
                await self._changed.wait()
        if self._open():
            raise TimeoutError(f"not settled within {within:g} s: {self._broker.depth(self._queue)}")

    def _open(self) -> int:
        depth = self._broker.depth(self._queue)
        return depth.ready + depth.delayed + depth.leased

    def _notice(self, change: Change) -> None:
        self._changed.set()

    def observe(self, record: Record) -> None:
        """Take a telemetry record."""
        self.records.append(record)


class SimulationFactory:
    """The fixture `simulation`. `seeds` and `seed` are those of the command line, `test` the test that runs."""

    def __init__(self, seeds: int | None, seed: int | None, test: str) -> None:
        self._seeds = seeds
        self._seed = seed
        self._test = test

    def __call__(self, scenario: Callable[[], Scenario], **options: Any) -> Simulation:
        """A `Simulation`. Its `sweep` runs the seeds of the command line, where there are any, in place of its own."""
        from eventkit.testing.simulation import Simulation

        many, one, test = self._seeds, self._seed, self._test

        class FromCommandLine(Simulation):
            def _range(self, seeds: int, first: int) -> range:
                if one is not None:
                    return range(one, one + 1)
                return super()._range(seeds if many is None else many, first)

            def _again(self, seed: int) -> str:
                return f"pytest '{test}' --eventkit-seed {seed}"

        return FromCommandLine(scenario, **options)
