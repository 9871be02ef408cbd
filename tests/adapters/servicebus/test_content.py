"""From a message to Service Bus and back, over the SDK's own codec: the same, or refused with a reason."""

from __future__ import annotations

import json
import math
import uuid
from decimal import Decimal
from timeit import repeat
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch, ServiceBusReceivedMessage
from azure.servicebus._pyamqp._decode import decode_payload
from azure.servicebus._pyamqp._encode import encode_payload
from azure.servicebus._pyamqp.message import Header, Properties
from azure.servicebus._pyamqp.message import Message as Amqp
from azure.servicebus._transport._pyamqp_transport import PyamqpTransport
from eventkit_servicebus._content import Message, Refused, delivery_of, message_of
from eventkit_servicebus._copy import copy_of
from hypothesis import given, settings
from hypothesis import strategies as st

from eventkit.spi import Delivery, Outgoing

MOST = 256 * 1024
NOW = 1_719_878_400.0
TOKEN = "0123456789abcdef" * 2
ENQUEUED = 1_719_878_400_123


def encoded(message: Message) -> bytes:
    """The bytes that the SDK would send."""
    payload = bytearray()
    encode_payload(payload, PyamqpTransport.to_outgoing_amqp_message(message.raw_amqp_message))
    return bytes(payload)


def sent(message: Outgoing, *, sessions: bool = False, most: int = MOST) -> Message:
    written = message_of(message, most=most, sessions=sessions, token=TOKEN, now=NOW)
    assert isinstance(written, ServiceBusMessage), written
    assert_legal(written, most, sessions=sessions)
    return written


def assert_legal(message: Message, most: int, *, sessions: bool) -> None:
    """Every rule for a message in the documentation, written without a look at the code."""
    size = len(encoded(message))
    assert size <= most
    body = b"".join(message.body)
    assert size - len(body) <= 64 * 1024
    assert message.message_id is not None
    assert 1 <= len(message.message_id) <= 128
    assert message.partition_key is None
    if sessions:
        assert message.session_id is not None
        assert 1 <= len(message.session_id.encode("utf-16-le")) // 2 <= 128
    else:
        assert message.session_id is None
    for name, value in (message.application_properties or {}).items():
        assert isinstance(name, str)
        assert isinstance(value, str)
        assert name
        assert len(name.encode()) + len(value.encode()) < 32 * 1024
    if message.content_type is not None:
        assert message.content_type.isascii()


def refusal(message: Outgoing, *, sessions: bool = False, most: int = MOST) -> str:
    refused = message_of(message, most=most, sessions=sessions, token=TOKEN, now=NOW)
    assert isinstance(refused, Refused), refused
    return refused.cause


def over_the_wire(payload: bytes, *, count: int | None = 0, enqueued: int | None = ENQUEUED) -> Any:
    """What the SDK would hand over for these bytes, with what the service adds."""
    message = decode_payload(memoryview(payload))
    annotations = dict(message.message_annotations or {})
    if enqueued is not None:
        annotations[b"x-opt-enqueued-time"] = enqueued
    annotations[b"x-opt-sequence-number"] = 4711
    header = (message.header or Header())._replace(delivery_count=count)
    return ServiceBusReceivedMessage(message._replace(header=header, message_annotations=annotations), receiver=None)


def delivered(message: Message, *, sessions: bool = False, count: int | None = 0) -> Delivery:
    return delivery_of(over_the_wire(encoded(message), count=count), "receipt", 30.0, sessions=sessions)


def returned(message: Outgoing, *, sessions: bool = False) -> Delivery:
    return delivered(sent(message, sessions=sessions), sessions=sessions)


def foreign(**sections: Any) -> Any:
    """A message of another producer, as received."""
    payload = bytearray()
    encode_payload(payload, Amqp(**sections))
    return over_the_wire(bytes(payload))


def read(received: Any, *, sessions: bool = False) -> Delivery:
    return delivery_of(received, "receipt", 30.0, sessions=sessions)


def content(event: Outgoing | Delivery) -> tuple[object, ...]:
    return event.body, dict(event.attributes), event.content_type, event.key


