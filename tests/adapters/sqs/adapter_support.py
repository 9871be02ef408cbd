"""The adapter at a local server that does what a test says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiobotocore.session import get_session
from eventkit_sqs import adapter
from eventkit_sqs._local import Call, Faults, LocalSqs, SqsError, serve

from eventkit.spi import DONE, Address, Delivery, Demand, Outgoing, Sink, Source

DEMAND = Demand(lease=2.0, wait=1.0)


class Trouble(Faults):
    """Answers the operations in `errors`, and single entries of those in `entries`, with an error."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.errors: dict[str, SqsError] = {}
        self.entries: dict[str, dict[str, SqsError]] = {}
        self.lost: set[str] = set()

    async def before(self, call: Call) -> Mapping[str, SqsError]:
        self.calls.append(call)
        if call.operation in self.errors:
            raise self.errors[call.operation]
        return self.entries.get(call.operation, {})

    async def after(self, call: Call, reply: dict[str, Any]) -> dict[str, Any]:
        if call.operation in self.lost:
            self.lost.discard(call.operation)
            raise SqsError("InternalFailure", "the reply was lost")
        return reply

    def number(self, operation: str) -> int:
        return sum(call.operation == operation for call in self.calls)


class Rig:
    """A server, and what can be opened at it."""

    def __init__(self, server: LocalSqs, trouble: Trouble) -> None:
        self.server = server
        self.trouble = trouble

    def address(self, queue: str) -> Address:
        return Address.parse(f"sqs://{queue}?endpoint={self.server.endpoint}")

    @asynccontextmanager
    async def source(self, queue: str = "orders", demand: Demand = DEMAND) -> AsyncIterator[Source]:
        async with adapter.open_source(self.address(queue), demand) as source:
            yield source

    @asynccontextmanager
    async def sink(self, queue: str = "orders") -> AsyncIterator[Sink]:
        async with adapter.open_sink(self.address(queue)) as sink:
            yield sink

    async def publish(self, *messages: Outgoing | bytes, queue: str = "orders") -> None:
        async with self.sink(queue) as sink:
            made = [Outgoing(body=each) if isinstance(each, bytes) else each for each in messages]
            for start in range(0, len(made), 10):
                chunk = made[start : start + 10]
                assert await sink.publish(chunk) == [DONE] * len(chunk)

    async def call(self, operation: str, **request: Any) -> Any:
        """One operation by the SDK itself."""
        async with get_session().create_client("sqs", endpoint_url=self.server.endpoint) as client:
            return await getattr(client, operation)(**request)

    async def set_attributes(self, queue: str, **attributes: object) -> None:
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in attributes.items()}
        await self.call("set_queue_attributes", QueueUrl=self.url(queue), Attributes=texts)

    def url(self, queue: str) -> str:
        return f"{self.server.endpoint}/000000000000/{queue}"


async def received(source: Source, number: int) -> list[Delivery]:
    """So many deliveries, in one receive or several."""
    found: list[Delivery] = []
    while len(found) < number:
        new = await source.receive(min(10, number - len(found)), 2.0)
        assert new, f"{len(found)} of {number} came"
        found += new
    return found


@asynccontextmanager
async def rigged(*queues: str) -> AsyncIterator[Rig]:
    """A rig, with its credentials in the environment."""
    trouble = Trouble()
    with pytest.MonkeyPatch.context() as environment:
        async with serve(queues or ("orders", "bills.fifo"), faults=trouble) as server:
            for name, value in server.environment.items():
                environment.setenv(name, value)
            environment.delenv("AWS_ENDPOINT_URL_SQS")
            yield Rig(server, trouble)
