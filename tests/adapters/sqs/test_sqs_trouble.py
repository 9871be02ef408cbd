"""Workers on SQS when something is wrong: each trouble has one documented end, a clear line, and loses nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio import current_time
from eventkit_sqs._local import SqsError, serve

from eventkit import Backoff, Event, Handler, Report, Worker
from eventkit._telemetry.records import EventDeadLettered, Level, ReceiveFailed, Record, SettleFailed, WorkerWarning
from eventkit.errors import AccessDenied, SourceNotFound
from eventkit.spi import Address, Backlog, Delivery, Depth, Outgoing
from eventkit.testing import FaultProxy
from tests.adapters.sqs.adapter_support import Rig, received, rigged


class Notes(Handler[Any]):
    """Notes what it is given."""

    def __init__(self) -> None:
        self.events: list[Event[Any]] = []

    async def handle(self, event: Event[Any]) -> None:
        self.events.append(event)


class Run:
    """A worker that runs, and what it says."""

    level = Level.INFO

    def __init__(self, address: object, handler: Handler[Any], **options: Any) -> None:
        self.records: list[Record] = []
        settings: dict[str, Any] = {"lease": 2.0, "wait": 1.0, "drain": 4.0, "retry": Backoff(maximum=5)}
        self.worker = Worker(str(address), handler, observers=[self], **settings | options)
        self.report: Report | None = None
        self.error: BaseException | None = None

    def observe(self, record: Record) -> None:
        self.records.append(record)

    def of(self, kind: type[Record]) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]

    async def run(self) -> None:
        try:
            self.report = await self.worker.run()
        except Exception as exc:  # noqa: BLE001 - what a worker ends with is what the tests look at
            self.error = exc


@asynccontextmanager
async def running(address: object, handler: Handler[Any], **options: Any) -> AsyncIterator[Run]:
    run = Run(address, handler, **options)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run.run)
        yield run
        run.worker.drain()


async def until(true: Callable[[], bool], seconds: float = 8.0) -> None:
    with anyio.fail_after(seconds):
        while not true():
            await anyio.sleep(0.02)


def cloud_event(id: str, data: object = None) -> bytes:
    return json.dumps({"specversion": "1.0", "id": id, "source": "/test", "type": "test", "data": data}).encode()


# -- what comes out of the queue ---------------------------------------------------------------------

HOSTILE = {
    "an SNS envelope that is cut": b'{"Type": "Notification", "TopicArn": "arn:aws:sns:x:1:t", "Message": "{\\"a\\"',
    "a CloudEvent with an empty id": b'{"specversion": "1.0", "id": "", "source": "/a", "type": "t"}',
    "no JSON at all": b"\x00\x01\x02\xff",
    "text in place of JSON": b"hello",
    "a deep structure": b"[" * 100_000,
}


async def test_what_cannot_be_read_is_dead_lettered_with_a_reason_and_holds_up_nobody() -> None:
    """Anybody may write to a queue; a worker that stumbles over it stops the business."""
    async with rigged() as rig:
        await rig.publish(*HOSTILE.values())
        unknown = Outgoing(body=cloud_event("x"), content_type="application/x-unknown")
        await rig.publish(unknown, cloud_event("good"))
        handler = Notes()
        async with running(rig.address("orders"), handler) as run:
            await until(lambda: len(run.of(EventDeadLettered)) == len(HOSTILE) + 1 and bool(handler.events))
        async with rig.source("orders-dlq") as letters:
            bodies = [delivery.body for delivery in await received(letters, len(HOSTILE) + 1)]

    assert [event.id for event in handler.events] == ["good"]
    assert {record.reason for record in run.of(EventDeadLettered)} == {"decode"}
    assert sorted(bodies) == sorted([*HOSTILE.values(), unknown.body])


async def test_an_empty_message_is_an_event_without_data() -> None:
    """SQS takes none, and eventkit's own sink has a way to say it; the handler's type decides what to make of it."""
    async with rigged() as rig:
        await rig.publish(b"")
        handler = Notes()
        async with running(rig.address("orders"), handler):
            await until(lambda: bool(handler.events))

    assert handler.events[0].data is None


async def test_attributes_of_other_types_arrive_as_text() -> None:
    """Producers use numbers and bytes; a handler gets what it can read."""
    async with rigged() as rig:
        attributes = {
            "count": {"DataType": "Number", "StringValue": "7"},
            "blob": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
            "odd": {"DataType": "String.uuid", "StringValue": "x"},
        }
        await rig.call("send_message", QueueUrl=rig.url("orders"), MessageBody="{}", MessageAttributes=attributes)
        async with rig.source() as source:
            [delivery] = await received(source, 1)

    assert delivery.attributes == {"count": "7", "blob": base64.b64encode(b"\x00\xff").decode(), "odd": "x"}


# -- dead letters ------------------------------------------------------------------------------------


async def letters_of(rig: Rig, number: int) -> list[Delivery]:
    async with rig.source("orders-dlq") as letters:
        return await received(letters, number)


async def test_an_original_with_ten_attributes_or_of_the_largest_size_is_dead_lettered_all_the_same() -> None:
    """An event that cannot be handled, nor put away, would come for ever."""
    async with rigged() as rig:
        full = Outgoing(body=b"broken", attributes={f"name-{number}": str(number) for number in range(10)})
        largest = Outgoing(body=b"x" * 1_048_576)
        await rig.publish(full, largest)
        async with running(rig.address("orders"), Notes()) as run:
            await until(lambda: len(run.of(EventDeadLettered)) == 2)
        first, second = sorted(await letters_of(rig, 2), key=lambda letter: len(letter.body))

    detail = json.loads(first.attributes["eventkit-dead-letter"])
    assert detail["reason"] == "decode"
    assert {name: value for name, value in first.attributes.items() if name in full.attributes} == full.attributes
    assert (first.body, second.body) == (full.body, largest.body)
    assert not second.attributes, "there is no room beside it"


async def test_a_dead_letter_queue_without_permission_keeps_the_event_and_says_so() -> None:
    """It stays in the queue and comes again, a minute later each time, until somebody grants it."""
    async with rigged() as rig:
        await rig.publish(b"broken")
        rig.trouble.errors = {"SendMessageBatch": SqsError("AccessDenied", "no sqs:SendMessage")}
        async with running(rig.address("orders"), Notes()) as run:
            await until(lambda: bool(run.of(SettleFailed)))
            await anyio.sleep(1.0)
            assert rig.trouble.number("SendMessageBatch") < 5
        assert "no sqs:SendMessage" in run.of(SettleFailed)[0].cause
        assert not run.of(EventDeadLettered)
        async with rig.source() as source:
            assert isinstance(source, Backlog)
            depth = await source.depth()
        assert depth is not None
        assert depth.ready + depth.delayed + depth.leased == 1
        assert not depth.dead


# -- the queue, the credentials, the server ------------------------------------------------------------


async def test_a_queue_that_is_deleted_ends_the_worker_with_its_name() -> None:
    """Whoever runs it learns why; the orchestrator starts it again, and it says so again."""
    async with rigged() as rig, running(rig.address("orders"), Notes()) as run:
        await until(lambda: rig.trouble.number("ReceiveMessage") > 0)
        await rig.call("delete_queue", QueueUrl=rig.url("orders"))
        await until(lambda: run.error is not None)

    assert isinstance(run.error, SourceNotFound)
    assert "sqs://orders" in str(run.error)


async def test_credentials_that_expire_end_the_worker_with_what_to_do() -> None:
    """Those that can be renewed the SDK renews by itself; the others need a new start."""
    async with rigged() as rig, running(rig.address("orders"), Notes()) as run:
        await until(lambda: rig.trouble.number("ReceiveMessage") > 0)
        expired = SqsError("ExpiredToken", "The security token included in the request is expired")
        rig.trouble.errors = dict.fromkeys(["ReceiveMessage", "DeleteMessageBatch"], expired)
        await until(lambda: run.error is not None)

    assert isinstance(run.error, AccessDenied)
    assert "have expired" in str(run.error)


async def test_throttling_slows_the_worker_down_and_loses_nothing() -> None:
    """Each call that is turned away costs, too: ever fewer are made."""
    async with rigged() as rig:
        handler = Notes()
        async with running(rig.address("orders"), handler) as run:
            await until(lambda: rig.trouble.number("ReceiveMessage") > 0)
            throttled = SqsError("RequestThrottled", "slow down")
            rig.trouble.errors = dict.fromkeys(["ReceiveMessage", "DeleteMessageBatch", "SendMessageBatch"], throttled)
            before = rig.trouble.number("ReceiveMessage")
            await anyio.sleep(4.0)
            calls = rig.trouble.number("ReceiveMessage") - before
            rig.trouble.errors = {}
            await rig.publish(cloud_event("later"))
            await until(lambda: bool(handler.events), 14.0)

    assert 1 <= calls <= 8 * 5, "of eight receives at most, each waits a second at least, and ever longer"
    assert {record.error for record in run.of(ReceiveFailed)} == {"eventkit.errors.Throttled"}
    assert run.error is None


async def test_a_server_that_starts_again_is_found_again() -> None:
    """Connections break, leases may be gone; what was in hand is settled or comes again."""
    async with rigged() as rig:
        upstream = urlsplit(rig.server.endpoint)
        assert upstream.port is not None
        handler = Notes()
        async with FaultProxy("127.0.0.1", upstream.port) as proxy:
            address = Address.parse(f"sqs://orders?endpoint=http://{proxy.host}:{proxy.port}")
            async with running(address, handler) as run:
                await rig.publish(*[cloud_event(str(number)) for number in range(20)])
                await until(lambda: bool(handler.events))
                proxy.refuse()
                proxy.reset()
                await rig.publish(*[cloud_event(str(number)) for number in range(20, 40)])
                await anyio.sleep(1.0)
                healed = current_time()
                proxy.heal()
                await until(lambda: len({event.id for event in handler.events}) == 40, 10.0)
                assert current_time() - healed < 10.0
                async with rig.source() as source:
                    assert isinstance(source, Backlog)
                    with anyio.fail_after(5.0):  # some were leased by a reply that nobody got
                        while await source.depth() != Depth(ready=0):
                            await anyio.sleep(0.1)

    assert run.error is None
    assert not run.of(EventDeadLettered)


async def test_what_start_up_finds_is_in_the_log() -> None:
    """A warning nobody sees is none."""
    async with rigged() as rig, running(rig.address("bills.fifo"), Notes()) as run:
        await until(lambda: bool(run.of(WorkerWarning)))

    assert any("FIFO" in record.warning for record in run.of(WorkerWarning))


async def test_two_servers_do_not_know_each_other() -> None:
    """Tests side by side must not meet."""
    async with serve(["orders"]) as one, serve(["orders"]) as two:
        assert one.endpoint != two.endpoint
        assert one.counts() == two.counts()
