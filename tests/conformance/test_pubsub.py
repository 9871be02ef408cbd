"""Pub/Sub keeps the contract on the local server: each kind of subscription, the SDK over the wire, real time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from eventkit_pubsub import adapter
from google.pubsub_v1.types import ReceivedMessage

from eventkit.spi import Address, Demand
from eventkit.testing.conformance import Check, Place, Report, SinkConformance, SourceConformance
from tests.process.cli_support import serving

pytestmark = pytest.mark.timeout(120)  # the first test waits for all checks of all suites

ENDS = {"plain": "", "ordered": ".ordered", "exactly-once": ".exactly-once"}
"""Kind of subscription -> end of its name, by which the local server makes it."""
LEASES = {"plain": 10.0, "ordered": 2.0, "exactly-once": 2.0}
"""Seconds. A stream leases for 10 at least; for less, each message is leased anew when it has arrived."""
CHECKS = len(SourceConformance.checks) + len(SinkConformance.checks)
NOBODY = "http://127.0.0.1:9"
"""The port of the discard protocol: nobody answers."""


@pytest.fixture(scope="module")
def suites() -> dict[str, list[Report]]:
    """All checks of sources, then all of sinks, for each kind of subscription, each at one of its own."""
    names = {kind: [f"events{number}{end}" for number in range(3 * CHECKS)] for kind, end in ENDS.items()}

    async def main(endpoint: str) -> dict[str, list[Report]]:
        return {kind: await _run(endpoint, iter(names[kind]), kind) for kind in ENDS}

    # In a process of its own: the loop of gRPC's server is never without a new task.
    with serving("pubsub", *(name for kind in names.values() for name in kind), "--port", "0") as (_, lines):
        return anyio.run(main, lines[0].removeprefix("listening at "))


async def _run(endpoint: str, names: Iterator[str], kind: str) -> list[Report]:
    @asynccontextmanager
    async def places() -> AsyncIterator[Place]:
        address, missing = (_address(name, endpoint) for name in (next(names), "missing"))
        nobody = _address("events", NOBODY)
        yield Place(source=address, sink=address, missing=missing, missing_sink=missing, unreachable=nobody)

    terms: dict[str, Any] = {"lease": LEASES[kind], "demand": Demand(wait=1.0), "raw": ReceivedMessage}
    source = SourceConformance(adapter, places, ordered=kind == "ordered", **terms)
    sink = SinkConformance(adapter, places, ordered=kind == "ordered", **terms)
    return [await source.run_all(side_by_side=25), await sink.run_all(side_by_side=25)]


def _address(name: str, endpoint: str) -> Address:
    return Address.parse(f"pubsub://eventkit-local/{name}?endpoint={endpoint}")


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
