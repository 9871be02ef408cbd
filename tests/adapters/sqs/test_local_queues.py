"""Queues of the local SQS server: made, changed, listed, purged, and their dead letters moved back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.adapters.sqs.local_support import Wire, local_sqs

FIFO = {"FifoQueue": "true"}


@pytest.fixture
async def sqs() -> AsyncIterator[Wire]:
    async with local_sqs() as wire:
        yield wire


def redrive(arn: str, most: int | str = 5) -> dict[str, str]:
    policy = {"deadLetterTargetArn": arn, "maxReceiveCount": most}
    return {"RedrivePolicy": msgspec.json.encode(policy).decode()}


async def test_a_queue_is_made_once_and_found_again(sqs: Wire) -> None:
    """Making it again with the same attributes is how programs make sure that it is there."""
    made = await sqs.call("CreateQueue", QueueName="new", Attributes={"DelaySeconds": "5"})
    assert made == {"QueueUrl": sqs.url("new")}
    assert await sqs.call("CreateQueue", QueueName="new") == made
    assert await sqs.call("CreateQueue", QueueName="new", Attributes={"DelaySeconds": "5"}) == made
    assert await sqs.call("GetQueueUrl", QueueName="new") == made
    other = await sqs.ask("CreateQueue", QueueName="new", Attributes={"DelaySeconds": "6"})
    assert (other.error, other.body["__type"]) == ("QueueAlreadyExists", "com.amazonaws.sqs#QueueNameExists")

    await sqs.call("DeleteQueue", "new")
    assert await sqs.error("GetQueueUrl", QueueName="new") == "NonExistentQueue"
    assert await sqs.call("CreateQueue", QueueName="new", Attributes={"DelaySeconds": "6"}) == made


@pytest.mark.parametrize(
    ("name", "attributes", "error"),
    [
        ("", {}, "InvalidParameterValue"),
        ("a b", {}, "InvalidParameterValue"),
        ("x" * 81, {}, "InvalidParameterValue"),
        ("a.fifo", {}, "InvalidParameterValue"),
        ("a", FIFO, "InvalidParameterValue"),
        ("a", {"FifoQueue": "false"}, "InvalidAttributeName"),
        ("x" * 76 + ".fifo", FIFO, "InvalidParameterValue"),
        ("a", {"Colour": "red"}, "InvalidAttributeName"),
        ("a", {"QueueArn": "x"}, "InvalidAttributeName"),
        ("a", {"ContentBasedDeduplication": "true"}, "InvalidAttributeName"),
        ("a", {"VisibilityTimeout": "43201"}, "InvalidAttributeValue"),
        ("a", {"VisibilityTimeout": "soon"}, "InvalidAttributeValue"),
        ("a", {"DelaySeconds": "901"}, "InvalidAttributeValue"),
        ("a", {"MaximumMessageSize": "1048577"}, "InvalidAttributeValue"),
        ("a", {"MessageRetentionPeriod": "59"}, "InvalidAttributeValue"),
        ("a", {"ReceiveMessageWaitTimeSeconds": "21"}, "InvalidAttributeValue"),
        ("a", {"RedrivePolicy": "{}"}, "InvalidParameterValue"),
        ("a", redrive("dummy"), "InvalidParameterValue"),
        ("a", redrive("arn:aws:sqs:local:000000000000:nobody"), "InvalidParameterValue"),
        ("a", redrive("arn:aws:sqs:local:000000000000:bills-dlq.fifo"), "InvalidParameterValue"),
        ("a", redrive("arn:aws:sqs:local:000000000000:orders-dlq", 0), "InvalidParameterValue"),
        ("a", redrive("arn:aws:sqs:local:000000000000:orders-dlq", 1001), "InvalidParameterValue"),
    ],
)
async def test_a_queue_that_cannot_be_is_not_made(sqs: Wire, name: str, attributes: dict[str, str], error: str) -> None:
    """What a deployment would fail on, a local one must fail on too."""
    assert await sqs.error("CreateQueue", QueueName=name, Attributes=attributes) == error
    assert await sqs.error("GetQueueUrl", QueueName=name) == "NonExistentQueue"


async def test_the_longest_names_are_allowed(sqs: Wire) -> None:
    """80 characters, the suffix counted."""
    for name, attributes in (("x" * 80, {}), ("x" * 75 + ".fifo", FIFO)):
        made = await sqs.call("CreateQueue", QueueName=name, Attributes=attributes)
        await sqs.call("GetQueueAttributes", QueueUrl=made["QueueUrl"])


async def test_attributes_are_told_by_name_and_changed(sqs: Wire) -> None:
    """Adapters read the lease, the redrive policy and the depth there, and must see a change."""
    assert await sqs.call("GetQueueAttributes", "orders") == {}
    names = ["QueueArn", "VisibilityTimeout", "MaximumMessageSize", "MessageRetentionPeriod", "FifoQueue"]
    told = await sqs.call("GetQueueAttributes", "orders", AttributeNames=names)
    assert told["Attributes"] == {
        "QueueArn": sqs.arn("orders"),
        "VisibilityTimeout": "30",
        "MaximumMessageSize": "1048576",
        "MessageRetentionPeriod": "345600",
    }
    every = (await sqs.call("GetQueueAttributes", "bills.fifo", AttributeNames=["All"]))["Attributes"]
    assert every.items() >= {**FIFO, "ContentBasedDeduplication": "true", "DeduplicationScope": "queue"}.items()
    assert abs(int(every["CreatedTimestamp"]) - sqs.clock.wall()) < 60

    await sqs.call("SetQueueAttributes", "orders", Attributes={"VisibilityTimeout": "7", "RedrivePolicy": ""})
    told = await sqs.call("GetQueueAttributes", "orders", AttributeNames=["VisibilityTimeout", "RedrivePolicy"])
    assert told["Attributes"] == {"VisibilityTimeout": "7"}

    assert await sqs.error("GetQueueAttributes", "orders", AttributeNames=["Age"]) == "InvalidAttributeName"
    for queue, value, error in (
        ("bills.fifo", "false", "InvalidAttributeValue"),
        ("orders", "true", "InvalidAttributeName"),
    ):
        assert await sqs.error("SetQueueAttributes", queue, Attributes={"FifoQueue": value}) == error


async def test_queues_are_listed_page_by_page(sqs: Wire) -> None:
    """An SDK's paginator asks until there is no token."""
    every = ["bills-dlq.fifo", "bills.fifo", "orders", "orders-dlq"]
    assert await sqs.call("ListQueues") == {"QueueUrls": [sqs.url(name) for name in every]}
    assert await sqs.call("ListQueues", QueueNamePrefix="orders-") == {"QueueUrls": [sqs.url("orders-dlq")]}
    assert await sqs.call("ListQueues", QueueNamePrefix="nobody") == {}

    found: list[str] = []
    request: dict[str, Any] = {"MaxResults": 3}
    while True:
        page = await sqs.call("ListQueues", **request)
        found += page["QueueUrls"]
        if "NextToken" not in page:
            break
        request["NextToken"] = page["NextToken"]
    assert found == [sqs.url(name) for name in every]


