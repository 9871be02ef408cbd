"""The local Pub/Sub server as such: faults on the way, its start and its end."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest
from eventkit_pubsub._local import Call, Faults, PubsubError, serve

from eventkit.errors import ConfigurationError
from eventkit.spi import LocalPlace
from tests.adapters.pubsub.local_support import (
    QUEUES,
    Clock,
    Failure,
    Wire,
    bodies,
    channel_to,
    ids,
    local_pubsub,
    sub,
    topic,
)

EXACTLY_ONCE = "once.exactly-once"


@pytest.fixture
async def pubsub() -> AsyncIterator[Wire]:
    async with local_pubsub() as wire:
        yield wire


# -- faults --------------------------------------------------------------------------------------


class Refuse(Faults):
    def __init__(self, code: grpc.StatusCode) -> None:
        self.error = PubsubError(code, "on purpose")
        self.calls: list[Call] = []

    async def before(self, call: Call) -> Mapping[str, str]:
        self.calls.append(call)
        raise self.error


@pytest.mark.parametrize("code", ["UNAVAILABLE", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"])
async def test_a_fault_answers_in_place_of_the_topic(pubsub: Wire, code: str) -> None:
    """What Google answers under load or without permission cannot be had otherwise; the call is not done."""
    faults = pubsub.place.faults = Refuse(getattr(grpc.StatusCode, code))
    with pytest.raises(Failure) as caught:
        await pubsub.publish("orders", "x")
    assert (caught.value.code, caught.value.message, caught.value.ack_ids) == (code, "on purpose", {})
    [call] = faults.calls
    assert (call.operation, call.topic, call.subscription) == ("Publish", "orders", "")
    assert call.request.messages[0].data == b"x"
    assert not call.request.messages[0].message_id

    for pull in (pubsub.pull("orders"), pubsub.sub("get_subscription", subscription=sub("orders"))):
        with pytest.raises(Failure, match="on purpose"):
            await pull
    async with pubsub.stream() as stream:
        assert await stream.end() == code
    pubsub.place.faults = None
    assert await pubsub.bodies("orders") == []


async def test_a_fault_sees_what_a_call_is_about(pubsub: Wire) -> None:
    """Whatever field the name stands in; the request as it was sent."""
    faults = pubsub.place.faults = Refuse(grpc.StatusCode.INTERNAL)
    await pubsub.error("publisher", "create_topic", name=topic("new"))
    await pubsub.error("publisher", "update_topic", topic={"name": topic("orders")})
    await pubsub.error("subscriber", "create_subscription", name=sub("new"), topic=topic("orders"))
    await pubsub.error("subscriber", "update_subscription", subscription={"name": sub("orders")})
    await pubsub.error("publisher", "list_topics", project="projects/p")
    with pytest.raises(Exception, match="on purpose"):
        await pubsub.test_permissions(sub("orders"), ["x"])
    async with pubsub.stream("bills.ordered") as stream:
        await stream.end()
    assert [(call.operation, call.topic, call.subscription) for call in faults.calls] == [
        ("CreateTopic", "new", ""),
        ("UpdateTopic", "orders", ""),
        ("CreateSubscription", "orders", "new"),
        ("UpdateSubscription", "", "orders"),
        ("ListTopics", "", ""),
        ("TestIamPermissions", "", "orders"),
        ("StreamingPull", "", "bills.ordered"),
    ]


async def test_a_server_can_start_with_faults() -> None:
    """A worker's first call is one that can fail, too."""
    async with local_pubsub(faults=Refuse(grpc.StatusCode.PERMISSION_DENIED)) as pubsub:
        failure = await pubsub.error("subscriber", "get_subscription", subscription=sub("orders"))
        assert failure.code == "PERMISSION_DENIED"


class RefuseIds(Faults):
    def __init__(self, ack_ids: Mapping[str, str]) -> None:
        self.ack_ids = ack_ids

    async def before(self, call: Call) -> Mapping[str, str]:
        return self.ack_ids


