"""Receipts, visibility timeouts, delays and dead letters of the local SQS server, on standard queues."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.adapters.sqs.local_support import Wire, local_sqs

HOUR = 3_600


@pytest.fixture
async def sqs() -> AsyncIterator[Wire]:
    async with local_sqs() as wire:
        yield wire


async def one(sqs: Wire, queue: str = "orders", **more: Any) -> dict[str, Any]:
    [message] = await sqs.receive(queue, 1, **more)
    return message


# -- receipts ------------------------------------------------------------------------------------


async def test_a_stale_receipt_deletes_nothing_and_says_nothing(sqs: Wire) -> None:
    """The trap of SQS: an adapter that trusts the answer believes an event to be gone that comes again."""
    await sqs.send("orders", "x")
    first = await one(sqs, VisibilityTimeout=1)
    sqs.clock.skip(1.1)

    assert (await sqs.delete("orders", first)).status == 200
    second = await one(sqs)
    assert second["Attributes"]["ApproximateReceiveCount"] == "2"
    assert (await sqs.delete("orders", first)).status == 200
    assert await sqs.depth("orders") == (0, 0, 1)

    assert (await sqs.delete("orders", second)).status == 200
    assert await sqs.depth("orders") == (0, 0, 0)
    assert (await sqs.delete("orders", second)).status == 200


async def test_a_visibility_timeout_can_be_changed_only_while_it_runs(sqs: Wire) -> None:
    """Each way to be late has its own answer: visible again, received by somebody else, and gone."""
    await sqs.send("orders", "x")
    first = await one(sqs, VisibilityTimeout=1)
    sqs.clock.skip(1.1)
    late = await sqs.change("orders", first, 30)
    assert (late.error, late.body["__type"]) == ("MessageNotInflight", "com.amazonaws.sqs#MessageNotInflight")

    second = await one(sqs)
    stale = await sqs.change("orders", first, 30)
    assert stale.error == "InvalidParameterValue"
    assert "not available for visibility timeout change" in stale.body["message"]

    await sqs.delete("orders", second)
    assert (await sqs.change("orders", second, 30)).error == "InvalidParameterValue"


@pytest.mark.parametrize("handle", ["", "x", "x.y.1", "AQEB…", "{tag}.{id}.", "{tag}.{id}.1x"])
async def test_what_is_no_receipt_of_this_queue_is_invalid(sqs: Wire, handle: str) -> None:
    """Also one of another queue: a worker that mixes them up must see it."""
    await sqs.send("orders", "x")
    tag, id, _ = (await one(sqs))["ReceiptHandle"].split(".")
    handle = handle.format(tag=tag, id=id)

    for operation in ("DeleteMessage", "ChangeMessageVisibility"):
        request = {"ReceiptHandle": handle, "VisibilityTimeout": 0}
        assert await sqs.error(operation, "orders", **request) == "ReceiptHandleIsInvalid"
    assert await sqs.error("DeleteMessage", "orders-dlq", ReceiptHandle=f"{tag}.{id}.1") == "ReceiptHandleIsInvalid"


async def test_entries_of_a_batch_are_settled_each_for_itself(sqs: Wire) -> None:
    """The reply is 200 whatever happened: what failed stands in a list that has to be read."""
    await sqs.send("orders", "a", "b", "c")
    a, b, c = (message["ReceiptHandle"] for message in await sqs.receive("orders"))

    deleted = await sqs.call(
        "DeleteMessageBatch",
        "orders",
        Entries=[{"Id": "good", "ReceiptHandle": a}, {"Id": "bad", "ReceiptHandle": "x"}],
    )
    assert deleted["Successful"] == [{"Id": "good"}]
    assert [(failed["Id"], failed["Code"]) for failed in deleted["Failed"]] == [("bad", "ReceiptHandleIsInvalid")]

    entries = [
        {"Id": "gone", "ReceiptHandle": a, "VisibilityTimeout": 9},
        {"Id": "put-off", "ReceiptHandle": b, "VisibilityTimeout": 9},
        {"Id": "now", "ReceiptHandle": c, "VisibilityTimeout": 0},
        {"Id": "unsaid", "ReceiptHandle": c},
        {"Id": "long", "ReceiptHandle": b, "VisibilityTimeout": 43_201},
    ]
    changed = await sqs.call("ChangeMessageVisibilityBatch", "orders", Entries=entries)
    assert changed["Successful"] == [{"Id": "put-off"}, {"Id": "now"}]
    assert [(failed["Id"], failed["Code"]) for failed in changed["Failed"]] == [
        ("gone", "InvalidParameterValue"),
        ("unsaid", "MissingParameter"),
        ("long", "InvalidParameterValue"),
    ]
    assert await sqs.bodies("orders") == ["c"]


# -- visibility timeouts -------------------------------------------------------------------------


async def test_a_message_comes_again_when_its_visibility_timeout_is_over(sqs: Wire) -> None:
    """As long as the request said, else as the queue says; a change counts from its own time, not the receive's."""
    await sqs.call("SetQueueAttributes", "orders", Attributes={"VisibilityTimeout": "20"})
    await sqs.send("orders", "x")
    message = await one(sqs)
    sqs.clock.skip(19)
    assert await sqs.bodies("orders") == []
    await sqs.change("orders", message, 60)
    sqs.clock.skip(59)
    assert await sqs.bodies("orders") == []
    sqs.clock.skip(2)
    assert await sqs.bodies("orders", VisibilityTimeout=5) == ["x"]
    sqs.clock.skip(5.1)
    assert await sqs.bodies("orders") == ["x"]


