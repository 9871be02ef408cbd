"""What a content type means. Only these few are known; none of them runs code."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["ContentKind", "kind_of"]

_MAX_LENGTH: Final = 256
_UTF8 = ("", "utf-8", "utf8", "us-ascii", "ascii")


class ContentKind(enum.Enum):
    """How a body of some content type may be read."""

    UNSTATED = "unstated"
    EVENT = "event"
    """A CloudEvent in structured mode."""
    JSON = "json"
    BYTES = "bytes"
    """Text or octets."""
    OTHER = "other"


def kind_of(content_type: str | None) -> ContentKind:
    """Classify a content type. Another charset than UTF-8 makes it OTHER: nothing is ever transcoded."""
    if not content_type:
        return ContentKind.UNSTATED
    if len(content_type) > _MAX_LENGTH:
        return ContentKind.OTHER
    media, _, parameters = content_type.lower().partition(";")
    media = media.strip()
    if _charset(parameters) not in _UTF8:
        return ContentKind.OTHER
    if media == "application/cloudevents+json":
        return ContentKind.EVENT
    if media.startswith("application/cloudevents"):
        return ContentKind.OTHER  # batches, Avro, Protobuf
    if media in ("application/json", "text/json") or media.endswith("+json"):
        return ContentKind.JSON
    if media.startswith("text/") or media == "application/octet-stream":
        return ContentKind.BYTES
    return ContentKind.OTHER


def _charset(parameters: str) -> str:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            return value.strip().strip('"')
    return ""
