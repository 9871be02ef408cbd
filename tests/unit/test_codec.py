"""Which envelope a delivery has, in every format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventkit._codec import Codec, Decoding, Envelope
from eventkit.errors import ConfigurationError, DecodeError
from eventkit.spi import Delivery

EVENT = {"specversion": "1.0", "id": "e-1", "source": "/usgs", "type": "quake.recorded", "data": {"magnitude": 4.5}}
STRUCTURED = "application/cloudevents+json"
CE = {"specversion": "1.0", "id": "e-1", "source": "/usgs", "type": "quake.recorded"}


def delivery(body: bytes, content_type: str | None = None, attributes: Mapping[str, str] | None = None) -> Delivery:
    return Delivery(
        receipt=None,
        body=body,
        message_id="m-1",
        leased_until=0.0,
        content_type=content_type,
        attributes=attributes or {},
    )


def read(
    body: bytes,
    content_type: str | None = None,
    attributes: Mapping[str, str] | None = None,
    *,
    decoding: Decoding | None = None,
) -> Envelope:
    return Codec(decoding or Decoding(), "quakes").read(delivery(body, content_type, attributes))


def structured(**changes: object) -> Envelope:
    """EVENT with changes, `...` for a member to leave out, read in structured mode."""
    return read(event(**changes), STRUCTURED)


def event(**changes: object) -> bytes:
    return msgspec.json.encode({name: value for name, value in (EVENT | changes).items() if value is not ...})


def binary(**changes: str) -> Envelope:
    """CE with changes, read in binary mode."""
    return read(b"{}", None, prefixed(**changes))


def prefixed(prefix: str = "ce-", /, **changes: str) -> dict[str, str]:
    return {prefix + name: value for name, value in (CE | changes).items()}


def test_a_plain_body_is_named_by_the_broker_and_its_attributes() -> None:
    """Most queues carry no CloudEvents: an event must still have an id, a source and a type to route by."""
    envelope = read(b'{"a":1}', "application/json", {"type": "order.placed", "event_type": "not this"})

    assert (envelope.id, envelope.source, envelope.type) == ("m-1", "quakes", "order.placed")
    assert (envelope.data, envelope.is_json, envelope.extensions) == (b'{"a":1}', True, None)


def test_event_type_is_the_second_name_of_the_type() -> None:
    """Publishers disagree on the name; both are common."""
    assert read(b"{}", None, {"event_type": "order.placed"}).type == "order.placed"
    assert read(b"{}", None, {"other": "x"}).type == ""


def test_a_structured_cloud_event_is_read_whole() -> None:
    """The format that eventkit itself sends."""
    envelope = structured(subject="us1000", time="2018-02-07T12:00:00.25Z", datacontenttype="application/json")

    assert (envelope.id, envelope.source, envelope.type) == ("e-1", "/usgs", "quake.recorded")
    assert (envelope.subject, envelope.time) == ("us1000", "2018-02-07T12:00:00.25Z")
    assert (envelope.data, envelope.is_json, envelope.extensions) == (b'{"magnitude":4.5}', True, None)


def test_extensions_become_text() -> None:
    """CloudEvents knows booleans and integers there; attributes of a message are text on every broker."""
    envelope = structured(traceparent="00-1", retry=True, count=12, ratio=0.5, gone=None, dataschema="/s")

    assert envelope.extensions == {
        "traceparent": "00-1",
        "retry": "true",
        "count": "12",
        "ratio": "0.5",
        "dataschema": "/s",
    }


@pytest.mark.parametrize("gap", ["", " ", "\n  "])
def test_white_space_in_a_structured_event_changes_nothing(gap: str) -> None:
    """Most Python producers send `json.dumps`, with its blanks; duplicates are found by length in compact text."""
    body = '{"specversion":"1.0","id":"e-1","source":"/usgs","type":"t","data":[1],"x":"y"}'
    envelope = read(body.replace(":", ":" + gap).replace(",", "," + gap).encode(), STRUCTURED)

    assert (envelope.id, envelope.data, envelope.extensions) == ("e-1", b"[1]", {"x": "y"})


def test_optional_members_may_be_null() -> None:
    """CloudEvents takes null as not given."""
    envelope = structured(subject=None, time=None, datacontenttype=None, data_base64=None)

    assert (envelope.subject, envelope.time, envelope.extensions) == (None, None, None)


def test_base64_data_is_decoded() -> None:
    """Data that is no JSON travels so."""
    envelope = structured(data=..., data_base64="AP8=")

    assert (envelope.data, envelope.is_json) == (b"\x00\xff", False)
    assert structured(data=..., data_base64="e30=", datacontenttype="application/json").is_json


def test_a_string_of_another_content_type_is_text() -> None:
    """CloudEvents JSON format, section 3.1: such data travels as a JSON string."""
    envelope = structured(data="a\nb", datacontenttype="text/plain")

    assert (envelope.data, envelope.is_json) == (b"a\nb", False)
    assert structured(data={"a": 1}, datacontenttype="text/plain").data == b'{"a":1}'
    assert structured(data="a", datacontenttype="application/vnd.x+json").data == b'"a"'


def test_an_event_without_data_has_none() -> None:
    """An event may say all it has to say by its type."""
    assert structured(data=...).data == b""
    assert structured(data=None).data == b"null"


@pytest.mark.parametrize("prefix", ["ce-", "ce_", "cloudEvents:", "cloudEvents_", "CE-", "cloudevents:"])
def test_a_binary_cloud_event_is_read_under_every_prefix(prefix: str) -> None:
    """HTTP and Pub/Sub, Kafka and AMQP each have their own, and brokers change the case."""
    attributes = prefixed(prefix, subject="us1", time="2018-02-07T12:00:00Z", TraceParent="00-1")
    envelope = read(b"{}", None, attributes)

    assert (envelope.id, envelope.source, envelope.type) == ("e-1", "/usgs", "quake.recorded")
    assert (envelope.subject, envelope.time) == ("us1", "2018-02-07T12:00:00Z")
    assert (envelope.data, envelope.extensions) == (b"{}", {"traceparent": "00-1"})


def test_the_content_type_of_a_binary_event_is_that_of_its_data() -> None:
    """Octets under any content type may be handed over: the handler's type decides whether they are JSON."""
    assert read(b"{}", "application/json", prefixed()).is_json
    assert read(b"{}", None, prefixed()).is_json
    assert not read(b"\x89PNG", "image/png", prefixed()).is_json
    assert not binary(datacontenttype="text/plain").is_json


