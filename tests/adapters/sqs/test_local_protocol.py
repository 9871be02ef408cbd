"""What the local SQS server says to requests that real SQS refuses, and to those at a limit."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.adapters.sqs.local_support import Wire, local_sqs

MIB = 1_048_576
TEXT = {"DataType": "String", "StringValue": "x"}


@pytest.fixture
async def sqs() -> AsyncIterator[Wire]:
    async with local_sqs() as wire:
        yield wire


def entries(*ids: str, **more: Any) -> list[dict[str, Any]]:
    return [{"Id": id, "MessageBody": "x", **more} for id in ids]


async def test_an_unknown_queue_is_answered_in_both_vocabularies(sqs: Wire) -> None:
    """SDKs choose the exception's class by one name and show the other as its code."""
    answer = await sqs.ask("ReceiveMessage", "nobody")

    assert answer.status == 400
    assert answer.body == {
        "__type": "com.amazonaws.sqs#QueueDoesNotExist",
        "message": "The specified queue does not exist.",
    }
    assert answer.query_error == "AWS.SimpleQueueService.NonExistentQueue;Sender"


async def test_a_request_without_credentials_is_refused(sqs: Wire) -> None:
    """A client that was not told any would work here, and fail at AWS."""
    answer = await sqs.post("ListQueues", b"{}", Authorization="")

    assert (answer.status, answer.error) == (403, "MissingAuthenticationToken")


@pytest.mark.parametrize(
    ("operation", "body", "status", "error"),
    [
        ("AddPermission", b"{}", 404, "InvalidAction"),
        ("ReceiveMessage", b"{", 400, "MalformedInput"),
        ("ReceiveMessage", b'{"QueueUrl": 7}', 400, "MalformedInput"),
        ("ReceiveMessage", b'{"QueueUrl": "\xff"}', 400, "MalformedInput"),
        ("ReceiveMessage", b"{}", 400, "MissingParameter"),
        ("ReceiveMessage", b"", 400, "MissingParameter"),
        ("SendMessage", b'{"QueueUrl": "orders", "MessageBody": "\\ud800"}', 400, "MalformedInput"),
    ],
)
async def test_what_is_no_request_is_answered_not_dropped(
    sqs: Wire, operation: str, body: bytes, status: int, error: str
) -> None:
    """Whoever writes a client by hand must see what is wrong with it."""
    answer = await sqs.post(operation, body)

    assert (answer.status, answer.error) == (status, error)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"MaxNumberOfMessages": 0}, "InvalidParameterValue"),
        ({"MaxNumberOfMessages": 11}, "InvalidParameterValue"),
        ({"WaitTimeSeconds": 21}, "InvalidParameterValue"),
        ({"WaitTimeSeconds": -1}, "InvalidParameterValue"),
        ({"VisibilityTimeout": 43_201}, "InvalidParameterValue"),
        ({"MessageSystemAttributeNames": ["Age"]}, "InvalidAttributeName"),
    ],
)
async def test_a_receive_beyond_its_ranges_is_refused(sqs: Wire, request_: dict[str, Any], error: str) -> None:
    """Moto takes some of these; an adapter that asks for them must not pass its tests."""
    assert await sqs.error("ReceiveMessage", "orders", **request_) == error


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"MessageBody": ""}, "MissingParameter"),
        ({"MessageBody": "bell \x07"}, "InvalidMessageContents"),
        ({"MessageBody": "\ufffe"}, "InvalidMessageContents"),
        ({"MessageBody": "\u0000"}, "InvalidMessageContents"),
        ({"DelaySeconds": 901}, "InvalidParameterValue"),
        ({"DelaySeconds": -1}, "InvalidParameterValue"),
        ({"MessageDeduplicationId": "x"}, "InvalidParameterValue"),
        ({"MessageGroupId": "a b"}, "InvalidParameterValue"),
        ({"MessageAttributes": {f"a{n}": TEXT for n in range(11)}}, "InvalidParameterValue"),
        ({"MessageAttributes": {"AWS.trace": TEXT}}, "InvalidParameterValue"),
        ({"MessageAttributes": {"amazon.x": TEXT}}, "InvalidParameterValue"),
        ({"MessageAttributes": {"ce:id": TEXT}}, "InvalidParameterValue"),
        ({"MessageAttributes": {".a": TEXT}}, "InvalidParameterValue"),
        ({"MessageAttributes": {"a..b": TEXT}}, "InvalidParameterValue"),
        ({"MessageAttributes": {"a" * 257: TEXT}}, "InvalidParameterValue"),
        ({"MessageAttributes": {"a": {"DataType": "String", "StringValue": ""}}}, "InvalidParameterValue"),
        ({"MessageAttributes": {"a": {"DataType": "String"}}}, "InvalidParameterValue"),
        ({"MessageAttributes": {"a": {"DataType": "String", "StringValue": "\x01"}}}, "InvalidParameterValue"),
        ({"MessageAttributes": {"a": {"DataType": "Number", "StringValue": "many"}}}, "InvalidParameterValue"),
        ({"MessageAttributes": {"a": {"DataType": "Text", "StringValue": "x"}}}, "InvalidParameterValue"),
        ({"MessageAttributes": {"a": {"DataType": "Binary", "StringValue": "x"}}}, "InvalidParameterValue"),
        ({"MessageSystemAttributes": {"Trace": TEXT}}, "InvalidParameterValue"),
    ],
)
async def test_a_message_that_sqs_would_refuse_is_refused(sqs: Wire, message: dict[str, Any], error: str) -> None:
    """What a stand-in swallows is lost in production; alone, and as an entry of a batch beside a good one."""
    message = {"MessageBody": "x", **message}
    assert await sqs.error("SendMessage", "orders", **message) == error

    batch = await sqs.call("SendMessageBatch", "orders", Entries=[{"Id": "bad", **message}, *entries("good")])
    assert [done["Id"] for done in batch["Successful"]] == ["good"]
    [failed] = batch["Failed"]
    assert failed["Message"]
    assert (failed["Id"], failed["Code"], failed["SenderFault"]) == ("bad", error, True)
    assert await sqs.bodies("orders") == ["x"]


