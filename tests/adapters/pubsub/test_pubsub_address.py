"""What an address of a subscription or topic may be."""

from __future__ import annotations

import pytest
from eventkit_pubsub._config import Place

from eventkit.errors import ConfigurationError
from eventkit.spi import Address


def place(text: str, kind: str = "subscriptions") -> Place:
    return Place.from_address(Address.parse(text), kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "project", "name"),
    [
        ("pubsub://shop/orders", "shop", "orders"),
        ("pubsub:///orders", None, "orders"),
        ("pubsub://shop/subscriptions/orders", "shop", "orders"),
        ("pubsub://projects/shop/subscriptions/orders", "shop", "orders"),
        ("pubsub://example.com:shop/orders", "example.com:shop", "orders"),
        ("pubsub://shop/orders.eu_1~x+%2525-y", "shop", "orders.eu_1~x+%25-y"),
    ],
)
def test_a_subscription_is_named_in_short_or_in_full(text: str, project: str | None, name: str) -> None:
    """As people have it at hand: by its name, or as Google's tools print it."""
    found = place(text)

    assert (found.project, found.name, found.endpoint, found.plain) == (project, name, None, False)


@pytest.mark.parametrize(
    ("query", "endpoint", "plain"),
    [
        ("region=europe-north1", "europe-north1-pubsub.googleapis.com:443", False),
        ("endpoint=pubsub.example.com", "pubsub.example.com:443", False),
        ("endpoint=pubsub.example.com:8443", "pubsub.example.com:8443", False),
        ("endpoint=https://pubsub.example.com", "pubsub.example.com:443", False),
        ("endpoint=http://127.0.0.1:4100", "127.0.0.1:4100", True),
        ("endpoint=http://[::1]:4100", "[::1]:4100", True),
    ],
)
def test_where_to_connect_is_a_region_or_an_endpoint(query: str, endpoint: str, plain: bool) -> None:
    """Only http:// is not encrypted: credentials must not go there by a slip."""
    found = place(f"pubsub://shop/orders?{query}")

    assert (found.endpoint, found.plain) == (endpoint, plain)


def test_another_thing_is_reached_the_same_way() -> None:
    """The dead letters of a subscription at a local server are at that server."""
    found = place("pubsub://shop/orders?endpoint=http://127.0.0.1:4100")

    assert found.other("projects/other/topics/dead") == "pubsub://other/topics/dead?endpoint=http://127.0.0.1:4100"
    assert place("pubsub://shop/orders").other("projects/other/topics/dead") == "pubsub://other/topics/dead"
    assert place("pubsub://other/topics/dead", "topics").name == "dead"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pubsub://shop", "is not pubsub://PROJECT/NAME"),
        ("pubsub://shop/a/b", "is not pubsub://PROJECT/NAME"),
        ("pubsub://shop/topics/orders", "one can only receive from a subscription"),
        ("pubsub://shop/or", "3 to 255 letters"),
        ("pubsub://shop/1orders", "begins with a letter"),
        ("pubsub://shop/google-orders", "not with goog"),
        ("pubsub://shop/ord%20ers", "names no subscription"),
        ("pubsub://Shop/orders", "no id of a project"),
        ("pubsub://shop/orders?region=europe", "'europe' is no region"),
        ("pubsub://shop/orders?region=europe-north1&endpoint=x", "leave one out"),
        ("pubsub://shop/orders?endpoint=ftp://x", "endpoint is no place to connect to"),
        ("pubsub://shop/orders?endpoint=http://x:y", "endpoint is no place to connect to"),
        ("pubsub://shop/orders?endpoint=http://x/y", "endpoint is no place to connect to"),
        ("pubsub://shop/orders?wait=3", "unknown parameter 'wait'; known: endpoint, region"),
    ],
)
def test_an_address_that_cannot_be_is_told_with_one_that_can(text: str, told: str) -> None:
    """At start, before anything is connected."""
    with pytest.raises(ConfigurationError) as raised:
        place(text)

    assert told in str(raised.value)


def test_one_can_only_publish_to_a_topic() -> None:
    """A subscription's address as a sink is the usual slip."""
    with pytest.raises(ConfigurationError, match="one can only publish to a topic"):
        place("pubsub://shop/subscriptions/orders", "topics")