def test_attributes_without_the_prefix_are_no_extensions() -> None:
    """They stay where they are, on the delivery."""
    attributes = prefixed() | {"traceparent": "00-1"}

    assert read(b"{}", None, attributes).extensions is None


def test_an_event_of_no_stated_content_type_is_recognised() -> None:
    """SQS, for one, has no content type."""
    assert read(event()).id == "e-1"
    assert read(event(source=...)).id == "m-1"
    assert read(b'{"specversion":"1.0"', None).id == "m-1"
    assert read(b'["specversion"]', None).id == "m-1"
    assert read(b'"specversion"', None).id == "m-1"


def test_an_event_of_no_stated_content_type_must_be_a_good_one() -> None:
    """What has all that a CloudEvent has is one: it must not pass as plain JSON by being a bad one."""
    with pytest.raises(DecodeError, match=r"CloudEvent: \$\.id: expected str, got int"):
        read(event(id=1))


def test_json_that_states_its_content_type_is_not_searched_for_an_envelope() -> None:
    """What the producer says is believed."""
    assert read(event(), "application/json").id == "m-1"


def test_the_structured_content_type_wins_over_attributes() -> None:
    """As the bindings say: the content type decides the mode."""
    body = event(id="inner")

    assert read(body, STRUCTURED, prefixed()).id == "inner"


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json", True),
        ("Application/JSON; charset=UTF-8", True),
        ('application/json; charset="utf-8"', True),
        ("application/problem+json", True),
        ("text/json", True),
        ("text/plain", False),
        ("text/plain; format=flowed", False),
        ("application/octet-stream", False),
        ("", True),
        (None, True),
    ],
)
def test_known_content_types_are_read(content_type: str | None, is_json: bool) -> None:
    """The allow list of T1."""
    assert read(b"{}", content_type).is_json is is_json


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-python-pickle",
        "application/yaml",
        "application/cloudevents-batch+json",
        "application/cloudevents+avro",
        "application/json; charset=utf-16",
        "text/plain; charset=iso-8859-1",
        "json",
        "application/json" + " " * 300,
    ],
)
def test_other_content_types_are_refused(content_type: str) -> None:
    """T1: a header never brings another codec in; T6: nothing is ever transcoded."""
    with pytest.raises(DecodeError, match="content type is none of"):
        read(b"{}", content_type)


