"""From a message to SQS and back: the same, or refused with a reason."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from timeit import repeat
from typing import Any

import pytest
from eventkit_sqs._content import Entry, Refused, delivery_of, entry_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventkit.spi import Delivery, Outgoing

MIB = 1024 * 1024
TOKEN = "0123456789abcdef0123456789abcdef"

_XML = "[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+"
_ID = r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}"


def assert_legal(fields: Mapping[str, Any], size: int, *, fifo: bool, most: int) -> None:
    """Every rule in the documentation of SendMessageBatch, written without a look at the code."""
    assert set(fields) <= {
        "Id", "MessageBody", "MessageAttributes", "DelaySeconds", "MessageGroupId", "MessageDeduplicationId"
    }  # fmt: skip
    assert re.fullmatch("[A-Za-z0-9_-]{1,80}", fields["Id"])
    assert re.fullmatch(_XML, fields["MessageBody"])
    counted = len(fields["MessageBody"].encode())
    attributes = fields.get("MessageAttributes", {"some": {"DataType": "String", "StringValue": "x"}})
    assert 1 <= len(attributes) <= 10
    for name, value in attributes.items():
        assert re.fullmatch(r"[A-Za-z0-9_.\-]{1,256}", name)
        assert not name.lower().startswith(("aws.", "amazon."))
        assert ".." not in f".{name}."
        assert value.keys() == {"DataType", "StringValue"}
        assert value["DataType"] == "String"
        assert re.fullmatch(_XML, value["StringValue"])
        if "MessageAttributes" in fields:
            counted += len(name.encode()) + len("String") + len(value["StringValue"].encode())
    assert counted == size <= most
    if fifo:
        assert re.fullmatch(_ID, fields["MessageGroupId"])
        assert re.fullmatch(_ID, fields["MessageDeduplicationId"])
        assert "DelaySeconds" not in fields
    else:
        assert fields.keys().isdisjoint({"MessageGroupId", "MessageDeduplicationId"})
        assert 0 <= fields.get("DelaySeconds", 0) <= 900
        assert isinstance(fields.get("DelaySeconds", 0), int)


def sent(message: Outgoing, *, fifo: bool = False, most: int = MIB) -> Entry:
    entry = entry_of(message, 3, fifo=fifo, most=most, token=TOKEN)
    assert isinstance(entry, Entry), entry
    assert_legal(entry.fields, entry.size, fifo=fifo, most=most)
    return entry


def refusal(message: Outgoing, *, fifo: bool = False, most: int = MIB) -> str:
    refused = entry_of(message, 0, fifo=fifo, most=most, token=TOKEN)
    assert isinstance(refused, Refused), refused
    return refused.cause


def as_received(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the SDK would give back."""
    message: dict[str, Any] = {
        "MessageId": "5fea7756-0ea4-451a-a703-a558b933e274",
        "ReceiptHandle": "handle",
        "Body": fields["MessageBody"],
        "Attributes": {"ApproximateReceiveCount": "2", "SentTimestamp": "1719878400123", "SenderId": "AIDA"},
    }
    if "MessageAttributes" in fields:
        message["MessageAttributes"] = fields["MessageAttributes"]
    if "MessageGroupId" in fields:
        message["Attributes"]["MessageGroupId"] = fields["MessageGroupId"]
    return message


def delivered(message: Mapping[str, Any], *, fifo: bool = False) -> Delivery:
    return delivery_of(message, "receipt", 30.0, fifo=fifo)


def returned(message: Outgoing, *, fifo: bool = False) -> Delivery:
    return delivered(as_received(sent(message, fifo=fifo).fields), fifo=fifo)


