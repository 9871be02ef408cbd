"""From an event to a message: what `eventkit send` and tests publish."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from eventkit._codec._content_type import ContentKind, kind_of
from eventkit._codec._envelope import (
    MAX_ATTRIBUTES,
    add_extension,
    checked_text,
    checked_time,
    require_identity,
)
from eventkit.errors import DecodeError
from eventkit.spi import Outgoing

__all__ = ["CloudEvent", "encode"]

Mode: TypeAlias = Literal["structured", "binary"]

_BYTES = (bytes, bytearray, memoryview)
_NAME = re.compile(r"[a-z0-9]+")
_MOST = MAX_ATTRIBUTES - len(("datacontenttype", "data"))
_OWN = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data")


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event to publish.

    `data` is bytes, which travel as they are, or anything msgspec encodes as JSON, pydantic models included;
    JSON text that is there already goes in a `msgspec.Raw`. None is no data. NaN and Infinity become null.
    `content_type` is the data's: JSON, or octets for bytes, unless it is given; text needs one such as text/plain
    in order not to travel as a JSON string. Names of extensions are lower-case letters and digits.
    """

    id: str
    source: str
    type: str
    data: object = None
    subject: str | None = None
    time: datetime | str | None = None
    content_type: str | None = None
    extensions: Mapping[str, str] = {}


def encode(event: CloudEvent, *, mode: Mode = "structured", key: str | None = None, delay: float = 0.0) -> Outgoing:
    """The message that carries `event`, which `Codec.read` reads back.

    *structured* puts everything in the body, as JSON; *binary* the data alone, and the rest in attributes `ce-…`.
    Raises ValueError for an attribute that no CloudEvent may have, TypeError for data that is no JSON.
    """
    attributes, content_type = _attributes(event), _content_type(event)
    if mode == "binary":
        return Outgoing(
            body=_octets(event.data, content_type),
            attributes={f"ce-{name}": value for name, value in attributes.items()},
            content_type=content_type,
            key=key,
            delay=delay,
            event_id=event.id,
        )
    stated = {} if event.content_type is None else {"datacontenttype": event.content_type}
    members = {**attributes, **stated, **_data_members(event.data, content_type)}
    return Outgoing(
        body=msgspec.json.encode(members, enc_hook=_model),
        content_type="application/cloudevents+json",
        key=key,
        delay=delay,
        event_id=event.id,
    )


def _attributes(event: CloudEvent) -> dict[str, str]:
    if isinstance(event.time, datetime) and event.time.tzinfo is None:
        raise ValueError("CloudEvent attribute time: a datetime without time zone")
    time = event.time.isoformat() if isinstance(event.time, datetime) else event.time
    for name in event.extensions:
        if not _NAME.fullmatch(name) or name in _OWN:
            raise ValueError(f"CloudEvent extension {name!r}: must be lower-case letters and digits, and no core name")
    try:
        require_identity(event.id, event.source, event.type)
        optional = {
            "subject": None if event.subject is None else checked_text("CloudEvent attribute subject", event.subject),
            "time": None if time is None else checked_time(time),
        }
        extensions: dict[str, str] = {}
        for name, value in event.extensions.items():
            add_extension(extensions, name, value)
        checked_text("content type", event.content_type or "")
    except DecodeError as exc:
        raise ValueError(str(exc)) from exc
    attributes = {"specversion": "1.0", "id": event.id, "source": event.source, "type": event.type}
    attributes |= {name: text for name, text in optional.items() if text is not None} | extensions
    if len(attributes) > _MOST:
        raise ValueError(f"CloudEvent: {len(attributes)} attributes are more than the {_MOST} that are read back")
    return attributes


def _content_type(event: CloudEvent) -> str | None:
    if event.content_type is not None or event.data is None:
        return event.content_type
    return "application/octet-stream" if isinstance(event.data, _BYTES) else "application/json"


def _octets(data: object, content_type: str | None) -> bytes:
    """The data as it travels alone."""
    if data is None:
        return b""
    if isinstance(data, _BYTES):
        return bytes(data)
    if _is_text(data, content_type):
        return str(data).encode()
    return msgspec.json.encode(data, enc_hook=_model)


def _data_members(data: object, content_type: str | None) -> dict[str, object]:
    """The data as members of a JSON object."""
    if data is None:
        return {}
    if isinstance(data, _BYTES):
        return {"data_base64": bytes(data)}
    return {"data": str(data) if _is_text(data, content_type) else data}


def _is_text(data: object, content_type: str | None) -> bool:
    if kind_of(content_type) is ContentKind.JSON:
        return False
    if not isinstance(data, str):
        raise ValueError(f"data of type {type(data).__name__} travels as JSON, not as {content_type}")  # noqa: TRY004
    return True


def _model(value: Any) -> object:
    """What msgspec should encode instead of `value`, which it does not know."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"{type(value).__qualname__} cannot be encoded as JSON")
