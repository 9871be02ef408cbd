"""The faults by name: what each does, how often, and where it exists."""

from __future__ import annotations

from random import Random
from typing import Final, Literal, TypeAlias

import msgspec

from eventkit.spi import Traits

__all__ = ["CALM", "GIVES_BACK", "HANDLER", "SWITCHES", "Where", "happens_at", "swarm"]

Where: TypeAlias = Literal["broker", "letters", "process", "handler", "world"]


class Switch(msgspec.Struct, frozen=True):
    """One fault. Its rate is drawn from `low` to `high` by each seed that turns it on.

    The rate is per call for faults of a broker and its dead letters, per simulated minute and worker for those of
    a process, and a share of the events for those of a handler.
    """

    where: Where
    low: float
    high: float


SWITCHES: Final[dict[str, Switch]] = {
    # A call that does not reach the broker, or whose reply does not come back.
    "receive_error": Switch("broker", 0.02, 0.3),
    "receive_empty": Switch("broker", 0.05, 0.5),
    "receive_lost": Switch("broker", 0.01, 0.1),
    "receive_slow": Switch("broker", 0.01, 0.1),
    "throttled": Switch("broker", 0.02, 0.2),
    "settle_error": Switch("broker", 0.02, 0.3),
    "settle_partial": Switch("broker", 0.02, 0.3),
    "settle_refused": Switch("broker", 0.01, 0.1),
    "settle_lost": Switch("broker", 0.02, 0.3),
    "settle_slow": Switch("broker", 0.02, 0.15),
    "extend_error": Switch("broker", 0.05, 0.5),
    "extend_refused": Switch("broker", 0.02, 0.2),
    "extend_lost": Switch("broker", 0.02, 0.3),
    "access_denied": Switch("broker", 0.002, 0.01),
    "source_missing": Switch("broker", 0.002, 0.01),
    # What the broker itself does.
    "duplicate": Switch("broker", 0.02, 0.3),
    "reorder": Switch("broker", 0.2, 0.8),
    "late": Switch("broker", 0.1, 0.5),
    "lease_lost": Switch("broker", 0.01, 0.1),
    "count_inflated": Switch("broker", 0.02, 0.2),
    "clock_off": Switch("broker", 1.0, 1.0),
    "attributes_lost": Switch("broker", 0.01, 0.1),
    "oversized": Switch("broker", 0.02, 0.2),
    "letter_error": Switch("letters", 0.05, 0.5),
    "letter_refused": Switch("letters", 0.02, 0.2),
    "letter_missing": Switch("letters", 0.02, 0.2),
    "letter_lost": Switch("letters", 0.05, 0.4),
    "letter_throttled": Switch("letters", 0.05, 0.4),
    "kill": Switch("process", 0.3, 3.0),
    "sigterm": Switch("process", 0.3, 3.0),
    "second_signal": Switch("process", 0.3, 2.0),
    "freeze": Switch("process", 0.2, 1.0),
    "block": Switch("process", 0.1, 0.5),
    "slow": Switch("handler", 0.05, 0.4),
    "poison": Switch("handler", 0.03, 0.3),
    "reject": Switch("handler", 0.03, 0.2),
    "skip": Switch("handler", 0.03, 0.2),
    "retry": Switch("handler", 0.03, 0.2),
    "flaky": Switch("handler", 0.05, 0.4),
    "transient": Switch("handler", 0.05, 0.4),
    "partner": Switch("handler", 0.05, 0.3),
    "follows": Switch("handler", 0.03, 0.2),
    "partial": Switch("handler", 0.03, 0.2),
    "leak": Switch("handler", 0.03, 0.2),
    "hang": Switch("handler", 0.02, 0.1),
    "swallow": Switch("handler", 0.02, 0.2),
    "wrong_marks": Switch("handler", 0.02, 0.2),
    "base_exception": Switch("handler", 0.02, 0.1),
    "undecodable": Switch("handler", 0.03, 0.2),
    "unroutable": Switch("handler", 0.02, 0.1),
    "outage": Switch("world", 1.0, 1.0),
    "only_poison": Switch("world", 1.0, 1.0),
}

HANDLER: Final = tuple(name for name, switch in SWITCHES.items() if switch.where == "handler")

CALM: Final = frozenset(SWITCHES) - {
    name for name, switch in SWITCHES.items() if switch.where in {"broker", "letters", "process"}
} | {"reorder", "late", "receive_empty", "receive_error", "clock_off", "unroutable"}
"""Faults under which no lease is lost and every answer arrives: whoever is handled twice is handled once too often."""


GIVES_BACK: Final = CALM | {"sigterm", "second_signal"}
"""Faults under which whatever a worker gives back at its end arrives."""

_UNORDERED_ONLY: Final = {"duplicate"}
_COUNTED_ONLY: Final = {"count_inflated"}
_TRUSTED: Final = {"receive_lost", "receive_empty"}


def happens_at(traits: Traits, fault: str) -> bool:
    """Whether a broker with these traits knows this fault."""
    if fault in _UNORDERED_ONLY:
        return traits.key_release == "none"
    if fault in _COUNTED_ONLY:
        return traits.delivery_count == "approximate"
    # Whoever brings later events of a key while earlier ones are out must neither lose a reply nor hide an event.
    return fault not in _TRUSTED or traits.key_release not in {"hold", "redelivers"}


def swarm(rng: Random, offered: list[str], share: float) -> dict[str, float]:
    """A random subset of `offered`, each with a rate of its own (swarm testing: Groce et al., ISSTA 2012)."""
    rates: dict[str, float] = {}
    for name in offered:
        switch = SWITCHES[name]
        # Drawn whether on or off: to take one fault away leaves the rates of the others as they were.
        on, rate = rng.random() < share, rng.uniform(switch.low, switch.high)
        if on:
            rates[name] = rate
    return rates
