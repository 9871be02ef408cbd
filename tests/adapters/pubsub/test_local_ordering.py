"""Ordering keys at the local Pub/Sub server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.adapters.pubsub.local_support import Stream, Wire, bodies, local_pubsub, topic

QUEUE = "bills.ordered"
BOTH = "both.ordered.exactly-once"


@pytest.fixture
async def pubsub() -> AsyncIterator[Wire]:
    async with local_pubsub() as wire:
        yield wire


async def test_messages_of_a_key_come_in_order(pubsub: Wire) -> None:
    """However they are taken, and acked in between; keys take turns."""
    for number in range(3):
        await pubsub.publish(QUEUE, f"a{number}", key="a")
        await pubsub.publish(QUEUE, f"b{number}", key="b")
    async with pubsub.stream(QUEUE) as stream:
        messages = await stream.messages(6)
    for key in "ab":
        assert [body for body in bodies(messages) if body[0] == key] == [f"{key}{number}" for number in range(3)]


@pytest.mark.parametrize("way", ["nack", "expiry"])
async def test_a_message_that_comes_again_brings_the_later_ones_of_its_key(pubsub: Wire, way: str) -> None:
    """In order, and those acked meanwhile, too [doc: Message ordering]; other keys are left alone."""
    await pubsub.publish(QUEUE, "a0", "a1", "a2", "a3", key="a")
    await pubsub.publish(QUEUE, "b0", key="b")
    await pubsub.publish(QUEUE, "free")
    held = {each.message.data.decode(): each for each in await pubsub.pull(QUEUE)}
    await pubsub.ack(QUEUE, [held["a0"], held["a2"]])
    if way == "nack":
        await pubsub.modack(QUEUE, [held["a1"]], 0)
    else:
        await pubsub.modack(QUEUE, [held[body] for body in ("a3", "b0", "free")], 60)
        pubsub.skip(10.1)
    again = await pubsub.pull(QUEUE)
    assert bodies(again) == ["a1", "a2", "a3"]
    assert await pubsub.ack(QUEUE, again) == {}
    pubsub.skip(70)
    assert sorted(await pubsub.bodies(QUEUE)) == ["b0", "free"]


async def test_with_exactly_once_delivery_what_was_acked_stays_acked(pubsub: Wire) -> None:
    """That an ack was confirmed is a promise. What was only leased comes again, and its old id is worth nothing."""
    await pubsub.publish(BOTH, "a0", "a1", "a2", key="a")
    a0, a1, a2 = await pubsub.pull(BOTH)
    assert await pubsub.ack(BOTH, [a1]) == {}
    assert await pubsub.modack(BOTH, [a0], 0) == {}
    assert list(await pubsub.ack(BOTH, [a2])) == [a2.ack_id]
    again = await pubsub.pull(BOTH)
    assert bodies(again) == ["a0", "a2"]
    assert await pubsub.ack(BOTH, again) == {}


async def test_attempts_do_not_count_what_an_earlier_message_brought_back(pubsub: Wire) -> None:
    """They are 1 + nacks + deadlines of the message itself [doc: DeadLetterPolicy]."""
    await pubsub.publish(QUEUE, "a0", "a1", key="a")
    for attempt in (1, 2, 3):
        a0, a1 = await pubsub.pull(QUEUE)
        assert (a0.delivery_attempt, a1.delivery_attempt) == (attempt, 1)
        await pubsub.modack(QUEUE, [a0], 0)


async def test_a_key_is_one_streams_while_something_of_it_is_out(pubsub: Wire) -> None:
    """The other gets what is next when the first has none, be it a stream or a pull."""
    async with pubsub.stream(QUEUE, max_outstanding_messages=1) as one:
        await pubsub.publish(QUEUE, "a0", key="a")
        [a0] = await one.messages()
        async with pubsub.stream(QUEUE) as two:
            await pubsub.publish(QUEUE, "a1", "a2", key="a")
            await pubsub.publish(QUEUE, "b0", key="b")
            assert await two.bodies() == ["b0"]
            assert await two.silent()
            assert await pubsub.bodies(QUEUE) == []
            await pubsub.ack(QUEUE, [a0])
            got = [await arrived(one), await arrived(two)]
            assert got in ([["a1"], []], [[], ["a1", "a2"]])


async def arrived(stream: Stream) -> list[str]:
    """What comes within a while."""
    return [] if await stream.silent() else await stream.bodies(stream.waiting)


async def test_a_key_whose_stream_was_lost_goes_on_when_its_deadline_is_over(pubsub: Wire) -> None:
    """From where it was: nothing overtakes what is still out."""
    await pubsub.publish(QUEUE, "a0", "a1", key="a")
    async with pubsub.stream(QUEUE, max_outstanding_messages=1) as one:
        assert await one.bodies() == ["a0"]
    async with pubsub.stream(QUEUE) as two:
        assert await two.silent()
        pubsub.skip(10.1)
        assert await two.bodies(2) == ["a0", "a1"]


async def test_what_a_retry_policy_puts_off_holds_up_its_key(pubsub: Wire) -> None:
    """After a nack and after a deadline; other keys go on, and nothing counts twice."""
    await pubsub.change(QUEUE, retry_policy={"minimum_backoff": {"seconds": 20}, "maximum_backoff": {"seconds": 20}})
    await pubsub.publish(QUEUE, "a0", "a1", "a2", key="a")
    async with pubsub.stream(QUEUE, max_outstanding_messages=3) as stream:
        a0, *_ = await stream.messages(3)
        await pubsub.modack(QUEUE, [a0], 0)
        assert await stream.silent()
        await pubsub.publish(QUEUE, "b0", key="b")
        [b0] = await stream.messages()
        await pubsub.ack(QUEUE, [b0])
        pubsub.skip(20.1)
        messages = await stream.messages(3)
        assert bodies(messages) == ["a0", "a1", "a2"]

        pubsub.skip(10.1)  # all three deadlines: the first brings back the others
        assert await stream.silent()
        pubsub.skip(20)
        messages = await stream.messages(3)
        assert bodies(messages) == ["a0", "a1", "a2"]
        assert [each.delivery_attempt for each in messages] == [3, 1, 1]
        assert await stream.silent()
        await pubsub.ack(QUEUE, messages)
    assert pubsub.place.counts().acked == 4


async def test_what_is_put_off_together_counts_once(pubsub: Wire) -> None:
    """Two of a key whose deadlines ended one by one, the later one first, before anybody looked."""
    await pubsub.change(QUEUE, retry_policy={"minimum_backoff": {"seconds": 20}, "maximum_backoff": {"seconds": 20}})
    await pubsub.publish(QUEUE, "a0", "a1", key="a")
    a0, _ = await pubsub.pull(QUEUE)
    await pubsub.modack(QUEUE, [a0], 15)
    pubsub.skip(16)
    assert await pubsub.bodies(QUEUE) == []
    pubsub.skip(20)
    messages = await pubsub.pull(QUEUE)
    assert [(each.message.data, each.delivery_attempt) for each in messages] == [(b"a0", 2), (b"a1", 2)]


async def test_dead_letters_of_a_key_let_the_later_ones_go_on(pubsub: Wire) -> None:
    """And keep their key, in a subscription that keeps their order."""
    dead = {"dead_letter_topic": topic("bills.ordered-dlq"), "max_delivery_attempts": 5}
    await pubsub.change(QUEUE, dead_letter_policy=dead)
    await pubsub.publish(QUEUE, "a0", "a1", key="a")
    for _ in range(5):
        a0, _ = await pubsub.pull(QUEUE)
        await pubsub.modack(QUEUE, [a0], 0)
    assert await pubsub.bodies(QUEUE) == ["a1"]
    [letter] = await pubsub.pull("bills.ordered-dlq")
    assert (letter.message.data, letter.message.ordering_key) == (b"a0", "a")


async def test_a_dead_letter_is_not_brought_back_by_an_earlier_message(pubsub: Wire) -> None:
    """It has left the subscription, while what was acked has not quite."""
    dead = {"dead_letter_topic": topic("bills.ordered-dlq"), "max_delivery_attempts": 5}
    await pubsub.change(QUEUE, dead_letter_policy=dead)
    await pubsub.publish(QUEUE, "a0", "a1", key="a")
    async with pubsub.stream(QUEUE) as stream:
        a0, a1 = await stream.messages(2)
        for _ in range(4):
            await pubsub.modack(QUEUE, [a1], 0)
            [a1] = await stream.messages()
        await pubsub.modack(QUEUE, [a1], 0)
        assert await stream.silent()
        await pubsub.modack(QUEUE, [a0], 0)
        assert await stream.bodies() == ["a0"]
        assert await stream.silent()
    assert await pubsub.bodies("bills.ordered-dlq") == ["a1"]


async def test_without_message_ordering_a_key_means_nothing(pubsub: Wire) -> None:
    """It is carried along; a nack brings back one message, behind the others."""
    await pubsub.publish("orders", "a0", "a1", "a2", key="a")
    [a0] = await pubsub.pull("orders", 1)
    assert await pubsub.bodies("orders", 1) == ["a1"]
    await pubsub.modack("orders", [a0], 0)
    again = await pubsub.pull("orders")
    assert bodies(again) == ["a2", "a0"]
    assert {each.message.ordering_key for each in again} == {"a"}