_OURS = ("eventkit-key", "eventkit-content-type", "eventkit-copy", "eventkit-attribute-", "content-type", "")
_ESCAPED = tuple("eventkit-attribute-" + name for name in (*_OURS, "a", "eventkit-attribute-eventkit-key"))
_MARKS = ("eventkit-alone-x", "eventkit-sha256-0", "Content-Type", '{"id":"x","deliveries":1}', "ä", "\x00", "🌍")
_LONG = ("x" * 128, "x" * 129, "é" * 128, "🌍" * 64, "🌍" * 65, "x" * 255, "x" * 256, "é" * 128)
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_some_text = st.one_of(_text, st.sampled_from([*_OURS, *_ESCAPED, *_MARKS, *_LONG]))
_messages = st.builds(
    Outgoing,
    body=st.binary(max_size=9) | st.sampled_from([b"", b"x" * 255, b"x" * 256]),
    attributes=st.dictionaries(_some_text, _some_text, max_size=4),
    content_type=st.none() | _some_text,
    key=st.none() | _some_text,
    event_id=_some_text,
    delay=st.just(0.0) | st.floats(0, 1e6),
)


@given(_messages, st.booleans())
@settings(max_examples=400, deadline=None)
def test_what_is_sent_arrives_byte_for_byte(message: Outgoing, sessions: bool) -> None:
    """Clause 8, with every rule of Service Bus kept; of what is text nothing needs to be refused."""
    delivery = returned(message, sessions=sessions)
    assert content(delivery) == content(message)
    assert delivery.delivery_count == 1
    assert delivery.enqueued_at == ENQUEUED / 1000


@given(_messages, st.booleans(), st.integers(0, 200), st.sampled_from(["v", "x" * 252, "x" * 253, "é" * 40]))
@settings(max_examples=200, deadline=None)
def test_a_size_is_that_of_the_sdk(message: Outgoing, sessions: bool, number: int, value: str) -> None:
    """A message at the limit goes, one byte over it does not: what is too large ends the SDK's link."""
    many = dict(message.attributes) | {str(index): value for index in range(number)}
    message = Outgoing(body=message.body, attributes=many, key=message.key, delay=message.delay)
    size = len(encoded(sent(message, sessions=sessions)))
    sent(message, sessions=sessions, most=size)
    assert f"{size:,} bytes" in refusal(message, sessions=sessions, most=size - 1) or len(message.body) >= size


@pytest.mark.parametrize("sessions", [True, False])
def test_a_size_is_that_of_the_sdk_at_every_step_of_its_lengths(sessions: bool) -> None:
    """Texts grow by three bytes at 256, maps and lists by six at 255 of content and at 128 entries."""
    for message in (
        *(Outgoing(body=b"x", attributes={"a": "x" * length}) for length in range(230, 262)),
        *(Outgoing(body=b"x", attributes={"a": "x" * 100, "b": "x" * length}) for length in range(130, 160)),
        *(Outgoing(body=b"x", content_type="x" * length) for length in range(120, 262)),
        *(Outgoing(body=b"x", attributes={str(n): "" for n in range(number)}) for number in range(120, 130)),
        *(Outgoing(body=b"x" * length) for length in range(250, 260)),
    ):
        size = len(encoded(sent(message, sessions=sessions)))
        sent(message, sessions=sessions, most=size)
        assert f"takes {size:,} bytes" in refusal(message, sessions=sessions, most=size - 1)


def test_a_size_is_that_by_which_a_batch_is_filled() -> None:
    """The sender adds up sizes, and the 5 or 8 bytes that a message takes in a batch beside its own."""
    for body, beside in ((b"x", 5), (b"x" * 300, 8)):
        batch = ServiceBusMessageBatch()
        empty = batch.size_in_bytes
        message = sent(Outgoing(body=body, attributes={"a": "b"}, delay=1.0))
        batch.add_message(message)
        assert batch.size_in_bytes - empty - beside == len(encoded(message))


