"""The framework's own proof: a cast of handlers, the events they treat, and the ledger of what became of them."""

from __future__ import annotations

import anyio
import msgspec

from eventkit._worker import Worker
from eventkit.testing.simulation._brokers import BROKERS
from eventkit.testing.simulation._cast import MANY, SINGLE, Cast, handlers
from eventkit.testing.simulation._ledger import Ledger
from eventkit.testing.simulation._life import Life
from eventkit.testing.simulation._plan import Plan, options, stream
from eventkit.testing.simulation._ports import DEAD, QUEUE
from eventkit.testing.simulation._world import World

__all__ = ["Play"]

PAD, LARGE = 80, 5000
"""Bytes that fill up the body of an event, and of one larger than is usual."""


class Play:
    """See `Stage`: what is played under a plan."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.witness = self._ledger = Ledger(plan, world.violate, lambda: world.clock())  # noqa: PLW0108 - the clock is set when it runs
        self._world = world
        self._plan = plan
        self._cast = Cast(world, plan, self._ledger, stream(plan.seed, "cast"))
        self._rng = stream(plan.seed, "play")
        self._options = options(plan)

    @property
    def patience(self) -> float:
        """See `Stage`: with room for the slowest queue of nothing but poison, that drains at the rate of probes."""
        plan = self._plan
        a_try = plan.longest_backoff + max(plan.timeout, 70.0)
        bad = sum(part.role in {"hang", "poison"} for part in self._cast.parts)
        tries = plan.attempts if plan.counted else plan.max_age / plan.backoff + 2
        return 1200.0 + plan.max_processing + tries * (a_try + bad * (plan.timeout + 10.0))

    def worker(self, life: Life) -> Worker:
        """See `Stage`."""
        dead_letter = None if BROKERS[self._plan.broker].native_dead_letter else f"memory://{DEAD}"
        return Worker(
            f"memory://{QUEUE}",
            *handlers(self._cast, self._plan, life),
            adapter=self._world.adapter(life),
            dead_letter=dead_letter,
            seed=self._plan.seed * 1000 + life.number,
            **self._options,
        )

    async def publish(self) -> None:
        """See `Stage`: most events at once, the others one by one over the time of faults."""
        for index in range(self._plan.events):
            if self._rng.random() < 0.3:
                await anyio.sleep(self._rng.uniform(0.0, self._plan.heal_at / self._plan.events))
            self._publish_one(index)

    def _publish_one(self, index: int) -> None:
        plan, rng, world = self._plan, self._rng, self._world
        role = self._cast.parts[index].role
        message_id = f"m{index}"
        key = f"k{rng.randrange(plan.keys)}" if plan.keys else None
        type = rng.choice([SINGLE, MANY]) if role != "unroutable" else "nobody.wants"
        late, wait = rng.random() < plan.faults.get("late", 0.0), rng.uniform(0.0, plan.heal_at)
        large = rng.random() < plan.faults.get("oversized", 0.0) and role == "ok"
        body = msgspec.json.encode({"i": index, "pad": "x" * (LARGE if large else PAD)})
        body = body[:-1] if role == "undecodable" else body
        delay = wait if late and key is None else 0.0
        for fault, happens in (
            (role, role in {"undecodable", "unroutable"}),
            ("oversized", large),
            ("late", delay > 0),
        ):
            if happens:
                world.fired(fault)
        self._ledger.accepted(message_id, self._cast.fate(index, key, len(body)), body)
        world.broker.publish(
            QUEUE, body, key=key, type=type, delay=delay, message_id=message_id, content_type="application/json"
        )
