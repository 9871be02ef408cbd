"""Service Bus keeps the contract on the local server: queues, subscriptions and sessions, the SDK over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from azure.servicebus import ServiceBusReceivedMessage
from eventkit_servicebus import adapter
from eventkit_servicebus._local import serve

from eventkit.spi import Demand
from eventkit.testing.conformance import Check, Place, Report, SinkConformance, SourceConformance
from tests.conformance.places import NOBODY, ServicebusAddresses

pytestmark = pytest.mark.timeout(150)  # the first test waits for all checks of all suites

ENDS = {"queue": "", "subscription": "/audit", "sessions": ".sessions"}
"""Kind of entity -> end of its name, by which the local server makes it."""
LOCKS = {"queue": 2.0, "subscription": 2.0, "sessions": 5.0}
"""Seconds. The service has 5 at least; of a session's lock the adapter keeps one second to be sure."""
CHECKS = len(SourceConformance.checks) + len(SinkConformance.checks)


@pytest.fixture(scope="module")
def suites() -> dict[str, list[Report]]:
    """All checks of sources, then all of sinks, for each kind of entity, each at one of its own."""
    names = {kind: [f"events{number}{end}" for number in range(3 * CHECKS)] for kind, end in ENDS.items()}

    async def main() -> dict[str, list[Report]]:
        reports: dict[str, list[Report]] = {}
        for kind in ENDS:
            async with serve(names[kind], lock=LOCKS[kind]) as server:
                reports[kind] = await _run(ServicebusAddresses(server.endpoint), iter(names[kind]), kind)
        return reports

    return anyio.run(main)


async def _run(at: ServicebusAddresses, names: Iterator[str], kind: str) -> list[Report]:
    @asynccontextmanager
    async def places() -> AsyncIterator[Place]:
        name = next(names)
        yield Place(
            source=at.source(name),
            sink=at.sink(name),
            dead_letters=at.dead_letters(name),
            missing=at.source("missing"),
            missing_sink=at.sink("missing"),
            unreachable=NOBODY.source(name),
        )

    terms: dict[str, Any] = {
        "lease": LOCKS[kind],
        "demand": Demand(events=400, wait=1.0),
        "ordered": kind == "sessions",
        "raw": ServiceBusReceivedMessage,
    }
    source = SourceConformance(adapter, places, **terms)
    sink = SinkConformance(adapter, places, **terms)
    return [await source.run_all(side_by_side=25), await sink.run_all(side_by_side=25)]


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("check", SourceConformance.checks, ids=str)
def test_a_source_conforms(suites: dict[str, list[Report]], check: Check, kind: str) -> None:
    """As it declares."""
    suites[kind][0][check.name].require()


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("check", SinkConformance.checks, ids=str)
def test_a_sink_conforms(suites: dict[str, list[Report]], check: Check, kind: str) -> None:
    """As it declares."""
    suites[kind][1][check.name].require()