async def test_a_timeout_of_zero_gives_the_message_back_at_once(sqs: Wire) -> None:
    """At the receive (a look at the queue that counts), and by a change (a release that counts)."""
    await sqs.send("orders", "x", "y")

    assert sorted(await sqs.bodies("orders", VisibilityTimeout=0)) == ["x", "y"]
    again = await sqs.receive("orders")
    assert {message["Attributes"]["ApproximateReceiveCount"] for message in again} == {"2"}
    for message in again:
        assert (await sqs.change("orders", message, 0)).status == 200
        assert (await sqs.change("orders", message, 0)).error == "MessageNotInflight"
    assert {m["Attributes"]["ApproximateReceiveCount"] for m in await sqs.receive("orders")} == {"3"}


async def test_twelve_hours_after_its_receive_a_message_is_visible_again(sqs: Wire) -> None:
    """More is refused, not shortened: a long retry that did not subtract its age would be lost as an error."""
    await sqs.send("orders", "x")
    message = await one(sqs)
    assert (await sqs.change("orders", message, 12 * HOUR)).error == "InvalidParameterValue"
    assert (await sqs.change("orders", message, 12 * HOUR - 1)).status == 200

    sqs.clock.skip(11 * HOUR)
    beyond = await sqs.change("orders", message, HOUR + 1)
    assert beyond.error == "InvalidParameterValue"
    assert "Total VisibilityTimeout" in beyond.body["message"]
    assert (await sqs.change("orders", message, HOUR - 1)).status == 200
    sqs.clock.skip(HOUR)
    assert await sqs.bodies("orders") == ["x"]


async def test_a_delayed_message_is_not_there_until_it_is_due(sqs: Wire) -> None:
    """Its own delay, or the queue's."""
    await sqs.call("SetQueueAttributes", "orders", Attributes={"DelaySeconds": "60"})
    await sqs.send("orders", "own", DelaySeconds=5)
    await sqs.send("orders", "none", DelaySeconds=0)
    await sqs.send("orders", "queue's")
    assert await sqs.depth("orders") == (1, 2, 0)

    assert await sqs.bodies("orders") == ["none"]
    sqs.clock.skip(6)
    assert await sqs.bodies("orders") == ["own"]
    sqs.clock.skip(55)
    assert await sqs.bodies("orders", VisibilityTimeout=0) == ["none", "own", "queue's"]


async def test_a_message_is_dropped_when_the_retention_is_over(sqs: Wire) -> None:
    """Whether it waits or is in flight, and with what the queue says now."""
    await sqs.send("orders", "old", "older")
    sqs.clock.skip(100)
    await sqs.send("orders", "young")
    await sqs.call("SetQueueAttributes", "orders", Attributes={"MessageRetentionPeriod": "60"})

    assert await sqs.depth("orders") == (1, 0, 0)
    assert await sqs.bodies("orders") == ["young"]
    sqs.clock.skip(60)
    assert await sqs.bodies("orders") == []
    assert await sqs.depth("orders") == (0, 0, 0)


# -- long polls ----------------------------------------------------------------------------------


async def poll(sqs: Wire, **more: Any) -> tuple[list[str], float]:
    """What a long poll brings, and after how many seconds."""
    started = time.monotonic()
    found = await sqs.bodies("orders", WaitTimeSeconds=10, **more)
    return found, time.monotonic() - started


