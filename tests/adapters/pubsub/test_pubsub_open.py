"""What is checked when a subscription or topic is opened, and what is told of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from eventkit_pubsub import adapter
from eventkit_pubsub._config import Place
from eventkit_pubsub._facts import Facts, lacks_agent, warnings
from eventkit_pubsub._wire import Way
from google.pubsub_v1.types import Subscription

from eventkit.errors import AccessDenied, ConfigurationError, ConnectionLost, SourceNotFound, UnsupportedByAdapter
from eventkit.spi import DONE, Address, Backlog, Demand, NativeDeadLetter, Outgoing
from tests.adapters.pubsub.adapter_support import PROJECT, error, rigged, subscription, topic

NOBODY = "pubsub://shop/orders?endpoint=http://127.0.0.1:9"


async def test_a_subscription_tells_its_traits_and_its_dead_letter_topic() -> None:
    """What its policies say is what the worker is held to, and where its dead letters go by default."""
    async with rigged() as rig, rig.source() as source:
        traits = source.info.traits
        assert (traits.delivery_count, traits.native_receive_limit) == ("approximate", 100)
        assert (traits.confirms_ack, traits.key_release) == (False, "none")
        assert (traits.max_retry_delay, traits.longest_nack) == (0.0, 600.0)
        assert traits.retention == 7 * 86_400
        assert source.info.dead_letters == f"pubsub://{PROJECT}/topics/orders-dlq?endpoint={rig.server.endpoint}"
        assert source.info.warnings == ()
        assert not isinstance(source, Backlog | NativeDeadLetter), "Pub/Sub itself tells neither"


async def test_order_and_exactly_once_are_told_as_traits() -> None:
    """The core does the rest."""
    async with rigged() as rig:
        async with rig.source("bills.ordered", Demand(ordered=True)) as source:
            assert (source.info.traits.key_release, source.info.traits.confirms_ack) == ("redelivers", False)
            assert source.info.warnings == ()
        async with rig.source("sums.exactly-once") as source:
            assert (source.info.traits.key_release, source.info.traits.confirms_ack) == ("none", True)


async def test_order_that_nobody_wants_is_a_warning() -> None:
    """Somebody asked for it, and would not get it."""
    async with rigged() as rig, rig.source("bills.ordered") as source:
        [warning] = source.info.warnings

    assert 'set ordering = "key"' in warning


async def test_without_a_dead_letter_policy_nothing_is_counted() -> None:
    """Then Pub/Sub says 0 for every delivery: the core refuses to start, or goes by age."""
    async with rigged() as rig:
        await rig.change(dead_letter_policy=None)
        await rig.publish(b"a")
        async with rig.source() as source:
            [delivery] = await source.receive(1, 2.0)
            info = source.info

    assert (info.traits.delivery_count, info.traits.native_receive_limit, info.dead_letters) == ("none", None, None)
    [warning] = info.warnings
    assert "has no dead-letter policy, and Pub/Sub counts deliveries only with one: give it one" in warning
    assert delivery.delivery_count is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"retry_policy": {"minimum_backoff": {"seconds": 15}}}, r"retry policy \(15 to 600 s\), which is added"),
        ({"retry_policy": {}}, r"retry policy \(10 to 600 s\)"),
        ({"filter": 'attributes.kind = "big"'}, "has a filter: what does not match 'attributes.kind = \"big\"'"),
    ],
)
async def test_settings_that_surprise_are_told(settings: dict[str, Any], told: str) -> None:
    """A retry comes later than the worker says; an event never comes at all."""
    async with rigged() as rig:
        policy = {"dead_letter_topic": topic("orders-dlq"), "max_delivery_attempts": 9}
        request = {"name": subscription("other"), "topic": topic("orders"), "dead_letter_policy": policy, **settings}
        await rig.subscriber.create_subscription(request=request)
        async with rig.source("other") as source:
            [warning] = source.info.warnings

    with pytest.raises(AssertionError, match=told):
        raise AssertionError(warning)


async def test_a_deleted_topic_is_told() -> None:
    """Nothing will ever come, and nothing says so."""
    async with rigged() as rig:
        await rig.publisher.delete_topic(request={"topic": topic("orders")})
        async with rig.source() as source:
            [warning] = source.info.warnings

    assert "its topic was deleted" in warning


ELSEWHERE: dict[str, tuple[dict[str, str], str]] = {
    "push_config": ({"push_endpoint": "https://example.com/push"}, "pushes to an endpoint"),
    "bigquery_config": ({"table": "shop.orders.all"}, "exports to BigQuery"),
    "bigtable_config": ({"table": "projects/p/instances/i/tables/t"}, "exports to Bigtable"),
    "cloud_storage_config": ({"bucket": "orders"}, "exports to Cloud Storage"),
}
KNOWN = [name for name in ELSEWHERE if name in Subscription.meta.fields]
"""Those that this version of the SDK has."""


@pytest.mark.parametrize("name", KNOWN)
async def test_only_a_pull_subscription_can_be_received_from(name: str) -> None:
    """At start, not as a stream that Pub/Sub refuses."""
    settings, told = ELSEWHERE[name]
    async with rigged() as rig:
        request = {"name": subscription("other"), "topic": topic("orders"), name: settings}
        await rig.subscriber.create_subscription(request=request)
        with pytest.raises(ConfigurationError, match=told):
            async with rig.source("other"):
                pass


async def test_a_detached_subscription_is_told() -> None:
    """It is there, empty, and stays so."""
    async with rigged() as rig:
        await rig.publisher.detach_subscription(request={"subscription": subscription("orders")})
        with pytest.raises(ConfigurationError, match="is detached from its topic"):
            async with rig.source():
                pass


async def test_what_is_not_there_is_named_with_where_it_was_looked_for() -> None:
    """The usual reasons are a typing error, the wrong project, and a topic in the place of a subscription."""
    async with rigged() as rig:
        with pytest.raises(SourceNotFound, match=rf"no subscription missing in project {PROJECT} at 127.*not a topic"):
            async with rig.source("missing"):
                pass
        with pytest.raises(SourceNotFound, match=rf"no topic missing in project {PROJECT} at 127[^;]*$"):
            async with rig.sink("missing"):
                pass


async def test_who_publishes_to_a_subscription_is_told_its_topic() -> None:
    """A worker's source is at hand, and looks like the place to send to."""
    async with rigged() as rig:
        request = {"name": subscription("shipping"), "topic": topic("orders")}
        await rig.subscriber.create_subscription(request=request)
        told = rf"shipping is a subscription, and its events come from pubsub://{PROJECT}/topics/orders\?endpoint="
        with pytest.raises(SourceNotFound, match=told):
            async with rig.sink("shipping"):
                pass


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("PERMISSION_DENIED", "a worker needs roles/pubsub.subscriber and roles/pubsub.viewer"),
        ("UNAUTHENTICATED", "the credentials are not accepted"),
    ],
)
async def test_credentials_that_will_not_do_are_told_with_the_mend(code: str, told: str) -> None:
    """One clear line, and no second try: nothing will change by itself."""
    async with rigged() as rig:
        rig.trouble.errors = {"GetSubscription": error(code)}
        with pytest.raises(AccessDenied, match=told):
            async with rig.source():
                pass
        assert len(rig.trouble.calls) == 1