async def test_a_fault_can_fail_some_ack_ids_with_exactly_once_delivery(pubsub: Wire) -> None:
    """Partial failure by the service itself: the others are done, and those can be tried again."""
    await pubsub.publish(EXACTLY_ONCE, "a", "b", "c")
    a, b, c = await pubsub.pull(EXACTLY_ONCE)
    await pubsub.ack(EXACTLY_ONCE, [a])
    passing = "TRANSIENT_FAILURE_INTERNAL"
    pubsub.place.faults = RefuseIds({b.ack_id: passing, "else": passing})
    assert await pubsub.ack(EXACTLY_ONCE, [b, c, a]) == {
        a.ack_id: "PERMANENT_FAILURE_INVALID_ACK_ID",
        b.ack_id: passing,
    }
    assert await pubsub.modack(EXACTLY_ONCE, [b], 0) == {b.ack_id: passing}
    assert await pubsub.bodies(EXACTLY_ONCE) == []
    pubsub.place.faults = None
    assert await pubsub.ack(EXACTLY_ONCE, [b]) == {}
    assert pubsub.place.counts().acked == 3


async def test_without_exactly_once_delivery_no_ack_id_fails_alone(pubsub: Wire) -> None:
    """Such an answer does not exist there."""
    await pubsub.publish("orders", "x")
    [message] = await pubsub.pull("orders")
    pubsub.place.faults = RefuseIds({message.ack_id: "TRANSIENT_FAILURE_INTERNAL"})
    assert await pubsub.ack("orders", [message]) == {}
    assert pubsub.place.counts().acked == 1


class LoseReply(Faults):
    async def after(self, call: Call, reply: Any) -> Any:
        raise PubsubError(grpc.StatusCode.UNAVAILABLE, "connection reset")


class Spoil(Faults):
    async def after(self, call: Call, reply: Any) -> Any:
        reply.Clear()
        return reply


async def test_a_reply_can_be_lost_or_spoiled_after_the_call_was_done(pubsub: Wire) -> None:
    """The outcome that no client can know; and an answer that no service should give. Its state is its own."""
    pubsub.place.faults = LoseReply()
    with pytest.raises(Failure) as caught:
        await pubsub.publish("orders", "x")
    assert caught.value.code == "UNAVAILABLE"
    pubsub.place.faults = Spoil()
    assert not (await pubsub.sub("get_subscription", subscription=sub("orders"))).name
    assert await pubsub.pull("orders") == []
    pubsub.place.faults = None
    assert (await pubsub.sub("get_subscription", subscription=sub("orders"))).name == sub("orders")
    pubsub.skip(10.1)
    [message] = await pubsub.pull("orders")
    assert (message.message.data, message.delivery_attempt) == (b"x", 2)


class Hold(Faults):
    """Nothing gets through until the end of time."""

    async def before(self, call: Call) -> Mapping[str, str]:
        await asyncio.Event().wait()
        return {}


async def test_a_call_that_is_held_up_until_its_client_leaves_is_not_done(pubsub: Wire) -> None:
    """A network that delivers nothing: the client's timeout is all there is."""
    pubsub.place.faults = Hold()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pubsub.publish("orders", "x"), 0.1)
    pubsub.place.faults = None
    await asyncio.sleep(0.02)
    assert await pubsub.bodies("orders") == []


class OnStreams(Faults):
    """Does `act` to each response on a stream."""

    def __init__(self, act: Any) -> None:
        self.act = act
        self.seen: list[tuple[str, int]] = []

    async def streaming(self, call: Call, response: Any) -> Any:
        self.seen.append((call.subscription, len(response.received_messages)))
        return self.act(response)


async def test_a_stream_can_go_silent(pubsub: Wire) -> None:
    """Open, without messages and without heartbeats: what it holds is out, and comes when the deadline is over."""
    faults = pubsub.place.faults = OnStreams(lambda response: None)
    await pubsub.publish("orders", "a", "b")
    async with pubsub.stream(protocol_version=1, max_outstanding_messages=2) as stream:
        await stream.say()
        assert await stream.silent()
        assert await pubsub.bodies("orders") == []
        assert sorted(faults.seen) == [("orders", 0), ("orders", 2)]
        pubsub.place.faults = None
        await pubsub.publish("orders", "c")
        assert await stream.silent()
        pubsub.skip(10.1)
        messages = await stream.messages(2)
    assert {(each.message.data, each.delivery_attempt) for each in messages} <= {(b"a", 2), (b"b", 2), (b"c", 1)}


