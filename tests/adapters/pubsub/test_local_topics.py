"""Topics, subscriptions and what can be published at the local Pub/Sub server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.iam.v1 import iam_policy_pb2, policy_pb2

from tests.adapters.pubsub.local_support import ONCE, PROJECT, Failure, Wire, bodies, failures, local_pubsub, sub, topic

DAY = 86_400


@pytest.fixture
async def pubsub() -> AsyncIterator[Wire]:
    async with local_pubsub(["orders"]) as wire:
        yield wire


# -- publishing ----------------------------------------------------------------------------------


def message(**more: Any) -> dict[str, Any]:
    return {"data": b"x", **more}


def attributes(number: int, *, name: int = 4, value: int = 1) -> dict[str, str]:
    return {f"{each:0{name}}": "v" * value for each in range(number)}


@pytest.mark.parametrize(
    "messages",
    [
        [message()] * 1_000,
        [{"attributes": {"a": "b"}}],
        [message(attributes=attributes(100))],
        [message(attributes=attributes(1, name=256, value=1_024))],
        [message(attributes={"a": ""})],
        [message(ordering_key="k" * 1_024)],
        [message(data=b"\x00\xff" * 1_000)],
        [message(data=b"x" * 4_999_000)] * 2,
    ],
    ids=["1000", "no data", "attributes", "longest", "empty value", "key", "bytes", "10 MB"],
)
async def test_what_is_within_the_limits_is_published_unharmed(pubsub: Wire, messages: list[dict[str, Any]]) -> None:
    """The largest that can be of each."""
    reply = await pubsub.pub("publish", topic=topic("orders"), messages=messages)
    assert len(set(reply.message_ids)) == len(messages)
    got = (await pubsub.pull("orders", 1_000))[0].message
    assert got.data == messages[0].get("data", b"")
    assert dict(got.attributes) == messages[0].get("attributes", {})
    assert got.ordering_key == messages[0].get("ordering_key", "")


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "0 messages"),
        ([message()] * 1_001, "1001 messages"),
        ([{}], "empty"),
        ([message(), {"ordering_key": "k"}], "empty: number 1"),
        ([message(attributes=attributes(101))], "101 attributes"),
        ([message(attributes={"": "x"})], "0 bytes"),
        ([message(attributes=attributes(1, name=257))], "257 bytes"),
        ([message(attributes={"ä" * 129: "x"})], "258 bytes"),
        ([message(attributes=attributes(1, value=1_025))], "1024 bytes"),
        ([message(attributes={"x": "ä" * 513})], "1024 bytes"),
        ([message(attributes={"googclient_x": "x"})], "goog"),
        ([message(ordering_key="k" * 1_025)], "1024 bytes"),
        ([message(ordering_key="a"), message(ordering_key="b")], "same ordering key"),
        ([message(ordering_key="a"), message()], "same ordering key"),
        ([message(data=b"x" * 5_000_000)] * 2, "10000000 bytes"),
    ],
)
async def test_what_is_beyond_a_limit_is_refused_as_a_whole(
    pubsub: Wire, messages: list[dict[str, Any]], problem: str
) -> None:
    """Google's emulator takes most of these, the service none; the message says which it is."""
    failure = await pubsub.error("publisher", "publish", topic=topic("orders"), messages=messages)
    assert failure.code == "INVALID_ARGUMENT"
    assert problem in failure.message
    assert await pubsub.bodies("orders") == []


async def test_a_request_of_twenty_megabytes_is_refused_by_pubsub_not_by_grpc(pubsub: Wire) -> None:
    """A client has to see why."""
    failure = await pubsub.error(
        "publisher", "publish", topic=topic("orders"), messages=[message(data=b"x" * 20 * 10**6)]
    )
    assert failure.code == "INVALID_ARGUMENT"


