"""A user's scenario under every seed there is: workers that live and die, and a broker that fails."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from eventkit._worker import Worker
from eventkit.errors import ConfigurationError, UnsupportedByAdapter
from eventkit.spi import SourceInfo
from eventkit.testing.simulation._brokers import BROKERS
from eventkit.testing.simulation._choice import Choice
from eventkit.testing.simulation._engines import Engine, run_simulated
from eventkit.testing.simulation._inline import threads_inline
from eventkit.testing.simulation._loop import Deadlock, Escaped, Livelock
from eventkit.testing.simulation._plan import Conditions, stream
from eventkit.testing.simulation._scenario import Publish, Result, Scenario
from eventkit.testing.simulation._scene import Scene, planned
from eventkit.testing.simulation._switches import SWITCHES, happens_at
from eventkit.testing.simulation._witness import INVARIANTS, Violation
from eventkit.testing.simulation._world import World

__all__ = ["Simulation", "SimulationFailed", "Swept"]

PLAIN: Final = {"memory": "sqlite", "pubsub": "pubsub", "servicebus": "servicebus", "sqlite": "sqlite", "sqs": "sqs"}
IN_ORDER: Final = {**PLAIN, "pubsub": "pubsub-ordered", "servicebus": "sessions", "sqs": "fifo"}
"""Scheme of an address -> the broker that is simulated."""

_NOT_OURS: Final = {"oversized"}
"""Events are the user's."""

_UNASKED: Final = frozenset({"attributes_lost"})
"""It sends good events to the dead letters: no handler may want what has no type."""

LATENCIES: Final = (0.0, 0.002, 0.05)
LONGEST_PROBE = 70.0
"""Seconds between two probes of a closed gate, at most."""


class SimulationFailed(AssertionError):
    """A seed broke a promise of the framework or the scenario's own check, which is then the cause.

    The message shows the seed, its faults and the end of its trace; `result` holds all of it.
    """

    def __init__(self, result: Result, why: str, again: str) -> None:
        conditions = result.conditions
        super().__init__(
            f"seed {conditions.seed} fails: {why}\n{conditions.shown()}\nthe end of its trace:\n{result.tail()}\n"
            f"again: {again}"
        )
        self.seed = conditions.seed
        self.result = result


class Swept(msgspec.Struct, kw_only=True):
    """The sum of many runs: simulated seconds, and how often each fault happened."""

    seeds: int = 0
    seconds: float = 0.0
    fired: Counter[str] = msgspec.field(default_factory=Counter)


