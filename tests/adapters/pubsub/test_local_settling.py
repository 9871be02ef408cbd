"""Pulling from the local Pub/Sub server, and what becomes of a message that was: acks, deadlines, retries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.pubsub_v1 import types

from tests.adapters.pubsub.local_support import ONCE, Failure, Wire, bodies, ids, local_pubsub, sub, topic

EXACTLY_ONCE = "once.exactly-once"
GONE = "PERMANENT_FAILURE_INVALID_ACK_ID"


@pytest.fixture
async def pubsub() -> AsyncIterator[Wire]:
    async with local_pubsub() as wire:
        yield wire


# -- pulling -------------------------------------------------------------------------------------


async def test_a_pull_brings_what_is_there_up_to_what_was_asked(pubsub: Wire) -> None:
    """In the order it was published, each message to one only."""
    await pubsub.publish("orders", *"abcde")
    assert await pubsub.bodies("orders", 2) == ["a", "b"]
    assert await pubsub.bodies("orders", 100) == ["c", "d", "e"]
    assert await pubsub.bodies("orders") == []


async def test_a_pull_brings_a_thousand_at_most(pubsub: Wire) -> None:
    """However many were asked for; others that wait do not make it less."""
    await pubsub.publish("orders", *map(str, range(700)))
    await pubsub.publish("orders", *map(str, range(700)))
    async with pubsub.stream(max_outstanding_messages=1):
        assert len(await pubsub.pull("orders", 5_000)) == 1_000


async def test_a_pull_brings_eight_megabytes_and_a_message_at_most(pubsub: Wire) -> None:
    """Less than was asked for is normal, and a reply can only be so large."""
    for _ in range(4):
        await pubsub.publish("orders", "x" * 3_000_000)
    assert len(await pubsub.pull("orders", 10)) == 3


@pytest.mark.parametrize("most", [0, -1])
async def test_a_pull_asks_for_one_message_at_least(pubsub: Wire, most: int) -> None:
    """The default of a request is none."""
    assert (await pubsub.error("subscriber", "pull", subscription=sub("orders"), max_messages=most)).code == (
        "INVALID_ARGUMENT"
    )


async def test_a_pull_waits_for_the_first_message(pubsub: Wire) -> None:
    """And is answered as soon as it is there."""
    started = time.monotonic()
    pull = asyncio.create_task(pubsub.sub("pull", subscription=sub("orders"), max_messages=10))
    await asyncio.sleep(0.05)
    await pubsub.publish("orders", "x")
    assert bodies((await pull).received_messages) == ["x"]
    assert time.monotonic() - started < 0.5


async def test_a_pull_without_a_deadline_waits_too(pubsub: Wire) -> None:
    """As a client does that was told no timeout."""
    pull = asyncio.create_task(pubsub.pull("orders", wait=True))
    await asyncio.sleep(0.05)
    assert not pull.done()
    await pubsub.publish("orders", "x")
    assert bodies(await pull) == ["x"]


async def test_an_empty_pull_is_answered_before_its_client_gives_up(pubsub: Wire) -> None:
    """An empty reply, no error; a fifth of the client's deadline before it, a second at most."""
    request = types.PullRequest(subscription=sub("orders"), max_messages=1)
    started = time.monotonic()
    reply = await pubsub.subscriber.pull(request=request, retry=None, timeout=0.5)
    assert not reply.received_messages
    assert 0.3 < time.monotonic() - started < 0.5


async def test_a_pull_that_was_given_up_took_nothing(pubsub: Wire) -> None:
    """What comes later is somebody else's, at once and as the first delivery."""
    for _ in range(5):
        pull = asyncio.create_task(pubsub.sub("pull", subscription=sub("orders"), max_messages=1))
        await asyncio.sleep(0.02)
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)
    await asyncio.sleep(0.05)
    await pubsub.publish("orders", "x")
    [message] = await pubsub.pull("orders")
    assert (message.message.data, message.delivery_attempt) == (b"x", 1)


