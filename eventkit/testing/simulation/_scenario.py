"""What users write: their state, their worker, their events, and what must hold of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from random import Random

import msgspec

from eventkit._worker import Worker
from eventkit.spi import DeadLetter
from eventkit.testing.simulation._plan import Conditions
from eventkit.testing.simulation._trace import Trace, digest_of, tail_of
from eventkit.testing.simulation._witness import Violation

__all__ = ["Publish", "Result", "Scenario"]


@dataclass(frozen=True, slots=True)
class Publish:
    """One event to publish. `body` is bytes, or anything that JSON can say.

    `id` is its message id, by default its place among the events, from "0". With `type` it is a CloudEvent of that
    id and type. `delay` is in seconds.
    """

    body: object
    _: KW_ONLY
    id: str = ""
    type: str | None = None
    key: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    delay: float = 0.0


class Scenario(ABC):
    """One story for a `Simulation`, which makes a new one for every seed: state belongs into its `__init__`.

    `rng` is drawn from the seed and set before any method is called: for fakes that are slow or fail at times.
    """

    rng: Random

    @abstractmethod
    def worker(self) -> Worker:
        """A new worker, with new handlers on the state of this scenario: called whenever a worker starts.

        Its address is that of production; nothing is opened there.
        """

    @abstractmethod
    def events(self) -> Iterable[object]:
        """The events to publish: each a `Publish`, or its body alone.

        An event without a type has the first one that the first handler takes.
        """

    def check(self, result: Result) -> None:  # noqa: B027 - a scenario may have nothing of its own to check
        """Assert what must hold at the end, when everything is settled and all workers have drained."""


class Result(msgspec.Struct, kw_only=True):
    """What a run came to.

    `acked` are the message ids of events that were handled or skipped, `dead_letters` those that were given up, by
    both in the order of publishing. `violations` are promises of the framework that were broken. `seconds` is
    simulated time, `fired` how often each fault happened.
    """

    conditions: Conditions
    acked: list[str]
    dead_letters: list[DeadLetter]
    violations: list[Violation]
    seconds: float
    fired: Counter[str]
    trace: Trace

    @property
    def dead(self) -> list[str]:
        """The message ids of the dead letters."""
        return [letter.message_id for letter in self.dead_letters]

    @property
    def digest(self) -> str:
        """A hash of all that happened, equal for equal runs."""
        return digest_of(self.trace)

    def tail(self, lines: int = 50) -> str:
        """The last lines of the trace."""
        return tail_of(self.trace, lines)
