"""From a message to Pub/Sub and back: the same, or refused with a reason."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from timeit import repeat
from typing import Any

import msgspec
import pytest
from eventkit_pubsub._content import MOST_BODY, MOST_BYTES, Message, Refused, delivery_of, message_of
from google.pubsub_v1 import types
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventkit.spi import Delivery, Outgoing

_received = types.ReceivedMessage.pb()
_request = types.PublishRequest.pb()
_message = types.PubsubMessage.pb()

TOPIC = f"projects/{'p' * 30}/topics/{'t' * 255}"


def assert_legal(message: Message, most: int = MOST_BYTES) -> None:
    """Every rule for a publish in the documentation, written without a look at the code."""
    assert {field.name for field, _ in message.ListFields()} <= {"data", "attributes", "ordering_key"}
    assert message.data or message.attributes
    assert len(message.attributes) <= 100
    for name, value in message.attributes.items():
        assert 1 <= len(name.encode()) <= 256
        assert not name.startswith("goog")
        assert len(value.encode()) <= 1024
    assert len(message.ordering_key.encode()) <= 1024
    if most == MOST_BYTES:
        assert len(_request(topic=TOPIC, messages=[message]).SerializeToString()) <= most
    else:
        assert len(message.SerializeToString()) <= most


def sent(message: Outgoing, **limit: int) -> Message:
    written = message_of(message, **limit)
    assert not isinstance(written, Refused), written
    assert_legal(written, **limit)
    return written


def refusal(message: Outgoing, **limit: int) -> str:
    refused = message_of(message, **limit)
    assert isinstance(refused, Refused), refused
    return refused.cause


def as_received(message: Message, *, attempt: int = 2) -> Any:
    """What gRPC would give back, over the wire."""
    received = _received(message=message, ack_id="ack", delivery_attempt=attempt)
    received.message.message_id = "1234567890"
    received.message.publish_time.seconds = 1_719_878_400
    received.message.publish_time.nanos = 123_000_000
    return _received.FromString(received.SerializeToString())


def delivered(message: Message) -> Delivery:
    return delivery_of(as_received(message), "receipt", 30.0, counted=True)


def returned(message: Outgoing) -> Delivery:
    return delivered(sent(message))


def foreign(body: bytes = b"x", attributes: Mapping[str, str] | None = None, key: str = "") -> Message:
    """A message of another producer."""
    return _message(data=body, ordering_key=key, attributes=attributes or {})


def content(event: Outgoing | Delivery) -> tuple[object, ...]:
    return event.body, dict(event.attributes), event.content_type, event.key


def numbered(number: int, value: str = "") -> dict[str, str]:
    return {f"name-{index}": value or str(index) for index in range(number)}


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_OURS = ("eventkit-key", "eventkit-body", "eventkit-packed", "eventkit-packed-0", "eventkit-packed-1", "content-type")
_MARKS = ("Content-Type", "contentType", "empty", "eventkit-sha256-a", '{"attributes":{"a":"b"}}', "{", "goog1", "Goog")
_LONG = ("x" * 256, "é" * 128, "x" * 257, "é" * 129, "x" * 1024, "é" * 512, "x" * 1025, "é" * 513, "\x00🌍" * 400)
_some_text = st.one_of(_text, st.sampled_from([*_OURS, *_MARKS, "", *_LONG]), st.text("ab.-", max_size=4))


_messages = st.builds(
    Outgoing,
    body=st.binary(max_size=9) | st.sampled_from([b"", b"{}"]),
    attributes=st.dictionaries(_some_text, _some_text, max_size=4),
    content_type=st.none() | _some_text,
    key=st.none() | _some_text,
    event_id=_some_text,
)


@given(_messages)
@settings(max_examples=400, deadline=None)
def test_what_is_sent_arrives_byte_for_byte(message: Outgoing) -> None:
    """Clause 8, with every rule of Pub/Sub kept; of what is text nothing needs to be refused."""
    assert content(returned(message)) == content(message)


@given(_messages, st.integers(95, 150), st.sampled_from(["", "v", "é" * 40, "x" * 1024, "é" * 512]))
@settings(max_examples=200, deadline=None)
def test_of_many_attributes_all_arrive_or_the_message_is_refused(message: Outgoing, number: int, value: str) -> None:
    """Never some of them; and what fits is not refused, but for what is lost in cutting."""
    message = msgspec.structs.replace(message, attributes=numbered(number, value) | dict(message.attributes))
    answer = message_of(message)
    if isinstance(answer, Refused):
        assert "even when they are packed" in answer.cause
        assert sum(len(json.dumps(item)) for item in message.attributes.items()) > 95 * 1024
    else:
        assert_legal(answer)
        assert content(delivered(answer)) == content(message)


@given(_messages, st.integers(1, 300))
@settings(max_examples=200, deadline=None)
def test_a_small_limit_is_kept_or_the_message_refused(message: Outgoing, most: int) -> None:
    """Never a request that the service answers with an error for all of it."""
    answer = message_of(message, most=most)
    if isinstance(answer, Refused):
        assert f"limit of {most:,}" in answer.cause
    else:
        assert_legal(answer, most)


def test_a_plain_message_is_plain_on_the_wire() -> None:
    """Any other consumer reads what eventkit sent: by the Pub/Sub binding of CloudEvents, where it is one."""
    message = Outgoing(body=b'{"id": 7}', attributes={"ce-id": "1"}, content_type="application/json", key="order-1")
    assert sent(message) == _message(
        data=b'{"id": 7}', attributes={"content-type": "application/json", "ce-id": "1"}, ordering_key="order-1"
    )
    assert sent(Outgoing(body=b"x")) == _message(data=b"x")


def test_what_pubsub_knows_of_a_message_is_in_the_delivery() -> None:
    """And the SDK's own object beside it, of the class that its documentation shows."""
    received = as_received(foreign(b"body", key="k"))
    delivery = delivery_of(received, "r", 12.5, counted=True)
    assert (delivery.receipt, delivery.leased_until, delivery.body) == ("r", 12.5, b"body")
    assert (delivery.message_id, delivery.key, delivery.delivery_count) == ("1234567890", "k", 2)
    assert delivery.enqueued_at == 1719878400.123
    assert isinstance(delivery.raw, types.ReceivedMessage)
    assert delivery.raw.message.data == b"body"
    assert delivery.raw.ack_id == "ack"


