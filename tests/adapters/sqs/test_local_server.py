"""The local SQS server as such: faults on the way, its start and its end."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import msgspec
import pytest
from eventkit_sqs._local import Call, ConnectionDropped, Faults, SqsError, serve

from eventkit.errors import ConfigurationError
from eventkit.spi import LocalPlace
from tests.adapters.sqs.local_support import Wire, local_sqs


@pytest.fixture
async def sqs() -> AsyncIterator[Wire]:
    async with local_sqs() as wire:
        yield wire


# -- faults --------------------------------------------------------------------------------------


class Refuse(Faults):
    def __init__(self, name: str) -> None:
        self.error = SqsError(name, "on purpose")
        self.calls: list[Call] = []

    async def before(self, call: Call) -> Mapping[str, SqsError]:
        self.calls.append(call)
        raise self.error


@pytest.mark.parametrize(
    ("name", "type", "code", "status"),
    [
        ("ThrottlingException", "com.amazon.coral.service#ThrottlingException", "ThrottlingException", 400),
        ("RequestThrottled", "com.amazonaws.sqs#RequestThrottled", "RequestThrottled", 403),
        ("AccessDenied", "com.amazon.coral.service#AccessDeniedException", "AccessDenied", 403),
        ("ExpiredToken", "com.amazon.coral.service#ExpiredTokenException", "ExpiredToken", 403),
        ("ServiceUnavailable", "com.amazon.coral.service#ServiceUnavailableException", "ServiceUnavailable", 503),
        ("OverLimit", "com.amazonaws.sqs#OverLimit", "OverLimit", 400),
    ],
)
async def test_a_fault_answers_in_place_of_the_queue(sqs: Wire, name: str, type: str, code: str, status: int) -> None:
    """What AWS answers under load or without permission cannot be had otherwise; the call is not done."""
    faults = sqs.place.faults = Refuse(name)
    answer = await sqs.ask("SendMessage", "orders", MessageBody="x")
    assert (answer.status, answer.error, answer.body) == (status, code, {"__type": type, "message": "on purpose"})
    assert answer.query_error.endswith(";Sender" if status < 500 else ";Receiver")
    [call] = faults.calls
    assert (call.operation, call.queue, call.request["MessageBody"]) == ("SendMessage", "orders", "x")

    sqs.place.faults = None
    assert await sqs.bodies("orders") == []


async def test_a_server_can_start_with_faults() -> None:
    """A worker's first call is one that can fail, too."""
    async with local_sqs(faults=Refuse("AccessDenied")) as sqs:
        assert await sqs.error("GetQueueUrl", QueueName="orders") == "AccessDenied"


class RefuseEntries(Faults):
    async def before(self, call: Call) -> Mapping[str, SqsError]:
        ids = [entry["Id"] for entry in call.request.get("Entries", ())]
        return {id: SqsError("InternalFailure", "on purpose") for id in ids if id != "good"}


async def test_a_fault_can_fail_some_entries_of_a_batch(sqs: Wire) -> None:
    """Partial failure by the service itself: the others are done, and it is not the sender's fault."""
    sqs.place.faults = RefuseEntries()
    entries = [{"Id": id, "MessageBody": id} for id in ("bad", "good")]
    reply = await sqs.call("SendMessageBatch", "orders", Entries=entries)
    assert [done["Id"] for done in reply["Successful"]] == ["good"]
    failed = {"Id": "bad", "Code": "InternalFailure", "SenderFault": False, "Message": "on purpose"}
    assert reply["Failed"] == [failed]
    reply = await sqs.call("SendMessageBatch", "orders", Entries=entries[:1])
    assert reply == {"Failed": [failed]}
    assert await sqs.bodies("orders") == ["good"]


class LoseReply(Faults):
    async def after(self, call: Call, reply: dict[str, Any]) -> dict[str, Any]:
        raise ConnectionDropped


class Spoil(Faults):
    async def after(self, call: Call, reply: dict[str, Any]) -> dict[str, Any]:
        return {"Messages": "none"}


async def test_a_reply_can_be_lost_or_spoiled_after_the_call_was_done(sqs: Wire) -> None:
    """The outcome that no client can know; and an answer that no service should give."""
    sqs.place.faults = LoseReply()
    with pytest.raises(aiohttp.ClientError):
        await sqs.ask("SendMessage", "orders", MessageBody="x")
    sqs.place.faults = Spoil()
    assert await sqs.call("ReceiveMessage", "orders", VisibilityTimeout=0) == {"Messages": "none"}
    sqs.place.faults = None

    [message] = await sqs.receive("orders")
    assert message["Attributes"]["ApproximateReceiveCount"] == "2"


class Hold(Faults):
    """Nothing gets through until the end of time."""

    async def before(self, call: Call) -> Mapping[str, SqsError]:
        await asyncio.Event().wait()
        return {}


