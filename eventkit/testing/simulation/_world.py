"""One simulated world: a broker, workers that live and die, their handlers, and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import anyio
import msgspec

from eventkit._pipeline.executor import inline
from eventkit._telemetry.records import Level, Record
from eventkit._worker import Worker
from eventkit.testing.memory import Change, MemoryBroker
from eventkit.testing.simulation._brokers import BROKERS
from eventkit.testing.simulation._engines import engine_clock
from eventkit.testing.simulation._life import Life
from eventkit.testing.simulation._nemesis import Nemesis
from eventkit.testing.simulation._plan import Conditions, stream
from eventkit.testing.simulation._ports import QUEUE, LifeAdapter, WorldFaults
from eventkit.testing.simulation._witness import Violation, Witness

__all__ = ["Stage", "World"]

EPOCH = 1_700_000_000.0
"""Unix time at the start of every simulation."""

LONGEST_END = 3600.0
"""Seconds after which a worker that was asked to end never will."""

RESTART = 2.0
"""Longest time in seconds from the end of a worker to the start of the next in its place."""


class Stage(Protocol):
    """What is played in a world: workers, the events for them, and who looks on."""

    @property
    def witness(self) -> Witness:
        """Who is told of everything."""
        ...

    @property
    def patience(self) -> float:
        """Seconds in which a healthy system has settled everything, with room."""
        ...

    def worker(self, life: Life) -> Worker:
        """A new worker for `life`. Raises what `Worker` raises."""
        ...

    async def publish(self) -> None:
        """Publish all events there will be."""
        ...


class World:
    """Everything in one run. `run` plays it; `violations` and `trace` are what is left of it."""

    def __init__(self, conditions: Conditions, stage: Callable[[World], Stage]) -> None:
        self.conditions = conditions
        self.trace: list[tuple[Any, ...]] = []
        self.violations: list[Violation] = []
        self.healed = False
        self.over = False
        self.seconds = 0.0
        self.lives: list[Life] = []
        self.clock: Callable[[], float] = anyio.current_time
        self.faults = WorldFaults(self)
        self.nemesis = Nemesis(self, stream(conditions.seed, "nemesis"))
        self._fired: Counter[str] = Counter()
        self._rng = stream(conditions.seed, "world")
        self._change = anyio.Event()
        self._began = 0.0
        self._published = False
        self.broker = self._make_broker()
        self._stage = stage(self)
        self.witness = self._stage.witness
        self.witness.on_settled = self._changed

    def _make_broker(self) -> MemoryBroker:
        settings = msgspec.structs.replace(BROKERS[self.conditions.broker], lease=self.conditions.lease)
        off = 300.0 * self._rng.choice([-1, 1]) if "clock_off" in self.conditions.faults else 0.0
        if off:
            self.fired("clock_off")
        broker = MemoryBroker("memory", wall=lambda: self.wall() + off, faults=self.faults)
        broker.declare(QUEUE, settings)
        broker.observe(self._observed)
        self.faults.broker = broker
        return broker

    # -- what everybody may ask or tell --------------------------------------------------------------

    def wall(self) -> float:
        """Unix time."""
        return EPOCH + anyio.current_time()

    def note(self, life: Life | None, *what: object) -> None:
        """Write a line of the trace."""
        self.trace.append((self.clock() - self._began, life.number if life else 0, *what))

    def violate(self, invariant: str, message: str) -> None:
        """An invariant is broken: the world ends."""
        at = anyio.current_time() - self._began
        self.violations.append(Violation(invariant, message, at))
        self.note(None, "VIOLATES", invariant, message)
        self._changed()

    def fired(self, fault: str) -> None:
        """A fault has happened."""
        self._fired[fault] += 1

    @property
    def faults_fired(self) -> Counter[str]:
        """How often each fault has happened."""
        return self._fired + self.faults.fired

    def adapter(self, life: Life) -> LifeAdapter:
        """How a life reaches the broker."""
        return LifeAdapter(self, life)

    def worker(self, life: Life) -> Worker:
        """A worker for `life`, inside the simulation."""
        worker = self._stage.worker(life)
        # The edge at which a simulation enters: no clock, no chance, no thread but its own.
        worker._adapter = self.adapter(life)  # noqa: SLF001
        worker._observers = [_Observer(self, life)]  # noqa: SLF001
        worker._wall = self.wall  # noqa: SLF001
        worker._run_sync = inline  # noqa: SLF001
        worker._watch_loop = False  # noqa: SLF001
        return worker

    # -- the run -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Play: faults, healing, until all is settled or time is up; then an orderly end."""
        self.clock = engine_clock(self.conditions.engine)
        self._began = self.clock()
        async with anyio.create_task_group() as tasks:
            for number in range(self.conditions.workers):
                tasks.start_soon(self._supervise, number)
            tasks.start_soon(self._publish)
            tasks.start_soon(self.nemesis.rage)
            await self._until_settled()
            await self._end()
            tasks.cancel_scope.cancel()
        self.seconds = anyio.current_time() - self._began
        if not self.violations:
            self.witness.closed()

    async def _until_settled(self) -> None:
        await self._wait(self.conditions.heal_at)
        if self.violations:
            return
        self.heal()
        patience = self._stage.patience
        await self._wait(patience)
        if self.witness.open and not self.violations:
            depth = self.broker.depth(QUEUE)
            self.violate("I3", f"{self.witness.open} events are open {patience:g} s after the end of faults: {depth}")

    async def _wait(self, seconds: float) -> None:
        """Wait, until all is settled or an invariant is broken at the latest."""
        with anyio.move_on_after(seconds):
            while self.witness.open or not self._published:
                if self.violations:
                    return
                self._change = anyio.Event()
                await self._change.wait()

    def heal(self) -> None:
        """Nothing goes wrong any more, but for bad events."""
        self.healed = True
        self.faults.heal()
        self.nemesis.heal()
        self.note(None, "HEALS")

    async def _end(self) -> None:
        """Let every worker drain, one after the other, and see that it does."""
        self.over = True
        self.nemesis.heal()
        for life in list(self.lives):
            life.signal()
        if self.violations:
            for life in list(self.lives):
                life.kill("ends with its world")
        with anyio.move_on_after(LONGEST_END):
            while self.lives:
                self._change = anyio.Event()
                await self._change.wait()
        if self.lives:
            self.violate("I13", f"worker {self.lives[0].number} does not end")
            for life in list(self.lives):
                life.kill("ends with its world")

    async def _supervise(self, slot: int) -> None:
        """Keep one worker running in this place."""
        number = slot
        while not self.over:
            number += self.conditions.workers
            life = Life(self, number)
            self.lives.append(life)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(life.live)
            self.lives.remove(life)
            self._changed()
            if not self.over:
                await anyio.sleep(self._rng.uniform(0.0, RESTART))

    async def _publish(self) -> None:
        await self._stage.publish()
        self._published = True
        self._changed()

    # -- what the broker and the workers tell --------------------------------------------------------

    def told(self, life: Life, record: Record) -> None:
        """A worker has reported something."""
        self.note(life, record)
        self.witness.told(life, record)

    def _observed(self, change: Change) -> None:
        self.note(None, change.kind.value, change.queue, change.message_id, change.receipt, change.source)
        if change.queue == QUEUE:
            self.witness.changed(change)

    def _changed(self) -> None:
        """Look again at how things stand."""
        self._change.set()


class _Observer:
    """Writes what a worker tells into the trace."""

    level = Level.DEBUG

    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life

    def observe(self, record: Record) -> None:
        """See `Observer`."""
        if not self._life.dead:
            self._world.told(self._life, record)
