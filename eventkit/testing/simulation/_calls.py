"""Calls of handlers, and which of them belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from eventkit.testing.simulation._witness import SLACK, Fate

if TYPE_CHECKING:
    from eventkit._event import Event
    from eventkit.testing.simulation._life import Life

__all__ = ["Call", "Chain", "Run", "Slots"]


class Run(msgspec.Struct, eq=False):
    """The calls that belong to one batch; its events by identity, which are kept so that no other takes their id."""

    events: dict[int, Event[Any]]
    calls: int = 0
    succeeded: bool = False


class Chain(msgspec.Struct, eq=False):
    """Calls of one slot, each of which began when the one before it ended: perhaps of one batch, one by one."""

    began: float
    ended: float = math.inf
    events: int = 0


class Call(msgspec.Struct, eq=False):
    """One call of a handler, while it runs."""

    life: Life
    events: Sequence[Event[Any]]
    fates: Sequence[Fate]
    started: float
    run: Run
    chain: Chain
    lost: bool = False
    """Its worker has lost the lease of an event of it, as far as it knows."""


class Slots:
    """What each slot is at. A slot is known by its task, which is the one that asks."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._chains: dict[int, Chain] = {}
        self._failed: dict[int, tuple[float, dict[int, Event[Any]]]] = {}
        """When the last call of each slot failed transiently, and its events."""

    def run_of(self, events: Sequence[Event[Any]]) -> Run:
        """The batch that these events are called for: that of the slot, if they are a part of it, else a new one."""
        slot = _slot()
        run = self._runs.get(slot)
        if run is None or any(id(event) not in run.events for event in events):
            run = self._runs[slot] = Run({id(event): event for event in events})
        return run

    def chain_of(self, events: int, now: float) -> Chain:
        """The chain that the slot is at, with `events` more."""
        slot = _slot()
        chain = self._chains.get(slot)
        if chain is None or now > chain.ended:
            chain = self._chains[slot] = Chain(now)
        chain.ended, chain.events = math.inf, chain.events + events
        return chain

    def done(self) -> Run | None:
        """The slot is done with its batch, which is returned."""
        return self._runs.pop(_slot(), None)

    def returned(self, now: float) -> None:
        """The slot's call has ended."""
        chain = self._chains.get(_slot())
        if chain is not None:
            chain.ended = now

    def failed(self, events: Sequence[Event[Any]], now: float) -> None:
        """The slot's call failed transiently: what comes next in it is another batch."""
        slot = _slot()
        self._runs.pop(slot, None)
        self._chains.pop(slot, None)
        self._failed[slot] = now, {id(event): event for event in events}

    def searches(self, events: Sequence[Event[Any]], now: float) -> bool:
        """Whether the slot goes on with events of a batch that has just failed transiently."""
        failed_at, known = self._failed.get(_slot(), (-math.inf, {}))
        return now - failed_at < SLACK and len(known) > 1 and any(id(event) in known for event in events)


def _slot() -> int:
    return anyio.get_current_task().id
