"""Limits on JSON: the cheap look and the exact scan, and what they are for."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from time import process_time

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventkit._codec import Codec, Decoding
from eventkit._codec._bounds import Bounds
from eventkit.errors import DecodeError
from tests.unit.test_codec import EVENT, STRUCTURED, delivery, read

MIB = 1024 * 1024
SMALL = Decoding(max_depth=3, max_elements=6, max_digits=4)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text('a[]{}",:\\/\n0123456789é', max_size=12)
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\[{0', max_size=3), inner, max_size=4),
    max_leaves=12,
)


def verdict(body: bytes, decoding: Decoding = SMALL) -> str:
    """What the check says: "" when nothing is wrong."""
    try:
        Bounds(decoding).check(body)
    except DecodeError as exc:
        return str(exc)
    return ""


def scanned(body: bytes, decoding: Decoding = SMALL) -> str:
    """What the scan says of a body that the cheap look need not have led to it."""
    try:
        Bounds(decoding).scan(body)
    except DecodeError as exc:
        return str(exc)
    return ""


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


def elements_of(value: object) -> int:
    """Commas and opening brackets of `value` as JSON."""
    if not isinstance(value, dict | list):
        return 0
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(len(inner) - 1, 0) + sum(map(elements_of, inner))


def digits_of(value: object) -> int:
    if isinstance(value, dict | list):
        return max(map(digits_of, value.values() if isinstance(value, dict) else value), default=0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return sum(character.isdigit() for character in json.dumps(value))


@given(documents, st.sampled_from([(",", ":"), (", ", ": ")]))
@example([[[[]]]], (",", ":"))
@example("[[[[", (",", ":"))
@example("\\\"[[[['\\", (",", ":"))
@example(12345, (",", ":"))
@example("12345", (",", ":"))
@example({"[[[[": {"a": {"b": {"c": 1}}}}, (", ", ": "))
def test_the_cheap_look_and_the_exact_scan_agree_with_the_document(document: object, gaps: tuple[str, str]) -> None:
    """What is in strings never counts, and no limit is passed over because a body is short."""
    body = json.dumps(document, separators=gaps).encode()
    fits = (
        depth_of(document) <= SMALL.max_depth
        and elements_of(document) <= SMALL.max_elements
        and digits_of(document) <= SMALL.max_digits
    )

    assert (verdict(body) == "") is fits
    assert scanned(body) == verdict(body)


@given(documents, st.integers(1, 4), st.integers(1, 40), st.integers(1, 20))
@example([[], [], []], 4, 5, 1)
@example([[[]], [[]]], 4, 5, 1)
@example([0, 0, 0, 0], 4, 3, 1)
@example({"": {"": {}}}, 2, 40, 1)
@example([12345], 4, 40, 4)
def test_they_agree_under_any_limits(document: object, depth: int, elements: int, digits: int) -> None:
    """The shortcuts by length are derived from the limits."""
    decoding = Decoding(max_depth=depth, max_elements=elements, max_digits=digits)
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()

    assert verdict(body, decoding) == scanned(body, decoding)


@given(st.text('[]{}",:\\ 1e-.a', max_size=200))
@example('"\\"[[[[')
@example('\\"[[[["')
def test_the_scan_takes_anything(text: str) -> None:
    """It runs before any parser, on text that is no JSON: only a verdict may come out."""
    scanned(text.encode())
    verdict(text.encode())


@pytest.mark.parametrize(("opening", "closing"), ["[]", ("[[", "]]"), ('{"a":', "}"), ('[{"":', "}]")])
def test_depth_is_limited(opening: str, closing: str) -> None:
    """T4: RecursionError in some parsers, a crash of the process in others."""
    levels = 1 + (len(closing) > 1)
    decode = Codec(Decoding(), "quakes").decoder(object)

    def nested(depth: int) -> bytes:
        return (opening * (depth // levels) + "0" + closing * (depth // levels)).encode()

    decode(read(nested(64), "application/json"))
    with pytest.raises(DecodeError, match=r"nested deeper than 64 levels \(max_depth\)"):
        decode(read(nested(66), "application/json"))
    with pytest.raises(DecodeError):
        decode(read(nested(200_000), "application/json"))


def test_depth_beyond_the_stack_is_refused_whatever_the_limit() -> None:
    """T4: a limit set too high must not bring the crash back."""
    codec = Codec(Decoding(max_depth=10**7, max_elements=10**7), "quakes")
    deep = b"[" * 200_000 + b"]" * 200_000
    event = msgspec.json.encode(EVENT | {"data": 0}).replace(b'"data":0', b'"data":' + deep)
    decode = codec.decoder(object)

    with pytest.raises(DecodeError, match="JSON nested too deeply"):
        decode(codec.read(delivery(deep)))
    with pytest.raises(DecodeError, match=r"CloudEvent: .*nested too deeply"):
        codec.read(delivery(event, STRUCTURED))
    with pytest.raises(DecodeError, match="nested too deeply"):
        decode(codec.read(delivery(event)))


def test_brackets_in_strings_are_no_nesting() -> None:
    """A long text with many brackets is no attack."""
    decode = Codec(Decoding(), "quakes").decoder(dict)
    body = msgspec.json.encode({"a": '[{"\\' * 100})

    assert decode(read(body, "application/json")) == {"a": '[{"\\' * 100}


@pytest.mark.parametrize(
    "number", ["9" * 65, "-" + "9" * 65, "0." + "1" * 64, "1e" + "0" * 64, "1" * 33 + "." + "1" * 32]
)
@pytest.mark.parametrize("around", ["{}", "[{}]", '{{"a":{}}}', '{{"text":"' + "a" * 500 + '","a":{}}}'])
def test_digits_are_limited(number: str, around: str) -> None:
    """T5: to read an integer costs the square of its digits."""
    decode = Codec(Decoding(), "quakes").decoder(object)

    with pytest.raises(DecodeError, match=r"a number has more than 64 digits \(max_digits\)"):
        decode(read(around.format(number).encode(), "application/json"))
    decode(read(around.format("-" + "9" * 31 + "." + "1" * 31 + "e-1").encode(), "application/json"))
    decode(read(around.format('"' + number + '"').encode(), "application/json"))


def test_elements_are_limited() -> None:
    """T7: a quarter of a megabyte of `{}` takes 24 times its size in memory."""
    decode = Codec(Decoding(), "quakes").decoder(object)

    decode(read(b"[" + b",".join([b"0"] * 50_000) + b"]", "application/json"))
    for body in (
        b"[" + b",".join([b"{}"] * 80_000) + b"]",
        b"[" + b",".join([b"0"] * 50_001) + b"]",
        b"{" + b",".join(b'"%d":""' % number for number in range(60_000)) + b"}",
    ):
        with pytest.raises(DecodeError, match=r"more than 50000 elements \(max_elements\)"):
            decode(read(body, "application/json"))


def test_size_is_limited_first() -> None:
    """T2: nothing looks at a body that is too large."""
    assert read(b" " * MIB).id == "m-1"
    with pytest.raises(DecodeError, match=r"body of 1048577 bytes is over the limit of 1048576 \(max_bytes\)"):
        read(b" " * (MIB + 1))
    with pytest.raises(DecodeError, match="over the limit of 5"):
        read(b"123456", decoding=Decoding(format="raw", max_bytes=5))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"\xff"}',
        b'{"skipped":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\x80"}',
        b'\xef\xbb\xbf{"a":"x"}',
        '{"a":"x"}'.encode("utf-16"),
        '{"a":"x"}'.encode("utf-16-le"),
        '{"a":"x"}'.encode("utf-32-be"),
    ],
)
def test_json_is_strict_utf_8(body: bytes) -> None:
    """T6: no encoding is guessed; a field that nobody reads must be good as well."""
    codec = Codec(Decoding(), "quakes")
    with pytest.raises(DecodeError):
        codec.decoder(Named)(codec.read(delivery(body, "application/json")))
    with pytest.raises(DecodeError):
        read(body, STRUCTURED)


class Named(msgspec.Struct):
    a: str = ""


@pytest.mark.parametrize("name", ["a", "skipped"])
@pytest.mark.parametrize("value", [r"\ud800", r"\udc00", r"\ud800x", r"\udc00\ud800", r"\ud800\u0041"])
def test_lone_surrogates_are_refused(name: str, value: str) -> None:
    """T6: such text explodes later, when it is encoded."""
    codec = Codec(Decoding(), "quakes")
    with pytest.raises(DecodeError):
        codec.decoder(Named)(codec.read(delivery(f'{{"{name}":"{value}"}}'.encode())))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_numbers_are_finite(number: str) -> None:
    """T5 and T6: the standard library lets them all pass."""
    codec = Codec(Decoding(), "quakes")
    for data_type in (object, dict[str, float], list[float]):
        for body in (f'{{"a":{number}}}', f"[{number}]"):
            with pytest.raises(DecodeError):
                codec.decoder(data_type)(codec.read(delivery(body.encode())))


def test_duplicate_keys_in_data_are_refused_by_option() -> None:
    """T6: off by default, since it takes a second parse."""
    body = b'{"a":{"b":1,"b":2}}'
    event = msgspec.json.encode(EVENT | {"data": 0}).replace(b'"data":0', b'"data":' + body)
    for content, content_type in ((body, "application/json"), (event, STRUCTURED)):
        lenient = Codec(Decoding(), "quakes")
        strict = Codec(Decoding(duplicate_keys="refuse"), "quakes")
        envelope = strict.read(delivery(content, content_type))

        assert lenient.decoder(dict)(envelope) == {"a": {"b": 2}}
        with pytest.raises(DecodeError, match="an object has the same key twice"):
            strict.decoder(dict)(envelope)


@given(st.binary(max_size=60) | documents.map(msgspec.json.encode))
def test_the_option_on_duplicates_refuses_nothing_else(data: bytes) -> None:
    """The second parser must not have opinions of its own."""
    lenient = Codec(Decoding(), "quakes")
    strict = Codec(Decoding(duplicate_keys="refuse"), "quakes")
    envelope = lenient.read(delivery(data))

    def outcome(codec: Codec) -> object:
        try:
            return codec.decoder(object)(envelope)
        except DecodeError as exc:
            return str(exc)

    result = outcome(strict)
    assert result == outcome(lenient) or result == "an object has the same key twice"


HOSTILE = {
    "quotes": b'"' * MIB,
    "escaped quotes": b'"' + rb"\"" * (MIB // 2 - 1),
    "backslashes": b"\\" * MIB,
    "brackets in strings": b'["' + b"[" * (MIB - 4) + b'"]',
    "brackets": b"[" * MIB,
    "braces": b"{}" * (MIB // 2),
    "short strings": b'"",' * (MIB // 3),
    "numbers": b"1 " * (MIB // 2),
    "digits": b"9" * MIB,
    "signs": b"-" * MIB,
    "hexadecimal": b'["' + b"0123456789e" * (MIB // 12) + b'"]',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_cost_no_more_than_their_size(name: str) -> None:
    """The scan must be linear: twice the body, twice the time; and its memory a small multiple of the body."""
    body = HOSTILE[name]
    bounds = Bounds(Decoding(max_elements=MIB))

    def cost(text: bytes) -> float:
        began = process_time()
        with suppress(DecodeError):
            bounds.scan(text)
        return process_time() - began

    half, whole = (min(cost(text) for _ in range(3)) for text in (body[: len(body) // 2], body))
    assert whole < max(6 * half, 0.05), f"{half * 1000:.1f} ms for half, {whole * 1000:.1f} ms for all"

    tracemalloc.start()
    try:
        verdict(body, Decoding())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * len(body)
