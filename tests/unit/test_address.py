"""Addresses: URLs without credentials, refused with a message that shows none."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventkit.errors import ConfigurationError
from eventkit.spi import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("memory://orders", Address("memory", "orders")),
        ("sqlite:///quakes.db?queue=quakes", Address("sqlite", "", "/quakes.db", (("queue", "quakes"),))),
        ("sqs://orders?region=eu-north-1", Address("sqs", "orders", "", (("region", "eu-north-1"),))),
        ("servicebus://NAMESPACE/topic/subscription", Address("servicebus", "NAMESPACE", "/topic/subscription")),
        ("redis://cache:6379/0", Address("redis", "cache:6379", "/0")),
        ("redis://[::1]:6379", Address("redis", "[::1]:6379")),
    ],
)
def test_an_address_is_read_into_its_parts(text: str, address: Address) -> None:
    """The forms the documentation shows."""
    assert Address.parse(text) == address


def test_a_scheme_is_read_in_any_case() -> None:
    """Schemes are case-insensitive (RFC 3986, 3.1); adapters are found by the lower-case name."""
    assert Address.parse("SQS://Orders").scheme == "sqs"


def test_the_case_of_a_host_is_kept() -> None:
    """It is the name of a queue or a project, and those may differ by case only."""
    assert Address.parse("sqs://OrdersEU").host == "OrdersEU"


def test_escaped_characters_are_read() -> None:
    """File names and queue names may hold any of them."""
    address = Address.parse("sqlite:///data%23base%20one.db?queue=a%26b")

    assert (address.path, address.query) == ("/data#base one.db", (("queue", "a&b"),))


def test_a_parameter_may_be_empty() -> None:
    """`?prefix=` says something else than no prefix."""
    assert Address.parse("memory://orders?prefix=").query == (("prefix", ""),)


PLAIN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=12)
QUERIES = st.dictionaries(PLAIN, PLAIN, max_size=3).map(lambda query: tuple(query.items()))


@given(st.sampled_from(["sqs", "memory", "servicebus"]), PLAIN, st.lists(PLAIN, max_size=3), QUERIES)
def test_an_address_reads_as_what_it_shows(
    scheme: str, host: str, path: list[str], query: tuple[tuple[str, str], ...]
) -> None:
    """What a log line shows can be pasted into a configuration."""
    address = Address(scheme, host, "".join(f"/{part}" for part in path), query)

    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["", "orders", "/var/lib/orders.db", "memory:orders", "://orders", "1sqs://orders"])
def test_an_address_without_a_scheme_is_refused_with_an_example(text: str) -> None:
    """The scheme chooses the adapter; the message shows how one is written."""
    with pytest.raises(ConfigurationError, match="has no scheme; write for example"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["sqs://orders?region", "sqs://orders?a=1&&b=2", "sqs://[orders"])
def test_a_text_that_is_no_url_is_refused(text: str) -> None:
    """Half of a parameter is a mistake, not a parameter without a value."""
    with pytest.raises(ConfigurationError, match="is not a URL"):
        Address.parse(text)


def test_a_fragment_is_refused_and_how_to_escape_it_is_said() -> None:
    """A `#` in a file name would silently cut the name, and the parameters behind it."""
    with pytest.raises(ConfigurationError, match="escape # as %23"):
        Address.parse("sqlite:///orders#1.db?queue=a")


def test_a_parameter_given_twice_is_refused_by_name() -> None:
    """One of the two would be ignored."""
    with pytest.raises(ConfigurationError, match="sets b, region more than once"):
        Address.parse("sqs://orders?region=a&b=1&region=b&b=2&c=3")


SECRETS = ("hunter2", "canary7")
USERS = st.sampled_from(["", "app", "app%40corp"])
BETWEEN = st.sampled_from(["", "-", "@", "/", "#", "?", ":", "%", "&x=", "//", "℀", "@/", "?#@"])
REST = st.sampled_from(["", "/db", "/db?x=1", ":5432/db", "/db?x=1&x=2", "/db#a", "/db?x", "[", "?y=a@b"])


@given(st.sampled_from(["postgres://", "sqs://", "x:", ""]), USERS, BETWEEN, REST)
def test_credentials_are_refused_and_never_shown(scheme: str, user: str, between: str, rest: str) -> None:
    """The message goes to a terminal, a log and an issue tracker, however broken the address around them is."""
    password = between.join(SECRETS)

    with pytest.raises(ConfigurationError) as caught:
        Address.parse(f"{scheme}{user}:{password}@host{rest}")

    # The exceptions that led there are shown, too, when it is not caught.
    shown = "".join(traceback.format_exception_only(caught.value)) + repr(caught.value.__cause__)
    assert not any(secret in shown for secret in SECRETS), shown


@pytest.mark.parametrize("text", ["https://hunter2@host/queue", "sqs://hunter2:@orders", "redis://:hunter2@cache"])
def test_half_of_a_credential_is_refused_and_not_shown(text: str) -> None:
    """A token often stands where the user name would."""
    with pytest.raises(ConfigurationError, match="carries credentials") as caught:
        Address.parse(text)

    assert "hunter2" not in str(caught.value)


def test_credentials_are_refused_with_where_they_come_from_instead() -> None:
    """The reader must be told what to do: the SDK's own chain (environment, instance role, login)."""
    with pytest.raises(ConfigurationError, match=r"'sqs://\*\*\*@orders' carries credentials; remove them"):
        Address.parse("sqs://key:secret@orders")


@pytest.mark.parametrize("text", ["sqlite:///mail@home.db", "memory://orders?owner=jane@example.org", "redis://h:1/0"])
def test_an_at_sign_or_a_colon_alone_is_no_credential(text: str) -> None:
    """File names and parameters may hold them."""
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "sqs://orders?region=a&secret_access_key=hunter2",
        "sqs://orders?secret=hunter2&secret=hunter2",
        "sqs://orders?secret=hunter2#x",
    ],
)
def test_the_value_of_a_refused_parameter_is_not_shown(text: str) -> None:
    """People put keys into parameters, too; the name is enough to find the mistake."""
    with pytest.raises(ConfigurationError) as caught:
        Address.parse(text).options({"region"})

    assert "hunter2" not in str(caught.value)


def test_the_options_of_an_address_are_its_parameters() -> None:
    """Adapters read them by name."""
    assert Address.parse("sqs://orders?region=eu&wait=5").options({"region", "wait", "endpoint"}) == {
        "region": "eu",
        "wait": "5",
    }


def test_every_unknown_parameter_is_named_with_those_that_are_known() -> None:
    """A misspelt parameter must not fall back to a default in silence."""
    with pytest.raises(ConfigurationError) as caught:
        Address.parse("sqs://orders?regoin=eu&endpoint=x&lease=1").options({"wait", "region", "endpoint"})

    assert str(caught.value) == (
        "address sqs://orders: unknown parameter 'regoin', 'lease'; known: endpoint, region, wait"
    )


def test_an_adapter_without_parameters_says_so() -> None:
    """An empty list after "known:" reads like a mistake of ours."""
    with pytest.raises(ConfigurationError, match="known: none"):
        Address.parse("memory://orders?x=1").options(())


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_configuration_error(text: str) -> None:
    """Nothing else may leave: the error list of a worker is made of configuration errors."""
    for candidate in (text, f"sqs://{text}"):
        try:
            address = Address.parse(candidate)
        except ConfigurationError:
            continue
        assert address.scheme
        if address.query:
            with pytest.raises(ConfigurationError):
                address.options(())
