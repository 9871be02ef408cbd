"""SQS keeps the contract on the local server: standard and FIFO queues, the SDK over the wire, real time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from eventkit_sqs import adapter

from eventkit.spi import Address, Demand, LocalPlace
from eventkit.testing.conformance import Check, Place, Report, SinkConformance, SourceConformance

pytestmark = pytest.mark.timeout(60)  # the first test waits for all checks of all suites

KINDS = {"standard": False, "FIFO": True}
CHECKS = len(SourceConformance.checks) + len(SinkConformance.checks)
NOBODY = "http://127.0.0.1:9"
"""The port of the discard protocol: nobody answers."""


@pytest.fixture(scope="module")
def suites() -> dict[str, list[Report]]:
    """All checks of sources, then all of sinks, for each kind of queue, each at a queue of its own."""
    names = {kind: [f"q{number}{'.fifo' * fifo}" for number in range(3 * CHECKS)] for kind, fifo in KINDS.items()}

    async def main() -> dict[str, list[Report]]:
        reports: dict[str, list[Report]] = {}
        with pytest.MonkeyPatch.context() as environment:
            async with adapter.local([*names["standard"], *names["FIFO"]]) as server:
                for name, value in server.environment.items():
                    environment.setenv(name, value)

                for kind, ordered in KINDS.items():
                    reports[kind] = await _run(server, iter(names[kind]), ordered=ordered)
        return reports

    return anyio.run(main)


async def _run(server: LocalPlace, names: Iterator[str], *, ordered: bool) -> list[Report]:
    @asynccontextmanager
    async def places() -> AsyncIterator[Place]:
        address = Address.parse(server.address(next(names)))
        missing = Address.parse("sqs://missing")
        nobody = Address.parse(f"sqs://events?endpoint={NOBODY}")
        yield Place(source=address, sink=address, missing=missing, missing_sink=missing, unreachable=nobody)

    terms: dict[str, Any] = {"lease": 2.0, "wire": 1.0, "demand": Demand(wait=1.0), "ordered": ordered, "raw": dict}
    source = SourceConformance(adapter, places, **terms)
    sink = SinkConformance(adapter, places, **terms)
    return [await source.run_all(side_by_side=25), await sink.run_all(side_by_side=25)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", SourceConformance.checks, ids=str)
def test_a_source_conforms(suites: dict[str, list[Report]], check: Check, kind: str) -> None:
    """As it declares."""
    suites[kind][0][check.name].require()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", SinkConformance.checks, ids=str)
def test_a_sink_conforms(suites: dict[str, list[Report]], check: Check, kind: str) -> None:
    """As it declares."""
    suites[kind][1][check.name].require()