async def test_every_subscription_of_a_topic_gets_every_message(pubsub: Wire) -> None:
    """Those that there were when it was published; each has its own acks."""
    await pubsub.publish("orders", "before")
    await pubsub.make("second", on="orders")
    await pubsub.publish("orders", "after")
    first = await pubsub.pull("orders")
    assert bodies(first) == ["before", "after"]
    await pubsub.ack("orders", first)
    assert await pubsub.bodies("second") == ["after"]
    assert pubsub.place.counts().published == 3


async def test_a_topic_without_subscriptions_drops_what_it_is_sent(pubsub: Wire) -> None:
    """It is accepted all the same."""
    await pubsub.pub("create_topic", name=topic("lonely"))
    assert len(await pubsub.publish("lonely", "x")) == 1
    await pubsub.make("late", on="lonely")
    assert await pubsub.bodies("late") == []


# -- filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filter", "wanted"),
    [
        ("attributes:colour", "red blue"),
        ('attributes.colour = "red"', "red"),
        ('attributes.colour="red"', "red"),
        ('attributes.colour != "red"', "blue none"),
        ('hasPrefix(attributes.colour, "b")', "blue"),
        ('hasPrefix(attributes.colour, "")', "red blue"),
        ("NOT attributes:colour", "none"),
        ("-attributes:colour", "none"),
        ('attributes:colour AND -attributes.colour="red"', "blue"),
        ('attributes.colour = "red" OR NOT attributes:colour', "red none"),
        ('attributes:colour AND attributes:colour AND attributes.colour="blue"', "blue"),
        ('(attributes:colour AND attributes:size) OR attributes.colour = "red"', "red"),
        ('NOT (attributes.colour="red" OR attributes.colour="blue")', "none"),
        ('attributes."colour" = "r\u0065d"', "red"),
        ('attributes:"ce-type"', ""),
        ("attributes:ce-type", ""),
        ("", "red blue none"),
    ],
)
async def test_a_filter_lets_through_what_it_describes(pubsub: Wire, filter: str, wanted: str) -> None:
    """The documented language; what does not match counts as nothing."""
    await pubsub.make("filtered", on="orders", filter=filter)
    await pubsub.publish("orders", "red", colour="red")
    await pubsub.publish("orders", "blue", colour="blue")
    await pubsub.publish("orders", "none")
    assert await pubsub.bodies("filtered") == wanted.split()


@pytest.mark.parametrize(
    "filter",
    [
        "colour",
        "attributes",
        "attributes.colour",
        "attributes.colour = red",
        'attributes.colour == "red"',
        'attributes.colour = "red',
        "attributes:colour AND",
        "attributes:a AND attributes:b OR attributes:c",
        "(attributes:a",
        "attributes:a)",
        "attributes:AND",
        'hasPrefix(attributes.a "x")',
        "attributes:a & attributes:b",
        'attributes.a = "\\q"',
        'attributes.a = "' + "x" * 256 + '"',
    ],
)
async def test_a_filter_that_cannot_be_read_is_refused(pubsub: Wire, filter: str) -> None:
    """When the subscription is made; Google's emulator takes anything."""
    request = {"name": sub("filtered"), "topic": topic("orders"), "filter": filter}
    failure = await pubsub.error("subscriber", "create_subscription", **request)
    assert failure.code == "INVALID_ARGUMENT"
    assert "ilter" in failure.message


# -- topics --------------------------------------------------------------------------------------


