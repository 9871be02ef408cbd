"""What is written beside a dead letter, and into the log: why an event failed, in little space, without secrets."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventkit._policies.letter import describe_error, letter_detail, letter_id, redacted

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqYW5lIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"

# What is shown around a secret, and the secret itself.
CANARIES = [
    ("could not connect to {}", "postgresql://app:hunter2canary@db.internal/orders", "hunter2canary"),
    ("{}", "redis://:hunter2canary@cache:6379/0", "hunter2canary"),
    ("{}", "amqps://app:p@ss:hunter2canary@broker/vhost", "hunter2canary"),
    ("{}", "postgres://app:pa/ss?hunter2#canary@db/orders", "hunter2#canary"),
    ("clone of {} failed", "https://ghp_hunter2canary@github.com/acme/orders", "ghp_hunter2canary"),
    ("key {} is not active", "AKIAHUNTER2CANARY123", "AKIAHUNTER2CANARY123"),
    ("key {} has expired", "ASIAHUNTER2CANARY123", "ASIAHUNTER2CANARY123"),
    ("{}", "aws_secret_access_key=hunter2/canary+key", "hunter2"),
    ("bad claim in {}", JWT, "dozjgNryP4J3jVmNHl0w5N"),
    ("GET {}", "https://store.blob/x?sv=1&sig=hunter2canary%3D&se=2", "hunter2canary"),
    ("GET {}", "https://s3/x?X-Amz-Signature=hunter2canary&X-Amz-Date=1", "hunter2canary"),
    ("{}", "SharedAccessSignature sr=sb%3A%2F%2Fx&sig=hunter2canary&se=1", "hunter2canary"),
    ("{}", "DefaultEndpointsProtocol=https;AccountKey=hunter2canary==;EndpointSuffix=x", "hunter2canary"),
    ("{}", "Endpoint=sb://x/;SharedAccessKeyName=root;SharedAccessKey=hunter2canary=", "hunter2canary"),
    ("refused: {}", "token: hunter2canary", "hunter2canary"),
    ("refused: {}", "token hunter2canary", "hunter2canary"),
    ("{}", "access_token=hunter2canary", "hunter2canary"),
    ("{}", "client_secret: hunter2canary", "hunter2canary"),
    ("{}", "api-key=hunter2canary", "hunter2canary"),
    ("{}", "X-Api-Key: hunter2canary", "hunter2canary"),
    ("{}", "DB_PASSWORD=hunter2canary", "hunter2canary"),
    ("{}", "PGPASSWORD = hunter2canary", "hunter2canary"),
    ("{}", "host=db user=app password='hunter2 canary' port=5432", "canary"),
    ("{}", "{'user': 'app', 'password': 'hunter2canary'}", "hunter2canary"),
    ("{}", '{"passwd" : "hunter2canary"}', "hunter2canary"),
    ("{}", '"{\\"pwd\\": \\"hunter2canary\\"}"', "hunter2canary"),
    ("header {}", "Authorization: Bearer hunter2canary.x-y_z", "hunter2canary"),
    ("header {}", "Authorization: Basic aHVudGVyMmNhbmFyeQ==", "aHVudGVyMmNhbmFyeQ"),
    ("header {}", "'authorization': 'bearer hunter2canary'", "hunter2canary"),
    ("{}", "Bearer hunter2canary", "hunter2canary"),
]


@pytest.mark.parametrize(("around", "text", "secret"), CANARIES, ids=[text for _, text, _ in CANARIES])
def test_a_credential_is_not_shown(around: str, text: str, secret: str) -> None:
    """Exceptions quote connection strings and headers; logs and dead letters are read by many."""
    assert secret in text

    assert secret not in redacted(around.format(text))


@given(st.sampled_from(CANARIES), st.text(max_size=40), st.text(max_size=40))
def test_a_credential_is_not_shown_whatever_stands_around_it(
    canary: tuple[str, str, str], before: str, after: str
) -> None:
    """Error texts are put together from parts; a credential is told by its form, not by its place."""
    _, text, secret = canary

    assert secret not in redacted(f"{before}\n{text}\n{after}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://app:secret@db.internal:5432/orders", "postgres://***@db.internal:5432/orders"),
        ("https://x/y?sv=1&sig=abc&se=2", "https://x/y?sv=1&sig=***&se=2"),
        ("Endpoint=sb://ns/;SharedAccessKey=abc;EntityPath=q", "Endpoint=sb://ns/;SharedAccessKey=***;EntityPath=q"),
        ("Authorization: Bearer abc, Accept: */*", "Authorization: ***, Accept: */*"),
    ],
)
def test_what_stands_beside_a_credential_stays_readable(text: str, shown: str) -> None:
    """The host and the parameters are what a reader needs to find the mistake."""
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "duplicate key value violates unique constraint",
        "column design_id does not exist",
        "404 Not Found for url https://api.internal/orders/17?max_tokens=5",
        "mail to jane@example.org bounced",
        "expected str, got int at $.magnitude",
        "AKIA is not a key, nor is eyJ, nor sqs://orders",
    ],
)
def test_an_ordinary_text_is_left_as_it_is(text: str) -> None:
    """A redaction that eats what it should not makes errors unreadable."""
    assert redacted(text) == text


HOSTILE = [
    "a",
    "a.",
    "sig ",
    "sig  ",
    "sig" + " " * 997,
    "token='",
    'token="',
    "eyJaaaaaaaa-",
    "a://a:",
    "://",
    "a@",
    "\ud800",
]


@pytest.mark.parametrize("part", HOSTILE)
def test_no_text_is_slow_to_redact(part: str) -> None:
    """Texts quote events, which are hostile: one that took seconds would hold up the loop at every retry."""
    text = part * (100_000 // len(part))
    started = time.process_time()
    redacted(text)

    assert time.process_time() - started < 0.2


@given(st.text(st.characters(categories=["Cs", "Ll", "Po"])))
def test_a_redacted_text_can_always_be_written(text: str) -> None:
    """Lone surrogates reach us from JSON; a log line or database that cannot take them would fail instead."""
    redacted(text).encode()


def test_an_error_is_described_by_its_qualified_class_and_its_text() -> None:
    """Two libraries have a `ConnectionError`; the module tells them apart."""
    error = type("NotFound", (Exception,), {"__module__": "shop.orders"})

    assert describe_error(error("order 17")) == ("shop.orders.NotFound", "order 17")


def test_a_builtin_error_is_described_without_its_module() -> None:
    """`ValueError` is what everybody calls it."""
    assert describe_error(ValueError("bad")) == ("ValueError", "bad")


def test_no_error_is_described_by_two_empty_texts() -> None:
    """A worker that ended well, and an event no handler takes, have no exception to show."""
    assert describe_error(None) == ("", "")


def test_an_error_whose_text_cannot_be_made_is_still_described() -> None:
    """`__str__` is user code: a broken one must not lose the event it came from."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    name, text = describe_error(Broken())

    assert name.endswith("Broken")
    assert text == "(its text could not be made)"


