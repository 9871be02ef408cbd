"""Bytes to values. Whatever the bytes are, nothing but CodecError is raised."""

from __future__ import annotations

import struct
from struct import Struct
from typing import Any, Final

from eventkit_servicebus._local._errors import CodecError
from eventkit_servicebus._local._readers import read_value

_U32: Final = Struct(">I").unpack_from
_WIDTHS: Final = {4: 0, 5: 1, 6: 2, 7: 4, 8: 8, 9: 16}
"""Of what has a fixed width, by the first half of its constructor."""


def decode(data: bytes, position: int = 0) -> tuple[Any, int]:
    """The value at `position`, and the position after it. Raises CodecError."""
    try:
        value, end = read_value(data, position, 0)
    except (IndexError, struct.error, ValueError, OverflowError) as exc:
        raise CodecError(f"bytes that are no AMQP value: {exc}") from exc
    if end > len(data):
        raise CodecError("a value that goes on beyond its frame")
    return value, end


def decode_all(data: bytes) -> Any:
    """The one value that `data` is. Raises CodecError."""
    value, end = decode(data)
    if end != len(data):
        raise CodecError(f"{len(data) - end} bytes after the end of a value")
    return value


def skip(data: bytes, position: int) -> int:
    """The position after the value at `position`, which is not looked into. Raises CodecError."""
    try:
        while data[position] == 0:
            position = _skip_plain(data, position + 1)
        return _skip_plain(data, position)
    except (IndexError, struct.error) as exc:
        raise CodecError("a value that is cut off") from exc


def _skip_plain(data: bytes, position: int) -> int:
    """Of a value without a descriptor."""
    code = data[position]
    position += 1
    kind = code >> 4
    if 4 <= kind <= 9:
        end = position + _WIDTHS[kind]
    elif kind in {0xA, 0xC, 0xE}:
        end = position + 1 + data[position]
    elif kind in {0xB, 0xD, 0xF}:
        end = position + 4 + int(_U32(data, position)[0])
    else:
        raise CodecError(f"constructor {code:#04x}, which AMQP does not have")
    if end > len(data):
        raise CodecError("a value that goes on beyond its frame")
    return end