async def test_a_call_that_is_held_up_until_its_client_leaves_is_not_done(sqs: Wire) -> None:
    """A network that delivers nothing: the client's timeout is all there is."""
    sqs.place.faults = Hold()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sqs.send("orders", "x"), 0.1)
    sqs.place.faults = None

    assert await sqs.depth("orders") == (0, 0, 0)


# -- its start and its end -----------------------------------------------------------------------


async def test_a_place_says_how_to_find_it(sqs: Wire) -> None:
    """What a test sets in the environment is all that an SDK needs; the credentials are nobody's."""
    place: LocalPlace = sqs.place

    assert place.endpoint.startswith("http://127.0.0.1:")
    assert place.address("orders") == "sqs://orders"
    assert place.environment == {
        "AWS_ENDPOINT_URL_SQS": place.endpoint,
        "AWS_REGION": "local",
        "AWS_DEFAULT_REGION": "local",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }


async def test_leaving_ends_long_polls_and_what_a_fault_holds_up() -> None:
    """Ctrl-C must not take the 20 seconds of a poll; a poll gets its empty answer."""
    async with aiohttp.ClientSession() as session:
        async with local_sqs() as sqs:
            outside = Wire(sqs.place, sqs.clock, session)
            polls = [asyncio.create_task(outside.bodies("orders", WaitTimeSeconds=20)) for _ in range(3)]
            await asyncio.sleep(0.1)
            sqs.place.faults = Hold()
            held = asyncio.create_task(outside.ask("ListQueues"))
            await asyncio.sleep(0.1)
            started = time.monotonic()
        assert time.monotonic() - started < 1.5
        assert await asyncio.gather(*polls) == [[], [], []]
        with pytest.raises(aiohttp.ClientError):
            await held


async def test_a_port_that_is_taken_is_said_once_and_clearly() -> None:
    """The commonest failure of a second start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 is taken") as caught:
            async with serve(["orders"], port=port):
                pytest.fail("it listens")
        assert len(caught.value.problems) == 1


async def test_every_name_that_cannot_be_is_listed() -> None:
    """One start shows all mistakes; a queue whose dead-letter queue has too long a name is one."""
    with pytest.raises(ConfigurationError) as caught:
        async with serve(["a b", "orders", "x" * 77]):
            pytest.fail("it serves them")
    assert [problem.split("'")[1] for problem in caught.value.problems] == ["a b", "x" * 77]


async def test_a_port_can_be_used_again_at_once() -> None:
    """So that a configuration can stay while the server is restarted."""
    async with serve(["orders"]) as place:
        port = int(place.endpoint.rpartition(":")[2])
        async with aiohttp.ClientSession() as session, session.get(place.endpoint):
            pass
    async with serve(["orders"], port=port) as again:
        assert again.endpoint == place.endpoint


def test_without_aiohttp_the_extra_is_named() -> None:
    """The adapter itself works without it, so the import of the server is where it shows."""
    code = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from eventkit.errors import AdapterNotInstalled\n"
        "try:\n"
        "    import types; package = types.ModuleType('eventkit_sqs'); package.__path__ = [sys.argv[1]]\n"
        "    sys.modules['eventkit_sqs'] = package\n"
        "    import eventkit_sqs._local\n"
        "except AdapterNotInstalled as exc:\n"
        "    print(exc)\n"
    )
    import eventkit_sqs

    folder = eventkit_sqs.__path__[0]
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True, timeout=15)
    assert 'pip install "eventkit-worker[local]"' in done.stdout


async def test_a_thousand_messages_pass_unharmed(sqs: Wire) -> None:
    """Each once, and nothing left: batches of ten, several clients at a time."""

    async def work() -> int:
        done = 0
        while messages := await sqs.receive("orders"):
            entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
            reply = await sqs.call("DeleteMessageBatch", "orders", Entries=entries)
            done += len(reply["Successful"])
        return done

    for start in range(0, 1_000, 10):
        entries = [{"Id": str(n), "MessageBody": f"message {start + n}"} for n in range(10)]
        await sqs.call("SendMessageBatch", "orders", Entries=entries)
    assert sum(await asyncio.gather(*(work() for _ in range(5)))) == 1_000
    assert msgspec.structs.asdict(sqs.place.counts()) == {
        "published": 1_000,
        "delivered": 1_000,
        "acked": 1_000,
        "nacked": 0,
        "expired": 0,
        "dead": 0,
    }


async def test_what_is_sent_to_a_dead_letter_queue_counts_as_dead() -> None:
    """Workers put their dead letters there themselves, and whoever looks at them must not change the counts."""
    async with local_sqs() as sqs:
        await sqs.send("orders", "handled")
        await sqs.delete("orders", (await sqs.receive("orders"))[0])
        await sqs.send("orders-dlq", "given up")
        await sqs.receive("orders-dlq")
        counts = sqs.place.counts()

    assert (counts.published, counts.delivered, counts.acked, counts.dead) == (1, 1, 1, 1)
