"""One simulated world: a broker, workers that live and die, their handlers, and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import msgspec

from eventkit._pipeline.executor import inline
from eventkit._pipeline.settler import LETTER_ATTRIBUTE
from eventkit._telemetry.records import BatchBisected, DrainStarted, GateClosed, GateProbed, Level, Record
from eventkit._worker import Worker
from eventkit.errors import AccessDenied
from eventkit.spi import DONE, Settled
from eventkit.testing.memory import Call, Change, Kind, MemoryBroker
from eventkit.testing.simulation._brokers import BROKERS
from eventkit.testing.simulation._cast import MANY, SINGLE, Cast, handlers
from eventkit.testing.simulation._engines import engine_clock
from eventkit.testing.simulation._faults import BrokerFaults
from eventkit.testing.simulation._ledger import Ledger, Violation
from eventkit.testing.simulation._life import LIFE, Life, LifeAdapter
from eventkit.testing.simulation._nemesis import Nemesis
from eventkit.testing.simulation._plan import Plan, options, stream

__all__ = ["World"]

QUEUE, DEAD = "events", "dead"

EPOCH = 1_700_000_000.0
"""Unix time at the start of every simulation."""

RESTART = 2.0
"""Longest time in seconds from the end of a worker to the start of the next in its place."""


class World:
    """Everything in one run. `run` plays it; `violations` and `trace` are what is left of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.trace: list[tuple[Any, ...]] = []
        self.violations: list[Violation] = []
        self.healed = False
        self.over = False
        self.seconds = 0.0
        self.lives: list[Life] = []
        self.clock: Callable[[], float] = anyio.current_time
        self.ledger = Ledger(plan, self.violate, lambda: self.clock())
        self._fired: Counter[str] = Counter()
        self.cast = Cast(self, stream(plan.seed, "cast"))
        self.faults = WorldFaults(self)
        self.nemesis = Nemesis(self, stream(plan.seed, "nemesis"))
        self._rng = stream(plan.seed, "world")
        self._bodies: dict[bytes, str] = {}
        self._letters: dict[Any, Any] = {}
        self._settled = anyio.Event()
        self._began = 0.0
        self.ledger.on_settled = self._all_settled
        self.broker = self._make_broker()
        self._options = options(plan)

    def _make_broker(self) -> MemoryBroker:
        settings = msgspec.structs.replace(BROKERS[self.plan.broker], lease=self.plan.lease)
        off = 300.0 * self._rng.choice([-1, 1]) if "clock_off" in self.plan.faults else 0.0
        if off:
            self.fired("clock_off")
        broker = MemoryBroker("memory", wall=lambda: self.wall() + off, faults=self.faults)
        broker.declare(QUEUE, settings)
        broker.observe(self._changed)
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
        self._settled.set()

    def fired(self, fault: str) -> None:
        """A fault has happened."""
        self._fired[fault] += 1

    @property
    def faults_fired(self) -> Counter[str]:
        """How often each fault has happened."""
        return self._fired + self.faults.fired

    def may_fail(self, error: Exception) -> bool:
        """Whether a worker may end with this error."""
        return isinstance(error, AccessDenied)

    def make_worker(self, life: Life) -> Worker:
        """A worker for `life`, as the plan has it."""
        dead_letter = None if BROKERS[self.plan.broker].native_dead_letter else f"memory://{DEAD}"
        worker = Worker(
            f"memory://{QUEUE}",
            *handlers(self, life),
            adapter=LifeAdapter(self, life),
            observers=[_Observer(self, life)],
            dead_letter=dead_letter,
            seed=self.plan.seed * 1000 + life.number,
            **self._options,
        )
        worker._wall = self.wall  # noqa: SLF001 - the edge at which a simulation enters
        worker._run_sync = inline  # noqa: SLF001
        worker._watch_loop = False  # noqa: SLF001
        return worker

    # -- the run -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Play: faults, healing, until all is settled or time is up; then an orderly end."""
        self.clock = engine_clock(self.plan.engine)
        self._began = self.clock()
        async with anyio.create_task_group() as tasks:
            for number in range(self.plan.workers):
                tasks.start_soon(self._supervise, number)
            tasks.start_soon(self._publish)
            tasks.start_soon(self.nemesis.rage)
            await self._until_settled()
            await self._end()
            tasks.cancel_scope.cancel()
        self.seconds = anyio.current_time() - self._began
        if not self.violations:
            self.ledger.closed()

    async def _until_settled(self) -> None:
        await self._wait(self.plan.heal_at)
        if self.violations:
            return
        self.heal()
        await self._wait(self._patience())
        if self.ledger.open and not self.violations:
            depth = self.broker.depth(QUEUE)
            self.violate("I3", f"{self.ledger.open} events are open {self._patience():g} s after the end of faults: {depth}")

    async def _wait(self, seconds: float) -> None:
        """Wait, until all is settled or an invariant is broken at the latest."""
        with anyio.move_on_after(seconds):
            while self.ledger.open or len(self.ledger.fates) < self.plan.events:
                if self.violations:
                    return
                self._settled = anyio.Event()
                await self._settled.wait()

    def heal(self) -> None:
        """Nothing goes wrong any more, but for bad events."""
        self.healed = True
        self.faults.heal()
        self.nemesis.heal()
        self.note(None, "HEALS")

    def _patience(self) -> float:
        """Seconds in which a healthy system has settled everything, with room."""
        plan = self.plan
        a_try = plan.longest_backoff + max(plan.timeout, 70.0)
        bad = sum(part.role in {"hang", "poison"} for part in self.cast.parts)
        tries = plan.attempts if plan.counted else plan.max_age / plan.backoff + 2
        return 1200.0 + plan.max_processing + tries * (a_try + bad * (plan.timeout + 10.0))

    async def _end(self) -> None:
        """Let every worker drain, one after the other, and see that it does."""
        self.over = True
        self.nemesis.heal()
        for life in list(self.lives):
            life.signal()
        if self.violations:
            for life in list(self.lives):
                life.kill("ends with its world")
        with anyio.move_on_after(10 * (self.plan.drain + self.plan.max_processing)):
            while self.lives:
                self._settled = anyio.Event()
                await self._settled.wait()
        if self.lives:
            self.violate("I13", f"worker {self.lives[0].number} does not end")
            for life in list(self.lives):
                life.kill("ends with its world")

    async def _supervise(self, slot: int) -> None:
        """Keep one worker running in this place."""
        number = slot
        while not self.over:
            number += self.plan.workers
            life = Life(self, number)
            self.lives.append(life)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(life.live)
            self.lives.remove(life)
            self._settled.set()
            if not self.over:
                await anyio.sleep(self._rng.uniform(0.0, RESTART))

    async def _publish(self) -> None:
        """Most events at once, the others over the first half of the time of faults."""
        at = 0.0
        for index in range(self.plan.events):
            if self._rng.random() < 0.3:
                wait = self._rng.uniform(0.0, self.plan.heal_at / self.plan.events)
                at += wait
                await anyio.sleep(wait)
            self._publish_one(index)

    def _publish_one(self, index: int) -> None:
        plan, rng = self.plan, self._rng
        role = self.cast.parts[index].role
        message_id = f"m{index}"
        key = f"k{rng.randrange(plan.keys)}" if plan.keys else None
        type = rng.choice([SINGLE, MANY]) if role != "unroutable" else "nobody.wants"
        late, wait = rng.random() < plan.faults.get("late", 0.0), rng.uniform(0.0, plan.heal_at)
        large = rng.random() < plan.faults.get("oversized", 0.0) and role == "ok"
        body = msgspec.json.encode({"i": index, "pad": "x" * (5000 if large else 80)})
        if role == "undecodable":
            body = body[:-1]
        if role in {"undecodable", "unroutable"}:
            self.fired(role)
        if large:
            self.fired("oversized")
        delay = wait if late and key is None else 0.0
        if delay:
            self.fired("late")
        self._bodies[body] = message_id
        self.ledger.published(message_id, self.cast.fate(index, key, len(body)))
        self.broker.publish(
            QUEUE, body, key=key, type=type, delay=delay, message_id=message_id, content_type="application/json"
        )

    # -- what the broker and the workers tell --------------------------------------------------------

    def born(self, life: Life) -> None:
        """A worker has opened its source."""
        self.note(life, "opens source", life.source)

    def told(self, life: Life, record: Record) -> None:
        """A worker has reported something."""
        self.note(life, record)
        if isinstance(record, BatchBisected | GateClosed | GateProbed | DrainStarted):
            self.ledger.begun_anew(life)

    def _changed(self, change: Change) -> None:
        self.note(None, change.kind.value, change.queue, change.message_id, change.receipt, change.source)
        if change.queue != QUEUE:
            return
        if change.kind is Kind.DEAD:
            letter = self._letters.get(change.receipt)
            self.ledger.letter_stored(change.message_id, change.reason, _letter_id(letter.detail if letter else ""))
        self.ledger.changed(change)

    def letters_sent(self, items: Sequence[Any]) -> None:
        """These dead letters are on their way to the queue's own store."""
        for letter in items:
            self._letters[letter.receipt] = letter

    def letters_published(self, items: Sequence[Any], results: Sequence[Any]) -> None:
        """The sink of dead letters has taken what is DONE of these."""
        for item, result in zip(items, results, strict=True):
            if result == DONE:
                message_id = self._bodies.get(item.body)
                if message_id is None:
                    self.violate("I6", "a dead letter has another body than any event")
                    continue
                detail = item.attributes.get(LETTER_ATTRIBUTE, "")
                self.ledger.letter_stored(message_id, _field(detail, "reason"), _letter_id(detail))

    def _all_settled(self) -> None:
        self._settled.set()


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