async def test_a_long_poll_ends_as_soon_as_something_is_visible(sqs: Wire) -> None:
    """By a send, by a release, or because a visibility timeout or a delay ends while it waits."""
    async with asyncio.timeout(8), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(poll(sqs))
        await asyncio.sleep(0.1)
        await sqs.send("orders", "sent")
        found, seconds = await waiting
        assert found == ["sent"]
        assert seconds < 1

    await sqs.call("PurgeQueue", "orders")
    await sqs.send("orders", "released")
    message = await one(sqs)
    async with asyncio.timeout(8), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(poll(sqs, VisibilityTimeout=1))
        await asyncio.sleep(0.1)
        await sqs.change("orders", message, 0)
        assert (await waiting)[0] == ["released"]

    found, seconds = await poll(sqs)
    assert found == ["released"]
    assert 0.7 < seconds < 3


async def test_every_long_poll_gets_its_share(sqs: Wire) -> None:
    """Those who wait are served in turn, each by one event, without one of them taking all."""
    async with asyncio.timeout(8), asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(poll(sqs, most=1)) for _ in range(5)]
        await asyncio.sleep(0.1)
        await sqs.send("orders", *"abcde")
    assert sorted(body for task in waiting for body in task.result()[0]) == list("abcde")


async def test_a_long_poll_ends_empty_after_its_wait(sqs: Wire) -> None:
    """As the request said, else as the queue says."""
    await sqs.call("SetQueueAttributes", "orders", Attributes={"ReceiveMessageWaitTimeSeconds": "1"})
    for request in ({}, {"WaitTimeSeconds": 1}):
        started = time.monotonic()
        assert await sqs.bodies("orders", **request) == []
        assert 0.9 < time.monotonic() - started < 3
    assert await asyncio.wait_for(sqs.bodies("orders", WaitTimeSeconds=0), 0.5) == []


async def test_a_client_that_goes_away_takes_nothing_along(sqs: Wire) -> None:
    """Real SQS may lease to a dead connection; a stand-in that did would make every test of a restart slow."""
    for _ in range(10):
        async with aiohttp.ClientSession() as session:
            other = Wire(sqs.place, sqs.clock, session)
            waiting = asyncio.create_task(other.receive("orders", WaitTimeSeconds=20))
            await asyncio.sleep(0.02)
            waiting.cancel()
    await asyncio.sleep(0.1)
    await sqs.send("orders", "x")

    message = await asyncio.wait_for(one(sqs), 1)
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