@pytest.mark.parametrize(("attempt", "counted"), [(0, True), (-1, True), (3, False)])
def test_a_count_that_is_none_is_unknown(attempt: int, counted: bool) -> None:
    """Without a dead-letter policy there is 0; a stand-in may say anything."""
    received = as_received(foreign(), attempt=attempt)
    assert delivery_of(received, "r", 0.0, counted=counted).delivery_count is None


@pytest.mark.parametrize(("unseen", "count"), [(0, 5), (4, 1), (9, 1)])
def test_deliveries_that_nobody_saw_are_not_counted(unseen: int, count: int) -> None:
    """They were no attempts; the one that is handed over is."""
    received = as_received(foreign(), attempt=5)
    assert delivery_of(received, "r", 0.0, counted=True, unseen=unseen).delivery_count == count


def test_a_message_without_a_time_has_none() -> None:
    """1970 would be an age."""
    assert delivery_of(_received(message=foreign()), "r", 0.0, counted=True).enqueued_at is None


# -- what stands as it is, and what is packed --------------------------------------------------------


def packed(message: Message) -> dict[str, Any]:
    """What an independent reader finds in the pack."""
    chunks = {name: value for name, value in message.attributes.items() if name.startswith("eventkit-packed")}
    assert set(chunks) == {f"eventkit-packed-{number}" for number in range(len(chunks))}
    text = "".join(chunks[f"eventkit-packed-{number}"] for number in range(len(chunks)))
    assert len(chunks) == math.ceil(len(text) / 1024)
    pack: dict[str, Any] = json.loads(text or "{}")
    return pack