def received(body: str, *, group: str | None = None, **attributes: str) -> dict[str, Any]:
    """A message of another producer; `_` in names stands for `-`."""
    fields: dict[str, Any] = {"MessageBody": body}
    if attributes:
        fields["MessageAttributes"] = {
            name.replace("_", "-"): {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }
    if group is not None:
        fields["MessageGroupId"] = group
    return as_received(fields)


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_OURS = ("eventkit-key", "eventkit-packed", "eventkit-body", "content-type", "Content-Type", "contentType")
_MARKS = ("base64", "empty", "plain", "eventkit-alone-1", "eventkit-sha256-ab", "ce-specversion", "{}")
_odd = st.sampled_from([*_OURS, *_MARKS, "", "AWS.x", "a..b", "x" * 300])
_some_text = st.one_of(_text, _odd, st.text("ab.-", max_size=4))
_bodies = st.one_of(
    st.binary(max_size=40),
    _text.map(str.encode),
    st.sampled_from([b"", b"-", b"{}", b'{"id": 1, "detail-type": "x"}', b'{"Type": "Notification", "TopicArn": "a"}']),
)
_messages = st.builds(
    Outgoing,
    body=_bodies,
    attributes=st.one_of(
        st.dictionaries(_some_text, _some_text, max_size=4),
        st.dictionaries(st.one_of(_some_text, st.text("abc", max_size=3)), _some_text, min_size=8, max_size=13),
    ),
    content_type=st.none() | _some_text,
    key=st.none() | _some_text,
    event_id=_some_text,
)


@given(_messages, st.booleans())
@settings(max_examples=400, deadline=None)
def test_what_is_sent_arrives_byte_for_byte(message: Outgoing, fifo: bool) -> None:
    """Clause 8, with every rule of SQS kept; nothing that is text in UTF-8 needs to be refused."""
    delivery = returned(message, fifo=fifo)
    assert delivery.body == message.body
    assert delivery.attributes == message.attributes
    assert delivery.content_type == message.content_type
    assert delivery.key == message.key


@given(_messages, st.booleans(), st.integers(1, 300))
@settings(max_examples=300, deadline=None)
def test_a_small_limit_is_kept_or_the_message_refused(message: Outgoing, fifo: bool, most: int) -> None:
    """Never a batch that the service answers with an error for all of it."""
    answer = entry_of(message, 0, fifo=fifo, most=most, token=TOKEN)
    if isinstance(answer, Refused):
        assert f"limit of {most:,}" in answer.cause
    else:
        assert_legal(answer.fields, answer.size, fifo=fifo, most=most)


def test_a_plain_message_is_plain_on_the_wire() -> None:
    """Any other consumer reads what eventkit sent."""
    message = Outgoing(body=b'{"id": 7}', attributes={"a": "1"}, content_type="application/json")
    assert sent(message).fields == {
        "Id": "3",
        "MessageBody": '{"id": 7}',
        "MessageAttributes": {
            "content-type": {"DataType": "String", "StringValue": "application/json"},
            "a": {"DataType": "String", "StringValue": "1"},
        },
    }
    assert sent(Outgoing(body=b"x")).fields == {"Id": "3", "MessageBody": "x"}


def test_what_sqs_knows_of_a_message_is_in_the_delivery() -> None:
    """Counts and times are texts on the wire."""
    message = received("x")
    delivery = delivery_of(message, "r", 12.5, fifo=False)
    assert (delivery.receipt, delivery.leased_until, delivery.raw) == ("r", 12.5, message)
    assert delivery.message_id == "5fea7756-0ea4-451a-a703-a558b933e274"
    assert delivery.delivery_count == 2
    assert delivery.enqueued_at == 1719878400.123


@pytest.mark.parametrize("text", [None, "", "many", "-1", "1" * 5000, "nan", 3.5j])
def test_what_cannot_be_read_of_a_count_or_time_is_unknown(text: object) -> None:
    """A stand-in for SQS may write anything; the event is still good."""
    message = received("x") | {"Attributes": {"ApproximateReceiveCount": text}}
    assert delivered(message).delivery_count is None
    assert delivered({"Body": "x"}).enqueued_at is None


@pytest.mark.parametrize("text", [None, "", "soon", "1" * 400, "1" * 5000])
def test_a_time_that_is_none_is_unknown(text: object) -> None:
    """As with counts."""
    assert delivered(received("x") | {"Attributes": {"SentTimestamp": text}}).enqueued_at is None


# -- sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"x" * 1000, "é".encode() * 500])
def test_a_message_at_the_limit_is_sent_and_one_byte_more_is_not(body: bytes) -> None:
    """The body and each attribute's name, type and value count, in bytes."""
    message = Outgoing(body=body, attributes={"näme" if b"x" not in body else "name": "é"}, content_type="text/plain")
    size = sent(message).size
    assert sent(message, most=size).size == size
    cause = refusal(message, most=size - 1)
    assert f"takes {size:,} bytes" in cause
    assert f"limit of {size - 1:,}" in cause


def test_the_refusal_says_that_base64_made_it_too_large() -> None:
    """Otherwise nobody understands why 900,000 bytes are over a million."""
    cause = refusal(Outgoing(body=b"\xff" * 900_000))
    assert "a body of 900,000, sent in base64" in cause
    assert "limit of 1,048,576" in cause


def test_the_largest_text_is_sent() -> None:
    """The limit itself is allowed."""
    assert sent(Outgoing(body=b"x" * MIB)).size == MIB


def _letter(original: Delivery) -> Outgoing:
    """As the core dead-letters where the source cannot."""
    return Outgoing(
        body=original.body,
        attributes={**original.attributes, "eventkit-dead-letter": json.dumps({"reason": "x" * 900})},
        content_type=original.content_type,
        key=original.key,
        event_id="stable",
        spare=("eventkit-dead-letter",),
    )


def test_a_dead_letter_of_ten_attributes_shows_why_it_died() -> None:
    """Its note is an attribute of its own; all ten come back."""
    attributes = {f"name-{index}": str(index) for index in range(10)}
    letter = _letter(returned(Outgoing(body=b"x", attributes=attributes)))
    entry = sent(letter)
    assert "eventkit-dead-letter" in entry.fields["MessageAttributes"]
    assert delivered(as_received(entry.fields)).attributes == letter.attributes


@pytest.mark.parametrize("fifo", [False, True])
@pytest.mark.parametrize("body", [b"", b"{}", b"\xff" * 90])
def test_a_dead_letter_at_the_size_limit_is_sent_without_its_note(body: bytes, fifo: bool) -> None:
    """The event must be kept; what is said about it need not."""
    attributes = {f"näme-{index}": "é" * 20 for index in range(12)}
    original = Outgoing(body=body, attributes=attributes, key="Ä b", content_type="x/y")
    most = sent(original, fifo=fifo).size
    entry = sent(_letter(returned(original, fifo=fifo)), fifo=fifo, most=most)
    assert entry.size == most
    copy = delivered(as_received(entry.fields), fifo=fifo)
    assert (copy.body, copy.attributes, copy.key) == (body, attributes, "Ä b")


def test_the_note_stays_where_there_is_room_for_it() -> None:
    """It is spared only when it must be."""
    letter = _letter(delivered(received("x")))
    most = sent(letter).size
    assert "MessageAttributes" in sent(letter, most=most).fields
    assert "MessageAttributes" not in sent(letter, most=most - 1).fields


def test_the_dead_letter_of_a_fair_queue_at_the_limit_loses_its_key_rather_than_itself() -> None:
    """SQS does not count a group's id in the size of a message, but counts our attribute."""
    original = delivered(received("x" * 100, group="tenant"))
    assert original.key == "tenant"
    assert sent(_letter(original), most=100).size == 100
    roomy = sent(_letter(original), most=150)
    assert delivered(as_received(roomy.fields)).key == "tenant"


def test_a_key_is_not_dropped_from_a_message_that_is_no_copy() -> None:
    """A publisher is told."""
    assert "limit of 100" in refusal(Outgoing(body=b"x" * 100, key="tenant"), most=100)


# -- keys and ids ------------------------------------------------------------------------------------


def test_a_key_is_the_group_on_a_fifo_queue() -> None:
    """Order is by groups; the key is seen there, and costs no attribute."""
    assert sent(Outgoing(body=b"x", key="customer-1"), fifo=True).fields == {
        "Id": "3",
        "MessageBody": "x",
        "MessageGroupId": "customer-1",
        "MessageDeduplicationId": TOKEN,
    }


@pytest.mark.parametrize("key", ["", "Ä/#? 1", "x" * 129, "eventkit-alone-x", "a\x00b"])
def test_a_key_that_cannot_be_a_group_has_one_of_its_own(key: str) -> None:
    """The same for the same key, so that its events stay in order."""
    first, second = (sent(Outgoing(body=body, key=key), fifo=True).fields for body in (b"x", b"\x00"))
    assert first["MessageGroupId"] == second["MessageGroupId"] != key
    assert delivered(as_received(first), fifo=True).key == key


def test_an_event_without_a_key_is_in_a_group_alone() -> None:
    """One that fails must not hold up the others."""
    entry = sent(Outgoing(body=b"x"), fifo=True)
    assert TOKEN in entry.fields["MessageGroupId"]
    assert delivered(as_received(entry.fields), fifo=True).key is None


def test_on_a_fifo_queue_the_group_is_believed_not_an_attribute() -> None:
    """Order per key is kept by group; another key would let followers overtake."""
    assert delivered(received("x", group="a", eventkit_key="b"), fifo=True).key == "a"
    assert delivered(received("x", group="eventkit-sha256-0", eventkit_key="b"), fifo=True).key == "eventkit-sha256-0"


def test_on_a_standard_queue_the_attribute_is_the_key_else_the_group() -> None:
    """Groups there are for fairness."""
    assert delivered(received("x", group="a", eventkit_key="b")).key == "b"
    assert delivered(received("x", group="a")).key == "a"
    assert delivered(received("x")).key is None


def _deduplication(event_id: str, body: bytes = b"x", source: str = "/a") -> str:
    message = Outgoing(body=body, event_id=event_id, attributes={"ce-source": source})
    return sent(message, fifo=True).fields["MessageDeduplicationId"]


@pytest.mark.parametrize("event_id", ["order-1", "Ä", "x" * 129, "a b"])
def test_a_repeat_has_the_same_id_for_deduplication_and_nothing_else_has(event_id: str) -> None:
    """FIFO queues drop a second one within five minutes, and say that it was sent: ids are their producer's alone."""
    assert _deduplication(event_id) == _deduplication(event_id)
    others = {_deduplication(event_id, body=b"y"), _deduplication(event_id, source="/b"), _deduplication("other")}
    assert len({_deduplication(event_id), *others}) == 4


def test_without_an_id_nothing_is_taken_for_a_repeat() -> None:
    """Two events with the same content are two events."""
    assert _deduplication("") == TOKEN


# -- delays ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delay", "seconds"), [(0.001, 1), (1.0, 1), (1.5, 2), (900.0, 900)])
def test_a_delay_is_rounded_up(delay: float, seconds: int) -> None:
    """Never before its time."""
    assert sent(Outgoing(body=b"x", delay=delay)).fields["DelaySeconds"] == seconds


@pytest.mark.parametrize("delay", [0.0, -1.0])
def test_without_a_delay_that_of_the_queue_counts(delay: float) -> None:
    """Zero would override it."""
    assert "DelaySeconds" not in sent(Outgoing(body=b"x", delay=delay)).fields


@pytest.mark.parametrize(
    ("delay", "fifo", "reason"),
    [(900.5, False, "900 s"), (0.1, True, "FIFO"), (math.inf, False, "inf"), (math.nan, True, "nan")],
)
def test_a_delay_that_cannot_be_is_refused(delay: float, fifo: bool, reason: str) -> None:
    """Not shortened in silence."""
    assert reason in refusal(Outgoing(body=b"x", delay=delay), fifo=fifo)


# -- what is refused ---------------------------------------------------------------------------------

_WRONG: Any = 7


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Outgoing(body=b"x", attributes={"a": "\ud800"}), "attribute 'a' has a lone surrogate"),
        (Outgoing(body=b"x", attributes={"\ud800": "a"}), "name of an attribute has a lone surrogate"),
        (Outgoing(body=b"x", attributes={"a": _WRONG}), "attribute 'a' is int"),
        (Outgoing(body=b"x", attributes={_WRONG: "a"}), "name of an attribute is int"),
        (Outgoing(body=b"x", key="\udfff"), "the key has a lone surrogate"),
        (Outgoing(body=b"x", content_type="\udfff"), "the content type has a lone surrogate"),
        (Outgoing(body=b"x", event_id="\udfff"), "the event id has a lone surrogate"),
        (Outgoing(body=_WRONG), "the body is int, not bytes"),
    ],
)
def test_what_is_no_text_is_refused_with_a_reason(message: Outgoing, reason: str) -> None:
    """Refused, neither replaced nor raised: the others of its batch go on."""
    assert reason in refusal(message)