async def test_a_poll_that_is_cut_as_it_is_answered_gives_back_what_it_took(
    sqs: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message was taken for it, and its connection ended before it was told."""
    polls = sqs.place._account.polls(sqs.place._account.queue("orders"))
    waiting = asyncio.create_task(polls.receive(1, 30, 20))
    await asyncio.sleep(0)
    take = polls._take

    def cut(limit: int, lease: float) -> Any:
        asyncio.get_running_loop().call_soon(waiting.cancel)  # it runs before the poll does
        return take(limit, lease)

    monkeypatch.setattr(polls, "_take", cut)
    await sqs.send("orders", "x")
    await asyncio.wait([waiting], timeout=2)
    assert waiting.cancelled()
    monkeypatch.undo()

    assert (await one(sqs))["Attributes"]["ApproximateReceiveCount"] == "1"
    assert sqs.place.counts().delivered == 1


async def test_a_poll_at_a_queue_that_is_deleted_is_told(sqs: Wire) -> None:
    """It would wait for nothing, and its worker must end."""
    waiting = asyncio.create_task(sqs.error("ReceiveMessage", "orders", WaitTimeSeconds=20))
    await asyncio.sleep(0.1)
    await sqs.call("DeleteQueue", "orders")

    assert await asyncio.wait_for(waiting, 2) == "NonExistentQueue"


# -- system attributes and dead letters ----------------------------------------------------------


async def test_the_system_tells_of_a_message_what_was_asked_for(sqs: Wire) -> None:
    """Nothing by default: an adapter that forgot to ask would see no receive count at AWS either."""
    before = int(sqs.clock.wall() * 1000)
    await sqs.send("orders", "x", MessageGroupId="tenant")
    sqs.clock.skip(5)

    bare = await one(sqs, VisibilityTimeout=0, MessageSystemAttributeNames=[])
    assert "Attributes" not in bare
    some = await one(sqs, VisibilityTimeout=0, MessageSystemAttributeNames=["ApproximateReceiveCount"])
    assert some["Attributes"] == {"ApproximateReceiveCount": "2"}
    every = (await one(sqs, AttributeNames=["All"], MessageSystemAttributeNames=[]))["Attributes"]
    assert every.keys() == {
        "SenderId",
        "SentTimestamp",
        "ApproximateReceiveCount",
        "ApproximateFirstReceiveTimestamp",
        "MessageGroupId",
    }
    assert every["ApproximateReceiveCount"] == "3"
    assert before <= int(every["SentTimestamp"]) < before + 2_000
    assert before + 5_000 <= int(every["ApproximateFirstReceiveTimestamp"]) < before + 7_000


async def test_a_message_is_moved_at_the_receive_after_its_last() -> None:
    """Its content, id and age stay, its count goes on; until that receive it is where it was."""
    async with local_sqs(max_receives=2) as sqs:
        text = {"a": {"DataType": "String", "StringValue": "x"}}
        await sqs.send("orders", "poison", MessageAttributes=text)
        [original] = await sqs.receive("orders", VisibilityTimeout=0)
        sqs.clock.skip(100)
        assert await sqs.bodies("orders", VisibilityTimeout=0) == ["poison"]
        assert await sqs.depth("orders") == (1, 0, 0)
        await sqs.send("orders", "good")

        assert await sqs.bodies("orders", 1) == ["good"]
        [dead] = await sqs.receive("orders-dlq", MessageAttributeNames=["All"])
        assert (dead["Body"], dead["MessageAttributes"], dead["MessageId"]) == ("poison", text, original["MessageId"])
        assert dead["Attributes"] == original["Attributes"] | {
            "ApproximateReceiveCount": "3",
            "DeadLetterQueueSourceArn": sqs.arn("orders"),
        }
        assert sqs.place.counts().dead == 1
        sources = await sqs.call("ListDeadLetterSourceQueues", "orders-dlq")
        assert sources == {"queueUrls": [sqs.url("orders")]}


async def test_the_defaults_leave_room_for_a_worker_and_its_dead_letters(sqs: Wire) -> None:
    """A worker that dead-letters with a reason must come first, and letters keep their age when they are moved."""
    found = await sqs.call("GetQueueAttributes", "orders", AttributeNames=["RedrivePolicy"])
    assert json.loads(found["Attributes"]["RedrivePolicy"]) == {
        "deadLetterTargetArn": sqs.arn("orders-dlq"),
        "maxReceiveCount": 100,
    }
    kept = await sqs.call("GetQueueAttributes", "orders-dlq", AttributeNames=["MessageRetentionPeriod"])
    assert kept["Attributes"] == {"MessageRetentionPeriod": "1209600"}


async def test_the_age_of_a_dead_letter_goes_on() -> None:
    """A dead-letter queue with the source's retention drops letters early: a known trap of standard queues."""
    async with local_sqs(max_receives=1) as sqs:
        await sqs.call("SetQueueAttributes", "orders-dlq", Attributes={"MessageRetentionPeriod": "120"})
        await sqs.send("orders", "x")
        await sqs.receive("orders", VisibilityTimeout=0)
        sqs.clock.skip(100)
        assert await sqs.bodies("orders") == []
        assert await sqs.depth("orders-dlq") == (1, 0, 0)
        sqs.clock.skip(21)
        assert await sqs.bodies("orders-dlq") == []


async def test_a_receive_that_moves_a_dead_letter_gives_nothing_twice() -> None:
    """The place of the letter is filled from the queue, where a timeout of 0 has not put anything back yet."""
    async with local_sqs(max_receives=1) as sqs:
        await sqs.send("orders", "poison")
        assert await sqs.bodies("orders", VisibilityTimeout=0) == ["poison"]
        await sqs.send("orders", "a", "b")

        assert sorted(await sqs.bodies("orders", VisibilityTimeout=0)) == ["a", "b"]


async def test_a_group_in_a_standard_queue_is_no_order(sqs: Wire) -> None:
    """It names a tenant there, for fairness: nothing waits for anything."""
    await sqs.send("orders", "a", "b", MessageGroupId="tenant")

    assert await sqs.bodies("orders", 1) == ["a"]
    assert await sqs.bodies("orders", 1) == ["b"]


async def test_the_counts_say_what_was_done(sqs: Wire) -> None:
    """They are what is shown at the end, and what other tests assert on."""
    await sqs.send("orders", "a", "b", "c")
    a, b, _ = await sqs.receive("orders")
    await sqs.delete("orders", a)
    await sqs.change("orders", b, 0)
    sqs.clock.skip(31)

    counts = msgspec.structs.asdict(sqs.place.counts())
    assert counts == {"published": 3, "delivered": 3, "acked": 1, "nacked": 1, "expired": 1, "dead": 0}
    await sqs.call("DeleteQueue", "orders")
    assert msgspec.structs.asdict(sqs.place.counts()) == counts
