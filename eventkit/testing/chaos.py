"""Faults for an in-memory broker, by a seed: on any event loop, in real or in simulated time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from random import Random
from typing import TYPE_CHECKING, Final, Self

import anyio

from eventkit.errors import ConfigurationError
from eventkit.spi import Settled
from eventkit.testing.memory import Call
from eventkit.testing.simulation._choice import Choice
from eventkit.testing.simulation._faults import BrokerFaults
from eventkit.testing.simulation._switches import SWITCHES

if TYPE_CHECKING:
    from eventkit.testing.memory import MemoryBroker

__all__ = ["Chaos", "chaos"]

SLOWEST: Final = 8.0
"""Seconds that the slowest call of `BrokerFaults` waits; what is `longest` here in its place."""

LONGEST_IN_LEASES: Final = 1.5
"""The slowest receive of `BrokerFaults`, in leases."""

_ELSEWHERE: Final = frozenset({"receive_empty", "late", "clock_off", "oversized"})
"""Faults of a broker that are not those of a call."""

_OFFERED: Final = tuple(
    name for name, switch in SWITCHES.items() if switch.where in {"broker", "letters"} and name not in _ELSEWHERE
)

_UNASKED: Final = frozenset({"access_denied", "attributes_lost", "source_missing"})
"""They end a worker for good, or send good events to the dead letters."""

_OF_THE_BROKER: Final = ("duplicate", "lease_lost")
"""Faults that need more than the call they strike at."""


def chaos(
    seed: int,
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    rates: Mapping[str, float] | None = None,
    longest: float = 1.0,
) -> Chaos:
    """Faults for a `MemoryBroker`, drawn from `seed`.

        faults = chaos(7).attach(broker)

    A seed turns on a random subset of the faults, each at a rate of its own. With `only`, those are on, all of
    them; `without` are off; `rates` (per call, or per event) sets some and turns them on. `access_denied` and
    `source_missing`, which end a worker, and `attributes_lost`, after which no handler may want an event, are on
    only when they are named. No fault waits longer than `longest` seconds: give more than the lease of your worker,
    and slow calls outlast it.

    Raises ConfigurationError for a name that is not a fault of calls.
    """
    choice = Choice(offered=_OFFERED, place="in chaos", unasked=_UNASKED, only=only, without=without, rates=rates or {})
    return Chaos(seed, choice, longest)


class Chaos(BrokerFaults):
    """What goes wrong between a worker and its broker. Made by `chaos`.

    `rates` are the faults that are on, and stay when `heal` ends them; `fired` counts what has happened.
    It works as `broker.faults = chaos(7)` too, but then without `duplicate` and `lease_lost`: these need the broker,
    and raise ConfigurationError when they were named and it is not `attach`ed.
    """

    def __init__(self, seed: int, choice: Choice, longest: float) -> None:
        if longest < 0:
            raise ConfigurationError(f"longest={longest!r}: must be zero or more seconds")
        rng = Random(f"{seed}:chaos")  # noqa: S311 - a test, not a secret
        self.seed = seed
        self.rates = choice.draw(rng)
        super().__init__(rng, self.rates, lease=SLOWEST / LONGEST_IN_LEASES)
        self._named = choice.named
        self._pace = longest / SLOWEST

    def attach(self, broker: MemoryBroker) -> Self:
        """Become the faults of `broker`, in the place of any other. Raises ConfigurationError at a second broker."""
        if self.broker is not None and self.broker is not broker:
            raise ConfigurationError(f"{self!r} is attached to another broker: make one for each")
        self.broker = broker
        broker.faults = self
        return self

    async def before(self, call: Call) -> Mapping[int, Settled]:
        """See `Faults`."""
        if self.broker is None:
            self._do_without_broker()
        return await super().before(call)

    def _do_without_broker(self) -> None:
        missing = [name for name in _OF_THE_BROKER if name in self._rates]
        named = [name for name in missing if name in self._named]
        if named:
            raise ConfigurationError(
                f"{' and '.join(named)}: needs the broker; write chaos({self.seed}, …).attach(broker)"
            )
        for name in missing:
            del self._rates[name]

    async def pause(self, seconds: float) -> None:
        """See `BrokerFaults`."""
        await anyio.sleep(seconds * self._pace)

    def __repr__(self) -> str:
        rates = ", ".join(f"{name!r}: {rate:.3g}" for name, rate in self.rates.items())
        return f"chaos({self.seed}, only=(), rates={{{rates}}})"