@pytest.mark.parametrize("name", ["a", "ä b/:", "x" * 256, "é" * 128, "Goog", "GOOGLE", "a-goog", "eventkit-x", "\x00"])
def test_a_name_that_pubsub_takes_is_native(name: str) -> None:
    """Filters of subscriptions and other consumers see it only as what it is."""
    assert dict(sent(Outgoing(body=b"x", attributes={name: "v"})).attributes) == {name: "v"}


@pytest.mark.parametrize("name", ["", "x" * 257, "é" * 129, "goog", "googclient_traceparent", *_OURS, *_MARKS[:2]])
@pytest.mark.parametrize("beside", [{}, {"a": "ä" * 512}])
def test_another_name_is_packed(name: str, beside: dict[str, str]) -> None:
    """The service would refuse it, or it would be taken for ours."""
    message = sent(Outgoing(body=b"x", attributes={name: "v", **beside}))
    assert packed(message) == {"attributes": {name: "v"}}
    assert set(message.attributes) == {*beside, "eventkit-packed-0"}


@pytest.mark.parametrize(("value", "native"), [("", True), ("é" * 512, True), ("x" * 1025, False), ("é" * 513, False)])
def test_a_value_beyond_1024_bytes_is_packed(value: str, native: bool) -> None:
    """Bytes, not characters."""
    assert ("a" in sent(Outgoing(body=b"x", attributes={"a": value})).attributes) is native
    assert ("content-type" in sent(Outgoing(body=b"x", content_type=value)).attributes) is native


def test_a_hundred_attributes_are_native() -> None:
    """What Pub/Sub can hold is left alone."""
    assert dict(sent(Outgoing(body=b"x", attributes=numbered(100))).attributes) == numbered(100)
    message = sent(Outgoing(body=b"x", attributes=numbered(98), content_type="x/y", key=""))
    assert packed(message) == {}
    assert len(message.attributes) == 100


def test_the_101st_costs_the_100th_its_place() -> None:
    """Ninety-nine in the order of the mapping, and one that holds the rest."""
    message = sent(Outgoing(body=b"x", attributes=numbered(101)))
    assert packed(message) == {"attributes": {"name-99": "99", "name-100": "100"}}
    assert set(message.attributes) == {*numbered(99), "eventkit-packed-0"}


@pytest.mark.parametrize("names", [list(numbered(100)), [f"{number}" for number in range(100)]])
def test_content_type_and_key_take_places_first(names: list[str]) -> None:
    """They say how to read the rest."""
    message = sent(Outgoing(body=b"x", attributes=dict.fromkeys(names, "v"), content_type="x/y", key=""))
    assert set(message.attributes) == {*names[:97], "content-type", "eventkit-key", "eventkit-packed-0"}


@pytest.mark.parametrize(("length", "chunks"), [(1001, 1), (1003, 2), (1001 + 1024, 2), (1003 + 1024, 3)])
def test_no_place_is_left_to_chance(length: int, chunks: int) -> None:
    """As many stay native as there is room for beside the pack, whose length decides on its chunks."""
    pack = {"attributes": {"": "x" * length}}
    assert math.ceil(len(json.dumps(pack, separators=(",", ":"))) / 1024) == chunks
    message = sent(Outgoing(body=b"x", attributes=numbered(100 - chunks) | pack["attributes"]))
    assert packed(message) == pack
    assert len(message.attributes) == 100


def test_what_may_be_spared_and_the_trace_are_native_first() -> None:
    """A dead letter is looked at in the console: why it died must be seen there, beside whatever it carried."""
    trace = {"tracestate": "a=1", "traceparent": "00-ab"}
    last = trace | {"eventkit-dead-letter": "{}", "why": "x"}
    message = sent(Outgoing(body=b"x", attributes=numbered(100) | last, spare=("why",)))
    assert set(message.attributes) == {*numbered(95), *last, "eventkit-packed-0"}


