"""What an address of a queue, topic or subscription may be, and a connection string."""

from __future__ import annotations

import pytest
from eventkit_servicebus._config import Kind, Place
from eventkit_servicebus._facts import receivers_for, traits
from eventkit_servicebus._managed import Facts
from eventkit_servicebus._secret import Secret

from eventkit.errors import ConfigurationError
from eventkit.spi import Address, Demand

KEY = "c2VjcmV0LWtleQ=="
GOOD = f"Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=worker;SharedAccessKey={KEY}"


def place(text: str, kind: Kind = "source") -> Place:
    return Place.from_address(Address.parse(text), kind)


@pytest.mark.parametrize(
    ("path", "name", "subscription", "dead"),
    [
        ("orders", "orders", None, False),
        ("orders/audit", "orders", "audit", False),
        ("eu/orders/Subscriptions/audit", "eu/orders", "audit", False),
        ("orders/$DeadLetterQueue", "orders", None, True),
        ("orders/audit/$deadletterqueue", "orders", "audit", True),
        ("eu/north/orders", "eu/north/orders", None, False),
    ],
)
def test_a_source_is_a_queue_or_a_subscription(path: str, name: str, subscription: str | None, dead: bool) -> None:
    """And the dead letters of each, by the name that Service Bus has for them."""
    found = place(f"servicebus://shop/{path}")

    assert (found.name, found.subscription, found.dead_letters) == (name, subscription, dead)


def test_a_sink_is_a_queue_or_a_topic_whatever_slashes_its_name_has() -> None:
    """One cannot publish to a subscription, so two parts are a name."""
    assert place("servicebus://shop/eu/orders", "sink").name == "eu/orders"


@pytest.mark.parametrize("host", ["shop", "SHOP", "shop.servicebus.windows.net", "Shop.ServiceBus.Windows.Net"])
def test_a_namespace_is_named_in_short_or_in_full(host: str) -> None:
    """As people have it at hand."""
    assert place(f"servicebus://{host}/orders").host == "shop.servicebus.windows.net"


def test_other_clouds_have_other_domains() -> None:
    """A full name stays as it is."""
    assert place("servicebus://shop.servicebus.chinacloudapi.cn/orders").host == "shop.servicebus.chinacloudapi.cn"


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("servicebus:///orders", "source", "names no namespace"),
        ("servicebus://shop_1/orders", "source", "names no namespace"),
        ("servicebus://shop", "source", "names no queue"),
        ("servicebus://shop/or ders", "source", "names no queue"),
        ("servicebus://shop/orders/", "source", None),
        ("servicebus://shop/orders//audit", "source", "names no queue"),
        ("servicebus://shop/orders/subscriptions/audit", "sink", "publish to its topic: servicebus://shop/orders"),
        ("servicebus://shop/orders/$DeadLetterQueue", "sink", "nothing can be published to dead letters"),
        ("servicebus://shop/orders?prefetch=-1", "source", "prefetch is '-1'"),
        ("servicebus://shop/orders?prefetch=1001", "source", "from 0 to 1,000"),
        ("servicebus://shop/orders?prefetch=1", "sink", "unknown parameter 'prefetch'"),
        ("servicebus://shop/orders?sessions=maybe", "sink", "write on, off, or from 1 to 100"),
        ("servicebus://shop/orders?sessions=0", "source", "from 1 to 100"),
        ("servicebus://shop/orders?sessions=101", "source", "from 1 to 100"),
        ("servicebus://shop/orders?sessions=100", "source", None),
        ("servicebus://shop/orders?endpoint=https://127.0.0.1", "source", "endpoint is no place"),
    ],
)
def test_a_mistake_is_told_with_what_to_write(text: str, kind: Kind, told: str | None) -> None:
    """Before anything is connected to."""
    if told is None:
        assert place(text, kind).name == "orders"
        return
    with pytest.raises(ConfigurationError) as caught:
        place(text, kind)
    assert told in str(caught.value)


@pytest.mark.parametrize(("text", "number"), [("off", None), ("on", 8), ("1", 1), ("40", 40)])
def test_a_source_has_so_many_sessions_at_a_time(text: str, number: int | None) -> None:
    """Each is a connection; nothing was said where they are off."""
    assert place(f"servicebus://shop/orders?sessions={text}").sessions == number


@pytest.mark.parametrize(("events", "receivers"), [(1, 1), (1_000, 1), (1_001, 2), (8_000, 8), (100_000, 8)])
def test_a_receiver_is_opened_for_every_thousand_events(events: int, receivers: int) -> None:
    """Up to some: each is a connection."""
    assert receivers_for(Demand(events=events)) == receivers


def test_what_a_queue_says_of_itself_is_told() -> None:
    """None is what is not known."""
    facts = Facts(lock=60.0, receive_limit=7, ttl=100.0)

    told, untold = traits(facts, delays=True, sessions=True), traits(None, delays=False, sessions=False)
    assert (told.retention, told.native_receive_limit, told.max_retry_delay, told.key_release) == (
        100.0,
        7,
        None,
        "hold",
    )
    assert (untold.retention, untold.native_receive_limit, untold.max_retry_delay) == (None, None, 0.0)
    assert untold.key_release == "none"


def test_a_connection_string_is_read_whatever_its_letters() -> None:
    """The SDK knows "true" in lower case only, and would try TLS at an emulator."""
    found = Secret.parse(
        f"endpoint=sb://127.0.0.1:5672;sharedaccesskeyname=a;SHAREDACCESSKEY={KEY};UseDevelopmentEmulator=True;"
    )

    assert (found.host, found.emulator, found.entity) == ("127.0.0.1:5672", True, None)
    assert "UseDevelopmentEmulator=true" in found.text
    assert f"SharedAccessKey={KEY}" in found.text


def test_a_connection_string_is_not_shown() -> None:
    """It ends up in a traceback otherwise."""
    found = Secret.parse(GOOD)

    assert found.host == "shop.servicebus.windows.net"
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (KEY, "part 1 is none of"),
        (GOOD.replace("SharedAccessKey=", "ShareAccessKey="), "part 3 is none of"),
        (GOOD.replace("Endpoint=sb://", "Endpoint="), "Endpoint is no URL"),
        (GOOD.replace("Endpoint", "EntityPath"), "Endpoint is missing"),
        (GOOD.partition(";SharedAccessKey=")[0], "SharedAccessKey is missing"),
        (GOOD + ";SharedAccessSignature=sig", "two ways to say who calls"),
        (GOOD + ";UseDevelopmentEmulator=yes", "neither true nor false"),
        (GOOD + ";SharedAccessKey=" + KEY, "SharedAccessKey stands there twice"),
    ],
)
def test_what_is_wrong_with_a_connection_string_is_told_without_its_key(text: str, told: str) -> None:
    """A log is read by more people than a key is for."""
    with pytest.raises(ConfigurationError) as caught:
        Secret.parse(text)
    assert told in str(caught.value)
    assert KEY.rstrip("=") not in str(caught.value)
