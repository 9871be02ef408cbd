"""What an author says of an adapter under test: where to work, and how long things take there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import KW_ONLY, dataclass

from eventkit.errors import ConfigurationError
from eventkit.spi import Adapter, Address, Demand

_DEMAND = Demand()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One new, empty queue, for one check alone.

    What is published at `sink` arrives at `source`; the two differ where events are published to one thing and
    received from another. The rest is optional, and what it is not given for is reported as not applicable:
    `dead_letters`, where dead letters can be received as events; `missing` and `missing_sink`, addresses of what
    does not exist; `unreachable`, an address at which nobody answers.
    """

    source: Address
    sink: Address
    dead_letters: Address | None = None
    missing: Address | None = None
    missing_sink: Address | None = None
    unreachable: Address | None = None


@dataclass(frozen=True)
class Terms:
    """The adapter under test, and how it is to be tested. Times are in seconds.

    `places` makes a place and removes it again, once for each check, many of them side by side. `lease` is the
    shortest lease the provider can do, and the queue's own with `Traits.lease_fixed`; a whole number where
    the provider counts seconds. `patience` is within what time the provider does what it should do: an event
    that was published arrives, a receive with no wait answers. `wire` is how long a receive that is on the wire
    cannot be cut short, on top of that. `slack` is by how much its clock may run ahead.

    `ordered` asks for order per key, at places made for it. `demand` is what sources are opened with, but for
    what a check needs otherwise; a longer lease than `lease` is used where no lease has to end. `raw` is the
    class of `Delivery.raw`.

    Raises ConfigurationError for times that cannot be.
    """

    adapter: Adapter
    places: Callable[[], AbstractAsyncContextManager[Place]]
    _: KW_ONLY
    lease: float = 2.0
    patience: float = 5.0
    wire: float = 0.0
    slack: float = 0.1
    ordered: bool = False
    demand: Demand = _DEMAND
    raw: type[object] = object

    def __post_init__(self) -> None:
        wrong = [f"{name}={value!r}" for name, value in self._times() if not 0 <= value < float("inf")]
        if wrong or not self.patience or self.lease < 4 * self.slack:
            raise ConfigurationError(
                f"terms of conformance: {', '.join(wrong) or f'lease={self.lease:g}, patience={self.patience:g}'}; "
                f"times are seconds, patience is above 0 and a lease at least four times the slack of {self.slack:g}"
            )

    @property
    def limit(self) -> float:
        """How long a check may take until it counts as hanging."""
        return 8 * self.lease + 8 * self.patience + 2 * self.wire

    def _times(self) -> list[tuple[str, float]]:
        return [("lease", self.lease), ("patience", self.patience), ("wire", self.wire), ("slack", self.slack)]