def fail(response: Any) -> Any:
    raise PubsubError(grpc.StatusCode.INTERNAL, "on purpose")


async def test_a_stream_can_end_before_a_response_is_sent(pubsub: Wire) -> None:
    """What it would have held is given back, at once and uncounted."""
    pubsub.place.faults = OnStreams(fail)
    await pubsub.publish("orders", "x")
    async with pubsub.stream() as stream:
        assert await stream.end() == "INTERNAL"
    [message] = await pubsub.pull("orders")
    assert (message.message.data, message.delivery_attempt) == (b"x", 1)
    counts = pubsub.place.counts()
    assert (counts.delivered, counts.nacked) == (1, 0)


def duplicated(response: Any) -> Any:
    response.received_messages.extend(list(response.received_messages))
    return response


async def test_a_response_on_a_stream_can_be_changed(pubsub: Wire) -> None:
    """A duplicate under the same ack id, for one."""
    pubsub.place.faults = OnStreams(duplicated)
    await pubsub.publish("orders", "x")
    async with pubsub.stream() as stream:
        assert len(set(ids(await stream.messages(2)))) == 1


class HoldStreams(Faults):
    async def streaming(self, call: Call, response: Any) -> Any:
        await asyncio.Event().wait()


class SlowStreams(Faults):
    async def streaming(self, call: Call, response: Any) -> Any:
        await asyncio.sleep(0.01)
        return response


async def test_what_comes_while_a_response_is_held_up_comes_after_it(pubsub: Wire) -> None:
    """A slow network loses nothing, and what waits is not taken before it can be sent."""
    pubsub.place.faults = SlowStreams()
    async with pubsub.stream() as stream:
        for number in range(30):
            await pubsub.publish("orders", str(number))
        assert await stream.bodies(30) == [str(number) for number in range(30)]


async def test_a_stream_that_a_fault_holds_up_can_be_ended(pubsub: Wire) -> None:
    """So can one whose client does not read."""
    pubsub.place.faults = HoldStreams()
    await pubsub.publish("orders", "x")
    async with pubsub.stream() as stream:
        assert await stream.silent()
        pubsub.place.end_streams()
        assert await stream.end() == "UNAVAILABLE"
    pubsub.place.faults = None
    assert await pubsub.bodies("orders") == ["x"]


@pytest.mark.parametrize("queue", ["orders", "bills.ordered"])
async def test_what_is_given_to_a_stream_that_ends_before_it_is_sent_is_given_back(pubsub: Wire, queue: str) -> None:
    """At once and uncounted, in order: nothing of it ever left the server."""
    pubsub.place.faults = HoldStreams()
    await pubsub.publish(queue, "a", "b", "c", key="k")
    async with pubsub.stream(queue) as stream:
        assert await stream.silent()
        assert await pubsub_bodies_without_faults(pubsub, queue) == []
    await asyncio.sleep(0.03)
    pubsub.place.faults = None
    messages = await pubsub.pull(queue)
    assert bodies(messages) == ["a", "b", "c"]
    assert {each.delivery_attempt for each in messages} == {1}
    assert pubsub.place.counts().delivered == 3


async def pubsub_bodies_without_faults(pubsub: Wire, queue: str) -> list[str]:
    faults, pubsub.place.faults = pubsub.place.faults, None
    try:
        return await pubsub.bodies(queue)
    finally:
        pubsub.place.faults = faults


# -- its start and its end -----------------------------------------------------------------------


async def test_a_place_says_how_to_find_it(pubsub: Wire) -> None:
    """What a test sets in the environment is all that an SDK needs; credentials it wants none."""
    place: LocalPlace = pubsub.place

    assert place.endpoint.startswith("http://127.0.0.1:")
    assert place.address("orders") == "pubsub://eventkit-local/orders"
    assert place.dead_letters("orders") == "pubsub://eventkit-local/orders-dlq"
    assert place.environment == {
        "PUBSUB_EMULATOR_HOST": place.endpoint.removeprefix("http://"),
        "GOOGLE_CLOUD_PROJECT": "eventkit-local",
    }


