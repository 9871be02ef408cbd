"""What travels beside a body: application properties, text by text, as many as there is room for.

An attribute is the property of its name. A property named below is ours: an attribute of such a name has
`eventkit-attribute-` before it on the wire, so that it comes back as an attribute.

A key is the session where there are sessions. What cannot be the id of one is hashed there; it stands, as every key
does where there are no sessions, in the property `eventkit-key`.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from eventkit.spi import Outgoing

__all__ = [
    "COPY",
    "MOST_BESIDE",
    "Unfit",
    "check",
    "escaped",
    "fitting",
    "is_symbol",
    "key_in",
    "map_size",
    "octets",
    "placed",
    "session_of",
    "sized",
    "unescaped",
]

KEY: Final = "eventkit-key"
CONTENT_TYPE: Final = "eventkit-content-type"
"""One that is no symbol of AMQP: not ASCII, or empty."""
COPY: Final = "eventkit-copy"
_ESCAPE: Final = "eventkit-attribute-"
# A property without a name is legal in AMQP; nobody says that the service takes it.
_OURS: Final = frozenset((KEY, CONTENT_TYPE, COPY, ""))

_OUR_SESSIONS: Final = "eventkit-"
_ALONE: Final = _OUR_SESSIONS + "alone-"
_HASHED: Final = _OUR_SESSIONS + "sha256-"
_LONGEST_ID: Final = 128  # UTF-16 units: the service is written in .NET

# https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas
_MOST_PROPERTY: Final = 32 * 1024 - 1  # of a name with its value
MOST_BESIDE: Final = 60 * 1024
"""Bytes of all but the body. The service allows 64 KiB with what it adds: times, a lock, why it was dead-lettered.

The last is a reason and a detail of 1 KiB; a scheduled copy has a property more, for which there must be room.
"""


_MOST_SHOWN: Final = 200  # characters of a name in a reason


class Unfit(Exception):
    """This message cannot be sent as it is; the text says why, without payload."""


def session_of(key: str | None, token: str) -> str:
    """The session for `key`; `token` makes one for a message without a key."""
    if key is None:
        return _ALONE + token
    return key if _is_session(key) else _hash(key)


def _is_session(key: str) -> bool:
    if not key or not key.isprintable() or key.startswith(_OUR_SESSIONS):
        return False
    return len(key) <= _LONGEST_ID and (key.isascii() or len(key.encode("utf-16-le")) <= 2 * _LONGEST_ID)


def _hash(key: str) -> str:
    return _HASHED + sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def is_symbol(content_type: str) -> bool:
    """Whether AMQP has room for this content type where content types are."""
    return content_type.isascii() and content_type != ""


def placed(message: Outgoing, attributes: Mapping[str, str], *, session: str | None) -> tuple[dict[str, str], int]:
    """The properties on the wire for `message` with these attributes of its own, and their size in bytes.

    Raises Unfit for what is no text, and for a property that is too large.
    """
    wire: dict[str, str] = {}
    if message.key is not None and message.key != session:
        wire[KEY] = message.key
    if message.content_type is not None and not is_symbol(message.content_type):
        wire[CONTENT_TYPE] = message.content_type
    for name, value in attributes.items():
        check("name of an attribute", name)
        check(f"attribute {name[:_MOST_SHOWN]!r}", value)
        wire[escaped(name)] = value
    return wire, fitting(wire)


def fitting(wire: Mapping[str, str]) -> int:
    """The size of these properties in bytes. Raises Unfit for one that is too large."""
    size = 0
    for name, value in wire.items():
        one, other = octets(name), octets(value)
        if one + other > _MOST_PROPERTY:
            raise Unfit(
                f"the property {name[:_MOST_SHOWN]!r} takes {one + other:,} bytes, "
                f"over the limit of {_MOST_PROPERTY:,} for one"
            )
        size += sized(one) + sized(other)
    return map_size(size, len(wire)) if wire else 0


def map_size(content: int, pairs: int) -> int:
    """Bytes of a section that is a map, or a list of twice as many items, with this content."""
    return content + (6 if pairs * 2 <= 255 and content < 255 else 12)


def sized(length: int) -> int:
    """Bytes of a string, symbol or binary value of this length: its type and its length stand before it."""
    return length + (2 if length < 256 else 5)


def octets(text: str) -> int:
    """Bytes of `text`."""
    return len(text) if text.isascii() else len(text.encode())


def check(what: str, text: object) -> None:
    """Raise Unfit for what is no text, or what UTF-8 cannot hold."""
    if not isinstance(text, str):
        raise Unfit(f"the {what} is {type(text).__name__}, not str")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise Unfit(f"the {what} has a lone surrogate, which UTF-8 cannot hold") from exc


def escaped(name: str) -> str:
    """The name of the property for the attribute `name`."""
    return _ESCAPE + name if _needs_escape(name) else name


def _needs_escape(name: str) -> bool:
    return name in _OURS or name.startswith(_ESCAPE)


def unescaped(wire: dict[str, str]) -> dict[str, str]:
    """The attributes in these properties, ours taken out. A name that two would have stays as it came."""
    if _ESCAPE not in "".join(wire):
        return wire
    attributes: dict[str, str] = {}
    for name, value in wire.items():
        original = name.removeprefix(_ESCAPE)
        plain = original == name or not _needs_escape(original) or original in wire
        attributes[name if plain else original] = value
    return attributes


def key_in(wire: dict[str, str], session: str | None, *, sessions: bool) -> str | None:
    """The key of a message of this session; taken out of `wire` where it is believed.

    With sessions, only where the session stands for it: order is by them. Without, it is the key, for want of one
    the session that the sender gave.
    """
    named = wire.get(KEY)
    if named is not None and (not sessions or (session is not None and session == _hash_of(named))):
        return wire.pop(KEY)
    return None if session is None or session.startswith(_ALONE) else session


def _hash_of(named: str) -> str | None:
    return None if _is_session(named) else _hash(named)
