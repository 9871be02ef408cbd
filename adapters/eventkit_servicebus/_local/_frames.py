"""The stream of bytes, cut into frames, and back."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from eventkit_servicebus._local._errors import CodecError

SASL_HEADER: Final = b"AMQP\x03\x01\x00\x00"
AMQP_HEADER: Final = b"AMQP\x00\x01\x00\x00"
MAX_FRAME: Final = 65_536
"""Bytes of a frame, either way, as the service has it."""
EMPTY: Final = bytes.fromhex("00000008 02 00 0000")

_HEAD: Final = Struct(">IBBH")
_pack = _HEAD.pack


class Frame(NamedTuple):
    """A frame without its head; a `body` that is empty says only that its sender is alive."""

    sasl: bool
    channel: int
    body: bytes


def frame(channel: int, body: bytes, *, sasl: bool = False) -> bytes:
    """A frame to send."""
    return _pack(len(body) + 8, 2, sasl, channel) + body


class Stream:
    """Bytes as they come in; protocol headers are asked for, frames found."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, data: bytes) -> None:
        """More has come."""
        self._bytes += data

    def header(self) -> bytes | None:
        """The protocol header that comes next; None until it is there."""
        if len(self._bytes) < 8:
            return None
        found = bytes(self._bytes[:8])
        del self._bytes[:8]
        return found

    def frame(self) -> Frame | None:
        """The frame that comes next; None until all of it is there. Raises CodecError."""
        if len(self._bytes) < 8:
            return None
        size, offset, kind, channel = _HEAD.unpack_from(self._bytes)
        if not 8 <= 4 * offset <= size <= MAX_FRAME or kind > 1:
            raise CodecError(f"no frame: size {size}, data offset {offset}, type {kind}")
        if size > len(self._bytes):
            return None
        body = bytes(self._bytes[4 * offset : size])
        del self._bytes[:size]
        return Frame(bool(kind), channel, body)
