"""The codec of the local Service Bus server."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from eventkit_servicebus._local._content import Content, section, with_application
from eventkit_servicebus._local._decode import decode, decode_all, skip
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._errors import CodecError
from eventkit_servicebus._local._readers import _READERS
from eventkit_servicebus._local._stored import Stored
from eventkit_servicebus._local._types import (
    Array,
    Byte,
    Char,
    Decimal,
    Described,
    Float,
    Int,
    Long,
    Short,
    Symbol,
    Timestamp,
    Ubyte,
    Uint,
    Ulong,
    Ushort,
)
from hypothesis import given
from hypothesis import strategies as st

WIDTHS: list[tuple[Any, int, bool]] = [
    (Ubyte, 8, False),
    (Ushort, 16, False),
    (Uint, 32, False),
    (Ulong, 64, False),
    (Byte, 8, True),
    (Short, 16, True),
    (Int, 32, True),
    (Long, 64, True),
    (Timestamp, 64, True),
]


def integers(kind: Any, bits: int, *, signed: bool) -> st.SearchStrategy[Any]:
    least = -(2 ** (bits - 1)) if signed else 0
    return st.one_of(st.integers(least, least + 2**bits - 1), st.integers(0, 127)).map(kind)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    *(integers(kind, bits, signed=signed) for kind, bits, signed in WIDTHS),
    st.floats(allow_nan=False),
    st.floats(allow_nan=False, width=32).map(Float),
    st.sampled_from([4, 8, 16]).flatmap(lambda n: st.binary(min_size=n, max_size=n)).map(Decimal),
    st.characters(exclude_categories=["Cs"]).map(Char),
    st.text(st.characters(max_codepoint=127), max_size=300).map(Symbol),
    TEXTS,
    st.binary(max_size=300),
    st.uuids(),
)
ARRAYS: st.SearchStrategy[Any] = st.one_of(
    st.tuples(st.just(0x70), st.lists(integers(Uint, 32, signed=False))),
    st.tuples(st.just(0x81), st.lists(integers(Long, 64, signed=True))),
    st.tuples(st.just(0x55), st.lists(st.integers(-128, 127).map(Long))),
    st.tuples(st.just(0x83), st.lists(integers(Timestamp, 64, signed=True))),
    st.tuples(st.just(0x98), st.lists(st.uuids())),
    st.tuples(st.just(0xB1), st.lists(TEXTS)),
    st.tuples(st.just(0xA3), st.lists(st.sampled_from(["", "ANONYMOUS"]).map(Symbol))),
    st.tuples(st.just(0x56), st.lists(st.booleans())),
    st.tuples(st.just(0x41), st.lists(st.just(value=True))),
    st.tuples(st.just(0x50), st.lists(integers(Ubyte, 8, signed=False))),
    st.tuples(st.just(0x51), st.lists(integers(Byte, 8, signed=True))),
    st.tuples(st.just(0x52), st.lists(st.integers(0, 255).map(Uint))),
    st.tuples(st.just(0x53), st.lists(st.integers(0, 255).map(Ulong))),
    st.tuples(st.just(0x54), st.lists(st.integers(-128, 127).map(Int))),
    st.tuples(st.just(0x60), st.lists(integers(Ushort, 16, signed=False))),
    st.tuples(st.just(0x61), st.lists(integers(Short, 16, signed=True))),
    st.tuples(st.just(0x71), st.lists(integers(Int, 32, signed=True))),
    st.tuples(st.just(0x72), st.lists(st.floats(allow_nan=False, width=32).map(Float))),
    st.tuples(st.just(0x73), st.lists(st.characters(exclude_categories=["Cs"]).map(Char))),
    st.tuples(st.just(0x74), st.lists(st.binary(min_size=4, max_size=4).map(Decimal))),
    st.tuples(st.just(0x80), st.lists(integers(Ulong, 64, signed=False))),
    st.tuples(st.just(0x82), st.lists(st.floats(allow_nan=False))),
    st.tuples(st.just(0x84), st.lists(st.binary(min_size=8, max_size=8).map(Decimal))),
    st.tuples(st.just(0x94), st.lists(st.binary(min_size=16, max_size=16).map(Decimal))),
    st.tuples(st.just(0xA0), st.lists(st.binary(max_size=9))),
    st.tuples(st.just(0xB0), st.lists(st.binary(max_size=300))),
    st.tuples(st.just(0xA1), st.lists(st.text("ab", max_size=9))),
    st.tuples(st.just(0xB3), st.lists(st.text("ab", max_size=300).map(Symbol))),
    st.tuples(st.just(0x40), st.lists(st.none(), max_size=300)),
    st.tuples(st.just(0x45), st.lists(st.just([]))),
    st.tuples(st.just(0xC0), st.lists(st.lists(st.booleans(), max_size=3))),
    st.tuples(st.just(0xC1), st.lists(st.dictionaries(st.text("ab", max_size=3), st.booleans(), max_size=3))),
    st.tuples(st.just(0xE0), st.lists(st.lists(st.integers(0, 9).map(Ubyte)).map(lambda n: Array(0x50, tuple(n))))),
    st.tuples(st.just(0xF0), st.lists(st.lists(st.none(), max_size=300).map(lambda n: Array(0x40, tuple(n))))),
    st.tuples(st.just(0xD0), st.lists(st.lists(st.booleans(), max_size=3))),
    st.tuples(st.just(0xD1), st.lists(st.dictionaries(TEXTS, st.booleans(), max_size=3))),
).map(lambda pair: Array(pair[0], tuple(pair[1])))
VALUES = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(st.one_of(TEXTS, st.uuids()), inner, max_size=6),
        st.builds(Described, integers(Ulong, 64, signed=False), inner),
    ),
    max_leaves=12,
)


def typed(value: Any) -> Any:
    """`value` with its types, which equality does not look at: `Int(1) == Long(1)`."""
    if isinstance(value, Array):
        return Array, value.code, [typed(item) for item in value.items]
    if isinstance(value, list | Described):
        return type(value), [typed(item) for item in value]
    if isinstance(value, dict):
        return dict, [(typed(key), typed(item)) for key, item in value.items()]
    return type(value), value


@given(VALUES)
def test_a_value_comes_back_with_its_type(value: Any) -> None:
    """A message is stored and sent again: a receiver must see the types that the sender chose."""
    data = encode(value)
    assert typed(decode_all(data)) == typed(value)
    assert skip(data + b"rest", 0) == len(data)


ONE_OF_EACH: list[tuple[str, Any]] = [
    ("00 53 24 45", Described(Ulong(0x24), [])),
    ("40", None),
    ("41", True),
    ("42", False),
    ("43", Uint(0)),
    ("44", Ulong(0)),
    ("45", []),
    ("50 ff", Ubyte(255)),
    ("51 ff", Byte(-1)),
    ("52 ff", Uint(255)),
    ("53 ff", Ulong(255)),
    ("54 ff", Int(-1)),
    ("55 ff", Long(-1)),
    ("56 01", True),
    ("60 ffff", Ushort(65_535)),
    ("61 ffff", Short(-1)),
    ("70 ffffffff", Uint(2**32 - 1)),
    ("71 ffffffff", Int(-1)),
    ("72 3fc00000", Float(1.5)),
    ("73 0001f600", Char("\U0001f600")),
    ("74 01020304", Decimal(b"\x01\x02\x03\x04")),
    ("80 ffffffffffffffff", Ulong(2**64 - 1)),
    ("81 ffffffffffffffff", Long(-1)),
    ("82 3ff8000000000000", 1.5),
    ("83 ffffffffffffffff", Timestamp(-1)),
    ("84 0102030405060708", Decimal(bytes(range(1, 9)))),
    ("94 0102030405060708090a0b0c0d0e0f10", Decimal(bytes(range(1, 17)))),
    ("98 0102030405060708090a0b0c0d0e0f10", UUID(bytes=bytes(range(1, 17)))),
    ("a0 02 00ff", b"\x00\xff"),
    ("a1 02 c3a9", "\u00e9"),
    ("a3 02 6162", Symbol("ab")),
    ("b0 00000002 00ff", b"\x00\xff"),
    ("b1 00000002 c3a9", "\u00e9"),
    ("b3 00000002 6162", Symbol("ab")),
    ("c0 03 02 41 40", [True, None]),
    ("c1 04 02 a1 00 41", {"": True}),
    ("d0 00000006 00000002 41 40", [True, None]),
    ("d1 00000007 00000002 a1 00 41", {"": True}),
    ("e0 04 02 50 01 02", Array(0x50, (Ubyte(1), Ubyte(2)))),
    ("f0 00000007 00000002 50 01 02", Array(0x50, (Ubyte(1), Ubyte(2)))),
]


@pytest.mark.parametrize(("data", "value"), ONE_OF_EACH, ids=[data[:2] for data, _ in ONE_OF_EACH])
def test_each_constructor_is_read_as_the_specification_has_it(data: str, value: Any) -> None:
    """Also those that this server never writes: a client may."""
    assert typed(decode_all(bytes.fromhex(data))) == typed(value)
    assert skip(bytes.fromhex(data), 0) == len(bytes.fromhex(data))


def test_every_constructor_that_is_known_was_among_them() -> None:
    """One that is added is to be added there."""
    assert [int(data[:2], 16) for data, _ in ONE_OF_EACH] == [code for code in range(256) if _READERS[code] is not None]


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_codec_error(data: bytes) -> None:
    """The port is open to whoever connects."""
    for read in (decode, skip):
        try:
            read(data, 0)
        except CodecError:
            continue


@given(VALUES, st.data())
def test_a_value_that_is_cut_off_or_changed_is_refused_or_another_value(value: Any, data: st.DataObject) -> None:
    """Almost right is where a decoder reads beyond its end."""
    encoded = bytearray(encode(value))
    place = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(CodecError):
        decode_all(bytes(encoded[:place]))
    encoded[place] = data.draw(st.integers(0, 255))
    try:
        decode_all(bytes(encoded))
    except CodecError:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"\xc0\x05" * 200,
        b"\x00" * 5_000,
        b"\x00\x40" * 5_000,
        b"\xf0" + struct.pack(">II", 5, 2**32 - 1) + b"\x41",
        b"\xd0" + struct.pack(">II", 4, 2**32 - 1),
        b"\xe0\x02\x01\x00",
        b"\xe0\x05\x01\x50\x01\x00\x00",
        b"\xf0" + struct.pack(">II", 8, 1) + b"\x50\x01\x00\x00",
        b"\xc1\x05\x04\x41\x41\x41\x42",
        b"\xc1\x03\x02\x45\x41",
        b"\xc1\x02\x01\x41",
        b"\xc0\x03\x01\x41\x41",
        b"\xa1\x01\xff",
        b"\xa3\x01\xff",
        b"\x73\xff\xff\xff\xff",
        b"\x56\x02",
        b"\x3f",
    ],
)
def test_what_is_made_to_hurt_is_refused(data: bytes) -> None:
    """Depth, counts that cost memory, keys twice or unhashable, and text that is none."""
    with pytest.raises(CodecError):
        decode_all(data)
    with suppress(CodecError):  # it is not looked into, but it may say that it is longer than it is
        assert skip(data, 0) <= len(data)


@pytest.mark.parametrize("value", [1, object(), Ubyte(256), Symbol("\u00e9"), Char("ab"), Decimal(b"x"), "\ud800"])
def test_what_has_no_type_is_refused(value: Any) -> None:
    """A plain `int` could be any of nine types: whoever writes the server has to say which."""
    with pytest.raises(CodecError):
        encode(value)


def test_lengths_and_small_numbers_take_their_short_forms() -> None:
    """As every client writes them; its decoder may know no other for a descriptor."""
    assert encode(Described(Ulong(0x14), [Uint(0), Uint(255), Uint(256)])) == bytes.fromhex(
        "00 53 14 c0 09 03 43 52 ff 70 00 00 01 00"
    )
    assert encode(UUID(int=1)) == b"\x98" + bytes(15) + b"\x01"
    for number, code in ((254, 0xC0), (255, 0xD0)):
        assert encode([None] * number)[0] == code
        assert encode({bytes(number - 3): None})[0] == code + 1
    for number, code in ((255, 0xE0), (256, 0xF0)):  # their items need no bytes, and cannot be counted in one
        assert encode(Array(0x41, (True,) * number))[0] == code


SECTIONS = st.tuples(
    st.lists(st.one_of(st.none(), st.text(max_size=5), st.uuids()), max_size=13),
    st.dictionaries(st.text(max_size=9), st.one_of(st.text(max_size=9), st.booleans()), max_size=4),
    st.one_of(
        st.binary().map(lambda body: [Described(Ulong(0x75), body)]),
        st.lists(st.binary(max_size=9).map(lambda body: Described(Ulong(0x75), body)), min_size=1, max_size=3),
        VALUES.map(lambda value: [Described(Ulong(0x77), value)]),
    ),
)


@given(SECTIONS, st.dictionaries(st.text("abc-:.", max_size=5).map(Symbol), TEXTS, max_size=3))
def test_a_message_is_stored_and_sent_as_it_came(sections: Any, annotations: Any) -> None:
    """What the sender said stays byte for byte; a dead letter says a reason more, and nothing less."""
    properties, application, body = sections
    parts = [Described(Ulong(0x73), properties), Described(Ulong(0x74), application), *body]
    bare = b"".join(map(encode, parts))
    before = [Described(Ulong(0x70), [True, Ubyte(4), Uint(5)]), Described(Ulong(0x72), annotations)]
    content = Content.read(b"".join(map(encode, before)) + bare)
    assert (content.bare, content.ttl) == (bare, 0.005)

    again = Content.read(Stored.of(content, "").outgoing(3, 1.0))
    assert again.bare == bare
    assert typed(again.header) == typed([True, Ubyte(4), Uint(5), None, Uint(3)])
    assert again.own_annotations() == annotations

    dead = with_application(bare, {"DeadLetterReason": "r"})
    assert section(dead, 0x74) == {**application, "DeadLetterReason": "r"}
    assert typed(section(dead, 0x73)) == typed(properties)
    assert dead.endswith(b"".join(map(encode, body)))


@given(st.binary(max_size=100))
def test_no_bytes_are_a_message_that_raises_later(data: bytes) -> None:
    """What is read can be sent, whatever it is."""
    try:
        content = Content.read(data)
    except CodecError:
        return
    Stored.of(content, "").outgoing(0, None)
