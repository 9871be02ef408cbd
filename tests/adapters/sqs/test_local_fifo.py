"""Order, groups and deduplication of the local SQS server's FIFO queues."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.adapters.sqs.local_support import Wire, local_sqs

BILLS = "bills.fifo"


@pytest.fixture
async def sqs() -> AsyncIterator[Wire]:
    async with local_sqs() as wire:
        yield wire


async def send(sqs: Wire, group: str, *bodies: str, **more: Any) -> None:
    await sqs.send(BILLS, *bodies, MessageGroupId=group, **more)


async def test_one_receive_may_hold_several_of_a_group_in_order(sqs: Wire) -> None:
    """And no other gets one of the group meanwhile, whoever asks; other groups go on."""
    await send(sqs, "a", "a1", "a2", "a3")
    held = await sqs.receive(BILLS, 2)
    assert [message["Body"] for message in held] == ["a1", "a2"]
    await send(sqs, "b", "b1")

    assert await sqs.bodies(BILLS) == ["b1"]
    await sqs.delete(BILLS, held[0])
    assert await sqs.bodies(BILLS) == []
    await sqs.delete(BILLS, held[1])
    assert await sqs.bodies(BILLS) == ["a3"]


async def test_a_released_head_waits_for_those_held_behind_it(sqs: Wire) -> None:
    """A worker that releases only what failed makes its group stand still: it has to release the followers too."""
    await send(sqs, "a", "a1", "a2", "a3")
    head, *followers = await sqs.receive(BILLS)
    await sqs.change(BILLS, head, 0)
    assert await sqs.bodies(BILLS) == []

    for message in followers:
        await sqs.change(BILLS, message, 0)
    assert await sqs.bodies(BILLS) == ["a1", "a2", "a3"]


async def test_a_group_that_is_put_off_together_comes_back_whole_and_in_order(sqs: Wire) -> None:
    """Moto loses all but the last one here."""
    await send(sqs, "a", "a1", "a2", "a3", "a4")
    entries = [
        {"Id": str(n), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 2}
        for n, message in enumerate(await sqs.receive(BILLS, 3))
    ]
    await sqs.call("ChangeMessageVisibilityBatch", BILLS, Entries=entries)
    sqs.clock.skip(1.9)
    assert await sqs.bodies(BILLS) == []
    sqs.clock.skip(0.2)
    assert await sqs.bodies(BILLS) == ["a1", "a2", "a3", "a4"]


async def test_an_expired_receipt_of_a_fifo_queue_is_an_error(sqs: Wire) -> None:
    """Unlike in a standard queue, as long as the message is there; afterwards it is none."""
    await send(sqs, "a", "a1")
    [first] = await sqs.receive(BILLS, VisibilityTimeout=1)
    sqs.clock.skip(1.1)
    late = await sqs.delete(BILLS, first)
    assert (late.error, late.body["message"].rpartition("Reason: ")[2]) == (
        "InvalidParameterValue",
        "The receipt handle has expired.",
    )

    [second] = await sqs.receive(BILLS)
    assert (await sqs.delete(BILLS, first)).error == "InvalidParameterValue"
    assert (await sqs.delete(BILLS, second)).status == 200
    assert (await sqs.delete(BILLS, first)).status == 200


async def test_what_was_sent_in_the_last_five_minutes_is_accepted_once(sqs: Wire) -> None:
    """By its id, whatever it says and though it was deleted since; the answer is the first one's."""
    first = await sqs.call("SendMessage", BILLS, MessageBody="x", MessageGroupId="a", MessageDeduplicationId="1")
    [message] = await sqs.receive(BILLS)
    await sqs.delete(BILLS, message)
    sqs.clock.skip(299)
    again = await sqs.call("SendMessage", BILLS, MessageBody="y", MessageGroupId="b", MessageDeduplicationId="1")
    assert (again["MessageId"], again["SequenceNumber"]) == (first["MessageId"], first["SequenceNumber"])
    assert await sqs.bodies(BILLS) == []

    sqs.clock.skip(2)
    later = await sqs.call("SendMessage", BILLS, MessageBody="y", MessageGroupId="b", MessageDeduplicationId="1")
    assert later["MessageId"] != first["MessageId"]
    assert int(later["SequenceNumber"]) > int(first["SequenceNumber"])
    assert await sqs.bodies(BILLS) == ["y"]


async def test_without_an_id_the_body_is_one_where_the_queue_says_so(sqs: Wire) -> None:
    """Attributes do not count: two events in binary mode that differ only there are one."""
    text = {"a": {"DataType": "String", "StringValue": "x"}}
    await send(sqs, "a", "x")
    await send(sqs, "a", "x", MessageAttributes=text)
    assert await sqs.bodies(BILLS) == ["x"]

    await sqs.call("SetQueueAttributes", BILLS, Attributes={"ContentBasedDeduplication": "false"})
    request = {"MessageBody": "y", "MessageGroupId": "a"}
    assert await sqs.error("SendMessage", BILLS, **request) == "InvalidParameterValue"
    entries = [{"Id": "1", **request}, {"Id": "2", **request, "MessageDeduplicationId": "2"}]
    assert await sqs.error("SendMessageBatch", BILLS, Entries=entries) == "InvalidParameterValue"