@pytest.mark.parametrize("value", ["é" * 512, "x" * 1024])
def test_what_does_not_fit_even_packed_is_refused(value: str) -> None:
    """The reason says how much it was, and how much there is."""
    cause = refusal(Outgoing(body=b"x", attributes=numbered(101, value)))
    size = sum(len(name.encode()) + 1024 for name in numbered(101))
    assert f"its 101 attributes, of {size:,} bytes," in cause
    assert "more than 100 of 1,024 bytes each" in cause
    assert value[:9] not in cause


@given(st.dictionaries(st.text("goäx\x7f🌍", max_size=4), st.text("ab\n\u2028\x00ä🌍", max_size=700), max_size=6))
def test_chunks_are_cut_between_characters(attributes: dict[str, str]) -> None:
    """Each is text in UTF-8 by itself: of ASCII, all of them."""
    message = sent(Outgoing(body=b"x", attributes=attributes | {"goog": "x" * 700}))
    assert all(value.isascii() for name, value in message.attributes.items() if name.startswith("eventkit-packed"))
    assert packed(message)["attributes"].items() <= (attributes | {"goog": "x" * 700}).items()


# -- content types and bodies ------------------------------------------------------------------------


def test_a_content_type_is_found_in_common_spellings() -> None:
    """Producers of other libraries write it as in HTTP; of two the first counts, the other stays visible."""
    both = delivered(foreign(attributes={"contentType": "b", "Content-Type": "a", "x": "y"}))
    assert (both.content_type, both.attributes) == ("a", {"contentType": "b", "x": "y"})
    assert delivered(foreign(attributes={"contentType": "b", "content-type": "c"})).content_type == "c"
    assert delivered(foreign(attributes={"contentType": "b"})).content_type == "b"
    assert delivered(foreign(attributes={"x": "y"})).content_type is None


def test_a_message_of_nothing_says_so() -> None:
    """Pub/Sub refuses one with neither data nor attributes."""
    assert dict(sent(Outgoing(body=b"")).attributes) == {"eventkit-body": "empty"}
    assert dict(sent(Outgoing(body=b"", key="k")).attributes) == {"eventkit-body": "empty"}
    assert dict(sent(Outgoing(body=b"", content_type="x/y")).attributes) == {"content-type": "x/y"}
    assert dict(sent(Outgoing(body=b"", attributes={"a": "b"})).attributes) == {"a": "b"}


def test_only_a_message_without_a_body_is_said_to_be_empty() -> None:
    """What another producer means by that name is handed over; what Pub/Sub adds to ours changes nothing."""
    assert delivered(foreign(b"x", {"eventkit-body": "empty"})).attributes == {"eventkit-body": "empty"}
    assert delivered(foreign(b"", {"eventkit-body": "full"})).attributes == {"eventkit-body": "full"}
    forwarded = foreign(b"", {"eventkit-body": "empty", "CloudPubSubDeadLetterSourceTopicPublishTime": "2026"})
    assert delivered(forwarded).attributes == {"CloudPubSubDeadLetterSourceTopicPublishTime": "2026"}


# -- keys --------------------------------------------------------------------------------------------


_EMPTY_KEY = sent(Outgoing(body=b"x", key="")).ordering_key


@pytest.mark.parametrize("key", ["customer-1", "Ä/#? 1", "x" * 1024, "é" * 512, "\x00", "Eventkit-"])
def test_a_key_is_the_ordering_key(key: str) -> None:
    """Order is kept by it, and it costs no attribute."""
    assert sent(Outgoing(body=b"x", key=key)) == _message(data=b"x", ordering_key=key)


@pytest.mark.parametrize("key", ["", "x" * 1025, "é" * 513, "eventkit-", "eventkit-sha256-x", "long" * 3000])
def test_a_key_that_cannot_be_one_is_hashed(key: str) -> None:
    """The same for the same key, so that its events stay in order."""
    first, second = (sent(Outgoing(body=body, key=key)) for body in (b"x", b"y"))
    assert first.ordering_key == second.ordering_key
    assert first.ordering_key.startswith("eventkit-sha256-")
    assert len(first.ordering_key) == len("eventkit-sha256-") + 64
    assert delivered(first).key == key
    assert delivered(first).attributes == {}