async def test_what_is_just_allowed_comes_back_as_it_was(sqs: Wire) -> None:
    """The other side of each limit: ten attributes, the longest name, every legal kind of character and of value."""
    body = "\t\n\r \u0085 é \ud7ff\ue000\ufffd\U00010000\U0010ffff"
    attributes = {
        "a" * 256: TEXT,
        "A-z_0.9": {"DataType": "Number.int", "StringValue": "-1.5e3"},
        "bytes": {"DataType": "Binary", "BinaryValue": "AAH/"},
        **{f"more{n}": TEXT for n in range(7)},
    }
    await sqs.send("orders", body, MessageAttributes=attributes)

    [message] = await sqs.receive("orders", MessageAttributeNames=["All"])
    assert message["Body"] == body
    assert message["MessageAttributes"] == attributes


@pytest.mark.parametrize("queue", ["orders", "small"])
async def test_a_message_counts_with_its_attributes_up_to_the_limit(sqs: Wire, queue: str) -> None:
    """The name, the type and the value of an attribute are part of the size; the limit itself is allowed."""
    await sqs.call("CreateQueue", QueueName="small", Attributes={"MaximumMessageSize": "2000"})
    room = (MIB if queue == "orders" else 2_000) - len("nameStringvalue")
    attributes = {"name": {"DataType": "String", "StringValue": "value"}}

    await sqs.send(queue, "x" * room, MessageAttributes=attributes)

    larger = "x" * (room - 1) + "é"
    assert (
        await sqs.error("SendMessage", queue, MessageBody=larger, MessageAttributes=attributes)
        == "InvalidParameterValue"
    )


async def test_a_batch_has_a_limit_as_a_whole(sqs: Wire) -> None:
    """Ten messages that are fine one by one can still be too much: nothing of such a batch is sent."""
    half = "x" * (MIB // 2)
    both = [{"Id": "1", "MessageBody": half}, {"Id": "2", "MessageBody": half}]
    await sqs.call("SendMessageBatch", "orders", Entries=both)

    both[1]["MessageBody"] += "x"
    assert await sqs.error("SendMessageBatch", "orders", Entries=both) == "BatchRequestTooLong"
    assert await sqs.depth("orders") == (2, 0, 0)


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        ([], "EmptyBatchRequest"),
        ([str(n) for n in range(11)], "TooManyEntriesInBatchRequest"),
        (["1", "2", "1"], "BatchEntryIdsNotDistinct"),
        (["a b"], "InvalidBatchEntryId"),
        (["x" * 81], "InvalidBatchEntryId"),
        ([""], "InvalidBatchEntryId"),
    ],
)
@pytest.mark.parametrize("operation", ["SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"])
async def test_a_batch_that_is_none_is_refused_as_a_whole(
    sqs: Wire, operation: str, ids: list[str], error: str
) -> None:
    """An adapter that lets a wrong batch through must fail here, not in production."""
    batch = entries(*ids, ReceiptHandle="x", VisibilityTimeout=0)

    answer = await sqs.ask(operation, "orders", Entries=batch)
    assert (answer.status, answer.error) == (400, error)
    assert answer.body["__type"] == f"com.amazonaws.sqs#{error}"