async def test_the_lease_of_a_pull_is_the_subscriptions(pubsub: Wire) -> None:
    """Ten seconds if nothing is said, and what is said from then on."""
    await pubsub.publish("orders", "x")
    await pubsub.pull("orders")
    pubsub.skip(9.5)
    assert await pubsub.bodies("orders") == []
    pubsub.skip(0.6)
    await pubsub.change("orders", ack_deadline_seconds=100)
    assert await pubsub.bodies("orders") == ["x"]
    pubsub.skip(99)
    assert await pubsub.bodies("orders") == []
    pubsub.skip(1.1)
    assert await pubsub.bodies("orders") == ["x"]


@pytest.mark.parametrize(
    "settings",
    [
        {"push_config": {"push_endpoint": "https://example.org"}},
        {"bigquery_config": {"table": "p.d.t"}},
        {"cloud_storage_config": {"bucket": "b"}},
    ],
    ids=lambda settings: next(iter(settings)),
)
async def test_what_is_delivered_elsewhere_cannot_be_pulled(pubsub: Wire, settings: dict[str, Any]) -> None:
    """Nothing is pushed either: it waits, and can be pulled when the subscription is an ordinary one."""
    await pubsub.make("special", on="orders", **settings)
    await pubsub.publish("orders", "x")
    assert (await pubsub.error("subscriber", "pull", subscription=sub("special"), max_messages=1)).code == (
        "FAILED_PRECONDITION"
    )
    async with pubsub.stream("special") as stream:
        assert await stream.end() == "FAILED_PRECONDITION"
    if "push_config" in settings:
        await pubsub.sub("modify_push_config", subscription=sub("special"), push_config={})
        assert await pubsub.bodies("special") == ["x"]


async def test_a_detached_subscription_has_nothing_and_gets_nothing(pubsub: Wire) -> None:
    """And says so to who pulls; its topic goes on."""
    await pubsub.make("other", on="orders")
    await pubsub.publish("orders", "x")
    async with pubsub.stream("other") as stream:
        await stream.messages()
        await pubsub.pub("detach_subscription", subscription=sub("other"))
        assert await stream.end() == "FAILED_PRECONDITION"
    with pytest.raises(Failure, match="detached"):
        await pubsub.pull("other")
    assert (await pubsub.sub("get_subscription", subscription=sub("other"))).detached
    await pubsub.publish("orders", "y")
    assert await pubsub.bodies("orders") == ["x", "y"]


# -- acks ----------------------------------------------------------------------------------------


async def test_an_acked_message_does_not_come_again(pubsub: Wire) -> None:
    """Whatever time goes by; the others do."""
    await pubsub.publish("orders", "a", "b", "c")
    a, _, c = await pubsub.pull("orders")
    assert await pubsub.ack("orders", [a, c]) == {}
    pubsub.skip(11)
    assert await pubsub.bodies("orders") == ["b"]


async def test_an_ack_that_comes_too_late_succeeds_and_does_nothing(pubsub: Wire) -> None:
    """Without exactly-once delivery nobody is told: not that the deadline was over, nor that another has it."""
    await pubsub.publish("orders", "x")
    old = await pubsub.pull("orders")
    pubsub.skip(10.1)
    assert await pubsub.ack("orders", old) == {}
    new = await pubsub.pull("orders")
    assert bodies(new) == ["x"]
    assert ids(new) != ids(old)
    assert await pubsub.ack("orders", old) == {}
    assert await pubsub.modack("orders", old, 0) == {}
    assert await pubsub.bodies("orders") == []
    assert await pubsub.ack("orders", new) == {}
    assert await pubsub.ack("orders", new) == {}
    assert await pubsub.modack("orders", new, 30) == {}
    assert pubsub.place.counts().acked == 1


async def test_with_exactly_once_delivery_an_ack_that_comes_too_late_fails(pubsub: Wire) -> None:
    """Each id for itself; those that are not named succeeded. That its deadline was over is enough."""
    await pubsub.publish(EXACTLY_ONCE, "a", "b", "c")
    a, b, c = await pubsub.pull(EXACTLY_ONCE)
    assert await pubsub.ack(EXACTLY_ONCE, [a]) == {}
    assert await pubsub.ack(EXACTLY_ONCE, [a, b]) == {a.ack_id: GONE}
    assert await pubsub.modack(EXACTLY_ONCE, [a, b, c], 20) == {a.ack_id: GONE, b.ack_id: GONE}
    pubsub.skip(20.1)
    assert await pubsub.modack(EXACTLY_ONCE, [c], 20) == {c.ack_id: GONE}
    assert await pubsub.modack(EXACTLY_ONCE, [c], 0) == {c.ack_id: GONE}
    assert await pubsub.ack(EXACTLY_ONCE, [c]) == {c.ack_id: GONE}
    [again] = await pubsub.pull(EXACTLY_ONCE)
    assert await pubsub.modack(EXACTLY_ONCE, [again], 0) == {}
    [again] = await pubsub.pull(EXACTLY_ONCE)
    assert await pubsub.ack(EXACTLY_ONCE, [again, again]) == {}
    assert pubsub.place.counts().acked == 3


