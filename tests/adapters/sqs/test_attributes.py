"""What SQS takes as text and as names, and which attributes stand as they are."""

from __future__ import annotations

import json
from string import ascii_letters
from typing import Any

import pytest
from eventkit_sqs._attributes import KEY, PACKED, check, content_type_in, placed, texts
from eventkit_sqs._text import is_id, is_name, is_text, text_of
from hypothesis import given
from hypothesis import strategies as st

from eventkit.spi import Outgoing


def _numbered(number: int) -> dict[str, str]:
    return {f"name-{index}": str(index) for index in range(number)}


def _placed(attributes: dict[str, str], *, key: str | None = None, spare: tuple[str, ...] = ()) -> dict[str, str]:
    message = Outgoing(body=b"x", attributes=attributes, spare=spare)
    check(message)
    return placed(message, key=key, marker=None)


@pytest.mark.parametrize("text", ["a", " ", "\t\n\r", "\x7f\x85", "\ud7ff\ue000\ufffd", "\U0001fffe", "🌍", "\ufeffa"])
def test_text_of_xml_characters_goes_as_it_is(text: str) -> None:
    """The edges of the ranges in the documentation of SendMessage."""
    assert text_of(text.encode()) == text
    assert is_text(text)


@pytest.mark.parametrize("text", ["", "\x00", "a\x08", "\x0b", "\x0c", "\x1f", "é\x0e", "é\ufffe", "\uffff"])
def test_other_text_does_not(text: str) -> None:
    """The service refuses these, or drops them in XML."""
    assert text_of(text.encode()) is None
    assert not is_text(text)


@pytest.mark.parametrize("body", [b"\xff", b"a\x80", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"])
def test_what_is_not_utf8_is_no_text(body: bytes) -> None:
    """Surrogates, overlong forms, and what is beyond Unicode."""
    assert text_of(body) is None


def test_a_lone_surrogate_is_no_text() -> None:
    """It is no XML character either."""
    assert not is_text("a\ud800")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_and_strings_are_judged_alike(text: str) -> None:
    """Two checks, each the fast one for its type, of one rule."""
    assert (text_of(text.encode()) is not None) == is_text(text)


@pytest.mark.parametrize("name", ["a", "A.b-c_d", "1", "-", "aws", "AWSTrace", "x" * 256, "amazonas.x"])
def test_names_of_the_documented_characters_are_native(name: str) -> None:
    """Attributes are visible in the console and to other consumers only as what they are."""
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", ".a", "a.", "a..b", "AWS.x", "aws.x", "Amazon.a", "aMAZON.a", "a b", "ä", "a:b", "x" * 257, "a\n"]
)
def test_other_names_are_not(name: str) -> None:
    """The service refuses the whole message for one of them."""
    assert not is_name(name)


@pytest.mark.parametrize(("text", "legal"), [("!~aZ0", True), ("x" * 128, True), ("x" * 129, False), ("", False)])
def test_ids_are_of_ascii_without_spaces(text: str, legal: bool) -> None:
    """Of a group, and for deduplication."""
    assert is_id(text) is legal
    assert not is_id("a b")
    assert not is_id("ä")


def test_ten_attributes_are_native() -> None:
    """What SQS can hold is left alone."""
    assert _placed(_numbered(10)) == _numbered(10)


def test_the_eleventh_costs_the_tenth_its_place() -> None:
    """Nine in the order of the mapping, and one that holds the rest."""
    native = _placed(_numbered(11))
    assert list(native) == [*_numbered(9), PACKED]
    assert json.loads(native[PACKED]) == {"attributes": {"name-9": "9", "name-10": "10"}}


def test_a_key_takes_one_of_the_ten_places() -> None:
    """It is counted before the sender's attributes."""
    native = _placed(_numbered(10), key="k")
    assert native[KEY] == "k"
    assert list(native)[1:] == [*_numbered(8), PACKED]


def test_what_may_be_spared_and_the_trace_are_native_first() -> None:
    """A dead letter is looked at in the console: why it died must be seen there, beside whatever it carried."""
    trace = {"tracestate": "a=1", "traceparent": "00-ab"}
    native = _placed(_numbered(10) | trace | {"eventkit-dead-letter": "{}", "why": "x"}, spare=("why",))
    assert list(native) == [*list(_numbered(5)), "tracestate", "traceparent", "eventkit-dead-letter", "why", PACKED]


@pytest.mark.parametrize("name", ["eventkit-body", "eventkit-key", "eventkit-packed", "content-type", "Content-Type"])
def test_a_senders_attribute_of_our_name_is_packed(name: str) -> None:
    """It would be taken for ours, and not come back."""
    assert list(_placed({name: "base64"})) == [PACKED]


@given(st.dictionaries(st.text(ascii_letters + ".- ä\x00🌍", max_size=4), st.text(max_size=4), max_size=14))
def test_the_pack_is_plain_ascii(attributes: dict[str, str]) -> None:
    """Escaped, no character in it is one that XML has not."""
    message = Outgoing(body=b"x", attributes={n: v.encode("utf-8", "ignore").decode() for n, v in attributes.items()})
    check(message)
    pack = placed(message, key=None, marker=None).get(PACKED, "{}")
    assert pack.isascii()
    assert is_text(pack)


def test_values_are_read_whatever_their_type() -> None:
    """Numbers by their text, octets in base64, labels ignored; what has no value is left out, and nothing raises."""
    wire: dict[str, dict[str, Any]] = {
        "text": {"DataType": "String", "StringValue": "a"},
        "label": {"DataType": "String.json", "StringValue": "{}"},
        "number": {"DataType": "Number", "StringValue": "1.50"},
        "octets": {"DataType": "Binary.png", "BinaryValue": b"\x00\xff"},
        "none": {"DataType": "String"},
        "list": {"DataType": "String", "StringListValues": ["a"]},
        "odd": {"DataType": "String", "StringValue": 7},
    }
    assert texts(wire) == {"text": "a", "label": "{}", "number": "1.50", "octets": "AP8="}


def test_a_content_type_is_found_in_common_spellings() -> None:
    """Producers of other libraries write it as in HTTP; of two the first counts, the other stays visible."""
    attributes = {"contentType": "b", "Content-Type": "a", "x": "y"}
    assert content_type_in(attributes) == "a"
    assert attributes == {"contentType": "b", "x": "y"}
    assert content_type_in({"x": "y"}) is None
