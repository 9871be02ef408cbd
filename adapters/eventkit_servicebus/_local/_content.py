"""A message as it is sent: cut into its sections, which are looked into only where somebody has to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

import msgspec

from eventkit_servicebus._local._decode import decode, skip
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._errors import CodecError
from eventkit_servicebus._local._types import Described, Symbol, Timestamp, Uint, Ulong

BATCH: Final = 0x80013700
"""The message format of a run of messages, each in a `data` section of its own."""

HEADER, DELIVERY_ANNOTATIONS, ANNOTATIONS, PROPERTIES, APPLICATION, DATA, SEQUENCE, VALUE, FOOTER = range(0x70, 0x79)

_SCHEDULED: Final = Symbol("x-opt-scheduled-enqueue-time")
_OURS: Final = frozenset(
    {
        *("x-opt-sequence-number", "x-opt-enqueued-time", "x-opt-locked-until", "x-opt-enqueue-sequence-number"),
        *("x-opt-message-state", "x-opt-deadletter-source"),
    }
)
"""Annotations that a queue writes; what a sender says of them is dropped."""


class Content(msgspec.Struct, frozen=True, gc=False):
    """What a message says: the fields of its header, as far as they are there, its annotations, and the rest.

    `bare` is everything from the properties on, as it was sent.
    """

    header: list[Any]
    annotations: dict[Any, Any]
    bare: bytes

    @classmethod
    def read(cls, data: bytes) -> Content:
        """Cut a message. Raises CodecError."""
        header: list[Any] = []
        annotations: dict[Any, Any] = {}
        start = len(data)
        for code, begin, _ in _sections(data):
            if code == HEADER:
                header = _section(data, begin, list)
            elif code == ANNOTATIONS:
                annotations = _section(data, begin, dict)
            elif code > ANNOTATIONS:
                start = min(start, begin)
        return cls(header, annotations, data[start:])

    @property
    def ttl(self) -> float | None:
        """Seconds for which it is worth something."""
        value = self.header[2] if len(self.header) > 2 else None
        return value / 1000 if isinstance(value, Uint) else None

    @property
    def scheduled(self) -> float | None:
        """When it is to be enqueued, in Unix seconds."""
        value = self.annotations.get(_SCHEDULED)
        return value / 1000 if isinstance(value, Timestamp) else None

    def own_annotations(self) -> dict[Any, Any]:
        """Those that stay with it."""
        return {name: value for name, value in self.annotations.items() if str(name) not in _OURS}

    def properties(self) -> list[Any]:
        """Its properties. Raises CodecError."""
        return next((_section(self.bare, at, list) for code, at, _ in _sections(self.bare) if code == PROPERTIES), [])

    @property
    def id(self) -> Any:
        """The sender's id for it: of one of four types, or None."""
        value = _at(self.properties(), 0)
        return value if isinstance(value, str | bytes | UUID | Ulong) else None

    @property
    def session(self) -> str | None:
        """The session that it belongs to."""
        value = _at(self.properties(), 10)
        return value if isinstance(value, str) else None


def batch(data: bytes) -> list[bytes]:
    """The messages in a batch. Raises CodecError."""
    return [_section(data, begin, bytes) for code, begin, _ in _sections(data) if code == DATA]


def with_application(bare: bytes, values: dict[str, str]) -> bytes:
    """`bare` with these application properties, too. Raises CodecError."""
    before, known, after = b"", dict[Any, Any](), b""
    for code, begin, end in _sections(bare):
        if code == APPLICATION:
            known = _section(bare, begin, dict)
        elif code == PROPERTIES:
            before += bare[begin:end]
        else:
            after += bare[begin:end]
    return before + encode(Described(Ulong(APPLICATION), {**known, **values})) + after


def section(data: bytes, wanted: int) -> Any:
    """The first section with this code, decoded; None if there is none. Raises CodecError."""
    return next((_section(data, begin, object) for code, begin, _ in _sections(data) if code == wanted), None)


def message(properties: list[Any], application: dict[Any, Any], body: Any) -> bytes:
    """A message of the server's own, with a value as its body."""
    parts = (PROPERTIES, properties), (APPLICATION, application), (VALUE, body)
    return b"".join(encode(Described(Ulong(code), value)) for code, value in parts)


def _sections(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(code, start, end) of each section. Raises CodecError for what no message has."""
    position = last = 0
    while position < len(data):
        end = skip(data, position)
        if data[position : position + 2] == b"\x00\x53":
            code = data[position + 2]
        elif data[position : position + 2] == b"\x00\x80":
            code = int.from_bytes(data[position + 2 : position + 10])
        else:
            raise CodecError("a message with something that is no section")
        if not max(HEADER, last) <= code <= FOOTER:
            raise CodecError("a message with something that is no section, or not in its place")
        yield code, position, end
        position, last = end, code


def _section(data: bytes, begin: int, kind: type) -> Any:
    value = decode(data, begin)[0].value
    if not isinstance(value, kind):
        raise CodecError(f"a section that is a {type(value).__name__}")
    return value


def _at(items: list[Any], place: int) -> Any:
    return items[place] if place < len(items) else None