@pytest.mark.parametrize("ordering_key", ["", "a", "eventkit-sha256-0", _EMPTY_KEY])
@pytest.mark.parametrize("name", ["eventkit-key", "eventkit-packed-0"])
def test_a_key_is_believed_only_where_the_ordering_key_stands_for_it(ordering_key: str, name: str) -> None:
    """Order is by ordering keys; another key would let followers overtake."""
    value = "b" if name == "eventkit-key" else '{"key":"b"}'
    delivery = delivered(_message(data=b"x", ordering_key=ordering_key, attributes={name: value}))
    assert delivery.key == (ordering_key or None)
    assert delivery.attributes == ({"eventkit-key": "b"} if name == "eventkit-key" else {})


# -- delays, and what is no text ---------------------------------------------------------------------

_WRONG: Any = 7
_OCTETS: Any = b"a"


@pytest.mark.parametrize("delay", [0.0, -1.0])
def test_no_delay_is_none(delay: float) -> None:
    """As for other sinks."""
    assert sent(Outgoing(body=b"x", delay=delay)) == _message(data=b"x")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Outgoing(body=b"x", delay=0.1), "a delay of 0.1 s: Pub/Sub delays no message"),
        (Outgoing(body=b"x", delay=math.inf), "the delay is inf s"),
        (Outgoing(body=b"x", delay=-math.inf), "the delay is -inf s"),
        (Outgoing(body=b"x", delay=math.nan), "the delay is nan s"),
        (Outgoing(body=b"x", attributes={"a": "\ud800"}), "attribute 'a' has a lone surrogate"),
        (Outgoing(body=b"x", attributes={"\ud800": "a"}), "name of an attribute has a lone surrogate"),
        (Outgoing(body=b"x", attributes={"a": _WRONG}), "attribute 'a' is int, not str"),
        (Outgoing(body=b"x", attributes={"a": _OCTETS}), "attribute 'a' is bytes, not str"),
        (Outgoing(body=b"x", attributes={_WRONG: "a"}), "name of an attribute is int, not str"),
        (Outgoing(body=b"x", attributes={_OCTETS: "a"}), "name of an attribute is bytes, not str"),
        (Outgoing(body=b"x", key="\udfff"), "the key has a lone surrogate"),
        (Outgoing(body=b"x", key=_OCTETS), "the key is bytes, not str"),
        (Outgoing(body=b"x", content_type="\udfff"), "the content type has a lone surrogate"),
        (Outgoing(body=b"x", content_type=_OCTETS), "the content type is bytes, not str"),
        (Outgoing(body=_WRONG), "the body is int, not bytes"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(message: Outgoing, reason: str) -> None:
    """Refused, neither replaced nor raised: the others of its batch go on."""
    assert reason in refusal(message)


# -- sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["name", "näme"])
def test_a_message_at_the_limit_is_sent_and_one_byte_more_is_not(name: str) -> None:
    """Body, attributes and key count, as they are on the wire."""
    message = Outgoing(body=b"x" * 1000, attributes={name: "é"}, content_type="text/plain", key="k")
    size = sent(message).ByteSize()
    assert sent(message, most=size).ByteSize() == size
    cause = refusal(message, most=size - 1)
    assert f"takes {size:,} bytes (a body of 1,000," in cause
    assert f"limit of {size - 1:,}" in cause


def test_the_largest_body_is_sent_alone() -> None:
    """In a request of ten million bytes, with the longest name of a topic."""
    sent(Outgoing(body=bytes(MOST_BODY)))
    assert "limit of 9,999,000" in refusal(Outgoing(body=bytes(MOST_BODY + 1)))
    assert "the body has 10,000,000 bytes" in refusal(Outgoing(body=bytes(MOST_BYTES)))


# -- dead letters ------------------------------------------------------------------------------------


def letter(original: Delivery) -> Outgoing:
    """As the core dead-letters where the source cannot."""
    return Outgoing(
        body=original.body,
        attributes={**original.attributes, "eventkit-dead-letter": json.dumps({"reason": "x" * 900})},
        content_type=original.content_type,
        key=original.key,
        event_id="stable",
        spare=("eventkit-dead-letter",),
    )


def test_a_dead_letter_of_a_hundred_attributes_shows_why_it_died() -> None:
    """Its note is an attribute of its own; all hundred come back."""
    copy = letter(delivered(foreign(attributes=numbered(100))))
    message = sent(copy)
    assert "eventkit-dead-letter" in message.attributes
    assert content(delivered(message)) == content(copy)


def test_a_dead_letter_without_room_goes_without_its_note() -> None:
    """The event must be kept; what is said about it need not. A hundred long ones cannot be packed in less."""
    original = delivered(foreign(attributes=numbered(100, "x" * 1024)))
    assert content(returned(letter(original))) == content(original)
    without_spare = {**original.attributes, "why": "x"}
    assert "101 attributes" in refusal(Outgoing(body=b"x", attributes=without_spare))


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff" * 90])
def test_a_dead_letter_at_the_size_limit_goes_without_its_note(body: bytes) -> None:
    """The note stays where there is room for it: it is spared only when it must be."""
    attributes = {f"näme-{index}": "é" * 20 for index in range(12)}
    original = Outgoing(body=body, attributes=attributes, key="", content_type="x/y")
    most = sent(original).ByteSize()
    message = sent(letter(returned(original)), most=most)
    assert message.ByteSize() == most
    assert content(delivered(message)) == content(original)
    whole = letter(returned(original))
    most = sent(whole).ByteSize()
    assert "eventkit-dead-letter" in sent(whole, most=most).attributes
    assert "eventkit-dead-letter" not in sent(whole, most=most - 1).attributes


def test_a_dead_letter_that_is_nothing_but_its_note_can_lose_it() -> None:
    """What is left would be nothing: it is marked."""
    message = sent(letter(returned(Outgoing(body=b""))), most=100)
    assert dict(message.attributes) == {"eventkit-body": "empty"}


_BAD_PACKS = ("x" * 1024, "é" * 512, "{", "[" * 1024, '{"key":"\\ud800"}', '{"attributes":{"": ""}}')


@given(
    st.integers(0, 1000),
    st.dictionaries(
        st.sampled_from([*_OURS, *_MARKS[:2], "traceparent", "a"]), _some_text.filter(lambda text: len(text) < 500)
    ),
    st.sampled_from(_BAD_PACKS),
    st.sampled_from([b"", b"x"]),
    st.sampled_from(["", "k", "eventkit-sha256-0"]),
)
@example(0, {}, "é" * 512, b"x", "")
@example(0, {"eventkit-key": ""}, "é" * 512, b"x", _EMPTY_KEY)
@settings(max_examples=200, deadline=None)
def test_whatever_came_can_be_dead_lettered(
    first: int, some: dict[str, str], value: str, body: bytes, key: str
) -> None:
    """A hundred attributes with names of ours, as long as can be, are no protection against being given up."""
    names = [f"eventkit-packed-{first + number}" for number in range(100 - len(some))]
    attributes = dict.fromkeys(names, value) | some
    original = delivered(_message(data=body, attributes=attributes, ordering_key=key))
    copy = delivered(sent(letter(original)))
    kept = {name: value for name, value in copy.attributes.items() if name != "eventkit-dead-letter"}
    assert (copy.body, kept, copy.content_type, copy.key) == content(original)


# -- markers that lie --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes",
    [
        {"eventkit-packed": "{}"},
        {"eventkit-packed-1": "{}"},
        {"eventkit-packed-0": ""},
        {"eventkit-packed-0": "{"},
        {"eventkit-packed-0": "[]"},
        {"eventkit-packed-0": "null"},
        {"eventkit-packed-0": '{"attributes": {"a": 1}}'},
        {"eventkit-packed-0": '{"attributes": [], "key": 1}'},
        {"eventkit-packed-0": '{"else": 1}'},
        {"eventkit-packed-0": '{"key": "\\ud800"}'},
        {"eventkit-packed-0": '{"attributes": ' + "[" * 100_000},
        {"eventkit-packed-0": "{}", "eventkit-packed-2": ""},
        {"eventkit-packed-0": "{}", "eventkit-packed-00": ""},
        {"eventkit-packed-0": "{}", "eventkit-packed": ""},
        {"eventkit-packed-1": "{", "eventkit-packed-0": "}"},
        {"eventkit-packed-0": '{"attributes"', "eventkit-packed-2": ":{}}"},
    ],
)
def test_what_claims_to_be_ours_and_is_not_is_handed_over_as_it_came(attributes: dict[str, str]) -> None:
    """The codec or the handler judges it; the markers are there to be seen."""
    delivery = delivered(foreign(b"body", attributes | {"content-type": "application/json", "other": "x"}))
    assert delivery.body == b"body"
    assert delivery.content_type == "application/json"
    assert delivery.attributes == attributes | {"other": "x"}


