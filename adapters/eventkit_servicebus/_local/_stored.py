"""A message as a queue keeps it, how it goes out, and what a queue counts."""

from __future__ import annotations

import math
from struct import Struct
from typing import Any, Final, NamedTuple

import msgspec

from eventkit.testing.memory import Message
from eventkit_servicebus._local._content import Content
from eventkit_servicebus._local._encode import as_list, encode
from eventkit_servicebus._local._types import Int, Long, Symbol, Timestamp, Uint

ACTIVE, DEFERRED, SCHEDULED = range(3)

_PAIR: Final = Struct(">II").pack
_MOMENT: Final = Struct(">q").pack
_LOCKED: Final = encode(Symbol("x-opt-locked-until")) + b"\x83"


class Stored(Message):
    """A message in a queue, with what only Service Bus knows of it. `body` is its bare message.

    `sequence` is its number in the queue, `first_sequence` the one it had when it was scheduled; `expires` is on the
    server's clock. `header` and `annotations` are encoded fields that stay as they were sent.
    """

    sequence: int = 0
    first_sequence: int = 0
    session: str = ""
    expires: float = math.inf
    state: int = ACTIVE
    header: bytes = b""
    annotations: bytes = b""
    annotations_number: int = 0
    fixed: bytes = b""
    dead_from: str | None = None

    @classmethod
    def of(cls, content: Content, session: str) -> Stored:
        """A message that was sent."""
        durable, priority, ttl = (*content.header[:3], None, None, None)[:3]
        own = content.own_annotations()
        return cls(
            content.bare,
            "",
            key=session,
            session=session,
            header=b"".join(map(encode, (durable, priority, ttl, None))),
            annotations=b"".join(encode(name) + encode(value) for name, value in own.items()),
            annotations_number=len(own),
        )

    def outgoing(self, failures: int, locked_until: float | None) -> bytes:
        """Its bytes, with `failures` deliveries so far, and until when it is locked, in Unix seconds."""
        fixed = self.fixed
        if not fixed:
            fixed = self.fixed = self._fixed()
        number = self.annotations_number + 4 + (self.dead_from is not None)
        if locked_until is not None:
            fixed += _LOCKED + _MOMENT(int(locked_until * 1000))
            number += 1
        header = b"\x00\x53\x70" + as_list(self.header + encode(Uint(failures)), 5)
        return header + b"\x00\x53\x72" + as_map(fixed, 2 * number) + self.body

    def _fixed(self) -> bytes:
        values: dict[str, Any] = {
            "x-opt-sequence-number": Long(self.sequence),
            "x-opt-enqueued-time": Timestamp(self.enqueued_at * 1000),
            "x-opt-enqueue-sequence-number": Long(self.first_sequence or self.sequence),
            "x-opt-message-state": Int(self.state),
        }
        if self.dead_from is not None:
            values["x-opt-deadletter-source"] = self.dead_from
        return self.annotations + b"".join(encode(Symbol(name)) + encode(value) for name, value in values.items())


def as_map(items: bytes, number: int) -> bytes:
    """A map of keys and values that are encoded already, `number` of both together."""
    if len(items) < 255:
        return bytes((0xC1, len(items) + 1, number)) + items
    return b"\xd1" + _PAIR(len(items) + 4, number) + items


class Taken(NamedTuple):
    """A message handed over, the receipt it is held by, and how often it failed before."""

    message: Stored
    receipt: int
    failures: int


class Tally(msgspec.Struct):
    """What a queue has done. See `LocalCounts`."""

    published: int = 0
    delivered: int = 0
    acked: int = 0
    nacked: int = 0
    expired: int = 0
    dead: int = 0