def test_the_memory_of_content_types_is_bounded() -> None:
    """T17: a sender that makes up content types must not fill the memory."""
    codec = Codec(Decoding(), "quakes")
    for number in range(1000):
        codec.read(delivery(b"{}", f"application/json; n={number}"))

    assert len(codec._forms) <= 256


@pytest.mark.parametrize("name", ["json", "raw"])
def test_json_and_raw_never_look_for_an_envelope(name: Literal["json", "raw"]) -> None:
    """A configured format is not overruled by what a message says of itself."""
    attributes = prefixed() | {"type": "t"}
    for content_type in (STRUCTURED, "application/yaml", None):
        envelope = read(b"{}", content_type, attributes, decoding=Decoding(format=name))

        assert (envelope.id, envelope.type, envelope.is_json) == ("m-1", "t", name == "json")


def test_the_cloud_events_format_takes_nothing_else() -> None:
    """T15, in part: who says that every event has an envelope is not served one without."""
    only = Decoding(format="cloudevents")
    attributes = prefixed()

    assert read(event(), "application/json", decoding=only).id == "e-1"
    assert read(b"\x00", "image/png", attributes, decoding=only).id == "e-1"
    with pytest.raises(DecodeError, match=r"CloudEvent: \$\.specversion: required, and missing"):
        read(b"{}", "application/json", decoding=only)


@pytest.mark.parametrize("time", ["2018-02-07T12:00:00Z", "2018-02-07T12:00:00.123456789+05:30"])
def test_times_of_rfc_3339_are_taken_as_they_are(time: str) -> None:
    """`Event.time` reads them with the standard library."""
    assert structured(time=time).time == time


@pytest.mark.parametrize("time", ["2018-02-07t12:00:00z", "2018-02-07 12:00:00Z"])
def test_unusual_times_of_rfc_3339_are_made_usual(time: str) -> None:
    """RFC 3339, section 5.6, allows small letters and a blank; the standard library does not read them all."""
    assert structured(time=time).time == "2018-02-07T12:00:00Z"


@pytest.mark.parametrize(
    "time",
    [
        "",
        "yesterday",
        "1517961600",
        "2018-02-07",
        "2018-02-07T12:00:00",
        "2018-13-07T12:00:00Z",
        "2018-W06-3T12:00:00Z",
        "20180207T120000Z",
        f"2018-02-07T12:00:00.{'0' * 300}Z",
    ],
)
def test_other_times_are_refused(time: str) -> None:
    """A time without an offset is no point in time."""
    for mode in (structured, binary):
        with pytest.raises(DecodeError, match="attribute time: expected an RFC 3339 time"):
            mode(time=time)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"specversion": "0.3"}, "CloudEvent attribute specversion: expected 1.0"),
        ({"specversion": ...}, "CloudEvent: $.specversion: required, and missing"),
        ({"id": ...}, "CloudEvent: $.id: required, and missing"),
        ({"id": None}, "CloudEvent: $.id: expected str, got null"),
        ({"id": ""}, "CloudEvent attribute id: must not be empty"),
        ({"source": ""}, "CloudEvent attribute source: must not be empty"),
        ({"type": ""}, "CloudEvent attribute type: must not be empty"),
        ({"type": ["a"]}, "CloudEvent: $.type: expected str, got array"),
        ({"data_base64": "AA=="}, "CloudEvent: has both data and data_base64"),
        ({"data_base64": "!", "data": ...}, "CloudEvent: $.data_base64: invalid base64 encoded string"),
        ({"extra": {}}, "CloudEvent attribute [...]: expected a string, number or boolean"),
        ({"extra": []}, "CloudEvent attribute [...]: expected a string, number or boolean"),
    ],
)
def test_a_bad_structured_event_is_refused(changes: dict[str, object], message: str) -> None:
    """T22: odd envelopes crashed dapr's workers."""
    with pytest.raises(DecodeError) as caught:
        structured(**changes)

    assert str(caught.value) == message