@pytest.mark.parametrize("content_type", ["", "text/plain; charset=ü"])
def test_a_content_type_that_is_no_symbol_is_a_property(content_type: str) -> None:
    """AMQP has ASCII for it, and an empty one may come back as none."""
    message = sent(Outgoing(body=b"x", content_type=content_type))
    assert message.content_type is None
    assert message.application_properties == {"eventkit-content-type": content_type}
    assert delivered(message).content_type == content_type
    theirs = foreign(properties=Properties(content_type="x/y"), application_properties={"eventkit-content-type": "a"})
    assert read(theirs).content_type == "x/y"
    assert read(theirs).attributes == {"eventkit-content-type": "a"}


def test_a_copy_of_a_value_says_that_it_is_json() -> None:
    """Whatever property claims to be its content type."""
    theirs = foreign(application_properties={"eventkit-content-type": "a"}, value=7)
    copy = read(over_the_wire(encoded(copied(theirs))))
    assert content(copy) == content(read(theirs)) == (b"7", {"eventkit-content-type": "a"}, "application/json", None)


# -- keys and sessions -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["customer-1", "Ä/#? 1", "x" * 128, "🌍" * 64, "Eventkit-"])
def test_a_key_is_the_session_where_there_are_sessions(key: str) -> None:
    """Order is kept by it, and it costs no property."""
    message = sent(Outgoing(body=b"x", key=key), sessions=True)
    assert message.session_id == key
    assert message.application_properties is None


@pytest.mark.parametrize("key", ["", "x" * 129, "🌍" * 65, "eventkit-", "eventkit-sha256-x", "a\x00", "a\n"])
def test_a_key_that_cannot_be_a_session_is_hashed(key: str) -> None:
    """The same for the same key, so that its events stay in order."""
    first, second = (sent(Outgoing(body=body, key=key), sessions=True) for body in (b"x", b"y"))
    assert first.session_id == second.session_id
    assert str(first.session_id).startswith("eventkit-sha256-")
    assert delivered(first, sessions=True).key == key
    assert delivered(first, sessions=True).attributes == {}


def test_a_message_without_a_key_has_a_session_of_its_own() -> None:
    """An entity with sessions takes no message without one; it has no key all the same, on any entity."""
    message = sent(Outgoing(body=b"x"), sessions=True)
    assert message.session_id == "eventkit-alone-" + TOKEN
    assert delivered(message, sessions=True).key is None
    assert delivered(message, sessions=False).key is None


def test_without_sessions_a_key_is_a_property() -> None:
    """Neither session nor partition key, which the entity would act upon."""
    message = sent(Outgoing(body=b"x", key="k"))
    assert message.application_properties == {"eventkit-key": "k"}
    assert message.session_id is None


def test_the_session_of_another_producer_is_a_key() -> None:
    """With sessions and without; where both stand, ours is the one that is meant."""
    received = foreign(properties=Properties(group_id="s"), data=[b"x"])
    assert read(received, sessions=True).key == "s"
    assert read(received).key == "s"
    both = foreign(properties=Properties(group_id="s"), application_properties={"eventkit-key": "k"}, data=[b"x"])
    assert read(both).key == "k"


@pytest.mark.parametrize("session", [None, "", "a", "eventkit-sha256-0"])
@pytest.mark.parametrize("named", ["b", "x" * 129])
def test_with_sessions_a_key_is_believed_only_where_the_session_stands_for_it(session: str | None, named: str) -> None:
    """Order is by sessions; another key would let followers overtake."""
    properties = {"eventkit-key": named}
    delivery = read(foreign(properties=Properties(group_id=session), application_properties=properties), sessions=True)
    assert delivery.key == session
    assert delivery.attributes == properties


# -- ids and delays ----------------------------------------------------------------------------------


def test_an_id_tells_a_repeat_and_nothing_else() -> None:
    """Duplicate detection drops in silence; id, source and body make a repeat, other attributes do not."""

    def id_of(body: bytes = b"x", event_id: str = "1", source: str = "s", more: str = "") -> str | None:
        attributes = {"ce-source": source, "trace": more}
        return sent(Outgoing(body=body, event_id=event_id, attributes=attributes)).message_id

    assert id_of() == id_of(more="other")
    assert len({id_of(), id_of(body=b"y"), id_of(event_id="2"), id_of(source="t")}) == 4
    assert id_of(event_id="") == TOKEN


