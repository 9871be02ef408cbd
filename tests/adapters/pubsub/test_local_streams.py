"""StreamingPull at the local Pub/Sub server: how a stream begins and ends, what it carries, what limits it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from eventkit_pubsub._local._project import Project
from eventkit_pubsub._local._waiters import Stream as LocalStream
from google.pubsub_v1 import types

from tests.adapters.pubsub.local_support import Failure, Stream, Wire, bodies, channel_to, ids, local_pubsub, sub, topic


@pytest.fixture
async def pubsub() -> AsyncIterator[Wire]:
    async with local_pubsub() as wire:
        yield wire


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


# -- its beginning -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ({"stream_ack_deadline_seconds": 10}, "INVALID_ARGUMENT"),
        ({"subscription": sub("orders")}, "INVALID_ARGUMENT"),
        ({"subscription": sub("orders"), "stream_ack_deadline_seconds": 9}, "INVALID_ARGUMENT"),
        ({"subscription": sub("orders"), "stream_ack_deadline_seconds": 601}, "INVALID_ARGUMENT"),
        ({"subscription": sub("no-such-one"), "stream_ack_deadline_seconds": 10}, "NOT_FOUND"),
        ({"subscription": "orders", "stream_ack_deadline_seconds": 10}, "INVALID_ARGUMENT"),
    ],
)
async def test_a_stream_needs_a_subscription_and_a_deadline(pubsub: Wire, first: dict[str, Any], code: str) -> None:
    """The commonest mistakes of a client; they end it at once, not after a message."""
    async with pubsub.silent_stream() as stream:
        await stream.say(**first)
        assert await stream.end() == code


async def test_a_stream_on_which_nothing_is_said_ends_well(pubsub: Wire) -> None:
    """A client that was stopped while it opened."""
    async with pubsub.silent_stream() as stream:
        await stream.call.done_writing()
        assert await stream.end() == "OK"


@pytest.mark.parametrize("seconds", [10, 600])
async def test_the_shortest_and_the_longest_deadline_are_good(pubsub: Wire, seconds: int) -> None:
    """What a message is leased for is the stream's own, not the subscription's."""
    await pubsub.publish("orders", "x")
    async with pubsub.stream(stream_ack_deadline_seconds=seconds) as stream:
        await stream.messages()
        pubsub.skip(seconds - 1)
        assert await stream.silent()
        pubsub.skip(1.1)
        assert await stream.bodies() == ["x"]


# -- what it carries -----------------------------------------------------------------------------


async def test_a_message_arrives_as_it_was_published(pubsub: Wire) -> None:
    """Bytes, attributes, key, the id that the publisher was told, and when; before and after the stream was opened."""
    before = time.time()
    [early] = await pubsub.publish("orders", "early", key="k", colour="red")
    async with pubsub.stream() as stream:
        response = await stream.response()
        [first] = response.received_messages
        assert (first.message.data, dict(first.message.attributes)) == (b"early", {"colour": "red"})
        assert (first.message.message_id, first.message.ordering_key) == (early, "k")
        assert before - 0.001 <= first.message.publish_time.ToNanoseconds() / 1e9 <= time.time() + 0.001
        assert first.delivery_attempt == 1

        [late] = await pubsub.publish("orders", "late")
        [second] = await stream.messages()
        assert (second.message.message_id, second.message.data) == (late, b"late")
        assert len({early, late}) == 2


@pytest.mark.parametrize(
    ("queue", "exactly_once", "ordered"),
    [
        ("orders", False, False),
        ("bills.ordered", False, True),
        ("once.exactly-once", True, False),
        ("both.ordered.exactly-once", True, True),
    ],
)
async def test_every_response_says_what_the_subscription_is(
    pubsub: Wire, queue: str, exactly_once: bool, ordered: bool
) -> None:
    """Official clients learn from it whether acks are confirmed, and whether to keep order."""
    await pubsub.publish(queue, "x")
    async with pubsub.stream(queue, protocol_version=1) as stream:
        responses = [await stream.response()]
        await stream.say()
        responses.append(await stream.response())
    for response in responses:
        properties = response.subscription_properties
        assert properties.exactly_once_delivery_enabled is exactly_once
        assert properties.message_ordering_enabled is ordered


async def test_a_response_has_a_hundred_messages_at_most(pubsub: Wire) -> None:
    """And as many as there are: one response for each message would cost ten times as much."""
    await pubsub.publish("orders", *map(str, range(250)))
    async with pubsub.stream() as stream:
        numbers = [len((await stream.response()).received_messages) for _ in range(3)]
    assert numbers == [100, 100, 50]


async def test_a_response_is_full_with_a_megabyte(pubsub: Wire) -> None:
    """What a client's channel takes is limited, too: no more comes than that, and one message."""
    await pubsub.publish("orders", *["x" * 400_000] * 5)
    await pubsub.publish("orders", "y" * 3_000_000)
    async with pubsub.stream() as stream:
        numbers: list[int] = []
        while sum(numbers) < 6:
            response = await stream.response()
            sizes = [len(received.message.data) for received in response.received_messages]
            assert sum(sizes[:-1]) < 1024 * 1024
            numbers.append(len(sizes))
    assert numbers == [3, 3]


