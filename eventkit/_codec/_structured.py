"""CloudEvents 1.0, JSON format (structured mode).

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import msgspec

from eventkit._codec._content_type import ContentKind, kind_of
from eventkit._codec._envelope import (
    MAX_ATTRIBUTES,
    Envelope,
    add_extension,
    checked_text,
    checked_time,
    require_identity,
)
from eventkit._codec._explain import explain
from eventkit.errors import DecodeError

__all__ = ["is_structured", "read_structured"]


class _Members(msgspec.Struct, omit_defaults=True, gc=False):
    specversion: str
    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    data_base64: bytes | None = None


_KNOWN = frozenset(_Members.__struct_fields__)
_REQUIRED = frozenset(("specversion", "id", "source", "type"))

_BEGINNING = 64

_members = msgspec.json.Decoder(_Members).decode
_every_member = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


def is_structured(body: bytes) -> bool:
    """Whether `body`, which has passed the limits, is a JSON object with what every CloudEvent has."""
    try:
        return _every_member(body).keys() >= _REQUIRED
    except (msgspec.DecodeError, RecursionError):
        return False


def read_structured(body: bytes) -> Envelope:
    """The envelope in `body`, which has passed the limits. Raises DecodeError."""
    try:
        members = _members(body)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise DecodeError(f"CloudEvent: {explain(exc, body)}") from None
    if members.specversion != "1.0":
        raise DecodeError("CloudEvent attribute specversion: expected 1.0")
    require_identity(members.id, members.source, members.type)
    data, is_json, within_bounds = _data(members)
    return Envelope(
        members.id,
        members.source,
        members.type,
        data,
        is_json,
        within_bounds,
        None if members.subject is None else checked_text("CloudEvent attribute subject", members.subject),
        None if members.time is None else checked_time(members.time),
        # Encoding never lengthens, so equal lengths mean: nothing else in there, no member twice, no white space.
        None if len(_encode(members)) == len(body) else _extensions(body),
        members.datacontenttype,
    )


def _data(members: _Members) -> tuple[bytes, bool, bool]:
    """Data, whether it is JSON text, and whether that has passed the limits as part of the body."""
    data, content_type = bytes(members.data), members.datacontenttype
    if members.data_base64 is not None:
        if data:
            raise DecodeError("CloudEvent: has both data and data_base64")
        return members.data_base64, kind_of(content_type) is ContentKind.JSON, False
    if content_type is None or content_type == "application/json":
        return data, True, True
    if data[:1] == b'"' and kind_of(content_type) is not ContentKind.JSON:
        return _string(data).encode(), False, False
    return data, True, True


def _extensions(body: bytes) -> dict[str, str] | None:
    """What is in there beside the members that are known. Raises DecodeError, also for a member given twice."""
    if body.find(b'": ', 0, _BEGINNING) < 0:  # a guess: most bodies are compact, or spaced throughout
        members = _every_member(body)
        if len(_encode(members)) == len(body):
            return _others(members)
    compact = msgspec.json.format(body, indent=-1)
    if len(_encode(_members(compact))) == len(compact):
        return None  # it was the white space only
    members = _every_member(compact)
    if len(_encode(members)) != len(compact):
        raise DecodeError("CloudEvent: a member is given twice, or its name is escaped")
    return _others(members)


def _others(members: dict[str, msgspec.Raw]) -> dict[str, str] | None:
    if len(members) > MAX_ATTRIBUTES:
        raise DecodeError(f"CloudEvent: more than {MAX_ATTRIBUTES} attributes")
    extensions: dict[str, str] = {}
    for name in [name for name in members if name not in _KNOWN]:
        value = bytes(members[name])
        if value != b"null":  # which CloudEvents takes as not given
            add_extension(extensions, name, _text(value))
    return extensions or None


def _text(value: bytes) -> str:
    """An extension's JSON value as text: what a string says, a number or boolean as it is written."""
    match value[0]:
        case 0x22:  # "
            return _string(value)
        case 0x5B | 0x7B:  # [ {
            raise DecodeError("CloudEvent attribute [...]: expected a string, number or boolean")
        case _:
            return value.decode()