class WorldFaults(BrokerFaults):
    """Faults of calls, and the end of a process in the middle of one."""

    def __init__(self, world: World) -> None:
        plan = world.plan
        super().__init__(stream(plan.seed, "faults"), plan.faults, lease=plan.lease, latency=plan.latency)
        self._world = world

    async def before(self, call: Call) -> Mapping[int, Settled]:
        """See `Faults`."""
        life = self._enter(call)
        answers = await super().before(call)
        self._world.nemesis.ambushed(life)
        life.check()
        if call.verb == "dead_letter":
            self._world.letters_sent(call.items)
        return answers

    async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
        """See `Faults`."""
        if call.verb == "publish":
            self._world.letters_published(call.items, results)
        life = LIFE.get()
        assert life is not None, "only lives call"
        self._world.nemesis.ambushed(life)
        life.check()
        results = await super().after(call, results)
        life.check()
        return results

    async def pause(self, seconds: float) -> None:
        """See `BrokerFaults`."""
        life = LIFE.get()
        assert life is not None, "only lives call"
        await life.sleep(seconds)

    def maimed(self, delivery: Any) -> None:
        """See `BrokerFaults`."""
        self._world.ledger.fates[delivery.message_id].maimed = True

    def _enter(self, call: Call) -> Life:
        life = LIFE.get()
        assert life is not None, "only lives call"
        life.check()
        self._world.note(life, call.verb, len(call.items))
        return life


def _letter_id(detail: str) -> str:
    return _field(detail, "id")


def _field(detail: str, name: str) -> str:
    return str(msgspec.json.decode(detail).get(name, "")) if detail else ""