async def test_a_message_is_sent_at_once(pubsub: Wire) -> None:
    """A server that polled would add its pause to every latency that is measured against it."""
    async with pubsub.stream() as stream:
        await stream.silent()
        started = time.monotonic()
        for number in range(20):
            await pubsub.publish("orders", str(number))
            assert await stream.bodies() == [str(number)]
        assert time.monotonic() - started < 0.5


async def test_what_becomes_due_by_itself_is_sent_without_a_call(pubsub: Wire) -> None:
    """The end of a deadline wakes a stream, and makes room on one that is full: in real time, as with a worker."""
    await pubsub.publish("orders", "x")
    await pubsub.publish("bills.ordered", "x", "y", key="k")
    async with pubsub.stream("bills.ordered", max_outstanding_messages=1) as full, pubsub.stream() as stream:
        await pubsub.modack("orders", await stream.messages(), 1)
        await pubsub.modack("bills.ordered", await full.messages(), 1)
        started = time.monotonic()
        assert await stream.bodies() == ["x"]
        assert await full.bodies() == ["x"]
        assert 0.7 < time.monotonic() - started < 1.5


async def test_streams_that_wait_cost_nothing(pubsub: Wire) -> None:
    """Be it for messages, for room, or for the end of a deadline: nobody polls."""
    await pubsub.publish("orders", "a", "b")
    await pubsub.publish("bills.ordered", "a", "b", key="k")
    async with pubsub.stream(max_outstanding_messages=2), pubsub.stream(), pubsub.stream("bills.ordered") as stream:
        await stream.messages(2)
        async with pubsub.stream("bills.ordered") as other:
            await other.silent(0.1)
            before = time.process_time()
            await asyncio.sleep(0.4)
            assert time.process_time() - before < 0.04


# -- heartbeats and later requests ---------------------------------------------------------------


async def test_a_heartbeat_is_answered_where_the_protocol_has_it(pubsub: Wire) -> None:
    """An empty request gets an empty response, which is how a client knows that a silent stream is alive."""
    async with pubsub.stream(protocol_version=1) as stream:
        for _ in range(3):
            await stream.say()
            assert not (await stream.response()).received_messages
    async with pubsub.stream() as stream:
        await stream.say()
        assert await stream.silent()


async def test_a_heartbeat_between_messages_loses_none(pubsub: Wire) -> None:
    """An answer that overtakes messages must not be taken for them."""
    async with pubsub.stream(protocol_version=1) as stream:
        for number in range(100):
            await asyncio.gather(stream.say(), pubsub.publish("orders", str(number)))
        assert await stream.bodies(100) == [str(number) for number in range(100)]


