"""What travels beside a body: a hundred attributes at most, of short names and values; the rest is packed into them.

An attribute of the sender is *native*, as it stands, where Pub/Sub takes it and there is room for it: first those
that may be spared or are eventkit's, then the trace, then the others, each in the order of the mapping. What is not
native is one JSON text, cut into the attributes `eventkit-packed-0`, `-1` and so on. The names below are ours: a
sender's attribute of such a name is packed, so that it comes back as an attribute.

A key is the ordering key. One that cannot be is hashed there, and stands in the attribute `eventkit-key`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, TypeAlias

import msgspec

from eventkit.spi import Outgoing

__all__ = ["Unfit", "placed", "read"]

_BODY, _EMPTY = "eventkit-body", "empty"
_KEY: Final = "eventkit-key"
_PACKED: Final = "eventkit-packed"
_FIRST_CHUNK: Final = f"{_PACKED}-0"
_CONTENT_TYPES: Final = ("content-type", "Content-Type", "contentType")
_OURS: Final = frozenset((_BODY, _KEY, *_CONTENT_TYPES))
_TRACE: Final = frozenset(("traceparent", "tracestate"))

_OUR_KEYS: Final = "eventkit-"
_HASHED: Final = _OUR_KEYS + "sha256-"

# https://docs.cloud.google.com/pubsub/quotas#resource_limits
_MOST: Final = 100
_LONGEST_NAME: Final = 256
_LONGEST: Final = 1024  # bytes of a value, and of an ordering key
_THEIRS: Final = "goog"


class _Pack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What did not fit; it is read strictly, since nobody else writes it."""

    attributes: dict[str, str] = {}
    key: str | None = None
    content_type: str | None = None


class Unfit(Exception):
    """This message cannot be sent as it is; the text says why, without payload."""


Placed: TypeAlias = tuple[dict[str, str], str]
Read: TypeAlias = tuple[dict[str, str], str | None, str | None]
"""The attributes, the content type and the key of a message; no class, which would cost a tenth of `delivery_of`."""

_pack_in = msgspec.json.Decoder(_Pack).decode
# Not msgspec, which escapes no more than JSON needs: of ASCII, every character is a byte, and any cut a good one.
_json_of = json.JSONEncoder(separators=(",", ":")).encode


def _ordering_key_of(key: str | None) -> str:
    if key is None:
        return ""
    _check("key", key)
    if 0 < _bytes(key) <= _LONGEST and not key.startswith(_OUR_KEYS):
        return key
    return _hash(key)


def placed(message: Outgoing, attributes: Mapping[str, str]) -> Placed:
    """The attributes and the ordering key on the wire for `message` with these attributes of its own.

    At most a hundred, all legal. Raises Unfit for what is no text, and where there is no way to write them so.
    """
    ordering_key = _ordering_key_of(message.key)
    wire, packed = _beside(message, ordering_key)
    if not packed and _are_plain(attributes):
        wire.update(attributes)
        return wire if wire or message.body else {_BODY: _EMPTY}, ordering_key
    for name, value in attributes.items():
        _check("name of an attribute", name)
        _check(f"attribute {name[:_LONGEST_NAME]!r}", value)
    room = _MOST - len(wire)
    native = [name for name, value in attributes.items() if _is_native(name) and _bytes(value) <= _LONGEST]
    if not packed and len(native) == len(attributes) <= room:
        return wire | dict(attributes), ordering_key
    parted = _parted(attributes, _by_rank(native, message.spare), packed, room)
    if parted is None:
        return _as_they_came(message, attributes, wire, ordering_key)
    return wire | parted, ordering_key