@pytest.mark.parametrize("body", [b"null", b"[]", b"1", b"", b"{", b"\x00", b"{}", b'{"id":', b"\xff"])
def test_what_is_no_object_is_no_event(body: bytes) -> None:
    """T22: null and odd envelopes."""
    with pytest.raises(DecodeError):
        read(body, STRUCTURED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"specversion": "0.3"}, "CloudEvent attribute specversion: expected 1.0"),
        ({"id": ""}, "CloudEvent attribute id: must not be empty"),
        ({"ID": "other"}, "CloudEvent: an attribute is given twice"),
    ],
)
def test_a_bad_binary_event_is_refused(changes: dict[str, str], message: str) -> None:
    """T22, for attributes."""
    with pytest.raises(DecodeError) as caught:
        binary(**changes)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    "extra",
    ['"id":"e-2"', '"\\u0069d":"e-2"', '"x":1,"x":1', '"data":1', '"":1,"":2', '"data":{"a":1}', '"x":null,"x":null'],
)
@pytest.mark.parametrize("gap", ["", " ", "   "])
def test_a_member_given_twice_is_refused(extra: str, gap: str) -> None:
    """T6: two readers that pick different ones see different events."""
    body = msgspec.json.encode(EVENT).decode()[:-1].replace(",", "," + gap) + "," + gap + extra + gap + "}"

    with pytest.raises(DecodeError, match="CloudEvent: a member is given twice"):
        read(body.encode(), STRUCTURED)


gaps = st.sampled_from(["", "", " ", "\n\t"])
scalars = st.text(max_size=6) | st.booleans() | st.none() | st.integers(-999, 999)
extra_members = st.lists(
    st.tuples(st.sampled_from(["id", "subject", "data", "x", "y", "é", "/", ""]), scalars), max_size=4
)


@given(extra_members, gaps, gaps, gaps)
def test_members_are_read_if_and_only_if_each_is_given_once(
    extra: list[tuple[str, object]], before: str, between: str, after: str
) -> None:
    """However the body is spaced: duplicates are ruled out by length where that can be done."""
    given_members = [*EVENT.items(), *extra]
    body = ("," + between).join(
        f"{before}{json.dumps(name, ensure_ascii=False)}{after}:{json.dumps(value, ensure_ascii=False)}"
        for name, value in given_members
    )
    twice = len(dict(given_members)) < len(given_members)
    extensions, problem = read_or_not(f"{{{body}}}".encode())
    if problem:  # which may be another one, found first
        assert twice or "control characters" in problem or "expected str" in problem
        return
    assert not twice
    expected = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in extra
        if name not in ("id", "subject", "data") and value is not None
    }
    assert extensions == expected


def test_an_escaped_name_is_refused() -> None:
    """No attribute needs one, and it is one more way to give a member twice."""
    with pytest.raises(DecodeError, match="or its name is escaped"):
        read(event(x=1).replace(b'"x"', b'"\\u0078"'), STRUCTURED)


def read_or_not(body: bytes) -> tuple[Mapping[str, str], str]:
    """The extensions of a structured event, or why it is none."""
    try:
        return read(body, STRUCTURED).extensions or {}, ""
    except DecodeError as exc:
        return {}, str(exc)


