"""What `encode` writes, `Codec` reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventkit._codec import CloudEvent, Codec, Decoding, Envelope, encode
from eventkit.spi import Outgoing
from tests.unit.test_codec import delivery

Mode = Literal["structured", "binary"]

CODEC = Codec(Decoding(), "quakes")
DECODE = {data_type: CODEC.decoder(data_type) for data_type in (bytes, str, object)}

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12).filter(
    lambda name: name not in ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data")
)
texts = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=40)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)
events = st.builds(
    CloudEvent,
    id=texts,
    source=texts,
    type=texts,
    data=values | st.binary(max_size=40),
    subject=st.none() | texts,
    time=st.none() | st.datetimes(timezones=st.timezones()),
    extensions=st.dictionaries(names, texts, max_size=5),
)


def received(message: Outgoing) -> Envelope:
    return CODEC.read(delivery(message.body, message.content_type, message.attributes))


def event(**changes: Any) -> CloudEvent:
    return CloudEvent(**({"id": "e-1", "source": "/usgs", "type": "quake.recorded"} | changes))


@given(events, st.sampled_from(["structured", "binary"]))
def test_an_event_is_read_back_as_it_was(sent: CloudEvent, mode: Mode) -> None:
    """The round trip, in both modes, with any data."""
    envelope = received(encode(sent, mode=mode))

    assert (envelope.id, envelope.source, envelope.type) == (sent.id, sent.source, sent.type)
    assert envelope.subject == sent.subject
    assert (envelope.extensions or {}) == sent.extensions
    assert envelope.time == (sent.time.isoformat() if isinstance(sent.time, datetime) else None)
    assert envelope.time is None or datetime.fromisoformat(envelope.time).tzinfo
    if isinstance(sent.data, bytes):
        assert DECODE[bytes](envelope) == sent.data
        assert not envelope.is_json
    else:
        assert DECODE[object](envelope) == sent.data
    if isinstance(sent.data, str):
        assert DECODE[str](envelope) == sent.data


@given(st.text(max_size=40), st.sampled_from(["structured", "binary"]))
def test_text_travels_as_text_under_its_own_content_type(text: str, mode: Mode) -> None:
    """Not as a JSON string that a reader of text would show with its quotes."""
    envelope = received(encode(event(data=text, content_type="text/plain"), mode=mode))

    assert (DECODE[str](envelope), DECODE[bytes](envelope)) == (text, text.encode())
    assert not envelope.is_json


@given(st.binary(max_size=40), st.sampled_from(["structured", "binary"]))
def test_octets_travel_untouched_whatever_they_claim_to_be(data: bytes, mode: Mode) -> None:
    """Damaged JSON must be publishable: tests of dead letters start with it."""
    envelope = received(encode(event(data=data, content_type="application/json"), mode=mode))

    assert DECODE[bytes](envelope) == data
    assert envelope.is_json


def test_a_structured_event_is_one_json_object() -> None:
    """As section 3.2 of the JSON format shows it."""
    message = encode(event(data={"magnitude": 4.5}, subject="us1"), key="us", delay=2.5)

    assert msgspec.json.decode(message.body) == {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/usgs",
        "type": "quake.recorded",
        "subject": "us1",
        "data": {"magnitude": 4.5},
    }
    assert (message.content_type, message.attributes) == ("application/cloudevents+json", {})
    assert (message.key, message.delay, message.event_id) == ("us", 2.5, "e-1")


def test_a_binary_event_keeps_its_attributes_beside_the_data() -> None:
    """So a reader that knows no CloudEvents finds the data alone."""
    message = encode(event(data={"magnitude": 4.5}, extensions={"traceparent": "00-1"}), mode="binary", key="us")

    assert (message.body, message.content_type) == (b'{"magnitude":4.5}', "application/json")
    assert message.attributes == {
        "ce-specversion": "1.0",
        "ce-id": "e-1",
        "ce-source": "/usgs",
        "ce-type": "quake.recorded",
        "ce-traceparent": "00-1",
    }
    assert (message.key, message.event_id) == ("us", "e-1")


@dataclass
class Quake:
    magnitude: float


class QuakeModel(pydantic.BaseModel):
    magnitude: float = pydantic.Field(alias="mag")


@pytest.mark.parametrize("mode", ["structured", "binary"])
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (Quake(4.5), b'{"magnitude":4.5}'),
        (QuakeModel(mag=4.5), b'{"mag":4.5}'),
        ([QuakeModel(mag=4.5)], b'[{"mag":4.5}]'),
        (msgspec.Raw(b'{"as": "it is"}'), b'{"as": "it is"}'),
        (bytearray(b"\x00"), b"\x00"),
        (memoryview(b"\x00"), b"\x00"),
        (math.nan, b"null"),
        ("text", b'"text"'),
        (None, b""),
    ],
    ids=lambda value: type(value).__name__,  # the same in every process
)
def test_data_may_be_of_any_type_that_becomes_json(data: object, text: bytes, mode: Mode) -> None:
    """The types that can be read can be written."""
    assert received(encode(event(data=data), mode=mode)).data == text


def test_times_may_be_given_as_text() -> None:
    """For those who have it so already."""
    assert received(encode(event(time="2018-02-07t12:00:00z"))).time == "2018-02-07T12:00:00Z"
    when = datetime(2018, 2, 7, 12, tzinfo=timezone(timedelta(hours=1)))
    assert received(encode(event(time=when))).time == "2018-02-07T12:00:00+01:00"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "CloudEvent attribute id: must not be empty"),
        ({"source": "a\nb"}, "CloudEvent attribute source: has control characters"),
        ({"type": "a" * 1025}, "CloudEvent attribute type: longer than 1024 bytes"),
        ({"subject": "\x1b"}, "CloudEvent attribute subject: has control characters"),
        ({"time": "now"}, "CloudEvent attribute time: expected an RFC 3339 time with an offset"),
        ({"time": datetime(2018, 2, 7)}, "CloudEvent attribute time: a datetime without time zone"),  # noqa: DTZ001
        ({"extensions": {"Upper": "x"}}, "CloudEvent extension 'Upper': must be lower-case letters and digits"),
        ({"extensions": {"a-b": "x"}}, "CloudEvent extension 'a-b'"),
        ({"extensions": {"id": "x"}}, "CloudEvent extension 'id'"),
        ({"extensions": {"a": "\n"}}, r"CloudEvent attribute \[...\]: has control characters"),
        ({"extensions": {f"a{n}": "x" for n in range(30)}}, "34 attributes are more than the 30 that are read back"),
        ({"content_type": "text\n/plain", "data": "x"}, "content type: has control characters"),
        ({"content_type": "image/png", "data": {}}, "data of type dict travels as JSON, not as image/png"),
    ],
)
@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_what_could_not_be_read_back_is_not_written(changes: dict[str, Any], message: str, mode: Mode) -> None:
    """A mistake shows at the publisher, not in the dead letters."""
    with pytest.raises(ValueError, match=message):
        encode(event(**changes), mode=mode)


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_data_that_is_no_json_is_a_type_error(mode: Mode) -> None:
    """As it is for every encoder."""
    with pytest.raises(TypeError, match="object cannot be encoded as JSON"):
        encode(event(data=object()), mode=mode)