async def test_an_answer_and_a_message_of_the_same_moment_go_out_both() -> None:
    """One after the other; on the wire, this moment is hard to meet."""
    project = Project(clock=time.monotonic, wall=time.time)
    published = project.create_topic(types.Topic.pb()(name=topic("orders")))
    made = project.create_subscription(types.Subscription.pb()(name=sub("orders"), topic=topic("orders")))
    first = types.StreamingPullRequest.pb()(stream_ack_deadline_seconds=10, protocol_version=1)
    with LocalStream(made, project.line(made), first) as stream:
        project.publish(published, [types.PubsubMessage.pb()(data=b"x")])
        project.line(made).serve()
        stream.reply()
        numbers = []
        for _ in range(2):
            response: Any = await asyncio.wait_for(stream.next(), 2)
            stream.sent()
            numbers.append(len(response.received_messages))
    assert numbers == [0, 1]


@pytest.mark.parametrize(
    "request_",
    [
        {"subscription": sub("orders")},
        {"client_id": "x"},
        {"max_outstanding_messages": 1},
        {"max_outstanding_bytes": 1},
        {"protocol_version": 1},
        {"stream_ack_deadline_seconds": 9},
        {"stream_ack_deadline_seconds": 601},
        {"ack_ids": ["x"]},
        {"modify_deadline_ack_ids": ["x"], "modify_deadline_seconds": [10]},
        {"modify_deadline_seconds": [10]},
    ],
    ids=lambda request: next(iter(request)),
)
async def test_a_later_request_that_cannot_be_ends_the_stream(pubsub: Wire, request_: dict[str, Any]) -> None:
    """All that holds for a stream is said in its first request, but for the deadline."""
    async with pubsub.stream(protocol_version=1) as stream:
        await stream.say(**request_)
        assert await stream.end() == "INVALID_ARGUMENT"


@pytest.mark.parametrize("seconds", [-1, 601])
async def test_a_deadline_on_the_stream_is_from_0_to_600_s(pubsub: Wire, seconds: int) -> None:
    """And nothing of the request is done, its acks neither."""
    await pubsub.publish("orders", "a", "b")
    async with pubsub.stream() as stream:
        a, b = ids(await stream.messages(2))
        await stream.say(ack_ids=[a], modify_deadline_ack_ids=[b], modify_deadline_seconds=[seconds])
        assert await stream.end() == "INVALID_ARGUMENT"
    assert pubsub.place.counts().acked == 0


async def test_the_deadline_of_a_stream_can_be_changed(pubsub: Wire) -> None:
    """For what is delivered from then on."""
    async with pubsub.stream(protocol_version=1) as stream:
        await stream.say(stream_ack_deadline_seconds=100)
        await stream.say()
        await stream.response()
        await pubsub.publish("orders", "x")
        await stream.messages()
        pubsub.skip(99)
        assert await stream.silent()
        pubsub.skip(2)
        assert await stream.bodies() == ["x"]


async def test_acks_and_deadlines_can_be_said_on_the_stream(pubsub: Wire) -> None:
    """The older way of clients; one answer a message, in one request."""
    await pubsub.publish("orders", "acked", "nacked", "put off")
    async with pubsub.stream() as stream:
        acked, nacked, put_off = ids(await stream.messages(3))
        await stream.say(ack_ids=[acked], modify_deadline_ack_ids=[nacked, put_off], modify_deadline_seconds=[0, 100])
        [again] = await stream.messages()
        assert again.message.data == b"nacked"
        await pubsub.ack("orders", [again])
        pubsub.skip(99)
        assert await stream.silent()
        pubsub.skip(2)
        assert await stream.bodies() == ["put off"]
    counts = pubsub.place.counts()
    assert (counts.acked, counts.nacked, counts.expired) == (2, 1, 1)