# -- markers that lie --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes",
    [
        {"eventkit_body": "base64"},
        {"eventkit_body": "empty"},
        {"eventkit_body": "zip"},
        {"eventkit_packed": ""},
        {"eventkit_packed": "{"},
        {"eventkit_packed": "[]"},
        {"eventkit_packed": "null"},
        {"eventkit_packed": '{"attributes": {"a": 1}}'},
        {"eventkit_packed": '{"attributes": [], "key": 1}'},
        {"eventkit_packed": '{"else": 1}'},
        {"eventkit_packed": '{"key": "\\ud800"}'},
        {"eventkit_packed": '{"attributes": ' + "[" * 100_000},
        {"eventkit_packed": "\ud800"},
        {"eventkit_packed": '{"attributes": {"a": "b"}}', "eventkit_body": "base64"},
    ],
)
def test_what_claims_to_be_ours_and_is_not_is_handed_over_as_it_came(attributes: dict[str, str]) -> None:
    """The codec or the handler judges it; the markers are there to be seen."""
    message = received("not base64!", content_type="application/json", other="x", **attributes)
    delivery = delivered(message)
    assert delivery.body == b"not base64!"
    assert delivery.content_type == "application/json"
    assert delivery.attributes == {"other": "x"} | {n.replace("_", "-"): v for n, v in attributes.items()}


