"""What travels beside a body: application properties, text by text, as many as there is room for.

An attribute is the property of its name. A property named below is ours: an attribute of such a name has
`eventkit-attribute-` before it on the wire, so that it comes back as an attribute.

A key is the session where there are sessions. What cannot be the id of one is hashed there; it stands, as every key
does where there are no sessions, in the property `eventkit-key`.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Final

import msgspec

from eventkit.spi import Outgoing
from eventkit_servicebus._sizes import Unfit

__all__ = [
    "CONTENT_TYPE",
    "COPY",
    "KEY",
    "First",
    "check",
    "escaped",
    "first_in",
    "is_symbol",
    "key_in",
    "placed",
    "session_of",
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

_MOST_SHOWN: Final = 200  # characters of a name in a reason


class First(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a scheduled copy says of the message that it stands for; read strictly, since nobody else writes it."""

    id: str
    deliveries: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    enqueued: float | None = None


_first_in = msgspec.json.Decoder(First).decode


def session_of(key: str | None, alone: str) -> str:
    """The session for `key`; `alone` names one for a message without a key."""
    if key is None:
        return _ALONE + alone
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


def placed(message: Outgoing, attributes: Mapping[str, str], *, session: str | None) -> dict[str, str]:
    """The properties on the wire for `message` with these attributes of its own. Raises Unfit for what is no text."""
    wire: dict[str, str] = {}
    if message.key is not None and message.key != session:
        wire[KEY] = message.key
    if message.content_type is not None and not is_symbol(message.content_type):
        wire[CONTENT_TYPE] = message.content_type
    for name, value in attributes.items():
        check("name of an attribute", name)
        check(f"attribute {name[:_MOST_SHOWN]!r}", value)
        wire[escaped(name)] = value
    return wire


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
    """The attributes in these properties, ours taken out. Where two would have the same name all stay as they came."""
    if _ESCAPE not in "".join(wire):
        return wire
    attributes: dict[str, str] = {}
    for name, value in wire.items():
        original = name.removeprefix(_ESCAPE)
        attributes[original if _needs_escape(original) else name] = value
    return attributes if len(attributes) == len(wire) else wire


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


def first_in(wire: dict[str, str]) -> First | None:
    """What a copy is of, taken out of `wire`; None, and left there, where it is none of ours."""
    text = wire.get(COPY)
    if text is None:
        return None
    try:
        first = _first_in(text)
    except (ValueError, RecursionError):
        return None
    del wire[COPY]
    return first