class Simulation:
    """Runs a scenario's own worker in simulated worlds, one for each seed.

        Simulation(Orders).sweep(seeds=100)

    Its workers are killed, asked to end and frozen while the broker loses calls, answers and leases, for `heal_at`
    simulated seconds; then everything works, until every event is settled. What the workers do is real, but for
    their clock, their broker and their threads, which are none: `def` handlers and `anyio.to_thread` run inline.

    scenario: makes a new scenario for each seed: usually the class.
    workers: how many run at a time; a worker that ends is followed by another.
    broker: whose behaviour is simulated, such as "fifo"; by default that of the worker's address.
    engine: "asyncio" or "trio".
    heal_at: simulated seconds after which faults end.
    patience: seconds after that in which everything must be settled; by default what all retries may take.
    only, without, rates: the faults by name, as in `chaos`, and those of processes: kill, sigterm, second_signal,
        freeze, block. Rates of these are per minute and worker. Without `only`, each seed draws a random subset,
        but for `attributes_lost`, after which no handler may want an event: it is on only when it is named.

    Raises ConfigurationError for options that cannot be, as `Worker` does.
    """

    def __init__(
        self,
        scenario: Callable[[], Scenario],
        *,
        workers: int = 2,
        broker: str | None = None,
        engine: Engine = "asyncio",
        heal_at: float = 60.0,
        patience: float | None = None,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
        rates: Mapping[str, float] | None = None,
    ) -> None:
        if isinstance(scenario, Scenario):
            raise ConfigurationError(f"{type(scenario).__name__}: give the class, for every seed needs a new scenario")
        if workers < 1:
            raise ConfigurationError(f"workers={workers!r}: must be at least 1")
        self._scenario = scenario
        self._workers = workers
        self._engine = engine
        self._heal_at = heal_at
        self._patience = patience
        worker = self._new(0).worker()
        self._broker = broker if broker is not None else _broker_of(worker)
        _require_fit(worker, self._broker)
        self._choice = Choice(
            offered=_offered(self._broker),
            place=f'at broker "{self._broker}"',
            unasked=_UNASKED,
            only=only,
            without=without,
            rates=rates or {},
        )

    def run(self, seed: int) -> Result:
        """Run one seed. Raises SimulationFailed when it breaks a promise, or the scenario's own check fails."""
        scenario = self._new(seed)
        result = self._play(scenario, seed)
        if result.violations:
            broken = result.violations[0]
            raise SimulationFailed(
                result, f"{broken.message}\n  ({broken.invariant}, {INVARIANTS[broken.invariant]})", self._again(seed)
            )
        try:
            scenario.check(result)
        except Exception as exc:
            why = f"{type(exc).__name__}: {exc}" if str(exc) else f"{type(exc).__name__} in its check"
            raise SimulationFailed(result, why, self._again(seed)) from exc
        return result

    def sweep(self, seeds: int = 20, *, first: int = 0) -> Swept:
        """Run so many seeds, from `first` on. Raises SimulationFailed at the first that fails."""
        total = Swept()
        for seed in self._range(seeds, first):
            result = self.run(seed)
            total.seeds += 1
            total.seconds += result.seconds
            total.fired += result.fired
        return total

    def _range(self, seeds: int, first: int) -> range:
        return range(first, first + seeds)

    def _again(self, seed: int) -> str:
        return f"Simulation(…).run({seed}), with the same options"

    # -- one run -------------------------------------------------------------------------------------

    def _new(self, seed: int) -> Scenario:
        scenario = self._scenario()
        if not isinstance(scenario, Scenario):
            raise ConfigurationError(f"{type(scenario).__name__} is no Scenario")
        scenario.rng = stream(seed, "scenario")
        return scenario

    def _play(self, scenario: Scenario, seed: int) -> Result:
        """Play to the end; what the framework does wrong is in the result, what the scenario raises is raised."""
        worker = scenario.worker()
        events = planned(list(scenario.events()), worker.handlers)
        patience = _patience(worker, events) if self._patience is None else self._patience
        scenes: list[Scene] = []

        def stage(world: World) -> Scene:
            scenes.append(Scene(world, scenario, events, patience))
            return scenes[0]

        world = World(self._conditions(seed, worker), stage)
        try:
            with threads_inline(self._engine):
                run_simulated(world.run, self._engine, seed=seed)
        except (Deadlock, Livelock, Escaped) as exc:
            world.violations.insert(0, Violation("I15", f"{type(exc).__name__}: {exc}", world.seconds))
        finally:
            gc.collect(0)
        acked, dead_letters = scenes[0].settled()
        return Result(
            conditions=world.conditions,
            acked=acked,
            dead_letters=dead_letters,
            violations=world.violations,
            seconds=world.seconds,
            fired=world.faults_fired,
            trace=world.trace,
        )

    def _conditions(self, seed: int, worker: Worker) -> Conditions:
        rng = stream(seed, "conditions")
        return Conditions(
            seed=seed,
            engine=self._engine,
            broker=self._broker,
            workers=self._workers,
            lease=worker.options.lease,
            latency=rng.choice(LATENCIES),
            heal_at=self._heal_at,
            faults=self._choice.draw(rng),
        )


def _broker_of(worker: Worker) -> str:
    """The broker that stands for the address of a worker."""
    known = IN_ORDER if worker.options.ordering == "key" else PLAIN
    scheme: str = worker.address.scheme
    if scheme not in known:
        raise ConfigurationError(f'nothing stands for "{scheme}" in a simulation: {_choose()}')
    return known[scheme]


def _choose() -> str:
    return "set broker to " + ", ".join(f'"{name}"' for name in BROKERS)


def _require_fit(worker: Worker, broker: str) -> None:
    """Say now what each worker would say at its start."""
    if broker not in BROKERS:
        raise ConfigurationError(f'no broker is called "{broker}": {_choose()}')
    settings = BROKERS[broker]
    info = SourceInfo(name=str(worker.address), limits=settings.limits, traits=settings.traits)
    problems = list(worker.options.source_problems(info, native_dead_letter=settings.native_dead_letter))
    if problems:
        raise UnsupportedByAdapter(*problems)


def _offered(broker: str) -> tuple[str, ...]:
    traits = BROKERS[broker].traits
    return tuple(
        name
        for name, switch in SWITCHES.items()
        if switch.where in {"broker", "letters", "process"} and name not in _NOT_OURS and happens_at(traits, name)
    )


def _patience(worker: Worker, events: list[Publish]) -> float:
    """Seconds in which a system without faults has settled even events that always fail, with room."""
    options, retry = worker.options, worker.options.retry
    slowest = max(handler.timeout or options.max_processing for handler in worker.handlers)
    tries = retry.attempts if isinstance(retry.attempts, int) else retry.max_age / retry.initial + 2
    last = max((event.delay for event in events), default=0.0)
    return 1200.0 + last + options.max_processing + tries * (retry.maximum + slowest + len(events) * LONGEST_PROBE)