async def test_a_server_can_stand_for_another_project() -> None:
    """And clients may name any: it looks at none."""
    async with local_pubsub(["orders"], project="my-project") as pubsub:
        assert pubsub.place.address("orders") == "pubsub://my-project/orders"
        name = "projects/my-project/subscriptions/orders"
        assert (await pubsub.sub("get_subscription", subscription=name)).topic == "projects/my-project/topics/orders"


@pytest.mark.parametrize(
    ("queue", "ordered", "exactly_once"),
    [
        ("orders", False, False),
        ("bills.ordered", True, False),
        ("x.exactly-once", False, True),
        ("x.ordered.exactly-once", True, True),
        ("x.exactly-once.ordered", True, True),
        ("x.ordered.bills", False, False),
    ],
)
async def test_the_name_of_a_queue_says_what_its_subscription_is(queue: str, ordered: bool, exactly_once: bool) -> None:
    """The dead letters of an ordered one keep their order; exactly-once they need not be."""
    async with local_pubsub([queue]) as pubsub:
        made = await pubsub.sub("get_subscription", subscription=sub(queue))
        dead = await pubsub.sub("get_subscription", subscription=sub(f"{queue}-dlq"))
    assert (made.enable_message_ordering, made.enable_exactly_once_delivery) == (ordered, exactly_once)
    assert (dead.enable_message_ordering, dead.enable_exactly_once_delivery) == (ordered, False)
    assert made.dead_letter_policy.dead_letter_topic == dead.topic == topic(f"{queue}-dlq")
    assert dead.message_retention_duration.seconds == 31 * 86_400


@asynccontextmanager
async def leaving() -> AsyncIterator[tuple[Wire, AsyncExitStack]]:
    """A server to be left, with a client that stays."""
    async with AsyncExitStack() as serving:
        place = await serving.enter_async_context(serve(QUEUES))
        async with channel_to(place) as channel:
            yield Wire(place, Clock(), channel), serving


async def test_leaving_ends_streams_and_pulls_at_once() -> None:
    """Ctrl-C must not take long, leaves no task behind, and clients learn that they may come again."""
    before = asyncio.all_tasks()
    async with leaving() as (pubsub, serving), pubsub.stream() as stream, pubsub.stream("bills.ordered") as other:
        await pubsub.publish("bills.ordered", "x")
        await other.messages()
        await stream.silent()
        pull = asyncio.create_task(pubsub.error("subscriber", "pull", subscription=sub("orders"), max_messages=1))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        await serving.aclose()
        assert time.monotonic() - started < 0.15
        assert (await pull).code == "UNAVAILABLE"
        for each in (stream, other):
            with pytest.raises(Failure, match="has been stopped") as caught:
                await each.response()
            assert caught.value.code == "UNAVAILABLE"
    await asyncio.sleep(0.01)
    assert {repr(task) for task in asyncio.all_tasks() - before} == set()


async def test_leaving_waits_a_little_for_what_a_fault_holds_up() -> None:
    """And then ends it."""
    async with leaving() as (pubsub, serving):
        pubsub.place.faults = Hold()
        held = asyncio.create_task(pubsub.error("publisher", "get_topic", topic=topic("orders")))
        async with pubsub.stream() as stream:
            await stream.silent()
            started = time.monotonic()
            await serving.aclose()
            assert time.monotonic() - started < 0.5
            assert (await held).code in {"UNAVAILABLE", "CANCELLED"}
            assert await stream.end() in {"UNAVAILABLE", "CANCELLED"}


async def test_leaving_when_nothing_goes_on_is_quick() -> None:
    """Every test with a server pays for it."""
    async with local_pubsub() as pubsub:
        async with pubsub.stream() as stream:
            await pubsub.publish("orders", "x")
            await stream.messages()
        started = time.monotonic()
    assert time.monotonic() - started < 0.1


