"""How a value of each type is read: a table by constructors. What is cut off raises CodecError, or as Python has it."""

# ruff: noqa: ARG001 - all of a table are called alike
from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, TypeAlias
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

DEEPEST: Final = 32
"""Values within values; nothing sensible comes near."""
MOST_EMPTY: Final = 10_000
"""Items of an array whose items need no bytes, and could be as many as one likes to say."""

Reader: TypeAlias = Callable[[bytes, int, int], tuple[Any, int]]
"""Of the bytes, the position after the constructor, and the depth: the value, and the position after it."""

_U32: Final = Struct(">I").unpack_from
_PAIR: Final = Struct(">II").unpack_from


def read_value(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    """The value at `position`, `depth` values deep, and the position after it."""
    reader = _READERS[data[position]]
    if reader is None:
        raise CodecError(f"constructor {data[position]:#04x}, which AMQP does not have")
    return reader(data, position + 1, depth)


def _deeper(depth: int) -> int:
    if depth >= DEEPEST:
        raise CodecError(f"values within values, more than {DEEPEST} deep")
    return depth + 1


def _constant(value: Any) -> Reader:
    def read(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        return value, position

    return read


def _number(kind: Callable[[Any], Any], format: str) -> Reader:
    packed = Struct(format)
    unpack, width = packed.unpack_from, packed.size

    def read(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        return kind(unpack(data, position)[0]), position + width

    return read


def _fixed(kind: Callable[[bytes], Any], width: int) -> Reader:
    def read(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        return kind(_cut(data, position, width)), position + width

    return read


def _sized8(kind: Callable[[bytes], Any]) -> Reader:
    def read(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        start = position + 1
        end = start + data[position]
        if end > len(data):
            raise CodecError("a value that is cut off")
        return kind(data[start:end]), end

    return read


def _sized32(kind: Callable[[bytes], Any]) -> Reader:
    def read(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        width = _U32(data, position)[0]
        return kind(_cut(data, position + 4, width)), position + 4 + width

    return read


def _cut(data: bytes, position: int, width: int) -> bytes:
    end = position + width
    if end > len(data):
        raise CodecError("a value that is cut off")
    return data[position:end]


def _text(data: bytes) -> str:
    return data.decode()


def _symbol(data: bytes) -> Symbol:
    return Symbol(data.decode("ascii"))


def _uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


def _char(data: bytes) -> Char:
    return Char(data.decode("utf-32-be"))


def _boolean(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    if data[position] > 1:
        raise CodecError("a boolean that is neither true nor false")
    return bool(data[position]), position + 1


def _described(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    deeper = _deeper(depth)
    descriptor, position = read_value(data, position, deeper)
    value, position = read_value(data, position, deeper)
    return Described(descriptor, value), position


def _bounds8(data: bytes, position: int) -> tuple[int, int, int]:
    """How many items, where they start, and where they end."""
    return data[position + 1], position + 2, position + 1 + data[position]


def _bounds32(data: bytes, position: int) -> tuple[int, int, int]:
    size, number = _PAIR(data, position)
    return number, position + 8, position + 4 + size


def _items(data: bytes, bounds: tuple[int, int, int], depth: int) -> list[Any]:
    number, position, end = bounds
    if end > len(data) or number > end - position:
        raise CodecError("a list or map that is cut off, or counts wrong")
    items = []
    for _ in range(number):
        reader = _READERS[data[position]]
        if reader is None:
            raise CodecError(f"constructor {data[position]:#04x}, which AMQP does not have")
        value, position = reader(data, position + 1, depth)
        items.append(value)
    if position != end:
        raise CodecError("a list or map that is not as long as it says")
    return items


def _map(items: list[Any]) -> dict[Any, Any]:
    try:
        made = dict(zip(items[::2], items[1::2], strict=True))
    except TypeError as exc:
        raise CodecError("a map with a list or a map as a key") from exc
    if 2 * len(made) != len(items):
        raise CodecError("a map with one key twice")
    return made


def _list8(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    bounds = _bounds8(data, position)
    return _items(data, bounds, _deeper(depth)), bounds[2]


def _list32(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    bounds = _bounds32(data, position)
    return _items(data, bounds, _deeper(depth)), bounds[2]


def _map8(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    bounds = _bounds8(data, position)
    return _map(_items(data, bounds, _deeper(depth))), bounds[2]


def _map32(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    bounds = _bounds32(data, position)
    return _map(_items(data, bounds, _deeper(depth))), bounds[2]


def _array8(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    return _array(data, _bounds8(data, position), _deeper(depth))


def _array32(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    return _array(data, _bounds32(data, position), _deeper(depth))


def _array(data: bytes, bounds: tuple[int, int, int], depth: int) -> tuple[Any, int]:
    number, position, end = bounds
    code = data[position]
    reader = _READERS[code]
    if reader is None or code == 0:
        raise CodecError(f"an array of {code:#04x}, which is not known here")
    if end > len(data) or number > max(end - position, MOST_EMPTY):
        raise CodecError("an array that is cut off, or counts wrong")
    position += 1
    items = []
    for _ in range(number):
        value, position = reader(data, position, depth)
        items.append(value)
    if position != end:
        raise CodecError("an array that is not as long as it says")
    return Array(code, tuple(items)), end


def _empty_list(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    return [], position


_KNOWN: Final[dict[int, Reader]] = {
    0x00: _described,
    0x40: _constant(None),
    0x41: _constant(value=True),
    0x42: _constant(value=False),
    0x43: _constant(Uint(0)),
    0x44: _constant(Ulong(0)),
    0x45: _empty_list,
    0x50: _number(Ubyte, ">B"),
    0x51: _number(Byte, ">b"),
    0x52: _number(Uint, ">B"),
    0x53: _number(Ulong, ">B"),
    0x54: _number(Int, ">b"),
    0x55: _number(Long, ">b"),
    0x56: _boolean,
    0x60: _number(Ushort, ">H"),
    0x61: _number(Short, ">h"),
    0x70: _number(Uint, ">I"),
    0x71: _number(Int, ">i"),
    0x72: _number(Float, ">f"),
    0x73: _fixed(_char, 4),
    0x74: _fixed(Decimal, 4),
    0x80: _number(Ulong, ">Q"),
    0x81: _number(Long, ">q"),
    0x82: _number(float, ">d"),
    0x83: _number(Timestamp, ">q"),
    0x84: _fixed(Decimal, 8),
    0x94: _fixed(Decimal, 16),
    0x98: _fixed(_uuid, 16),
    0xA0: _sized8(bytes),
    0xA1: _sized8(_text),
    0xA3: _sized8(_symbol),
    0xB0: _sized32(bytes),
    0xB1: _sized32(_text),
    0xB3: _sized32(_symbol),
    0xC0: _list8,
    0xC1: _map8,
    0xD0: _list32,
    0xD1: _map32,
    0xE0: _array8,
    0xF0: _array32,
}
_READERS: Final[list[Reader | None]] = [_KNOWN.get(code) for code in range(256)]