async def test_topics_can_be_made_shown_changed_and_deleted(pubsub: Wire) -> None:
    """The life of one."""
    await pubsub.pub("create_topic", name=topic("new"), labels={"a": "b"})
    again = await pubsub.error("publisher", "create_topic", name=topic("new"))
    assert (again.code, again.message) == ("ALREADY_EXISTS", "Resource already exists in the project (resource=new).")
    mask = {"paths": ["labels"]}
    await pubsub.pub("update_topic", topic={"name": topic("new"), "labels": {"c": "d"}}, update_mask=mask)
    assert dict((await pubsub.pub("get_topic", topic=topic("new"))).labels) == {"c": "d"}
    bad = await pubsub.error("publisher", "update_topic", topic={"name": topic("new")}, update_mask={"paths": ["name"]})
    assert bad.code == "INVALID_ARGUMENT"

    await pubsub.make("reader", on="new")
    listed = await pubsub.publisher.list_topic_subscriptions(request={"topic": topic("new")}, **ONCE)
    assert list(listed.subscriptions) == [sub("reader")]
    await pubsub.publish("new", "x")
    await pubsub.pub("delete_topic", topic=topic("new"))
    for method in ("get_topic", "delete_topic", "list_topic_subscriptions", "publish"):
        assert (await pubsub.error("publisher", method, topic=topic("new"))).code == "NOT_FOUND"
    assert (await pubsub.sub("get_subscription", subscription=sub("reader"))).topic == "_deleted-topic_"
    assert await pubsub.bodies("reader") == ["x"]
    await pubsub.pub("create_topic", name=topic("new"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "1ab",
        "-ab",
        "goog",
        "google",
        "a b",
        "a/b",
        "ä12",
        "x" * 256,
        "projects/p/topics/",
        "projects/p/x/abc",
    ],
)
async def test_a_name_that_cannot_be_is_refused(pubsub: Wire, name: str) -> None:
    """Three to 255 letters, digits and -_.~+%, a letter first; for subscriptions and topics alike."""
    failure = await pubsub.error("publisher", "create_topic", name=topic(name))
    assert failure.code == "INVALID_ARGUMENT"
    request = {"name": topic(name).replace("topics", "subscriptions"), "topic": topic("orders")}
    assert (await pubsub.error("subscriber", "create_subscription", **request)).code == "INVALID_ARGUMENT"
    assert (await pubsub.error("publisher", "get_topic", topic=topic(name))).code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("name", ["abc", "x" * 255, "a-_.~+%9", "Goog", "agoog"])
async def test_names_may_use_all_that_is_allowed(pubsub: Wire, name: str) -> None:
    """The shortest, the longest, and all signs."""
    await pubsub.make(name)
    await pubsub.publish(name, "x")
    assert await pubsub.bodies(name) == ["x"]


async def test_lists_come_in_pages(pubsub: Wire) -> None:
    """Of one project, by name, as long or short as asked for."""
    for name in ("aaa", "zzz"):
        await pubsub.make(name)
    await pubsub.pub("create_topic", name="projects/other/topics/mine")
    project = f"projects/{PROJECT}"
    names = ["aaa", "orders", "orders-dlq", "zzz"]

    pager = await pubsub.publisher.list_topics(request={"project": project, "page_size": 3}, **ONCE)
    pages = [[each.name.rpartition("/")[2] for each in page.topics] async for page in pager.pages]
    assert pages == [names[:3], names[3:]]
    pager = await pubsub.publisher.list_topics(request={"project": project, "page_size": 2}, **ONCE)
    pages = [[each.name.rpartition("/")[2] for each in page.topics] async for page in pager.pages]
    assert pages == [names[:2], names[2:]]
    subscriptions = await pubsub.subscriber.list_subscriptions(request={"project": project}, **ONCE)
    assert [each.name.rpartition("/")[2] async for each in subscriptions] == names
    assert (await pubsub.error("publisher", "list_topics", project="orders")).code == "INVALID_ARGUMENT"
    bad = await pubsub.error("subscriber", "list_subscriptions", project=project, page_size=-1)
    assert bad.code == "INVALID_ARGUMENT"


# -- subscriptions -------------------------------------------------------------------------------


async def test_a_subscription_is_made_with_the_services_defaults(pubsub: Wire) -> None:
    """What an adapter reads when nobody has said anything."""
    await pubsub.make("plain", on="orders", dead_letter_policy={"dead_letter_topic": topic("orders-dlq")})
    shown = await pubsub.sub("get_subscription", subscription=sub("plain"))
    assert (shown.ack_deadline_seconds, shown.message_retention_duration.seconds) == (10, 7 * DAY)
    assert (shown.topic, shown.dead_letter_policy.max_delivery_attempts) == (topic("orders"), 5)
    assert not shown.HasField("retry_policy")
    assert not shown.enable_message_ordering
    assert not shown.enable_exactly_once_delivery
    again = await pubsub.error("subscriber", "create_subscription", name=sub("plain"), topic=topic("orders"))
    assert again.code == "ALREADY_EXISTS"