@pytest.mark.parametrize(
    ("delay", "due"), [(10.0, 1_719_878_410_000), (0.0001, 1_719_878_400_001), (1.0015, 1_719_878_401_002)]
)
def test_a_delay_ends_at_a_whole_millisecond_and_never_early(delay: float, due: int) -> None:
    """AMQP counts milliseconds."""
    annotations = decode_payload(memoryview(encoded(sent(Outgoing(body=b"x", delay=delay))))).message_annotations
    assert annotations == {b"x-opt-scheduled-enqueue-time": due}


def test_without_a_delay_nothing_is_scheduled() -> None:
    """A scheduled message takes a detour through the service."""
    assert decode_payload(memoryview(encoded(sent(Outgoing(body=b"x"))))).message_annotations is None


_WRONG: Any = 7
_OCTETS: Any = b"a"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Outgoing(body=b"x", delay=-0.1), "the delay is -0.1 s"),
        (Outgoing(body=b"x", delay=math.inf), "the delay is inf s"),
        (Outgoing(body=b"x", delay=math.nan), "the delay is nan s"),
        (Outgoing(body=b"x", delay=1e12), "no time before the year 10000"),
        (Outgoing(body=b"x", delay=1e308), "no time before the year 10000"),
        (Outgoing(body=b"x", attributes={"a": "\ud800"}), "attribute 'a' has a lone surrogate"),
        (Outgoing(body=b"x", attributes={"\ud800": "a"}), "name of an attribute has a lone surrogate"),
        (Outgoing(body=b"x", attributes={"a": _WRONG}), "attribute 'a' is int, not str"),
        (Outgoing(body=b"x", attributes={_OCTETS: "a"}), "name of an attribute is bytes, not str"),
        (Outgoing(body=b"x", attributes={"ce-source": "\ud800"}, event_id="1", spare=("ce-source",)), ""),
        (Outgoing(body=b"x", key="\udfff"), "the key has a lone surrogate"),
        (Outgoing(body=b"x", key=_OCTETS), "the key is bytes, not str"),
        (Outgoing(body=b"x", content_type="\udfff"), "the content type has a lone surrogate"),
        (Outgoing(body=b"x", content_type=_WRONG), "the content type is int, not str"),
        (Outgoing(body=b"x", event_id="\udfff"), "the event id has a lone surrogate"),
        (Outgoing(body=_WRONG), "the body is int, not bytes"),
        (Outgoing(body=b"x", attributes={"a": "x" * 33_000}), "the property 'a' takes 33,001 bytes"),
        (Outgoing(body=b"x", attributes={str(n): "x" * 30_000 for n in range(3)}), "all but the body takes 90,"),
        (Outgoing(body=b"secret" * 50_000), "the body has 300,000 bytes"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(message: Outgoing, reason: str) -> None:
    """Refused, neither replaced nor raised: the others of its batch go on. Never with payload."""
    if not reason:
        sent(message)
        return
    for sessions in (True, False):
        cause = refusal(message, sessions=sessions)
        assert reason in cause
        assert "secret" not in cause
        assert "xxx" not in cause


def test_what_may_be_spared_is_left_out_only_where_there_is_no_room() -> None:
    """A copy to be kept must be kept; what is said about it need not."""
    attributes = {"a": "b", "note": "x" * 900}
    message = Outgoing(body=b"x" * 500, attributes=attributes, spare=("note",))
    size = len(encoded(sent(message)))
    assert delivered(sent(message, most=size)).attributes == attributes
    assert delivered(sent(message, most=size - 1)).attributes == {"a": "b"}
    assert delivered(sent(Outgoing(body=b"", attributes={"a": "x" * 40_000}, spare=("a",)))).attributes == {}


# -- what others send --------------------------------------------------------------------------------

_UUID = uuid.UUID(int=5)


@pytest.mark.parametrize(
    ("sections", "body", "content_type"),
    [
        ({"data": [b"a", b"", b"b"]}, b"ab", "x/y"),
        ({"data": [b""]}, b"", "x/y"),
        ({}, b"", "x/y"),
        ({"value": b"\xff"}, b"\xff", "x/y"),
        ({"value": "täxt"}, "täxt".encode(), "x/y"),
        ({"value": True}, b"true", "application/json"),
        ({"value": 7}, b"7", "application/json"),
        ({"value": 1.5}, b"1.5", "application/json"),
        ({"value": math.nan}, b'"nan"', "application/json"),
        ({"value": _UUID}, f'"{_UUID}"'.encode(), "application/json"),
        ({"value": {"a": [1, None, b"\xff", "ä"], 1: _UUID}}, f'{{"a":[1,null,"/w==","ä"],"1":"{_UUID}"}}'.encode(),
         "application/json"),
        ({"sequence": [[1, "a"], [None]]}, b'[1,"a",null]', "application/json"),
    ],
)  # fmt: skip
def test_a_body_of_any_type_is_read(sections: Any, body: bytes, content_type: str) -> None:
    """Data as it is, joined; a string or binary value too; any other as JSON, and it says so."""
    delivery = read(foreign(properties=Properties(content_type="x/y"), **sections))
    assert (delivery.body, delivery.content_type) == (body, content_type)


def test_properties_of_any_type_are_text() -> None:
    """Null is left out; a time of CloudEvents may be one of AMQP, which the SDK makes milliseconds of."""
    properties: Any = {
        "s": "ä",
        "b": True,
        "f": False,
        "i": -7,
        "d": 1.5,
        "u": _UUID,
        "o": b"\xff",
        "n": None,
        "l": [1, {"a": _UUID}],
        "cloudEvents:time": {"TYPE": "TIMESTAMP", "VALUE": ENQUEUED},
        "cloudEvents_time": {"TYPE": "TIMESTAMP", "VALUE": 2**62},
        "t": {"TYPE": "TIMESTAMP", "VALUE": ENQUEUED},
    }
    attributes = read(foreign(application_properties=properties, data=[b"x"])).attributes
    assert attributes == {
        "s": "ä",
        "b": "true",
        "f": "false",
        "i": "-7",
        "d": "1.5",
        "u": str(_UUID),
        "o": "/w==",
        "l": f'[1,{{"a":"{_UUID}"}}]',
        "cloudEvents:time": "2024-07-02T00:00:00.123000+00:00",
        "cloudEvents_time": str(2**62),
        "t": str(ENQUEUED),
    }


@pytest.mark.parametrize(
    ("id", "text"), [("a", "a"), (7, "7"), (0, "0"), (_UUID, str(_UUID)), (b"\xff", "/w=="), (None, "4711")]
)
def test_an_id_of_any_type_is_text_and_one_that_is_missing_the_sequence_number(id: Any, text: str) -> None:
    """Attempts are counted by it."""
    assert read(foreign(properties=Properties(message_id=id), data=[b"x"])).message_id == text


@pytest.mark.parametrize(("header", "count"), [(None, 1), (0, 1), (4, 5)])
def test_the_first_delivery_is_number_one(header: int | None, count: int) -> None:
    """The service counts those that failed, and may leave out a zero."""
    message = sent(Outgoing(body=b"x"))
    assert delivered(message, count=header).delivery_count == count


def test_what_is_ours_and_cannot_be_is_handed_over_as_it_came() -> None:
    """The codec or the handler judges it; the markers are there to be seen."""
    for text in ("", "{", "[]", "null", '{"id":1,"deliveries":1}', '{"id":"a","deliveries":-1}', "[" * 30_000,
                 '{"id":"a","deliveries":1,"else":1}', '{"id":"a","deliveries":1,"enqueued":1e999}'):  # fmt: skip
        properties = {"eventkit-copy": text, "eventkit-attribute-eventkit-copy": "b", "eventkit-attribute-x": "c"}
        delivery = read(foreign(application_properties=properties, properties=Properties(message_id="m")))
        assert delivery.attributes == properties
        assert delivery.message_id == "m"
        assert delivery.delivery_count == 1


_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats()
    | st.binary(max_size=4)
    | st.sampled_from([b"eventkit-copy", b'{"id":"a","deliveries":1}', b"eventkit-key", b"x-opt-enqueued-time"])
    | st.uuids()
    | st.decimals()
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=3) | st.none(), inner, max_size=3),
    max_leaves=6,
)
_keys = st.binary(max_size=3) | st.integers() | st.none() | st.sampled_from([b"eventkit-copy", b"cloudEvents:time"])
_sections = st.dictionaries(_keys, _anything, max_size=3) | _anything
_annotated = st.dictionaries(
    st.sampled_from([b"x-opt-enqueued-time", b"x-opt-sequence-number", b"x-opt-partition-key"]), _anything
)
_FIELDS = ("message_id", "content_type", "group_id", "subject", "absolute_expiry_time", "creation_time")
_amqp = st.builds(
    Amqp,
    header=st.none() | st.builds(Header, delivery_count=_anything, ttl=_anything),
    message_annotations=_annotated | _sections,
    properties=st.none() | st.builds(Properties, **dict.fromkeys(_FIELDS, _anything)),
    application_properties=_sections,
    data=st.none() | st.lists(_anything, max_size=3),
    sequence=st.none() | st.lists(_anything, max_size=3),
    value=_anything,
    delivery_annotations=st.none(),
    footer=st.none(),
)


