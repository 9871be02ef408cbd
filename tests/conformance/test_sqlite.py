"""The embedded queue keeps the contract: real files, real time, and every check side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import anyio
import pytest
from eventkit_sqlite import adapter

from eventkit.spi import Address
from eventkit.testing.conformance import Check, Place, Report, SinkConformance, SourceConformance

# One of them in order, one not: the queue has a way of receiving for each.
WAYS = {"asyncio, in order": ("asyncio", True), "trio, without order": ("trio", False)}


@pytest.fixture(scope="module", params=WAYS)
def reports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Report]:
    """All checks of sources, then all of sinks, in new files each."""
    backend, ordered = WAYS[request.param]
    folder = tmp_path_factory.mktemp("queues")
    numbers = count()

    @asynccontextmanager
    async def places() -> AsyncIterator[Place]:
        address = Address.parse(f"sqlite:///{folder}/{next(numbers)}.db?queue=events")
        missing = Address.parse(f"sqlite:///{folder}/missing/events.db")
        yield Place(source=address, sink=address, missing=missing, missing_sink=missing)

    async def main() -> list[Report]:
        source = SourceConformance(adapter, places, lease=1.5, ordered=ordered)
        sink = SinkConformance(adapter, places, lease=1.5, ordered=ordered)
        return [await source.run_all(), await sink.run_all()]

    return anyio.run(main, backend=backend)


@pytest.mark.parametrize("check", SourceConformance.checks, ids=str)
def test_a_source_conforms(reports: list[Report], check: Check) -> None:
    """As it declares."""
    reports[0][check.name].require()


@pytest.mark.parametrize("check", SinkConformance.checks, ids=str)
def test_a_sink_conforms(reports: list[Report], check: Check) -> None:
    """As it declares."""
    reports[1][check.name].require()