async def test_tags_are_kept(sqs: Wire) -> None:
    """Tools that deploy compare them."""
    await sqs.call("CreateQueue", QueueName="new", tags={"team": "a", "stage": "dev"})
    await sqs.call("TagQueue", "new", Tags={"team": "b"})
    await sqs.call("UntagQueue", "new", TagKeys=["stage", "nobody"])

    assert await sqs.call("ListQueueTags", "new") == {"Tags": {"team": "b"}}


async def test_a_purge_takes_what_is_in_flight_too(sqs: Wire) -> None:
    """What comes after it is a new queue to those who hold old receipts."""
    await sqs.send("orders", "a", "b")
    [held] = await sqs.receive("orders", 1)
    await sqs.send("orders", "late", DelaySeconds=9)
    await sqs.call("PurgeQueue", "orders")
    assert await sqs.depth("orders") == (0, 0, 0)

    assert (await sqs.delete("orders", held)).status == 200
    await sqs.send("orders", "new")
    assert await sqs.bodies("orders", WaitTimeSeconds=1) == ["new"]


async def dead(sqs: Wire, queue: str = "orders", **more: Any) -> None:
    """Send one, and let it be moved to the dead letters."""
    await sqs.send(queue, "x", **more)
    for _ in range(2):
        for message in await sqs.receive(queue):
            await sqs.change(queue, message, 0)


