"""A second opinion: the adapter at moto's SQS, which others wrote. What moto does otherwise is listed, with reasons."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import pytest
from aiobotocore.session import get_session
from eventkit_sqs import adapter

from eventkit.spi import Address, Demand
from eventkit.testing.conformance import Check, Place, Report, SinkConformance, SourceConformance, Status
from tests.process.ports import free_port

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

KINDS = {"standard": False, "FIFO": True}
DEVIATIONS = {
    "the_same_receipt_twice_in_a_call_has_two_answers": "it takes equal receipt handles in a batch for equal ids of "
    "its entries, and refuses the call (BatchEntryIdsNotDistinct); SQS compares the ids",
}
"""Name of a check that moto does not let pass -> what it does that SQS does not."""

RACES = {
    "receives_side_by_side_share_what_there_is": "its threads do not exclude one another: two receives at one instant "
    "may be given the same message, or none, about once in ten runs",
}
"""Name of a check that moto passes most of the time -> why not always."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A moto server, as a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        yield f"http://127.0.0.1:{port}"
        server.kill()


@pytest.fixture(scope="module")
def suites(endpoint: str) -> dict[str, list[Report]]:
    """All checks of sources, then all of sinks, for each kind of queue."""

    async def main() -> dict[str, list[Report]]:
        with pytest.MonkeyPatch.context() as environment:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                environment.setenv(name, "moto")
            environment.setenv("AWS_DEFAULT_REGION", "eu-north-1")
            return {kind: await _run(endpoint, ordered=ordered) for kind, ordered in KINDS.items()}

    return anyio.run(main)


async def _run(endpoint: str, *, ordered: bool) -> list[Report]:
    numbers = count()
    async with get_session().create_client("sqs", endpoint_url=endpoint) as client:
        await _until_it_answers(client)

        @asynccontextmanager
        async def places() -> AsyncIterator[Place]:
            name = f"q{next(numbers)}{'.fifo' * ordered}"
            await client.create_queue(QueueName=name, Attributes={"FifoQueue": "true"} if ordered else {})
            address = Address.parse(f"sqs://{name}?endpoint={endpoint}")
            missing = Address.parse(f"sqs://missing?endpoint={endpoint}")
            yield Place(source=address, sink=address, missing=missing, missing_sink=missing)

        # Its clock counts whole seconds, and each of its long polls keeps a thread busy.
        terms: dict[str, Any] = {"lease": 2.0, "wire": 1.0, "slack": 0.5, "demand": Demand(wait=1.0)}
        source = SourceConformance(adapter, places, ordered=ordered, **terms)
        sink = SinkConformance(adapter, places, ordered=ordered, **terms)
        return [await _all(source), await _all(sink)]


async def _all(suite: SourceConformance | SinkConformance) -> Report:
    """Every check; those that moto fails now and then are given three tries."""
    report = await suite.run_all(side_by_side=6)
    results = list(report.results)
    for position, result in enumerate(results):
        for _ in range(2):
            if result.check.name in RACES and result.status is Status.FAILED:
                results[position] = await suite.run(result.check)
    return Report(results)


async def _until_it_answers(client: Any) -> None:
    with anyio.fail_after(30):
        while True:
            try:
                await client.list_queues()
            except Exception:  # noqa: BLE001 - whatever a server that is not there yet makes of it
                await anyio.sleep(0.1)
            else:
                return


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", [*SourceConformance.checks, *SinkConformance.checks], ids=str)
def test_the_adapter_conforms_at_moto(suites: dict[str, list[Report]], check: Check, kind: str) -> None:
    """Where moto is listed to differ, it must: else the list is not true any more."""
    report = suites[kind][check in SinkConformance.checks]
    result = report[check.name]
    if check.name in DEVIATIONS:
        assert result.status is Status.FAILED, f"moto does it now; it did not, as {DEVIATIONS[check.name]}"
    else:
        result.require()
