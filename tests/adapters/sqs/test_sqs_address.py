"""What an address of SQS may say."""

from __future__ import annotations

import pytest
from eventkit_sqs._config import Place

from eventkit.errors import ConfigurationError
from eventkit.spi import Address

URL = "https://sqs.eu-north-1.amazonaws.com/123456789012/orders"


def place(text: str) -> Place:
    return Place.from_address(Address.parse(text))


def test_a_name_leaves_everything_else_to_the_sdk() -> None:
    """Region, credentials and endpoint come from its own chain."""
    found = place("sqs://orders")

    assert (found.name, found.region, found.endpoint, found.account, found.url) == ("orders", None, None, None, None)
    assert not found.fifo
    assert found.unwrap


def test_options_name_region_and_endpoint() -> None:
    """For a region that is not the usual one, and for servers that stand in for AWS."""
    found = place("sqs://orders.fifo?region=eu-west-1&endpoint=http://127.0.0.1:4100&unwrap=off")

    assert (found.region, found.endpoint, found.fifo, found.unwrap) == (
        "eu-west-1",
        "http://127.0.0.1:4100",
        True,
        False,
    )


@pytest.mark.parametrize("slashes", ["", "/"])
def test_an_arn_tells_region_and_account(slashes: str) -> None:
    """It is what consoles and infrastructure code hand out."""
    found = place(f"sqs://{slashes}arn:aws:sqs:eu-north-1:123456789012:orders")

    assert (found.name, found.region, found.account) == ("orders", "eu-north-1", "123456789012")


@pytest.mark.parametrize("slashes", ["", "/"])
def test_a_queue_url_tells_region_and_account(slashes: str) -> None:
    """And it is used as it is: no permission to look it up is needed."""
    found = place(f"sqs://{slashes}{URL}")

    assert (found.name, found.region, found.account, found.url) == ("orders", "eu-north-1", "123456789012", URL)
    assert found.endpoint is None


def test_a_queue_url_elsewhere_is_its_own_endpoint() -> None:
    """A server that stands in for AWS gives out URLs, too."""
    found = place("sqs://http://127.0.0.1:4100/000000000000/orders")

    assert (found.endpoint, found.url) == ("http://127.0.0.1:4100", "http://127.0.0.1:4100/000000000000/orders")


def test_the_dead_letter_queue_is_reached_the_same_way() -> None:
    """Its redrive policy names it by ARN; the endpoint is the queue's own."""
    arn = "arn:aws:sqs:eu-north-1:123456789012:orders-dlq"
    found = place(place("sqs://orders?endpoint=http://127.0.0.1:4100").other(arn))

    assert (found.name, found.endpoint) == ("orders-dlq", "http://127.0.0.1:4100")
    assert place("sqs://orders").other(arn) == f"sqs://{arn}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sqs://", "names no queue"),
        ("sqs://a/b/c", "names no queue"),
        ("sqs://orders.fifo.fifo", "names no queue"),
        (f"sqs://{'x' * 81}", "names no queue"),
        ("sqs://orders?queue=orders", "unknown parameter 'queue'"),
        ("sqs://orders?unwrap=yes", "write on or off"),
        ("sqs://orders?endpoint=127.0.0.1:4100", "endpoint is no URL"),
        ("sqs://arn:aws:sqs:eu-north-1:123456789012:orders?region=eu-west-1", "leave region out"),
        (f"sqs://{URL}/more", "holds no queue URL"),
    ],
)
def test_a_mistake_is_told_before_anything_is_opened(text: str, told: str) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigurationError, match=told):
        place(text)
