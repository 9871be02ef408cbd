"""Which faults a run has: chosen by name, or drawn from its seed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from random import Random
from typing import Final

import msgspec

from eventkit.errors import ConfigurationError
from eventkit.testing.simulation._switches import SWITCHES, swarm

__all__ = ["Choice"]

SHARES: Final = (0.2, 0.5, 0.8)
"""How likely each fault is on; one of these is drawn by each seed."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Turns the faults of `offered` on and off; `place` says in messages where they are offered.

    `only` are on in every run; without it, each seed turns on a random subset. `without` are off. `rates` are on
    too, at these rates. `unasked` are on when they are named, and only then. Raises ConfigurationError for a name
    that is not offered.
    """

    offered: tuple[str, ...]
    place: str
    unasked: frozenset[str] = frozenset()
    only: Collection[str] | None = None
    without: Collection[str] = ()
    rates: Mapping[str, float] = {}

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigurationError(*problems)

    def _problems(self) -> Iterator[str]:
        for option, names in (("only", self.only), ("without", self.without)):
            if isinstance(names, str):
                yield f'{option}={names!r}: must be a collection of names, such as ["{names}"]'
        if isinstance(self.only, str) or isinstance(self.without, str):
            return
        for name in dict.fromkeys([*(self.only or ()), *self.without, *self.rates]):
            if name not in self.offered:
                yield self._unknown(name)
        for name, rate in self.rates.items():
            if not 0 < rate < math.inf:
                yield f"rate of {name}, {rate!r}: must be above 0; leave a fault out with without=[{name!r}]"

    def _unknown(self, name: str) -> str:
        if name in SWITCHES:
            return f'fault "{name}" does not happen {self.place}'
        near = get_close_matches(name, self.offered, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        return f'no fault is called "{name}"{hint} The faults {self.place}: {", ".join(self.offered)}'

    @property
    def named(self) -> frozenset[str]:
        """Those that were asked for."""
        return frozenset(self.rates) | frozenset(self.only or ())

    def draw(self, rng: Random) -> dict[str, float]:
        """The faults of one seed, with their rates; never none, unless none is left to choose."""
        share = rng.choice(SHARES)
        state = rng.getstate()
        everything = swarm(rng, list(self.offered), 1.0)
        rng.setstate(state)
        some = swarm(rng, list(self.offered), share)
        wanted = self.only if self.only is not None else [name for name in some if name not in self.unasked]
        left = [name for name in everything if name not in self.without]
        drawn = {name: rate for name, rate in everything.items() if name in wanted and name in left}
        if not drawn and self.only is None:
            drawn = {name: everything[name] for name in left if name not in self.unasked}
        return drawn | dict(self.rates)