async def test_a_port_that_is_taken_is_said_once_and_clearly() -> None:
    """The commonest failure of a second start: by something else, or by a server like this one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 is taken") as caught:
            async with serve(["orders"], port=port):
                pytest.fail("it listens")
        assert len(caught.value.problems) == 1
    async with serve(["orders"]) as place:
        port = int(place.endpoint.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match="is taken"):
            async with serve(["orders"], port=port):
                pytest.fail("it listens")


async def test_a_port_that_cannot_be_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    """By us, and not by gRPC on standard error."""
    with pytest.raises(ConfigurationError, match=r"port 70000 of 127\.0\.0\.1 cannot be used"):
        async with serve(["orders"], port=70_000):
            pytest.fail("it listens")
    assert capfd.readouterr().err == ""


async def test_every_name_that_cannot_be_is_listed() -> None:
    """One start shows all mistakes; a queue whose dead-letter topic has too long a name is one."""
    with pytest.raises(ConfigurationError) as caught:
        async with serve(["a b", "orders", "x" * 252, "goog-1", "orders"]):
            pytest.fail("it serves them")
    assert [problem.split("'")[1] for problem in caught.value.problems] == ["a b", "x" * 252, "goog-1", "orders"]


async def test_a_number_of_deliveries_that_cannot_be_is_said() -> None:
    """Five to a hundred is what Pub/Sub can."""
    with pytest.raises(ConfigurationError, match="from 5 to 100"):
        async with serve(["orders"], max_deliveries=4):
            pytest.fail("it serves them")


async def test_a_port_can_be_used_again_at_once() -> None:
    """So that a configuration can stay while the server is restarted."""
    async with local_pubsub() as first:
        port = int(first.place.endpoint.rpartition(":")[2])
        await first.publish("orders", "x")
    async with local_pubsub(port=port) as again:
        assert again.place.endpoint == first.place.endpoint
        assert await again.bodies("orders") == []


async def test_a_client_may_ping_as_often_as_it_likes(pubsub: Wire) -> None:
    """A server that counts them ends the connection: "too many pings". Adapters ping to see that it lives."""
    ping, go_away = 6, 7
    host, _, port = pubsub.place.environment["PUBSUB_EMULATOR_HOST"].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    settings = b"\0\0\0\4\0\0\0\0\0"
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    answered: Counter[int] = Counter()
    async with asyncio.timeout(5):
        for number in range(10):
            writer.write(bytes([0, 0, 8, ping, 0, 0, 0, 0, 0]) + b"12345678")
            while answered[ping] <= number and not answered[go_away]:
                header = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(header[:3]))
                answered[header[3]] += 1
    writer.close()
    await writer.wait_closed()
    assert answered[go_away] == 0


async def test_a_thousand_messages_pass_unharmed(pubsub: Wire) -> None:
    """Each once, and nothing left: several streams, acks in batches."""
    left = 1_000
    done: list[str] = []

    async def work() -> None:
        nonlocal left
        async with pubsub.stream(max_outstanding_messages=50) as stream:
            while left:
                try:
                    response = await stream.response(0.05)
                except TimeoutError:
                    continue
                left -= len(response.received_messages)
                done.extend(bodies(response.received_messages))
                await pubsub.ack("orders", response.received_messages)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(work())
        for start in range(0, 1_000, 100):
            await pubsub.publish("orders", *(f"message {number}" for number in range(start, start + 100)))
    assert sorted(done) == sorted(f"message {number}" for number in range(1_000))
    assert msgspec.structs.asdict(pubsub.place.counts()) == {
        "published": 1_000,
        "delivered": 1_000,
        "acked": 1_000,
        "nacked": 0,
        "expired": 0,
        "dead": 0,
    }


async def test_what_is_published_to_a_dead_letter_topic_counts_as_dead(pubsub: Wire) -> None:
    """Workers put their dead letters there themselves, and whoever looks at them must not change the counts."""
    await pubsub.publish("orders", "handled", "failed", "late")
    handled, failed, _ = await pubsub.pull("orders")
    await pubsub.ack("orders", [handled])
    await pubsub.modack("orders", [failed], 0)
    pubsub.skip(10.1)
    await pubsub.publish("orders-dlq", "given up")
    await pubsub.ack("orders-dlq", await pubsub.pull("orders-dlq"))
    await pubsub.sub("delete_subscription", subscription=sub("bills.ordered"))
    counts = msgspec.structs.asdict(pubsub.place.counts())
    assert counts == {"published": 3, "delivered": 3, "acked": 1, "nacked": 1, "expired": 1, "dead": 1}


def test_importing_the_adapter_does_not_load_the_server() -> None:
    """It stands on the testing package, which a worker does not need."""
    code = "import eventkit_pubsub, sys; print(any('_local' in name for name in sys.modules if 'pubsub' in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=15)
    assert done.stdout.strip() == "False"
