"""Values to bytes: each as short as its type allows."""

# ruff: noqa: ARG001 - all of a table are called alike
from __future__ import annotations

import struct
from collections.abc import Callable
from struct import Struct
from typing import Any, Final
from uuid import UUID

from eventkit_servicebus._local._errors import CodecError
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

_U32: Final = Struct(">I").pack
_PAIR: Final = Struct(">II").pack


def encode(value: Any) -> bytes:
    """`value` with its constructor. Raises CodecError for what AMQP has no type for."""
    try:
        return _WRITERS[type(value)](value)
    except KeyError as exc:
        raise CodecError(f"a {type(value).__name__}, which AMQP has no type for") from exc
    except (struct.error, UnicodeEncodeError, OverflowError) as exc:
        raise CodecError(f"a {type(value).__name__} that does not fit its type: {exc}") from exc


def as_list(items: bytes, number: int) -> bytes:
    """A list of `number` items that are encoded already."""
    if len(items) < 255:
        return bytes((0xC0, len(items) + 1, number)) + items
    return b"\xd0" + _PAIR(len(items) + 4, number) + items


def as_binary(data: bytes) -> bytes:
    """Bytes as one value."""
    return bytes((0xA0, len(data))) + data if len(data) < 256 else b"\xb0" + _U32(len(data)) + data


def _sized(short: int, data: bytes) -> bytes:
    """A value with its size before it; its long form has the short one's code and 0x10."""
    if len(data) < 256:
        return bytes((short, len(data))) + data
    return bytes((short + 0x10,)) + _U32(len(data)) + data


def _string(value: str) -> bytes:
    return _sized(0xA1, value.encode())


def _symbol(value: Symbol) -> bytes:
    return _sized(0xA3, value.encode("ascii"))


def _char(value: Char) -> bytes:
    if len(value) != 1:
        raise CodecError("a Char is one character")
    return b"\x73" + value.encode("utf-32-be")


def _decimal(value: Decimal) -> bytes:
    code = {4: 0x74, 8: 0x84, 16: 0x94}.get(len(value))
    if code is None:
        raise CodecError("a Decimal has 4, 8 or 16 bytes")
    return bytes((code,)) + value


def _boolean(value: bool) -> bytes:  # noqa: FBT001 - it is the value
    return b"\x41" if value else b"\x42"


def _null(value: None) -> bytes:
    return b"\x40"


def _packed(code: int, format: str) -> Callable[[Any], bytes]:
    pack = Struct(format).pack
    constructor = bytes((code,))

    def write(value: Any) -> bytes:
        return constructor + pack(value)

    return write


def _small(code: int, format: str, small: int, *, zero: int | None = None) -> Callable[[Any], bytes]:
    """An integer in its shortest form: one byte after `small`, or nothing after `zero`, if it has that."""
    pack = Struct(format).pack
    constructor = bytes((code,))
    least, most = (0, 255) if zero is not None else (-128, 127)
    shorts = [bytes((small, number & 0xFF)) for number in range(least, most + 1)]
    if zero is not None:
        shorts[0] = bytes((zero,))

    def write(value: int) -> bytes:
        return shorts[value - least] if least <= value <= most else constructor + pack(value)

    return write


def _uuid(value: UUID) -> bytes:
    return b"\x98" + value.bytes


def _list(value: list[Any]) -> bytes:
    return as_list(b"".join(map(encode, value)), len(value)) if value else b"\x45"


def _map(value: dict[Any, Any]) -> bytes:
    items = b"".join(encode(key) + encode(item) for key, item in value.items())
    if len(items) < 255:
        return bytes((0xC1, len(items) + 1, 2 * len(value))) + items
    return b"\xd1" + _PAIR(len(items) + 4, 2 * len(value)) + items


def _described(value: Described) -> bytes:
    return b"\x00" + encode(value.descriptor) + encode(value.value)


def _array(value: Array) -> bytes:
    items = bytes((value.code,)) + b"".join(_item(value.code, item) for item in value.items)
    if len(items) < 255 and len(value.items) < 256:
        return bytes((0xE0, len(items) + 1, len(value.items))) + items
    return b"\xf0" + _PAIR(len(items) + 4, len(value.items)) + items


_NARROW: Final = {0x43: 0, 0x44: 0, 0x52: ">B", 0x53: ">B", 0x54: ">b", 0x55: ">b", 0x56: ">?"}
_WIDE: Final = {0x70: ">I", 0x71: ">i", 0x80: ">Q", 0x81: ">q"}


def _item(code: int, item: Any) -> bytes:
    """An item of an array whose items have the constructor `code`, without it."""
    kind = code >> 4
    if kind == 4:
        return b""
    if code in _NARROW:
        return Struct(str(_NARROW[code])).pack(item)
    if code in _WIDE:
        return Struct(_WIDE[code]).pack(item)
    return _of_kind(code, encode(item))


def _of_kind(code: int, encoded: bytes) -> bytes:
    """What is `encoded` as an item of an array of `code`: a short size is made a long one, where need be."""
    own = encoded[0]
    if own == code:
        return encoded[1:]
    if own == 0x45:  # an empty list, which has no size of its own
        own, encoded = 0xC0, b"\xc0\x01\x00"
    if own == code:
        return encoded[1:]
    if own + 0x10 != code or own >> 4 not in {0xA, 0xC, 0xE}:
        raise CodecError(f"a value of {own:#04x} in an array of {code:#04x}")
    if own >> 4 == 0xA:
        return _U32(encoded[1]) + encoded[2:]
    return _PAIR(encoded[1] + 3, encoded[2]) + encoded[3:]


_WRITERS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): _null,
    bool: _boolean,
    Ubyte: _packed(0x50, ">B"),
    Ushort: _packed(0x60, ">H"),
    Uint: _small(0x70, ">I", 0x52, zero=0x43),
    Ulong: _small(0x80, ">Q", 0x53, zero=0x44),
    Byte: _packed(0x51, ">b"),
    Short: _packed(0x61, ">h"),
    Int: _small(0x71, ">i", 0x54),
    Long: _small(0x81, ">q", 0x55),
    Timestamp: _packed(0x83, ">q"),
    Float: _packed(0x72, ">f"),
    float: _packed(0x82, ">d"),
    Decimal: _decimal,
    Char: _char,
    Symbol: _symbol,
    str: _string,
    bytes: as_binary,
    UUID: _uuid,
    list: _list,
    dict: _map,
    Described: _described,
    Array: _array,
}