def test_such_a_delivery_can_be_dead_lettered() -> None:
    """Its markers are then a sender's attributes, and survive."""
    letter = _letter(delivered(received("not base64!", eventkit_body="base64", eventkit_packed="{")))
    copy = returned(letter)
    assert (copy.body, copy.attributes) == (letter.body, letter.attributes)


def test_a_body_of_lone_surrogates_is_no_utf8_for_the_codec() -> None:
    """SQS has none; what stands in for it may."""
    assert delivered(received("\ud800")).body == b"\xed\xa0\x80"


@given(
    body=st.text(max_size=20) | st.binary(max_size=9).map(lambda octets: base64.b64encode(octets).decode()),
    attributes=st.dictionaries(
        st.sampled_from(["eventkit_body", "eventkit_packed", "eventkit_key", "content_type"]), _some_text
    ),
    group=st.none() | _some_text,
    fifo=st.booleans(),
)
@example(body='{"Type": "Notification", "TopicArn"', attributes={}, group=None, fifo=False)
@settings(max_examples=200, deadline=None)
def test_no_message_raises(body: str, attributes: dict[str, str], group: str | None, fifo: bool) -> None:
    """One that did would come again for ever."""
    delivered(received(body, group=group, **attributes), fifo=fifo)


# -- cost --------------------------------------------------------------------------------------------


def test_both_ways_are_cheap() -> None:
    """They run for every message on the loop; the bounds are ten times what an idle core needs."""
    message = Outgoing(body=json.dumps({"id": 7, "lines": ["x" * 20] * 40}).encode(), content_type="application/json")
    wire = as_received(sent(message).fields)
    there = min(repeat(lambda: entry_of(message, 0, fifo=False, most=MIB, token=TOKEN), number=500, repeat=5)) / 500
    back = min(repeat(lambda: delivery_of(wire, "r", 0.0, fifo=False), number=500, repeat=5)) / 500
    print(f"entry_of {there * 1e6:.1f} us, delivery_of {back * 1e6:.1f} us")
    assert there < 100e-6
    assert back < 50e-6