def test_a_duplicate_cannot_hide_behind_what_encodes_longer() -> None:
    """Duplicates are ruled out by length alone, so nothing may be longer encoded than it was."""
    for text in [chr(code) for code in range(0x80)] + ["\u2028", "é", "\U0001f600"]:
        shortest = {"\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", '"': r"\"", "\\": r"\\"}.get(text)
        if shortest is None:
            shortest = text if text >= " " else f"\\u{ord(text):04x}"

        assert len(msgspec.json.encode(text)) <= len(f'"{shortest}"'.encode())


@pytest.mark.parametrize("character", ["\x00", "\n", "\r", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ufffe"])
@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "extra"])
def test_control_characters_are_refused_in_attributes(name: str, character: str) -> None:
    """T10: forged log lines, terminal escapes."""
    for mode in (structured, binary):
        with pytest.raises(DecodeError, match="has control characters"):
            mode(**{name: f"a{character}b"})


@pytest.mark.parametrize("character", ["\n", "\u2028", "\x1b"])
def test_control_characters_are_refused_without_an_envelope_too(character: str) -> None:
    """T10: the id is then the broker's, which some brokers let the publisher choose."""
    with pytest.raises(DecodeError, match="attribute type: has control characters"):
        read(b"{}", None, {"type": character})
    named = msgspec.structs.replace(delivery(b"{}"), message_id=character)
    with pytest.raises(DecodeError, match="message id: has control characters"):
        Codec(Decoding(), "quakes").read(named)


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "extra"])
def test_attributes_are_at_most_a_kibibyte(name: str) -> None:
    """T9; counted in bytes, as brokers do."""
    for mode in (structured, binary):
        assert mode(**{name: "é" * 512}).id
        for long in ("a" * 1025, "é" * 513):
            with pytest.raises(DecodeError, match="longer than 1024 bytes"):
                mode(**{name: long})


def test_names_of_attributes_are_bounded_and_clean() -> None:
    """T9 and T10: names reach logs as field names."""
    for mode in (structured, binary):
        assert mode(**{"a" * 256: "x"}).extensions == {"a" * 256: "x"}
        for name, message in (("a" * 257, "longer than 256"), ("é" * 129, "longer than 256"), ("a\n", "control")):
            with pytest.raises(DecodeError, match=f"the name of a CloudEvent attribute: .*{message}"):
                mode(**{name: "x"})


def test_at_most_32_attributes_are_read() -> None:
    """T9: many attributes are a cost for each that looks at them."""
    some = {f"a{number}": "x" for number in range(32 - len(CE))}

    assert len(binary(**some).extensions or {}) == 28
    assert len(structured(data=..., **some).extensions or {}) == 28
    for mode in (structured, binary):
        with pytest.raises(DecodeError, match="CloudEvent: more than 32 attributes"):
            mode(**some, one="more", two="more")


def test_a_binary_event_behind_many_attributes_is_not_looked_for() -> None:
    """T9: only the first 32 names are looked at."""
    many = {f"a{number}": "x" for number in range(32)} | prefixed()

    assert read(b"{}", None, many).id == "m-1"


@pytest.mark.parametrize("name", ["eventkit-attempt", "EventKit-Replay"])
def test_attributes_in_the_name_of_eventkit_are_dropped(name: str) -> None:
    """T9: a sender must not forge an attempt count or a replay flag."""
    for mode in (structured, binary):
        extensions = mode(**{name: "99", "kept": "x"}).extensions

        assert extensions == {"kept": "x"}


def test_a_decoding_lists_all_that_is_wrong() -> None:
    """One run shows every mistake."""
    with pytest.raises(ConfigurationError) as caught:
        Decoding(
            format="pickle",  # type: ignore[arg-type]
            max_bytes=0,
            max_depth="64",  # type: ignore[arg-type]
            max_elements=True,
            max_digits=1.5,  # type: ignore[arg-type]
            duplicate_keys="maybe",  # type: ignore[arg-type]
        )

    assert len(caught.value.problems) == 6
    assert caught.value.problems[0] == "Decoding(format='pickle'): must be one of auto, cloudevents, json, raw"