async def test_each_group_can_have_ids_of_its_own(sqs: Wire) -> None:
    """High-throughput FIFO queues deduplicate by group."""
    scope = {"DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}
    await sqs.call("SetQueueAttributes", BILLS, Attributes=scope)
    for group in ("a", "b", "a"):
        await send(sqs, group, group, MessageDeduplicationId="1")

    assert await sqs.bodies(BILLS) == ["a", "b"]


async def test_a_fifo_queue_needs_a_group_and_takes_no_delay_of_a_message(sqs: Wire) -> None:
    """The error of a single send and of a batch differ at AWS; a batch is refused as a whole."""
    assert await sqs.error("SendMessage", BILLS, MessageBody="x") == "MissingParameter"
    assert await sqs.error("SendMessageBatch", BILLS, Entries=[{"Id": "1", "MessageBody": "x"}]) == (
        "InvalidParameterValue"
    )
    delayed = {"MessageBody": "x", "MessageGroupId": "a", "DelaySeconds": 1}
    assert await sqs.error("SendMessage", BILLS, **delayed) == "InvalidParameterValue"
    assert await sqs.error("SendMessage", BILLS, MessageBody="x", MessageGroupId="") == "InvalidParameterValue"
    await send(sqs, "a", "x", DelaySeconds=0)
    assert await sqs.depth(BILLS) == (1, 0, 0)


async def test_the_delay_of_a_fifo_queue_keeps_the_order(sqs: Wire) -> None:
    """Also when it is made shorter while messages wait."""
    await sqs.call("SetQueueAttributes", BILLS, Attributes={"DelaySeconds": "10"})
    await send(sqs, "a", "a1")
    await sqs.call("SetQueueAttributes", BILLS, Attributes={"DelaySeconds": "0"})
    await send(sqs, "a", "a2")
    assert await sqs.depth(BILLS) == (0, 2, 0)
    sqs.clock.skip(10)

    assert await sqs.bodies(BILLS) == ["a1", "a2"]


async def test_a_fifo_message_tells_its_group_id_and_number(sqs: Wire) -> None:
    """An adapter reads the key from there, and the numbers only grow within a group."""
    await send(sqs, "a", "a1", "a2", MessageDeduplicationId="1")
    await send(sqs, "a", "a3")

    told = [message["Attributes"] for message in await sqs.receive(BILLS)]
    assert [one["MessageGroupId"] for one in told] == ["a", "a"]
    assert told[0]["MessageDeduplicationId"] == "1"
    assert len(told[1]["MessageDeduplicationId"]) == 64
    assert int(told[0]["SequenceNumber"]) < int(told[1]["SequenceNumber"])


async def test_a_dead_letter_leaves_its_group_free() -> None:
    """The next of the group comes in the same receive, and the letter keeps its group in the dead-letter queue."""
    async with local_sqs(max_receives=1) as sqs:
        await send(sqs, "a", "poison", "a2", "a3")
        [head] = await sqs.receive(BILLS, 1)
        await sqs.change(BILLS, head, 0)

        assert await sqs.bodies(BILLS, 1) == ["a2"]
        [dead] = await sqs.receive("bills-dlq.fifo")
        assert (dead["Body"], dead["Attributes"]["MessageGroupId"]) == ("poison", "a")
        assert dead["Attributes"]["DeadLetterQueueSourceArn"] == sqs.arn(BILLS)


async def test_a_receive_whose_reply_was_lost_can_be_repeated(sqs: Wire) -> None:
    """With the same attempt id: the same messages and receipts, leased anew, and counted once."""
    await send(sqs, "a", "a1", "a2", "a3")
    first = await sqs.receive(BILLS, 2, VisibilityTimeout=10, ReceiveRequestAttemptId="try")
    assert await sqs.receive(BILLS, 2, ReceiveRequestAttemptId="other") == []
    sqs.clock.skip(9)
    assert await sqs.receive(BILLS, 2, VisibilityTimeout=10, ReceiveRequestAttemptId="try") == first
    sqs.clock.skip(9)
    assert (await sqs.delete(BILLS, first[0])).status == 200

    assert await sqs.bodies(BILLS, ReceiveRequestAttemptId="try") == []
    sqs.clock.skip(2)
    assert await sqs.bodies(BILLS, ReceiveRequestAttemptId="try") == ["a2", "a3"]


@pytest.mark.parametrize("seconds", [0, 400])
async def test_an_attempt_is_not_repeated_once_its_messages_were_changed_or_it_is_old(sqs: Wire, seconds: int) -> None:
    """Given back, or put off: what comes then is an ordinary receive."""
    await send(sqs, "a", "a1")
    [first] = await sqs.receive(BILLS, VisibilityTimeout=500, ReceiveRequestAttemptId="try")
    await sqs.change(BILLS, first, seconds)
    again = await sqs.receive(BILLS, ReceiveRequestAttemptId="try")
    assert [message["Attributes"]["ApproximateReceiveCount"] for message in again] == ([] if seconds else ["2"])

    sqs.clock.skip(450)
    [held] = await sqs.receive(BILLS, VisibilityTimeout=900, ReceiveRequestAttemptId="try")
    sqs.clock.skip(299)
    assert await sqs.receive(BILLS, VisibilityTimeout=900, ReceiveRequestAttemptId="try") == [held]
    sqs.clock.skip(301)
    assert await sqs.receive(BILLS, ReceiveRequestAttemptId="try") == []