def test_a_decimal_is_text() -> None:
    """Beside the decoder, which cannot read most of them."""
    message = Amqp(application_properties={b"d": Decimal("1.50")}, value=[Decimal("1.50")])
    delivery = read(ServiceBusReceivedMessage(message, receiver=None))
    assert delivery.attributes == {"d": "1.50"}
    assert delivery.body == b'["1.50"]'


@given(_amqp, st.booleans())
@settings(max_examples=400, deadline=None)
def test_no_message_raises(message: Amqp, sessions: bool) -> None:
    """One that did would come again for ever: whatever a decoder can make of bytes, in every place."""
    received = ServiceBusReceivedMessage(message, receiver=None)
    delivery = read(received, sessions=sessions)
    assert all(isinstance(text, str) for pair in delivery.attributes.items() for text in pair)
    assert isinstance(delivery.body, bytes)
    assert isinstance(delivery.message_id, str)
    assert isinstance(delivery.key, str | None)
    assert isinstance(delivery.content_type, str | None)
    copied = copy_of(received, delay_until=NOW, token=TOKEN, most=MOST)
    if isinstance(copied, ServiceBusMessage):
        same = ("body", "attributes", "content_type", "key", "message_id", "enqueued_at")
        again = delivered(copied, sessions=sessions)
        for name in same:
            if name != "enqueued_at" or delivery.enqueued_at is not None:
                assert getattr(again, name) == getattr(delivery, name)


