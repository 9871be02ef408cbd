"""The local server with a clock of the test's own, and a client that says exactly what the test wants."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any, NamedTuple

import aiohttp
import msgspec
from eventkit_sqs._local import LocalSqs, serve

QUEUES = ("orders", "bills.fifo")


class Clock:
    """Real time, and as much more as the test skips."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def now(self) -> float:
        return time.monotonic() + self.skipped

    def wall(self) -> float:
        return time.time() + self.skipped

    def skip(self, seconds: float) -> None:
        self.skipped += seconds


class Answer(NamedTuple):
    """A reply as it was on the wire."""

    status: int
    body: dict[str, Any]
    query_error: str

    @property
    def error(self) -> str:
        """The code an SDK shows; empty for a success."""
        return self.query_error.partition(";")[0].removeprefix("AWS.SimpleQueueService.")


class Wire:
    """A client without an SDK: no check, no retry."""

    def __init__(self, place: LocalSqs, clock: Clock, session: aiohttp.ClientSession) -> None:
        self.place = place
        self.clock = clock
        self.session = session

    def url(self, queue: str) -> str:
        return f"{self.place.endpoint}/000000000000/{queue}"

    def arn(self, queue: str) -> str:
        return f"arn:aws:sqs:local:000000000000:{queue}"

    async def ask(self, operation: str, queue: str | None = None, /, **request: Any) -> Answer:
        """One request, whatever comes of it."""
        if queue is not None:
            request = {"QueueUrl": self.url(queue), **request}
        return await self.post(operation, msgspec.json.encode(request))

    async def post(self, operation: str, body: bytes, **headers: str) -> Answer:
        headers = {"X-Amz-Target": f"AmazonSQS.{operation}", "Authorization": "AWS4-HMAC-SHA256 whatever", **headers}
        headers = {name: value for name, value in headers.items() if value}
        async with self.session.post(self.place.endpoint, data=BytesIO(body), headers=headers) as reply:
            assert reply.content_type == "application/x-amz-json-1.0"
            return Answer(
                reply.status, msgspec.json.decode(await reply.read()), reply.headers.get("x-amzn-query-error", "")
            )

    async def call(self, operation: str, queue: str | None = None, /, **request: Any) -> dict[str, Any]:
        """One request that succeeds."""
        answer = await self.ask(operation, queue, **request)
        assert answer.status == 200, answer
        return answer.body

    async def error(self, operation: str, queue: str | None = None, /, **request: Any) -> str:
        """The code of a request that fails."""
        answer = await self.ask(operation, queue, **request)
        assert answer.status >= 400, answer
        return answer.error

    async def send(self, queue: str, *bodies: str, **more: Any) -> None:
        for body in bodies:
            await self.call("SendMessage", queue, MessageBody=body, **more)

    async def receive(self, queue: str, most: int = 10, **more: Any) -> list[dict[str, Any]]:
        request = {"MaxNumberOfMessages": most, "MessageSystemAttributeNames": ["All"], **more}
        found: list[dict[str, Any]] = (await self.call("ReceiveMessage", queue, **request)).get("Messages", [])
        return found

    async def bodies(self, queue: str, most: int = 10, **more: Any) -> list[str]:
        return [message["Body"] for message in await self.receive(queue, most, **more)]

    async def change(self, queue: str, message: dict[str, Any], seconds: int) -> Answer:
        handle = message["ReceiptHandle"]
        return await self.ask("ChangeMessageVisibility", queue, ReceiptHandle=handle, VisibilityTimeout=seconds)

    async def delete(self, queue: str, message: dict[str, Any]) -> Answer:
        return await self.ask("DeleteMessage", queue, ReceiptHandle=message["ReceiptHandle"])

    async def depth(self, queue: str) -> tuple[int, int, int]:
        """Visible, delayed, in flight."""
        found = (await self.call("GetQueueAttributes", queue, AttributeNames=["All"]))["Attributes"]
        names = ("", "Delayed", "NotVisible")
        visible, delayed, in_flight = (int(found[f"ApproximateNumberOfMessages{name}"]) for name in names)
        return visible, delayed, in_flight


@asynccontextmanager
async def local_sqs(**options: Any) -> AsyncIterator[Wire]:
    """A server with the queues above, and a client."""
    clock = Clock()
    async with (
        serve(QUEUES, clock=clock.now, wall=clock.wall, **options) as place,
        aiohttp.ClientSession() as session,
    ):
        yield Wire(place, clock, session)