async def test_with_exactly_once_delivery_the_stream_confirms_what_was_said_on_it(pubsub: Wire) -> None:
    """Ids that came too late are named; they do not end the stream."""
    await pubsub.publish("once.exactly-once", "a", "b")
    async with pubsub.stream("once.exactly-once") as stream:
        a, b = await stream.messages(2)
        await pubsub.ack("once.exactly-once", [a])
        await stream.say(ack_ids=ids([a, b]), modify_deadline_ack_ids=ids([b]), modify_deadline_seconds=[20])
        response = await stream.response()
        acks, modacks = response.acknowledge_confirmation, response.modify_ack_deadline_confirmation
        assert (list(acks.ack_ids), list(acks.invalid_ack_ids)) == (ids([b]), ids([a]))
        assert (list(modacks.ack_ids), list(modacks.invalid_ack_ids)) == ([], ids([b]))


# -- limits --------------------------------------------------------------------------------------


async def test_no_more_messages_are_out_than_the_stream_asked_for(pubsub: Wire) -> None:
    """What is acked, nacked or expired makes room, whoever did it and with whatever call."""
    await pubsub.publish("orders", *"abcdefgh")
    async with pubsub.stream(max_outstanding_messages=2) as stream:
        a, b = await stream.messages(2)
        assert bodies([a, b]) == ["a", "b"]
        assert await stream.silent()
        await pubsub.ack("orders", [a])
        assert await stream.bodies() == ["c"]
        assert await stream.silent()
        await stream.say(ack_ids=ids([b]))
        assert await stream.bodies() == ["d"]
        pubsub.skip(10.1)
        e, f = await stream.messages(2)
        assert bodies([e, f]) == ["e", "f"]
        assert await stream.silent()
        await pubsub.modack("orders", [e], 0)
        assert await stream.bodies() == ["g"]
        await pubsub.modack("orders", [f], 60)
        assert await stream.silent()


async def test_no_more_bytes_are_out_than_the_stream_asked_for(pubsub: Wire) -> None:
    """But for the message that goes beyond: one that is larger than the limit must come, too."""
    await pubsub.publish("orders", *["x" * 1_000] * 6)
    async with pubsub.stream(max_outstanding_bytes=2_500) as stream:
        a, _, _ = await stream.messages(3)
        assert await stream.silent()
        await pubsub.ack("orders", [a])
        await stream.messages(1)
        assert await stream.silent()
    async with pubsub.stream(max_outstanding_bytes=1) as stream:
        await stream.messages(1)
        assert await stream.silent()


async def test_small_messages_fill_the_bytes_that_are_left(pubsub: Wire) -> None:
    """The limit counts what is there, not the largest that ever was."""
    await pubsub.publish("orders", "x" * 2_000, *["y" * 100] * 30)
    async with pubsub.stream(max_outstanding_bytes=4_000) as stream:
        messages = await stream.messages(12)
        assert sum(len(each.message.data) for each in messages) >= 3_000
        while not await stream.silent():
            messages += await stream.messages(1)
        assert 4_000 <= sum(each.message.ByteSize() for each in messages) < 4_000 + 200


@pytest.mark.parametrize("most", [0, -1])
async def test_without_limits_everything_comes(pubsub: Wire, most: int) -> None:
    """Zero and less mean none [doc: StreamingPullRequest]."""
    await pubsub.publish("orders", *map(str, range(300)))
    async with pubsub.stream(max_outstanding_messages=most, max_outstanding_bytes=most) as stream:
        assert len(await stream.messages(300)) == 300


async def test_several_streams_share_what_there_is(pubsub: Wire) -> None:
    """Whether it was there before, comes at once, or one by one: no stream has it all."""
    async with pubsub.stream() as one, pubsub.stream() as two, pubsub.stream() as three:
        streams = [one, two, three]
        for stream in streams:
            await stream.silent(0.01)
        got: Counter[int] = Counter()

        async def count(number: int, stream: Stream) -> None:
            while True:
                got[number] += len((await stream.response()).received_messages)

        tasks = [asyncio.create_task(count(number, stream)) for number, stream in enumerate(streams)]
        await pubsub.publish("orders", *map(str, range(30)))
        await eventually(lambda: got.total() == 30)
        assert set(got.values()) == {10}
        for number in range(9):
            await pubsub.publish("orders", str(number))
        await eventually(lambda: got.total() == 39)
        assert set(got.values()) == {13}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# -- its end -------------------------------------------------------------------------------------