def test_what_pubsub_adds_to_ours_is_the_latest() -> None:
    """It counts its deliveries in an attribute when it dead-letters; a copy may have been dead-lettered before."""
    message = sent(Outgoing(body=b"x", attributes=numbered(101) | {"CloudPubSubDeadLetterSourceDeliveryCount": "5"}))
    assert "CloudPubSubDeadLetterSourceDeliveryCount" in packed(message)["attributes"]
    message.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = "6"
    assert delivered(message).attributes == numbered(101) | {"CloudPubSubDeadLetterSourceDeliveryCount": "6"}


@pytest.mark.parametrize("lost", range(3))
def test_a_pack_without_one_of_its_chunks_is_handed_over_as_it_came(lost: int) -> None:
    """Half of the attributes would be worse than none."""
    message = sent(Outgoing(body=b"x", attributes={"a": "v" * 2500, "b": "c"}))
    assert len(message.attributes) == 4
    del message.attributes[f"eventkit-packed-{lost}"]
    assert delivered(message).attributes == dict(message.attributes)


@given(
    st.dictionaries(st.sampled_from([*_OURS, *_MARKS, "a"]), _some_text),
    st.binary(max_size=3),
    st.one_of(st.just(""), _some_text),
    st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)),
)
@settings(max_examples=200, deadline=None)
def test_no_message_raises(attributes: Mapping[str, str], body: bytes, key: str, numbers: tuple[int, int, int]) -> None:
    """One that did would come again for ever."""
    received = _received(message=_message(data=body, attributes=attributes, ordering_key=key))
    received.delivery_attempt, received.message.publish_time.seconds, received.message.publish_time.nanos = numbers
    delivery_of(received, "r", 0.0, counted=True)
    delivery_of(_received(), "r", 0.0, counted=True)


# -- cost --------------------------------------------------------------------------------------------


def test_both_ways_are_cheap() -> None:
    """They run for every message on the loop; the bounds are ten times what an idle core needs."""
    names = ("id", "source", "type", "specversion", "time", "subject")
    message = Outgoing(
        body=b"x" * 200,
        attributes={f"ce-{name}": f"some-{name}" for name in names},
        content_type="application/json",
    )
    wire = as_received(sent(message))
    there = min(repeat(lambda: message_of(message), number=2000, repeat=5)) / 2000
    back = min(repeat(lambda: delivery_of(wire, "r", 0.0, counted=True), number=2000, repeat=5)) / 2000
    print(f"message_of {there * 1e6:.1f} us, delivery_of {back * 1e6:.1f} us")
    assert there < 35e-6
    assert back < 35e-6
