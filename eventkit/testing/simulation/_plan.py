"""What a seed stands for: one world, its workers, their handlers, and what goes wrong."""

from __future__ import annotations

from random import Random
from typing import Any, Literal, Self, TypeAlias

import msgspec

from eventkit.spi import Traits
from eventkit.testing.simulation._brokers import BROKERS
from eventkit.testing.simulation._engines import Engine
from eventkit.testing.simulation._switches import GIVES_BACK, SWITCHES, happens_at, swarm

__all__ = ["Conditions", "Plan", "Size", "expand", "options", "stream"]

Size: TypeAlias = Literal["small", "large"]


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The world a run takes place in, whatever is played there. Times are in simulated seconds.

    `faults` gives each fault that is on its rate (see `SWITCHES`). `heal_at` is when all of them end, `latency`
    the longest time a call takes on its way.
    """

    seed: int
    engine: Engine
    broker: str
    workers: int
    lease: float
    latency: float
    heal_at: float
    faults: dict[str, float]

    @property
    def traits(self) -> Traits:
        """Those of the broker."""
        return BROKERS[self.broker].traits

    def without(self, *faults: str) -> Self:
        """The same run without these faults."""
        kept = {name: rate for name, rate in self.faults.items() if name not in faults}
        return msgspec.structs.replace(self, faults=kept)

    def shown(self) -> str:
        """The options, one to a line."""
        fields = msgspec.structs.asdict(self)
        faults = fields.pop("faults")
        lines = [f"  {name} = {value!r}" for name, value in fields.items()]
        return "\n".join([*lines, *(f"  fault {name} = {rate:.3f}" for name, rate in faults.items())])


class Plan(Conditions, frozen=True, kw_only=True):
    """A run of the framework's own proof: everything it is decided by, beside the generators made of its seed.

    `keys` is how many ordering keys there are, 0 for events without one.
    """

    size: Size
    events: int
    keys: int
    handlers: Literal["single", "batch", "both", "plain"]
    concurrency: int
    batch_size: int
    batch_wait: float
    on_raise: Literal["bisect", "one_by_one", "whole"]
    style: Literal["raise", "mark", "name", "mixed"]
    ordering: Literal["none", "key"]
    on_key_failure: Literal["block", "skip"]
    attempts: int
    backoff: float
    longest_backoff: float
    max_age: float
    max_processing: float
    timeout: float
    wait: float
    drain: float
    in_flight: int
    in_flight_bytes: int
    parked: int

    @property
    def counted(self) -> bool:
        """Whether the broker counts deliveries."""
        return self.traits.delivery_count != "none"


def stream(seed: int, name: str) -> Random:
    """A generator of its own for each use: to take one thing away does not change what the others draw."""
    return Random(f"{seed}:{name}")  # noqa: S311 - a simulation, not a secret


def expand(seed: int, size: Size = "large", engine: Engine = "asyncio") -> Plan:
    """The plan of a seed. Large is 3 workers and 40 events, small 1 or 2 and 12."""
    rng = stream(seed, "plan")
    pick = rng.choice
    broker = pick(sorted(BROKERS))
    ordered = BROKERS[broker].traits.key_release != "none" and rng.random() < 0.7
    workers = 3 if size == "large" else pick([1, 1, 2])
    batch_size = pick([2, 5, 8, 16])
    lease = pick([2.0, 5.0, 10.0, 30.0])
    max_processing = pick([20.0, 60.0, 120.0])
    longest = pick([2.0, 5.0, 15.0])
    share = pick([0.0, 0.1, 0.25, 0.5])
    quiet = pick([True, False, False, False])
    in_flight = pick([2 * batch_size, 40, 200])
    return Plan(
        seed=seed,
        size=size,
        engine=engine,
        broker=broker,
        workers=workers,
        events=40 if size == "large" else 12,
        keys=pick([1, 3, 8]) if ordered or rng.random() < 0.2 else 0,
        handlers=pick(["single", "batch", "batch", "both", "plain"]),
        concurrency=pick([1, 2, 5]),
        batch_size=batch_size,
        batch_wait=pick([0.0, 0.1, 1.0]),
        on_raise=pick(["bisect", "bisect", "bisect", "one_by_one", "whole"]),
        style=pick(["raise", "raise", "mark", "name", "mixed"]),
        ordering="key" if ordered else "none",
        on_key_failure=pick(["block", "block", "skip"]),
        attempts=pick([1, 2, 3, 5]),
        backoff=pick([0.1, 1.0]),
        longest_backoff=longest,
        max_age=pick([20.0, 60.0]),
        lease=lease,
        max_processing=max_processing,
        timeout=pick([2.0, 8.0, 0.9 * max_processing]),
        wait=pick([0.0, 1.0, 2.0, 5.0, 5.0, 5.0]),
        drain=pick([2.0, 8.0, 20.0, 20.0]),
        in_flight=in_flight,
        in_flight_bytes=pick([600, 64 * 1024 * 1024, 64 * 1024 * 1024]),
        parked=pick([3, 20, 1000]),
        latency=pick([0.0, 0.002, 0.05]),
        heal_at=pick([20.0, 60.0, 120.0]),
        faults=_faults(rng, broker, share, quiet=quiet),
    )


def _faults(rng: Random, broker: str, share: float, *, quiet: bool) -> dict[str, float]:
    """The faults that are on: in a quiet world a handler's, and perhaps those under which nothing is lost."""
    traits = BROKERS[broker].traits
    offered = [name for name, switch in SWITCHES.items() if switch.where != "world" and happens_at(traits, name)]
    rates = swarm(rng, offered, share)
    if quiet:
        polite = GIVES_BACK if rng.random() < 0.5 else frozenset()
        rates = {name: rate for name, rate in rates.items() if SWITCHES[name].where == "handler" or name in polite}
    if rng.random() < 0.2:
        rates["outage"] = 1.0
    if rng.random() < 0.05:
        rates["only_poison"] = 1.0
    return rates


def options(plan: Plan) -> dict[str, Any]:
    """The keyword arguments of `Worker` for a plan."""
    from eventkit import Backoff, FlowLimits

    retry = Backoff(
        initial=plan.backoff,
        maximum=plan.longest_backoff,
        attempts=plan.attempts if plan.counted else "age",
        max_age=plan.max_age,
    )
    return {
        "retry": retry,
        "limits": FlowLimits(in_flight=plan.in_flight, in_flight_bytes=plan.in_flight_bytes, parked=plan.parked),
        "lease": plan.lease,
        "max_processing": plan.max_processing,
        "wait": plan.wait,
        "drain": plan.drain,
        "ordering": plan.ordering,
        "on_key_failure": plan.on_key_failure,
    }
