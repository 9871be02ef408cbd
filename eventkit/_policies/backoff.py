"""How long to wait before an event is tried again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

from eventkit.errors import ConfigurationError

__all__ = ["Backoff", "rounded_up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter, and how often an event may fail before it is dead-lettered.

    The delay after failure n is drawn evenly from 0 to `initial * factor ** (n - 1)` seconds, at most `maximum`:
    "full jitter" of the AWS Architecture Blog's "Exponential Backoff And Jitter".
    With `attempts="age"`, for sources that do not count deliveries, an event is dead-lettered when
    it fails `max_age` seconds or more after it was enqueued. Pure: no clock, no global randomness.
    """

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 300.0
    attempts: int | Literal["age"] = 5
    max_age: float = 3600.0

    def __post_init__(self) -> None:
        counted = self.attempts == "age" or (isinstance(self.attempts, int) and self.attempts >= 1)
        problems = [
            f"Backoff({name}={getattr(self, name)!r}): must be {rule}"
            for name, rule, ok in (
                ("initial", "zero or more seconds", 0 <= self.initial < math.inf),
                ("factor", "at least 1", 1 <= self.factor < math.inf),
                ("maximum", "at least `initial` seconds", self.initial <= self.maximum < math.inf),
                ("attempts", '1 or more, or "age"', counted),
                ("max_age", "more than zero seconds", self.max_age > 0),
            )
            if not ok
        ]
        if problems:
            raise ConfigurationError(*problems)

    def delay(self, failures: int, rng: Random) -> float:
        """Seconds to wait after failure number `failures` (the first is 1)."""
        try:
            ceiling = self.initial * float(self.factor) ** (failures - 1)
        except OverflowError:
            ceiling = self.maximum if self.initial else 0.0
        return rng.uniform(0.0, min(self.maximum, ceiling))

    def exhausted(self, attempt: int, age: float) -> bool:
        """Whether an event that failed at `attempt`, `age` seconds after it was enqueued, has had its chances."""
        if self.attempts == "age":
            return age >= self.max_age
        return attempt >= self.attempts


def rounded_up(delay: float, granularity: float) -> float:
    """`delay` in whole steps of `granularity` seconds, never shorter: a retry is not due early."""
    if granularity <= 0:
        return delay
    return math.ceil(round(delay / granularity, 9)) * granularity