async def test_a_half_closed_stream_gets_nothing_more_and_ends_well(pubsub: Wire) -> None:
    """The only way to stop that strands nothing: what came before is read to the end, what comes after is another's."""
    await pubsub.publish("orders", "before")
    async with pubsub.stream() as stream:
        await stream.messages()
        await stream.call.done_writing()
        assert await stream.end() == "OK"
        await pubsub.publish("orders", "after")
    assert await pubsub.bodies("orders") == ["after"]
    assert pubsub.place.counts().delivered == 2


async def test_nothing_is_stranded_when_streams_are_half_closed_under_load(pubsub: Wire) -> None:
    """Each message is either read by the client that closed, or there for the next, uncounted."""
    for round_ in range(15):
        async with pubsub.stream(max_outstanding_messages=1_000) as stream:
            publishing = asyncio.create_task(pubsub.publish("orders", *map(str, range(50))))
            await asyncio.sleep(0.0005 * round_)
            await stream.call.done_writing()
            read = []
            try:
                while True:
                    read += (await stream.response()).received_messages
            except EOFError:
                pass
            await publishing
        rest = await pubsub.pull("orders", 100)
        assert len(read) + len(rest) == 50
        assert {each.delivery_attempt for each in rest} <= {1}
        await pubsub.ack("orders", [*read, *rest])
    assert pubsub.place.counts().delivered == 15 * 50


async def test_what_a_cancelled_stream_was_sent_stays_out_until_its_deadline(pubsub: Wire) -> None:
    """A crash of the worker, as the service sees it."""
    await pubsub.publish("orders", "x")
    async with pubsub.stream() as stream:
        await stream.messages()
    await asyncio.sleep(0.03)
    assert await pubsub.bodies("orders") == []
    pubsub.skip(10.1)
    [again] = await pubsub.pull("orders")
    assert again.delivery_attempt == 2


async def test_a_lost_connection_ends_its_streams(pubsub: Wire) -> None:
    """Later messages must not go to one that is not there."""
    async with channel_to(pubsub.place) as channel:
        other = Wire(pubsub.place, pubsub.clock, channel)
        async with other.stream() as stream:
            await stream.silent()
            await channel.close()
    await asyncio.sleep(0.05)
    await pubsub.publish("orders", "x")
    assert await pubsub.bodies("orders") == ["x"]


async def test_all_streams_can_be_ended(pubsub: Wire) -> None:
    """As the service does to each twice an hour; a new one works."""
    await pubsub.publish("orders", "x")
    async with pubsub.stream() as one, pubsub.stream("bills.ordered") as two:
        await one.messages()
        await two.silent()
        pubsub.place.end_streams()
        pubsub.place.end_streams()
        assert [await one.end(), await two.end()] == ["UNAVAILABLE"] * 2
    async with pubsub.stream() as stream:
        await stream.silent()
        pubsub.place.end_streams(grpc.StatusCode.INTERNAL, "on purpose")
        with pytest.raises(Failure, match="on purpose") as caught:
            await stream.response()
        assert caught.value.code == "INTERNAL"


async def test_deleting_a_subscription_ends_its_streams_and_pulls(pubsub: Wire) -> None:
    """Not those of others."""
    async with pubsub.stream() as stream, pubsub.stream("bills.ordered") as other:
        pull = asyncio.create_task(pubsub.error("subscriber", "pull", subscription=sub("orders"), max_messages=1))
        await stream.silent()
        await pubsub.sub("delete_subscription", subscription=sub("orders"))
        assert await stream.end() == "NOT_FOUND"
        assert (await pull).code == "NOT_FOUND"
        assert await other.silent()


async def test_a_subscription_that_becomes_a_push_subscription_ends_its_streams(pubsub: Wire) -> None:
    """Which is how a colleague stops a worker."""
    async with pubsub.stream() as stream:
        await stream.silent()
        await pubsub.change("orders", push_config={"push_endpoint": "https://example.org"})
        assert await stream.end() == "FAILED_PRECONDITION"
