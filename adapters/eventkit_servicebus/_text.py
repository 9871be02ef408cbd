"""What AMQP 1.0 has types for, as the SDK decodes it, and what eventkit has: bytes and text. Never raises.

The SDK's decoder makes bytes of strings, symbols and binary values alike, and integers of timestamps.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType

__all__ = ["body_of", "text_of", "texts"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES: Final = frozenset(("cloudEvents:time", "cloudEvents_time"))
"""The one timestamp of a CloudEvent, which a sender may write as one of AMQP; the decoder makes milliseconds of it."""
_MILLISECOND: Final = timedelta(milliseconds=1)

_json_of: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_DATA: Final = AmqpMessageBodyType.DATA
_SEQUENCE: Final = AmqpMessageBodyType.SEQUENCE


def body_of(message: AmqpAnnotatedMessage) -> tuple[bytes, bool]:
    """The body of a message of any type, and whether it is JSON text that was made of an AMQP value.

    Sections are joined. A single string is its own text, a binary value its own bytes: other senders put theirs
    into a value section as well as into one of data (so does JMS with a text message).
    """
    kind, body = message.body_type, message.body
    if kind is _DATA:
        sections = [*body]
        if len(sections) == 1 and type(sections[0]) is bytes:
            return sections[0], False
        return b"".join(map(_octets, sections)), False
    if kind is _SEQUENCE:
        joined = [item for section in body for item in (section if isinstance(section, list) else [section])]
        return _json_of(_plain(joined)).encode("utf-8", "replace"), True
    if body is None or isinstance(body, bytes):
        return bytes(body or b""), False
    return _json_of(_plain(body)).encode("utf-8", "replace"), True


def _octets(section: Any) -> bytes:
    if isinstance(section, bytes):
        return section
    return (text_of(section) or "").encode("utf-8", "replace")  # no data section, whatever it says


def texts(properties: Any) -> dict[str, str]:
    """Application properties of any type as text; one that is null is left out."""
    if not properties:
        return {}
    try:  # nearly always
        return {name.decode(): value.decode() for name, value in properties.items()}
    except (AttributeError, UnicodeDecodeError):
        pass
    if not isinstance(properties, Mapping):
        return {}
    read: dict[str, str] = {}
    for key, value in properties.items():
        name = text_of(key)
        text = _moment(value) if name in _TIMES and type(value) is int else text_of(value)
        if name is not None and text is not None:
            read[name] = text
    return read


def _moment(milliseconds: int) -> str:
    try:
        return (_EPOCH + milliseconds * _MILLISECOND).isoformat()
    except OverflowError:
        return str(milliseconds)


def text_of(value: Any) -> str | None:
    """A value of any type as text, None for null. Bytes that are not UTF-8 are in base64."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode("ascii")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple | dict):
        return _json_of(_plain(value))
    return str(value)


def _plain(value: Any) -> Any:
    """The same of what JSON can hold, its text of what it cannot. The SDK nests no deeper than 64."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {text_of(key) or "": _plain(item) for key, item in value.items()}
    return text_of(value)