async def test_exactly_once_delivery_can_be_turned_on(pubsub: Wire) -> None:
    """What is out then cannot be acked any more; nothing is lost."""
    await pubsub.publish("orders", "a", "b")
    a, b = await pubsub.pull("orders")
    await pubsub.ack("orders", [a])
    await pubsub.change("orders", enable_exactly_once_delivery=True)
    assert await pubsub.ack("orders", [b]) == {b.ack_id: GONE}
    [b] = await pubsub.pull("orders")
    assert await pubsub.ack("orders", [b]) == {}


@pytest.mark.parametrize("queue", ["orders", EXACTLY_ONCE])
@pytest.mark.parametrize("bad", ["", "x", "{tag}", "{tag}.", "{tag}.1x", "{tag}.-1", "{tag}.\u0663", "a{tag}.1"])
async def test_a_malformed_ack_id_fails_the_whole_call(pubsub: Wire, queue: str, bad: str) -> None:
    """Nothing of it is done, and no id is named: the good ones have to be sent again."""
    await pubsub.publish(queue, "x")
    [message] = await pubsub.pull(queue)
    good = message.ack_id
    ack_ids = [good, bad.format(tag=good.partition(".")[0])]
    request = {"subscription": sub(queue), "ack_ids": ack_ids}
    for method, more in (("acknowledge", {}), ("modify_ack_deadline", {"ack_deadline_seconds": 0})):
        failure = await pubsub.error("subscriber", method, **request, **more)
        assert (failure.code, failure.ack_ids) == ("INVALID_ARGUMENT", {})
    assert await pubsub.bodies(queue) == []
    assert await pubsub.ack(queue, [message]) == {}
    assert pubsub.place.counts().acked == 1


async def test_an_ack_id_of_another_subscription_is_malformed(pubsub: Wire) -> None:
    """A worker that mixes them up must see it."""
    await pubsub.publish("orders", "x")
    with pytest.raises(Failure) as caught:
        await pubsub.ack("bills.ordered", await pubsub.pull("orders"))
    assert caught.value.code == "INVALID_ARGUMENT"