def _beside(message: Outgoing, ordering_key: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The attributes for key and content type, and the members of the pack for what is too long for one."""
    wire: dict[str, str] = {}
    packed: dict[str, Any] = {}
    key, content_type = message.key, message.content_type
    if key is not None and key != ordering_key:
        if _bytes(key) <= _LONGEST:
            wire[_KEY] = key
        else:
            packed["key"] = key
    if content_type is not None:
        _check("content type", content_type)
        if _bytes(content_type) <= _LONGEST:
            wire[_CONTENT_TYPES[0]] = content_type
        else:
            packed["content_type"] = content_type
    return wire, packed


def _are_plain(attributes: Mapping[str, str]) -> bool:
    """Whether all are native, as far as can be told at a glance: most often, at half the price of a close look."""
    try:
        names, values = "".join(attributes), "".join(attributes.values())
    except TypeError:
        return False
    return (
        len(names) <= _LONGEST_NAME
        and len(values) <= _LONGEST
        and len(attributes) <= _MOST - 2  # beside key and content type
        and names.isascii()
        and values.isascii()
        and _THEIRS not in names
        and _PACKED not in names
        and _OURS.isdisjoint(attributes)
        and "" not in attributes
    )


def _is_native(name: str) -> bool:
    return _is_legal(name) and name not in _OURS and not name.startswith(_PACKED)


def _is_legal(name: str) -> bool:
    return 0 < _bytes(name) <= _LONGEST_NAME and not name.startswith(_THEIRS)


def _by_rank(names: list[str], spare: tuple[str, ...]) -> list[str]:
    def rank(name: str) -> int:
        if name in spare or name.startswith("eventkit-"):
            return 0
        return 1 if name in _TRACE else 2

    return sorted(names, key=rank)


def _parted(
    attributes: Mapping[str, str], native: Sequence[str], packed: dict[str, Any], room: int
) -> dict[str, str] | None:
    """As many of `native` as leave room for a pack of the rest, and that pack; None where none do."""
    # As a member with its comma, which the last has not: a byte too many, now and then a place.
    sizes = {name: len(_json_of({name: value})) - 1 for name, value in attributes.items()}
    kept = min(len(native), room)
    size = len(_json_of(packed | {"attributes": {}})) + sum(sizes.values()) - sum(sizes[name] for name in native[:kept])
    while kept - (-size // _LONGEST) > room:
        if not kept:
            return None
        kept -= 1
        size += sizes[native[kept]]
    stay = frozenset(native[:kept])
    wire = {name: value for name, value in attributes.items() if name in stay}
    packed["attributes"] = {name: value for name, value in attributes.items() if name not in stay}
    pack = _json_of(packed)
    for number, start in enumerate(range(0, len(pack), _LONGEST)):
        wire[f"{_PACKED}-{number}"] = pack[start : start + _LONGEST]
    return wire


def _as_they_came(message: Outgoing, attributes: Mapping[str, str], wire: dict[str, str], ordering_key: str) -> Placed:
    """These attributes unpacked, though of our names, where nobody will take them for ours. Raises Unfit.

    Whoever sends a hundred of them, as long as can be, could otherwise not be dead-lettered.
    """
    original = (dict(attributes), message.content_type, message.key)
    without_key = {name: value for name, value in wire.items() if name != _KEY}
    for ours, key in ((wire, ordering_key), (without_key, message.key or "")):
        whole = ours | original[0]
        legal = len(whole) <= _MOST and all(_is_legal(n) and _bytes(value) <= _LONGEST for n, value in whole.items())
        if legal and _bytes(key) <= _LONGEST and read(dict(whole), key, empty=not message.body) == original:
            return whole, key
    size = sum(_bytes(name) + _bytes(value) for name, value in attributes.items())
    raise Unfit(
        f"its {len(attributes):,} attributes, of {size:,} bytes, take more than {_MOST} of {_LONGEST:,} bytes each, "
        "which is all that Pub/Sub has, even when they are packed"
    )


def read(wire: dict[str, str], ordering_key: str, *, empty: bool) -> Read:
    """What `placed` wrote; `wire` is used up. Never raises.

    What claims to be ours and cannot be is left as it came. A key is believed where the ordering key stands for it.
    """
    content_type = None
    for name in _CONTENT_TYPES:
        if name in wire:
            content_type = wire.pop(name)
            break
    key = ordering_key or None
    if _KEY in wire and ordering_key == _hash(wire[_KEY]):
        key = wire.pop(_KEY)
    if empty and wire.get(_BODY) == _EMPTY:
        del wire[_BODY]
    if _FIRST_CHUNK not in wire:
        return wire, content_type, key
    chunks = [name for name in wire if name.startswith(_PACKED)]
    try:
        pack = _pack_in("".join([wire[f"{_PACKED}-{number}"] for number in range(len(chunks))]))
    except (KeyError, ValueError, RecursionError):
        return wire, content_type, key
    for name in chunks:
        del wire[name]
    if pack.content_type is not None:
        content_type = pack.content_type
    if pack.key is not None and ordering_key == _hash(pack.key):
        key = pack.key
    return pack.attributes | wire, content_type, key  # Pub/Sub may have added one that it had added before


def _hash(key: str) -> str:
    return _HASHED + sha256(key.encode()).hexdigest()


def _check(what: str, text: object) -> None:
    if not isinstance(text, str):
        raise Unfit(f"the {what} is {type(text).__name__}, not str")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise Unfit(f"the {what} has a lone surrogate, which UTF-8 cannot hold") from exc


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