DEAD = topic("orders-dlq")


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"ack_deadline_seconds": 9}, "INVALID_ARGUMENT"),
        ({"ack_deadline_seconds": 601}, "INVALID_ARGUMENT"),
        ({"message_retention_duration": {"seconds": 599}}, "INVALID_ARGUMENT"),
        ({"message_retention_duration": {"seconds": 31 * DAY + 1}}, "INVALID_ARGUMENT"),
        ({"dead_letter_policy": {"dead_letter_topic": DEAD, "max_delivery_attempts": 4}}, "INVALID_ARGUMENT"),
        ({"dead_letter_policy": {"dead_letter_topic": DEAD, "max_delivery_attempts": 101}}, "INVALID_ARGUMENT"),
        ({"dead_letter_policy": {"max_delivery_attempts": 5}}, "INVALID_ARGUMENT"),
        ({"dead_letter_policy": {"dead_letter_topic": topic("no-such-one")}}, "NOT_FOUND"),
        ({"retry_policy": {"minimum_backoff": {"seconds": 601}}}, "INVALID_ARGUMENT"),
        ({"retry_policy": {"maximum_backoff": {"seconds": 601}}}, "INVALID_ARGUMENT"),
        ({"retry_policy": {"minimum_backoff": {"seconds": -1}}}, "INVALID_ARGUMENT"),
        ({"retry_policy": {"minimum_backoff": {"seconds": 9}, "maximum_backoff": {"seconds": 8}}}, "INVALID_ARGUMENT"),
        (
            {"push_config": {"push_endpoint": "https://example.org"}, "enable_exactly_once_delivery": True},
            "INVALID_ARGUMENT",
        ),
        ({"topic": topic("no-such-one")}, "NOT_FOUND"),
        ({"topic": "orders"}, "INVALID_ARGUMENT"),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused(pubsub: Wire, settings: dict[str, Any], code: str) -> None:
    """When it is made, and when it is changed into one."""
    request = {"name": sub("new"), "topic": topic("orders"), **settings}
    assert (await pubsub.error("subscriber", "create_subscription", **request)).code == code
    assert (await pubsub.error("subscriber", "get_subscription", subscription=sub("new"))).code == "NOT_FOUND"
    if "topic" not in settings:
        with pytest.raises(Failure) as caught:
            await pubsub.change("orders", **settings)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "settings",
    [
        {"ack_deadline_seconds": 600},
        {"message_retention_duration": {"seconds": 600}},
        {"message_retention_duration": {"seconds": 31 * DAY}},
        {"dead_letter_policy": {"dead_letter_topic": DEAD, "max_delivery_attempts": 5}},
        {"dead_letter_policy": {"dead_letter_topic": DEAD, "max_delivery_attempts": 100}},
        {"retry_policy": {"minimum_backoff": {"seconds": 0}, "maximum_backoff": {"seconds": 600}}},
    ],
)
async def test_what_is_just_within_the_limits_is_good(pubsub: Wire, settings: dict[str, Any]) -> None:
    """Made so, or changed into it."""
    await pubsub.make("new", on="orders", **settings)
    await pubsub.change("orders", **settings)
    shown = [await pubsub.sub("get_subscription", subscription=sub(name)) for name in ("new", "orders")]
    [field] = settings
    assert getattr(shown[0], field) == getattr(shown[1], field)