# -- the scheduled copy ------------------------------------------------------------------------------


def copied(received: Any, *, delay_until: float = NOW + 60, most: int = MOST) -> Message:
    copy = copy_of(received, delay_until=delay_until, token="new", most=most)
    assert isinstance(copy, ServiceBusMessage), copy
    return copy


@given(_messages, st.booleans(), st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_a_copy_is_delivered_as_its_original_counted_on(
    message: Outgoing, sessions: bool, first: int, second: int
) -> None:
    """Nothing that a handler or a policy sees tells that there are two, or three."""
    wire = over_the_wire(encoded(sent(message, sessions=sessions)), count=first)
    original = read(wire, sessions=sessions)
    again = over_the_wire(encoded(copied(wire)), count=second, enqueued=ENQUEUED + 60_000)
    third = over_the_wire(encoded(copied(again)), count=0, enqueued=ENQUEUED + 90_000)
    for received, count in ((again, first + second + 2), (third, first + second + 3)):
        delivery = read(received, sessions=sessions)
        assert content(delivery) == content(original) == content(message)
        assert delivery.message_id == original.message_id
        assert delivery.enqueued_at == original.enqueued_at
        assert delivery.delivery_count == count
        assert received.message_id == "new"


def test_a_copy_is_due_when_asked_and_keeps_what_its_sender_set() -> None:
    """Whoever answers it must find the same addresses."""
    fields: dict[str, Any] = {
        "to": "t",
        "subject": "s",
        "reply_to": "r",
        "correlation_id": "c",
        "reply_to_group_id": "g",
    }
    original = foreign(
        properties=Properties(group_id="session", content_encoding="gzip", **fields),
        message_annotations={b"x-opt-partition-key": "session"},
        data=[b"a", b"b"],
    )
    copy = over_the_wire(encoded(copied(original, delay_until=NOW + 1.0015)))
    assert copy.raw_amqp_message.annotations[b"x-opt-scheduled-enqueue-time"] == 1_719_878_401_002
    assert copy.partition_key == copy.session_id == "session"
    kept = copy.raw_amqp_message.properties
    assert {name: kept[name].decode() for name in fields} == fields
    assert kept.content_encoding == b"gzip"


@pytest.mark.parametrize(
    ("life", "left"), [(100_000, 40_123), (60_500, 1000), (1, 1000), (2**32 - 1, 2**32 - 60_000 + 122), (None, None)]
)
def test_a_copy_lives_as_long_as_the_original_would(life: int | None, left: int | None) -> None:
    """A time to live starts anew when the copy is due; it is due even if the original would be gone by then."""
    original = foreign(header=Header(ttl=life), data=[b"x"])
    copy = decode_payload(memoryview(encoded(copied(original))))
    assert (copy.header.ttl if copy.header else None) == left


def test_a_life_that_the_sdk_cannot_write_is_left_to_the_queue() -> None:
    """Over 49 days; the two times in the properties tell of it, the header does not."""
    fields = Properties(creation_time=ENQUEUED, absolute_expiry_time=ENQUEUED + 2**33)
    original = foreign(header=Header(ttl=2**32 - 1), properties=fields, data=[b"x"])
    assert decode_payload(memoryview(encoded(copied(original)))).header is None


def test_a_life_that_is_no_number_is_none() -> None:
    """Whatever a sender wrote beside two times that are."""
    header: Any = Header(ttl=b"x")  # type: ignore[arg-type]
    message = Amqp(header=header, properties=Properties(creation_time=1, absolute_expiry_time=1), data=[b"x"])
    assert copied(ServiceBusReceivedMessage(message, receiver=None)).time_to_live is None


def test_a_copy_that_does_not_fit_is_refused() -> None:
    """Its original must stay; sent all the same, it would end the link, and the retry with it."""
    original = foreign(properties=Properties(subject="s"), header=Header(ttl=100_000), data=[b"x" * 1000])
    size = len(encoded(copied(original)))
    copied(original, most=size + 16)
    refused = copy_of(original, delay_until=NOW, token="new", most=size - 1)
    assert isinstance(refused, Refused)
    assert "a body of 1,000," in refused.cause
    for time in (math.nan, math.inf, -math.inf, 1e30):
        assert isinstance(copy_of(original, delay_until=time, token="new", most=MOST), Refused)


def test_an_attribute_that_looks_like_a_copy_of_ours_stays_one() -> None:
    """What claims to be ours and is not is the sender's; the copy must not lose it."""
    original = foreign(application_properties={"eventkit-copy": "theirs", "eventkit-key": "k"}, data=[b"x"])
    again = read(over_the_wire(encoded(copied(original))))
    assert again.attributes == {"eventkit-copy": "theirs"}
    assert again.key == "k"
    assert json.loads(copied(original).application_properties["eventkit-copy"])["id"] == "4711"  # type: ignore[index,arg-type]


# -- cost --------------------------------------------------------------------------------------------


def test_both_ways_are_cheap() -> None:
    """They run for every message on the loop; the bounds are ten times what an idle core needs."""
    names = ("id", "source", "type", "specversion", "time", "subject")
    attributes = {f"ce-{name}": f"some-{name}" for name in names}
    message = Outgoing(body=b"x" * 200, attributes=attributes, content_type="application/json", event_id="e")
    wire = over_the_wire(encoded(sent(message)))
    there = lambda: message_of(message, most=MOST, sessions=False, token=TOKEN, now=NOW)  # noqa: E731
    one = min(repeat(there, number=1000, repeat=5)) / 1000
    other = min(repeat(lambda: delivery_of(wire, "r", 0.0, sessions=False), number=2000, repeat=5)) / 2000
    print(f"message_of {one * 1e6:.1f} us, delivery_of {other * 1e6:.1f} us")
    assert one < 200e-6
    assert other < 30e-6