async def test_a_call_without_ack_ids_or_with_too_many_is_refused(pubsub: Wire) -> None:
    """From one to as many as 512 KiB hold."""
    await pubsub.publish("orders", "x")
    [ack_id] = ids(await pubsub.pull("orders"))
    too_many = [ack_id] * (512 * 1024 // len(ack_id))
    for ack_ids in ([], too_many):
        for method in ("acknowledge", "modify_ack_deadline"):
            failure = await pubsub.error("subscriber", method, subscription=sub("orders"), ack_ids=ack_ids)
            assert failure.code == "INVALID_ARGUMENT"
    await pubsub.sub("acknowledge", subscription=sub("orders"), ack_ids=too_many[: len(too_many) * 9 // 10])


@pytest.mark.parametrize("method", ["acknowledge", "modify_ack_deadline"])
async def test_settling_at_a_subscription_that_is_not_there_says_so(pubsub: Wire, method: str) -> None:
    """With Google's words."""
    failure = await pubsub.error("subscriber", method, subscription=sub("no-such-one"), ack_ids=["x"])
    assert (failure.code, failure.message) == ("NOT_FOUND", "Resource not found (resource=no-such-one).")


# -- deadlines -----------------------------------------------------------------------------------


async def test_a_deadline_counts_from_the_call_that_set_it(pubsub: Wire) -> None:
    """Later or earlier than it would have been, and as often as one likes."""
    await pubsub.publish("orders", "x")
    message = await pubsub.pull("orders")
    await pubsub.modack("orders", message, 600)
    for _ in range(3):
        pubsub.skip(599)
        assert await pubsub.bodies("orders") == []
        await pubsub.modack("orders", message, 600)
    await pubsub.modack("orders", message, 3)
    pubsub.skip(3.1)
    assert await pubsub.bodies("orders") == ["x"]


@pytest.mark.parametrize("seconds", [-1, 601])
async def test_a_deadline_is_from_0_to_600_s(pubsub: Wire, seconds: int) -> None:
    """Google's emulator takes more: a worker that asks for an hour would never know."""
    await pubsub.publish("orders", "x")
    message = await pubsub.pull("orders")
    with pytest.raises(Failure) as caught:
        await pubsub.modack("orders", message, seconds)
    assert caught.value.code == "INVALID_ARGUMENT"


async def test_a_nack_brings_a_message_back_at_once(pubsub: Wire) -> None:
    """Behind the others that wait, with an ack id of its own and one attempt more."""
    await pubsub.publish("orders", "a", "b")
    [a] = await pubsub.pull("orders", 1)
    await pubsub.modack("orders", [a], 0)
    b, again = await pubsub.pull("orders")
    assert bodies([b, again]) == ["b", "a"]
    assert [b.delivery_attempt, again.delivery_attempt] == [1, 2]
    assert again.message.message_id == a.message.message_id
    assert again.ack_id != a.ack_id
    assert await pubsub.modack("orders", [a], 0) == {}
    assert await pubsub.bodies("orders") == []


async def test_attempts_count_nacks_and_deadlines_alike(pubsub: Wire) -> None:
    """And nothing where there is no dead-letter policy: then nobody knows."""
    await pubsub.make("plain", on="orders")
    await pubsub.publish("orders", "x")
    for attempt in (1, 2, 3, 4, 5):
        [counted], [uncounted] = await pubsub.pull("orders"), await pubsub.pull("plain")
        assert (counted.delivery_attempt, uncounted.delivery_attempt) == (attempt, 0)
        if attempt % 2:
            await pubsub.modack("orders", [counted], 0)
            await pubsub.modack("plain", [uncounted], 0)
        else:
            pubsub.skip(10.1)


# -- retry policy --------------------------------------------------------------------------------


def policy(first: int, most: int) -> dict[str, Any]:
    return {"minimum_backoff": {"seconds": first}, "maximum_backoff": {"seconds": most}}


@pytest.mark.parametrize("way", ["nack", "expiry"])
async def test_a_retry_policy_puts_off_what_failed(pubsub: Wire, way: str) -> None:
    """Twice as long after each attempt, up to its maximum; from the nack, or from the end of the deadline."""
    await pubsub.change("orders", retry_policy=policy(10, 35))
    await pubsub.publish("orders", "x")
    for wait in (10, 20, 35, 35):
        message = await pubsub.pull("orders")
        assert bodies(message) == ["x"]
        if way == "nack":
            await pubsub.modack("orders", message, 0)
        else:
            pubsub.skip(10)
        pubsub.skip(wait - 0.5)
        assert await pubsub.bodies("orders") == []
        pubsub.skip(0.6)
    [message] = await pubsub.pull("orders")
    assert message.delivery_attempt == 5
    counts = pubsub.place.counts()
    assert (counts.delivered, counts.nacked, counts.expired) == (5, 4, 0) if way == "nack" else (5, 0, 4)


async def test_a_retry_policy_wakes_a_stream_that_waits(pubsub: Wire) -> None:
    """In real time: the shortest backoff is a second."""
    await pubsub.change("orders", retry_policy=policy(1, 1))
    async with pubsub.stream() as stream:
        await pubsub.publish("orders", "x")
        await pubsub.modack("orders", await stream.messages(), 0)
        started = time.monotonic()
        assert await stream.bodies() == ["x"]
        assert 0.8 < time.monotonic() - started < 1.5


async def test_a_retry_policy_says_10_s_to_10_minutes_unless_told(pubsub: Wire) -> None:
    """The service's own defaults, which GetSubscription shows."""
    await pubsub.make("retried", on="orders", retry_policy={})
    shown = (await pubsub.sub("get_subscription", subscription=sub("retried"))).retry_policy
    assert (shown.minimum_backoff.seconds, shown.maximum_backoff.seconds) == (10, 600)


# -- dead letters --------------------------------------------------------------------------------


async def fail(pubsub: Wire, queue: str, times: int) -> str:
    """Nack what comes so often; the id of the message."""
    id = ""
    for attempt in range(1, times + 1):
        [message] = await pubsub.pull(queue)
        assert message.delivery_attempt == attempt
        id = message.message.message_id
        await pubsub.modack(queue, [message], 0)
    return id


async def test_a_message_delivered_too_often_goes_to_the_dead_letter_topic(pubsub: Wire) -> None:
    """Its body, attributes and key as they were, and where it comes from beside them."""
    await pubsub.make("few", dead_letter_policy={"dead_letter_topic": topic("orders-dlq"), "max_delivery_attempts": 5})
    await pubsub.publish("few", "x", key="k", colour="red")
    id = await fail(pubsub, "few", 5)
    assert await pubsub.bodies("few") == []

    [letter] = await pubsub.pull("orders-dlq")
    attributes = dict(letter.message.attributes)
    published = attributes.pop("CloudPubSubDeadLetterSourceTopicPublishTime")
    assert published.startswith("20")
    assert published.endswith("+00:00")
    assert attributes == {
        "colour": "red",
        "CloudPubSubDeadLetterSourceDeliveryCount": "5",
        "CloudPubSubDeadLetterSourceSubscription": "few",
        "CloudPubSubDeadLetterSourceSubscriptionProject": "eventkit-local",
    }
    assert (letter.message.data, letter.message.ordering_key, letter.delivery_attempt) == (b"x", "k", 0)
    assert letter.message.message_id != id
    counts = pubsub.place.counts()
    assert (counts.published, counts.delivered, counts.nacked, counts.dead) == (1, 5, 5, 1)


@pytest.mark.parametrize("way", ["nack", "expiry"])
async def test_a_stream_that_waits_dead_letters_what_it_is_not_sent(pubsub: Wire, way: str) -> None:
    """Also what only ran out of time, and at once: a retry policy puts off no way to the dead letters."""
    dead = {"dead_letter_topic": topic("orders-dlq"), "max_delivery_attempts": 5}
    await pubsub.make("few", dead_letter_policy=dead, retry_policy=policy(600, 600))
    await pubsub.publish("few", "x")
    async with pubsub.stream("few") as stream, pubsub.stream("orders-dlq") as letters:
        for _ in range(4):
            await stream.messages()
            pubsub.skip(10.1)
            pubsub.skip(600)
        last = await stream.messages()
        assert await letters.silent()
        if way == "nack":
            await pubsub.modack("few", last, 0)
        else:
            pubsub.skip(10.1)
        assert await letters.bodies() == ["x"]
        assert await stream.silent()


async def test_without_its_dead_letter_topic_a_message_goes_on_being_delivered(pubsub: Wire) -> None:
    """For ever, as the service has it, too; and leaves when there is one again."""
    await pubsub.make("letters")
    dead = {"dead_letter_topic": topic("letters"), "max_delivery_attempts": 5}
    await pubsub.make("few", dead_letter_policy=dead)
    await pubsub.pub("delete_topic", topic=topic("letters"))
    await pubsub.publish("few", "x")
    await fail(pubsub, "few", 8)

    await pubsub.pub("create_topic", name=topic("letters"))
    await pubsub.make("letters-2", on="letters")
    assert await pubsub.bodies("few") == []
    assert await pubsub.bodies("letters-2") == ["x"]


async def test_a_queue_comes_with_dead_letters(pubsub: Wire) -> None:
    """After a hundred deliveries, or as many as the server was told."""
    shown = await pubsub.sub("get_subscription", subscription=sub("orders"))
    assert shown.dead_letter_policy.dead_letter_topic == topic("orders-dlq")
    assert shown.dead_letter_policy.max_delivery_attempts == 100
    async with local_pubsub(["orders"], max_deliveries=5) as other:
        await other.publish("orders", "x")
        await fail(other, "orders", 5)
        assert await other.bodies("orders") == []
        assert await other.bodies("orders-dlq") == ["x"]


# -- retention and seek --------------------------------------------------------------------------


async def test_a_message_is_dropped_when_the_retention_is_over(pubsub: Wire) -> None:
    """A week, or what the subscription says now; it is neither delivered nor a dead letter."""
    await pubsub.publish("orders", "old", "out")
    pubsub.skip(5)
    pubsub.skip(7 * 86_400 - 6)
    out = (await pubsub.pull("orders", 2))[1]
    await pubsub.publish("orders", "young")
    pubsub.skip(2)
    await pubsub.modack("orders", [out], 0)
    assert await pubsub.bodies("orders") == ["young"]
    await pubsub.publish("orders", "a")
    await pubsub.change("orders", message_retention_duration={"seconds": 600})
    pubsub.skip(601)
    assert await pubsub.bodies("orders") == []
    assert pubsub.place.counts().dead == 0


async def seek(pubsub: Wire, queue: str, seconds: float) -> None:
    """To a time on the server's clock, in Unix seconds."""
    await pubsub.sub("seek", subscription=sub(queue), time={"seconds": int(seconds), "nanos": int(seconds % 1 * 1e9)})


async def test_a_seek_acks_what_is_older(pubsub: Wire) -> None:
    """Whether it waits or is out; what is younger comes, once more if it was out, as if never delivered."""
    await pubsub.publish("orders", "old", "older")
    [out] = await pubsub.pull("orders", 1)
    pubsub.skip(5)
    middle = pubsub.clock.wall()
    pubsub.skip(1)
    await pubsub.publish("orders", "young", "younger")
    await pubsub.modack("orders", [out], 100)
    await pubsub.pull("orders", 2)
    async with pubsub.stream(max_outstanding_messages=5) as stream:
        assert await stream.bodies() == ["younger"]
        await seek(pubsub, "orders", middle)
        messages = await stream.messages(2)
        assert bodies(messages) == ["young", "younger"]
        assert {each.delivery_attempt for each in messages} == {1}
        pubsub.skip(11)
        assert sorted(await stream.bodies(2)) == ["young", "younger"]


async def test_a_seek_brings_back_what_was_acked_where_that_is_retained(pubsub: Wire) -> None:
    """In the order it was published, with what was not; without retention it stays acked."""
    before = pubsub.clock.wall() - 1
    for retained in (False, True):
        await pubsub.change("orders", retain_acked_messages=retained)
        await pubsub.publish("orders", "a", "b", "c")
        messages = await pubsub.pull("orders", 2)
        await pubsub.ack("orders", messages)
        await seek(pubsub, "orders", before)
        expected = ["a", "b", "c"] if retained else ["c"]
        messages = await pubsub.pull("orders")
        assert bodies(messages) == expected
        await pubsub.ack("orders", messages)
    pubsub.skip(7 * 86_400)
    await seek(pubsub, "orders", before)
    assert await pubsub.bodies("orders") == []


async def test_a_seek_makes_nothing_younger(pubsub: Wire) -> None:
    """What it brings back is as old as it was."""
    await pubsub.publish("orders", "x")
    pubsub.skip(6 * 86_400)
    await seek(pubsub, "orders", pubsub.clock.wall() - 7 * 86_400)
    pubsub.skip(86_400 + 1)
    assert await pubsub.bodies("orders") == []


async def test_a_seek_needs_a_time(pubsub: Wire) -> None:
    """There are no snapshots here."""
    for target in ({}, {"snapshot": "projects/p/snapshots/s"}):
        assert (await pubsub.error("subscriber", "seek", subscription=sub("orders"), **target)).code == (
            "INVALID_ARGUMENT"
        )


# -- with the SDK's retries ----------------------------------------------------------------------


async def test_the_sdk_reads_the_ids_that_failed(pubsub: Wire) -> None:
    """As the exception of the generated client shows them."""
    await pubsub.publish(EXACTLY_ONCE, "x")
    [message] = await pubsub.pull(EXACTLY_ONCE)
    await pubsub.ack(EXACTLY_ONCE, [message])
    request = {"subscription": sub(EXACTLY_ONCE), "ack_ids": [message.ack_id]}
    with pytest.raises(Exception, match="acknowledgement ids") as caught:
        await pubsub.subscriber.acknowledge(request=request, **ONCE)
    error: Any = caught.value
    assert error.grpc_status_code is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.reason, error.metadata) == ("EXACTLY_ONCE_ACKID_FAILURE", {message.ack_id: GONE})
