"""What travels beside a body: ten attributes at most, of few names and texts; all the rest is packed into one of them.

An attribute of the sender is *native*, as it stands, where SQS takes it and there is room for it: first those
that may be spared or are eventkit's, then the trace, then the others, each in the order of the mapping. The names
below are ours: a sender's attribute of such a name is always packed, so that it comes back as an attribute.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from eventkit.spi import Outgoing
from eventkit_sqs._text import is_name, is_text, is_unicode

__all__ = ["BODY", "KEY", "PACKED", "Packed", "Unfit", "check", "content_type_in", "placed", "texts", "unpacked"]

BODY: Final = "eventkit-body"
"""How the body is written, if not as it is."""
KEY: Final = "eventkit-key"
PACKED: Final = "eventkit-packed"

_MOST: Final = 10
_CONTENT_TYPES: Final = ("content-type", "Content-Type", "contentType")
_OURS: Final = frozenset((BODY, KEY, PACKED, *_CONTENT_TYPES))
_TRACE: Final = frozenset(("traceparent", "tracestate"))


class Packed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What did not fit; it is read strictly, since nobody else writes it."""

    attributes: dict[str, str] = {}
    key: str | None = None
    content_type: str | None = None


class Unfit(Exception):
    """This message cannot be sent as it is; the text says why, without payload."""


_packed = msgspec.json.Decoder(Packed).decode


def check(message: Outgoing) -> None:
    """Raise Unfit for what is not text, or what UTF-8 cannot hold."""
    for what, text in (("key", message.key), ("content type", message.content_type), ("event id", message.event_id)):
        if text is not None and (fault := _fault(text)):
            raise Unfit(f"the {what} {fault}")
    for name, value in message.attributes.items():
        if fault := _fault(name):
            raise Unfit(f"the name of an attribute {fault}")
        if fault := _fault(value):
            raise Unfit(f"attribute {name!r} {fault}")


def _fault(text: object) -> str:
    if not isinstance(text, str):
        return f"is {type(text).__name__}, not str"
    return "" if is_unicode(text) else "has a lone surrogate, which UTF-8 cannot hold"


def placed(message: Outgoing, *, key: str | None, marker: str | None) -> dict[str, str]:
    """The native attributes of a message that passed `check`: at most ten, each one legal."""
    native = {} if marker is None else {BODY: marker}
    packed: dict[str, Any] = {}
    for name, member, text in ((KEY, "key", key), (_CONTENT_TYPES[0], "content_type", message.content_type)):
        if text is None:
            continue
        if is_text(text):
            native[name] = text
        else:
            packed[member] = text
    attributes = message.attributes
    fitting = [x for x, value in attributes.items() if is_name(x) and is_text(value) and x not in _OURS]
    if not packed and len(fitting) == len(attributes) <= _MOST - len(native):
        return native | dict(attributes)
    first = frozenset(islice(_by_rank(fitting, message.spare), _MOST - len(native) - 1))
    native |= {name: value for name, value in attributes.items() if name in first}
    packed["attributes"] = {name: value for name, value in attributes.items() if name not in first}
    # Not msgspec, which leaves U+FFFE and other such characters unescaped.
    native[PACKED] = json.dumps(packed, separators=(",", ":"))
    return native


def _by_rank(names: list[str], spare: tuple[str, ...]) -> Iterator[str]:
    def rank(name: str) -> int:
        if name in spare or name.startswith("eventkit-"):
            return 0
        return 1 if name in _TRACE else 2

    return iter(sorted(names, key=rank))


def unpacked(text: str) -> Packed:
    """What `placed` packed. Raises ValueError or RecursionError for what it cannot have written."""
    return _packed(text)


def texts(given: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The message attributes of a received message, by name.

    A number is as its sender wrote it, a binary value in base64, whatever label follows the type; one that has
    no value, or one of neither kind, is left out.
    """
    read: dict[str, str] = {}
    for name, value in given.items():
        text = value.get("StringValue")
        if isinstance(text, str):
            read[name] = text
        elif isinstance(octets := value.get("BinaryValue"), bytes | bytearray):
            read[name] = base64.b64encode(octets).decode("ascii")
    return read


def content_type_in(attributes: dict[str, str]) -> str | None:
    """The content type, taken out of `attributes`; of several spellings the first counts, the others stay."""
    for name in _CONTENT_TYPES:
        if name in attributes:
            return attributes.pop(name)
    return None