@given(st.text(max_size=2_000))
def test_the_text_of_an_error_is_cut(text: str) -> None:
    """Some exceptions quote a whole response; it belongs neither in a log line nor in a dead letter."""
    assert len(describe_error(ValueError(text))[1]) <= 300


def test_the_text_of_an_error_is_redacted_before_it_is_cut() -> None:
    """Half a connection string is not recognised as one, and still holds the password."""
    text = "x" * 274 + " postgres://app:hunter2canary@db/orders"

    assert "hunter2" in text[:300]
    assert "hunter2" not in describe_error(ValueError(text))[1]


def test_the_id_of_a_dead_letter_never_changes() -> None:
    """It tells a second copy from a first, also after an upgrade: this value is pinned."""
    assert letter_id("sqs://orders", "17", "attempts") == "3de208a7397eb449e381bdbf5f0c92ba"


FIELDS = st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4))


@given(FIELDS, FIELDS)
def test_different_dead_letters_have_different_ids(first: tuple[str, str, str], second: tuple[str, str, str]) -> None:
    """A shared id would make one of two dead letters disappear as a copy."""
    assert (letter_id(*first) == letter_id(*second)) is (first == second)


@given(st.text(max_size=6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))
def test_a_text_split_in_other_places_has_another_id(text: str, a: int, b: int, c: int, d: int) -> None:
    """Fields are prefixed with their lengths, so none can run into the next: ("ab", "c") is not ("a", "bc")."""
    first = text[:a], text[a : a + b], text[a + b :]
    second = text[:c], text[c : c + d], text[c + d :]

    assert (letter_id(*first) == letter_id(*second)) is (first == second)


def test_a_length_prefix_cannot_be_forged() -> None:
    """A field that spells the next one's prefix is a field like any other."""
    assert letter_id("a", "1:b", "c") != letter_id("a1:1:b", "", "c")
    assert letter_id("1:a1:b", "", "") != letter_id("a", "b", "")


def test_an_id_is_made_of_any_text() -> None:
    """A lone surrogate in a message id must not keep a bad event from its dead letter."""
    assert letter_id("\ud800", "", "") != letter_id("?", "", "")


ANY_TEXT = st.one_of(
    st.text(max_size=50),
    st.text(st.characters(categories=["Cs", "Cc", "So"]), max_size=400),
    st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=5), st.integers(1, 20_000)),
)
NUMBERS = st.one_of(st.integers(0, 2**63 - 1), st.floats())


@given(
    st.dictionaries(
        st.sampled_from(["id", "reason", "error", "message", "origin", "handler", "event_id", "event_type", "trace"]),
        ANY_TEXT,
        min_size=1,
    ),
    NUMBERS,
    NUMBERS,
)
def test_a_detail_is_json_of_at_most_one_kibibyte(texts: dict[str, str], attempts: float, failed_at: float) -> None:
    """It must fit into one attribute on every source, whatever an exception or a broker put into it."""
    detail = letter_detail({**texts, "attempts": attempts, "failed_at": failed_at})

    assert len(detail.encode()) <= 1024
    assert set(json.loads(detail)) == {*texts, "attempts", "failed_at"}


def test_a_detail_that_fits_is_not_cut() -> None:
    """Nothing is lost without need."""
    fields: dict[str, str | int | float] = {"reason": "attempts", "message": "x" * 800, "attempts": 5}

    assert json.loads(letter_detail(fields)) == fields


def test_only_the_longest_texts_are_cut() -> None:
    """A message of 100 KB must not cost the short fields that tell what the letter is."""
    fields: dict[str, str | int | float] = {
        "id": "a" * 32,
        "reason": "attempts",
        "message": "y" * 100_000,
        "attempts": 5,
    }

    shown = json.loads(letter_detail(fields))

    assert {**shown, "message": ""} == {**fields, "message": ""}
    assert 500 < len(shown["message"]) <= 1024


def test_making_a_detail_leaves_the_fields_alone() -> None:
    """The caller logs the same fields in full."""
    fields: dict[str, str | int | float] = {"message": "z" * 5_000}
    letter_detail(fields)

    assert fields == {"message": "z" * 5_000}
