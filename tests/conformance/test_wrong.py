"""The checks themselves: each wrong source and sink is found, by its own checks and by no others."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import TypeAlias

import pytest

from eventkit.spi import Address, Limits
from eventkit.testing import MemoryAdapter, MemoryBroker
from eventkit.testing.conformance import Place, Report, SinkConformance, SourceConformance
from tests.conformance import (
    wrong_answers,
    wrong_content,
    wrong_deliveries,
    wrong_leases,
    wrong_receiving,
    wrong_sinks,
    wrong_traits,
)
from tests.conformance.buffered import Buffered
from tests.conformance.wrong import Passing, PassingSink, WrongAdapter
from tests.unit.test_memory_broker_loops import run

MODULES = (wrong_answers, wrong_receiving, wrong_deliveries, wrong_leases, wrong_traits, wrong_sinks, wrong_content)
Wrong: TypeAlias = type[Passing] | type[PassingSink] | type[WrongAdapter]


def wrong_ones() -> list[Wrong]:
    """Every class that names the checks that find it."""
    everything = (one for module in MODULES for one in vars(module).values() if isinstance(one, type))
    return [one for one in everything if vars(one).get("fails")]


def checks_for(one: Wrong) -> set[str]:
    """The names of the checks that must find it."""
    return {*vars(one)["fails"]}


def report_on(kind: type[SourceConformance | SinkConformance], one: Wrong, backend: str = "trio") -> Report:
    """Run all checks of a kind on an adapter that is, or opens, this one. On virtual time."""
    memory = MemoryAdapter()
    source = one if issubclass(one, Passing) else Passing
    sink = one if issubclass(one, PassingSink) else PassingSink
    adapter = (one if issubclass(one, WrongAdapter) else WrongAdapter)(memory, source=source, sink=sink)
    numbers = count()

    @asynccontextmanager
    async def places() -> AsyncIterator[Place]:
        name = f"broker-{next(numbers)}"
        limits = Limits(concurrent_receives=2)
        memory.use(MemoryBroker(name, wall=time.time, traits=source.traits, limits=limits))
        events, dead, missing, unreachable = (
            Address.parse(f"memory://{host}?broker={name}") for host in ("events", "dead", "missing", "unreachable")
        )
        yield Place(
            source=events,
            sink=events,
            dead_letters=dead,
            missing=missing,
            missing_sink=missing,
            unreachable=unreachable,
        )

    reports: list[Report] = []

    async def main() -> None:
        reports.append(await kind(adapter, places, ordered=source.ordered).run_all())

    run(backend, main)
    return reports[0]


def kinds(one: Wrong) -> list[type[SourceConformance | SinkConformance]]:
    """The suites that are about this one."""
    if issubclass(one, Passing):
        return [SourceConformance]
    return [SinkConformance] if issubclass(one, PassingSink) else [SourceConformance, SinkConformance]


@pytest.mark.parametrize("one", wrong_ones(), ids=lambda one: one.__name__)
def test_a_wrong_one_fails_its_own_checks_and_no_others(one: Wrong) -> None:
    """A check that finds nothing is worth nothing, and one that finds everything names nothing."""
    failed = [result for kind in kinds(one) for result in report_on(kind, one).failed]

    assert {result.check.name for result in failed} == checks_for(one), "\n".join(result.reason for result in failed)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("one", [WrongAdapter, Buffered], ids=lambda one: one.__name__)
def test_an_honest_one_fails_none(one: Wrong, backend: str) -> None:
    """Also one that fetches ahead: its keeper is a task, and its buffer has leases."""
    for kind in kinds(one):
        report_on(kind, one, backend).require()


def test_each_check_finds_something() -> None:
    """A new check comes with something wrong that it finds."""
    found = {name for one in wrong_ones() for name in checks_for(one)}

    assert {check.name for check in (*SourceConformance.checks, *SinkConformance.checks)} == found