def without(permission: str) -> Callable[[Any], None]:
    """Take `permission` out of those that are granted."""

    def take(reply: Any) -> None:
        if permission in reply.permissions:
            reply.permissions.remove(permission)

    return take


async def test_a_subscription_one_may_not_consume_is_told_at_start() -> None:
    """Not by the first stream."""
    async with rigged() as rig:
        rig.trouble.replies = {"TestIamPermissions": without("pubsub.subscriptions.consume")}
        with pytest.raises(AccessDenied, match=r"may not receive from it .*grant them roles/pubsub\.subscriber"):
            async with rig.source():
                pass


async def test_a_dead_letter_topic_one_may_not_publish_to_is_a_warning() -> None:
    """It would show with the first dead letter, at night."""
    async with rigged() as rig:
        rig.trouble.replies = {"TestIamPermissions": without("pubsub.topics.publish")}
        async with rig.source() as source:
            [warning] = source.info.warnings

    assert "may not publish to it: grant them roles/pubsub.publisher" in warning


async def test_dead_letters_that_nobody_keeps_are_a_warning() -> None:
    """A topic without a subscription forgets what is published to it."""
    async with rigged() as rig:
        await rig.subscriber.delete_subscription(request={"subscription": subscription("orders-dlq")})
        async with rig.source() as source:
            [warning] = source.info.warnings

    assert "nobody subscribes to its dead-letter topic" in warning