async def test_dead_letters_are_moved_back_to_where_they_came_from() -> None:
    """As new: another id, a count of one at the next receive, no dead-letter source."""
    async with local_sqs(max_receives=1) as sqs:
        for queue, letters in (("orders", "orders-dlq"), ("bills.fifo", "bills-dlq.fifo")):
            await dead(sqs, queue, MessageGroupId="a")
            [letter] = await sqs.receive(letters, VisibilityTimeout=0)
            started = await sqs.call("StartMessageMoveTask", SourceArn=sqs.arn(letters))
            assert started["TaskHandle"]

            [moved] = await sqs.receive(queue)
            assert moved["Body"] == "x"
            assert moved["MessageId"] != letter["MessageId"]
            assert moved["Attributes"]["ApproximateReceiveCount"] == "1"
            assert "DeadLetterQueueSourceArn" not in moved["Attributes"]
            assert await sqs.depth(letters) == (0, 0, 0)
            [task] = (await sqs.call("ListMessageMoveTasks", SourceArn=sqs.arn(letters)))["Results"]
            assert task.pop("StartedTimestamp")
            assert task == {
                "SourceArn": sqs.arn(letters),
                "Status": "COMPLETED",
                "ApproximateNumberOfMessagesMoved": 1,
                "ApproximateNumberOfMessagesToMove": 1,
            }


async def test_a_letter_without_a_source_moves_only_where_it_is_told(sqs: Wire) -> None:
    """A framework that publishes its dead letters meets this at every replay: it has to name the destination."""
    await sqs.send("orders-dlq", "x")
    source = {"SourceArn": sqs.arn("orders-dlq")}
    await sqs.call("StartMessageMoveTask", **source)
    [task] = (await sqs.call("ListMessageMoveTasks", **source))["Results"]
    assert (task["Status"], task["FailureReason"]) == ("FAILED", "CouldNotDetermineMessageSource")
    assert await sqs.depth("orders-dlq") == (1, 0, 0)

    await sqs.call("StartMessageMoveTask", **source, DestinationArn=sqs.arn("orders"))
    assert await sqs.bodies("orders") == ["x"]
    newest = (await sqs.call("ListMessageMoveTasks", **source, MaxResults=10))["Results"]
    assert [task["Status"] for task in newest] == ["COMPLETED", "FAILED"]


async def test_a_move_that_cannot_be_is_refused(sqs: Wire) -> None:
    """Each reason has its own error at AWS."""
    orders, letters, nobody = sqs.arn("orders"), sqs.arn("orders-dlq"), sqs.arn("nobody")
    refused: dict[str, list[dict[str, Any]]] = {
        "InvalidParameterValue": [{"SourceArn": orders}, {"SourceArn": letters, "MaxNumberOfMessagesPerSecond": 501}],
        "ResourceNotFoundException": [{"SourceArn": nobody}, {"SourceArn": letters, "DestinationArn": nobody}],
    }
    for error, requests in refused.items():
        for request in requests:
            assert await sqs.error("StartMessageMoveTask", **request) == error
    assert await sqs.error("CancelMessageMoveTask", TaskHandle="x") == "ResourceNotFoundException"
    handle = (await sqs.call("StartMessageMoveTask", SourceArn=letters))["TaskHandle"]
    assert await sqs.error("CancelMessageMoveTask", TaskHandle=handle) == "UnsupportedOperation"