async def test_an_update_changes_what_its_mask_names_and_nothing_else(pubsub: Wire) -> None:
    """A policy is taken away by an update that names it and does not have it."""
    await pubsub.sub(
        "update_subscription",
        subscription={"name": sub("orders"), "ack_deadline_seconds": 77, "labels": {"a": "b"}},
        update_mask={"paths": ["ack_deadline_seconds", "dead_letter_policy"]},
    )
    shown = await pubsub.sub("get_subscription", subscription=sub("orders"))
    assert (shown.ack_deadline_seconds, dict(shown.labels)) == (77, {})
    assert not shown.HasField("dead_letter_policy")
    await pubsub.publish("orders", "x")
    assert (await pubsub.pull("orders"))[0].delivery_attempt == 0


@pytest.mark.parametrize(
    "path", ["", "topic", "name", "filter", "enable_message_ordering", "no_such_field", "ackDeadline"]
)
async def test_an_update_of_what_cannot_be_changed_is_refused(pubsub: Wire, path: str) -> None:
    """And one that names nothing."""
    request = {"subscription": {"name": sub("orders")}, "update_mask": {"paths": [path] if path else []}}
    failure = await pubsub.error("subscriber", "update_subscription", **request)
    assert failure.code == "INVALID_ARGUMENT"
    assert "update_mask" in failure.message


async def test_a_deleted_subscription_is_gone_with_what_it_held(pubsub: Wire) -> None:
    """Its name can be used again at once, for one that is empty."""
    await pubsub.publish("orders", "x")
    await pubsub.sub("delete_subscription", subscription=sub("orders"))
    for method in ("get_subscription", "delete_subscription", "pull"):
        assert (await pubsub.error("subscriber", method, subscription=sub("orders"))).code == "NOT_FOUND"
    await pubsub.publish("orders", "y")
    await pubsub.make("orders", on="orders")
    assert await pubsub.bodies("orders") == []
    assert pubsub.place.counts().published == 1


async def test_nothing_can_be_pushed(pubsub: Wire) -> None:
    """`ModifyPushConfig` makes a subscription an ordinary one, and never the other way."""
    failure = await pubsub.error(
        "subscriber", "modify_push_config", subscription=sub("orders"), push_config={"push_endpoint": "https://x.org"}
    )
    assert failure.code == "INVALID_ARGUMENT"


# -- permissions, and what there is not ----------------------------------------------------------


async def test_everything_is_permitted(pubsub: Wire) -> None:
    """On what is there; a policy can be stored, and changes nothing."""
    asked = ["pubsub.subscriptions.consume", "pubsub.subscriptions.get"]
    assert await pubsub.test_permissions(sub("orders"), asked) == asked
    assert await pubsub.test_permissions(topic("orders"), asked) == asked
    assert await pubsub.test_permissions(topic("no-such-one"), asked) == []

    policy = policy_pb2.Policy(version=3)
    get = iam_policy_pb2.GetIamPolicyRequest(resource=topic("orders"))
    assert await pubsub.publisher.get_iam_policy(request=get, **ONCE) == policy_pb2.Policy()
    await pubsub.publisher.set_iam_policy(
        request=iam_policy_pb2.SetIamPolicyRequest(resource=topic("orders"), policy=policy), **ONCE
    )
    assert await pubsub.publisher.get_iam_policy(request=get, **ONCE) == policy
    for name in (topic("no-such-one"), sub("no-such-one")):
        with pytest.raises(Failure) as caught:
            async with failures():
                await pubsub.publisher.get_iam_policy(request=iam_policy_pb2.GetIamPolicyRequest(resource=name), **ONCE)
        assert caught.value.code == "NOT_FOUND"


async def test_what_the_server_does_not_have_it_names(pubsub: Wire) -> None:
    """Of the services it has, and of others."""
    failure = await pubsub.error("subscriber", "list_snapshots", project=f"projects/{PROJECT}")
    assert failure.code == "UNIMPLEMENTED"
    assert failure.message == "The local server has no ListSnapshots of google.pubsub.v1.Subscriber."
    with pytest.raises(grpc.aio.AioRpcError, match=r"no ListSchemas of google.pubsub.v1.SchemaService"):
        await pubsub.channel.unary_unary("/google.pubsub.v1.SchemaService/ListSchemas")(b"")