async def test_a_server_that_knows_no_permissions_is_believed_to_grant_them() -> None:
    """Google's emulator knows none."""
    async with rigged() as rig:
        rig.trouble.errors = dict.fromkeys(["TestIamPermissions", "ListTopicSubscriptions"], error("UNIMPLEMENTED"))
        async with rig.source() as source:
            assert source.info.warnings == ()


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNIMPLEMENTED"])
async def test_a_sink_needs_no_permission_to_look_at_its_topic(code: str) -> None:
    """A producer that may only publish is common, and good practice."""
    async with rigged() as rig:
        rig.trouble.errors = {"GetTopic": error(code)}
        async with rig.sink() as sink:
            assert await sink.publish([Outgoing(body=b"{}")]) == [DONE]


async def test_pubsubs_own_agent_needs_a_role_on_the_dead_letter_topic() -> None:
    """Else what no worker can settle is delivered for ever, in silence."""
    agent = "serviceAccount:service-1@gcp-sa-pubsub.iam.gserviceaccount.com"
    async with rigged() as rig:
        assert await lacks_agent(rig.publisher, topic("orders-dlq"))
        policy = {"bindings": [{"role": "roles/pubsub.publisher", "members": [agent]}]}
        await rig.publisher.set_iam_policy(request={"resource": topic("orders-dlq"), "policy": policy})
        assert not await lacks_agent(rig.publisher, topic("orders-dlq"))
        rig.trouble.errors = {"GetIamPolicy": error("PERMISSION_DENIED")}
        assert not await lacks_agent(rig.publisher, topic("orders-dlq")), "what may not be read is not missing"


@pytest.mark.parametrize(
    ("endpoint", "facts", "told"),
    [
        (None, {"exactly_once": True}, ["exactly-once delivery holds within one region"]),
        (None, {"ordered": True}, ["order holds within one region"]),
        ("europe-north1-pubsub.googleapis.com:443", {"ordered": True, "exactly_once": True}, []),
        (None, {}, []),
    ],
)
def test_promises_of_one_region_want_its_endpoint(endpoint: str | None, facts: Any, told: list[str]) -> None:
    """Google's usual address leads to the nearest region, which may not be the publishers'."""
    place = Place.from_address(Address.parse("pubsub://shop/orders"), "subscriptions")
    way = Way(endpoint, object(), "shop")

    found = [*warnings(place, Facts(path="p", topic="t", dead_letters="d", **facts), way, ordered=True)]

    assert len(found) == len(told)
    assert all(part in warning for part, warning in zip(told, found, strict=True))


async def test_without_credentials_the_ways_to_give_some_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first thing a newcomer meets."""
    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "PUBSUB_", "CLOUDSDK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")

    with pytest.raises(AccessDenied, match=r"no credentials; run `gcloud auth application-default login`"):
        async with adapter.open_source(Address.parse("pubsub://shop/orders"), Demand()):
            pass
    with pytest.raises(ConfigurationError, match=r"in which project\? Write pubsub://PROJECT/orders"):
        async with adapter.open_sink(Address.parse("pubsub:///orders?endpoint=http://127.0.0.1:9")):
            pass


async def test_the_environment_leads_to_a_local_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for every other client; what the address says counts more."""
    async with rigged() as rig:
        for name, value in rig.server.environment.items():
            monkeypatch.setenv(name, value)
        for text in (rig.server.address("orders"), "pubsub:///orders"):
            async with adapter.open_sink(Address.parse(text)) as sink:
                assert await sink.publish([Outgoing(body=b"{}")]) == [DONE]
        with pytest.raises(ConnectionLost, match=r"nobody answers at 127\.0\.0\.1:9"):
            async with adapter.open_sink(Address.parse(NOBODY)):
                pass
        with pytest.raises(ConfigurationError, match="unset one of the two"):
            async with adapter.open_sink(Address.parse("pubsub://shop/orders?region=europe-north1")):
                pass


async def test_where_nobody_listens_is_told() -> None:
    """A local server that was not started, a network without a way out."""
    for opened in (adapter.open_source(Address.parse(NOBODY), Demand()), adapter.open_sink(Address.parse(NOBODY))):
        told = r"nobody answers at 127\.0\.0\.1:9 \(.*\); start the local server \(eventkit local pubsub\)"
        with pytest.raises(ConnectionLost, match=told):
            async with opened:
                pass


def test_on_trio_it_says_that_it_cannot() -> None:
    """The SDK is made for asyncio; what it raises by itself on trio helps nobody."""

    async def main() -> None:
        async with adapter.open_source(Address.parse("pubsub://shop/orders"), Demand()):
            pass

    with pytest.raises(UnsupportedByAdapter, match="asyncio only"):
        anyio.run(main, backend="trio")