async def test_the_digests_are_those_that_aws_computes() -> None:
    """SDKs compare the one of the body, and producers may compare both. The expected ones were recorded at AWS."""
    hello = {name: {"DataType": "String", "StringValue": value} for name, value in (("Hello", "There"),)}
    three = hello | {
        name: {"DataType": "String", "StringValue": value} for name, value in (("General", "Kenobi"), ("Help.Me", "Me"))
    }
    async with local_sqs() as sqs:
        sent = await sqs.call("SendMessage", "orders", MessageBody="msg", MessageAttributes=three)
        assert sent["MD5OfMessageBody"] == "6e2baaf3b97dbeef01c0043275f9a0e7"
        assert sent["MD5OfMessageAttributes"] == "4c360f3fdafd970e05fae2f149d997f5"

        for names, digest in {
            ("All",): "4c360f3fdafd970e05fae2f149d997f5",
            (".*",): "4c360f3fdafd970e05fae2f149d997f5",
            ("Hello", "General"): "fca026605781cb4126a1e9044df24232",
            ("Hello", "Nobody"): "a311262e065454b75da111d535b8dacd",
            ("Hel.*",): "83fee93c1bcd8b9a5a923ffacdc636c7",
            ("Nobody",): None,
            (): None,
        }.items():
            [message] = await sqs.receive("orders", VisibilityTimeout=0, MessageAttributeNames=names)
            assert message["MD5OfBody"] == "6e2baaf3b97dbeef01c0043275f9a0e7"
            assert message.get("MD5OfMessageAttributes") == digest
            assert ("MessageAttributes" in message) == (digest is not None)


async def test_the_digest_of_bytes_is_marked_as_such(sqs: Wire) -> None:
    """Byte by byte as the documentation has it, and sorted by name."""
    attributes = {"n": {"DataType": "Number", "StringValue": "7"}, "b": {"DataType": "Binary", "BinaryValue": "AP8="}}
    first = b"\0\0\0\1b" + b"\0\0\0\6Binary" + b"\2" + b"\0\0\0\2" + b"\0\xff"
    second = b"\0\0\0\1n" + b"\0\0\0\6Number" + b"\1" + b"\0\0\0\x017"

    sent = await sqs.call("SendMessage", "orders", MessageBody="x", MessageAttributes=attributes)
    assert sent["MD5OfMessageAttributes"] == hashlib.md5(first + second).hexdigest()


async def test_the_digest_of_a_trace_header_is_its_own(sqs: Wire) -> None:
    """It travels beside the attributes, is not counted, and comes back among the system's."""
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988"}}
    sent = await sqs.call("SendMessage", "orders", MessageBody="x", MessageSystemAttributes=trace)

    assert "MD5OfMessageAttributes" not in sent
    assert len(sent["MD5OfMessageSystemAttributes"]) == 32
    [message] = await sqs.receive("orders")
    assert message["Attributes"]["AWSTraceHeader"] == "Root=1-5759e988"


async def test_an_empty_receive_has_no_messages_key(sqs: Wire) -> None:
    """Code that reads reply["Messages"] fails at AWS, and must fail here."""
    assert await sqs.call("ReceiveMessage", "orders") == {}


async def test_only_a_post_with_its_headers_is_a_request(sqs: Wire) -> None:
    """A page in a browser can send neither without asking first, and is not answered."""
    async with sqs.session.get(sqs.place.endpoint) as reply:
        assert reply.status == 404
        assert "InvalidAction" in reply.headers["x-amzn-query-error"]
    async with sqs.session.options(sqs.place.endpoint) as reply:
        assert reply.status == 404
        assert "Access-Control-Allow-Origin" not in reply.headers
    form = b"Action=ListQueues&Version=2012-11-05"
    async with sqs.session.post(sqs.place.endpoint, data=form) as reply:
        assert "JSON protocol" in msgspec.json.decode(await reply.read())["message"]
