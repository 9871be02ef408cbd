"""The envelope of an event, and what its texts must be like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from eventkit.errors import DecodeError

__all__ = ["MAX_ATTRIBUTES", "Envelope", "add_extension", "checked_text", "checked_time", "require_identity"]

MAX_ATTRIBUTES: Final = 32
_MAX_NAME = 256
_MAX_TEXT = 1024
_RESERVED = "eventkit-"

# What CloudEvents 1.0 (section "Type System", String) keeps out of attributes, and the two line separators.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Envelope(msgspec.Struct, eq=False, gc=False):
    """One event before its data is decoded. Mutable only because that is cheaper to build.

    `data` is the data as bytes: JSON text if `is_json`, else what the producer sent; empty where there is none.
    `within_bounds` says that it is part of JSON text which has passed the limits.
    `time` is RFC 3339 text that `datetime.fromisoformat` reads, with an offset. `content_type` is the data's.
    """

    id: str
    source: str
    type: str
    data: bytes
    is_json: bool = True
    within_bounds: bool = False
    subject: str | None = None
    time: str | None = None
    extensions: Mapping[str, str] | None = None
    content_type: str | None = None


def require_identity(id: str, source: str, type: str) -> None:
    """Raise DecodeError unless the three texts that name a CloudEvent are there and clean."""
    together = id + source + type
    if id and source and type and len(together) <= _MAX_TEXT // 4 and together.isprintable():
        return
    for name, value in (("id", id), ("source", source), ("type", type)):
        if not value:
            raise DecodeError(f"CloudEvent attribute {name}: must not be empty")
        checked_text(f"CloudEvent attribute {name}", value)


def checked_text(place: str, value: str) -> str:
    """`value`; raises DecodeError naming `place` if it is over 1 KiB or holds control characters."""
    # Four bytes are the most a character takes, and printable is stricter than what is asked for.
    if len(value) <= _MAX_TEXT // 4 and value.isprintable():
        return value
    if _CONTROL.search(value):
        raise DecodeError(f"{place}: has control characters")
    if len(value.encode()) > _MAX_TEXT:
        raise DecodeError(f"{place}: longer than {_MAX_TEXT} bytes")
    return value


def checked_time(text: str) -> str:
    """`text` with a `T` and a `Z` where RFC 3339 allows others. Raises DecodeError unless it is such a time."""
    if _is_time(text):
        return text
    usual = text.upper().replace(" ", "T")
    if not _is_time(usual):
        raise DecodeError("CloudEvent attribute time: expected an RFC 3339 time with an offset")
    return usual


def _is_time(text: str) -> bool:
    # `fromisoformat` also reads other forms of ISO 8601, which have something else in these places.
    if text[4:17:3] != "--T::" or len(text) > _MAX_NAME:
        return False
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def add_extension(extensions: dict[str, str], name: str, value: str) -> None:
    """Add one, unless its name is of those that eventkit keeps for itself. Raises DecodeError, without the name."""
    checked_text("CloudEvent attribute [...]", value)
    # Letters and digits are all that CloudEvents allows in a name, but more is sent.
    if not (name.isalnum() and len(name) <= _MAX_NAME // 4):
        checked_text("the name of a CloudEvent attribute", name)
        if len(name.encode()) > _MAX_NAME:
            raise DecodeError(f"the name of a CloudEvent attribute: longer than {_MAX_NAME} bytes")
        if name.lower().startswith(_RESERVED):
            return
    extensions[name] = value
