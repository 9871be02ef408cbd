"""CloudEvents 1.0 in binary mode: the attributes travel beside the data, under a prefix.

`ce-` is that of HTTP and Pub/Sub, `ce_` that of Kafka, `cloudEvents:` and `cloudEvents_` those of AMQP.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from eventkit._codec._content_type import ContentKind, kind_of
from eventkit._codec._envelope import (
    MAX_ATTRIBUTES,
    Envelope,
    add_extension,
    checked_text,
    checked_time,
    require_identity,
)
from eventkit.errors import DecodeError

__all__ = ["is_binary", "read_binary"]

_SHORT = frozenset(("ce-", "ce_"))
_LONG = frozenset(("cloudevents:", "cloudevents_"))
_SPECVERSION = frozenset(prefix + "specversion" for prefix in _SHORT | _LONG)


def is_binary(attributes: Mapping[str, str]) -> bool:
    """Whether these, of which only the first few are looked at, are those of a CloudEvent."""
    for name in islice(attributes, MAX_ATTRIBUTES):  # noqa: SIM110 - a generator costs as much as the rest of `read`
        if name.lower() in _SPECVERSION:
            return True
    return False


def read_binary(attributes: Mapping[str, str], body: bytes, content_type: str | None) -> Envelope:
    """The envelope of `body`, whose own content type is `content_type`. Raises DecodeError."""
    texts = _unprefixed(attributes)
    if texts.pop("specversion", "") != "1.0":
        raise DecodeError("CloudEvent attribute specversion: expected 1.0")
    id, source, type = texts.pop("id", ""), texts.pop("source", ""), texts.pop("type", "")
    require_identity(id, source, type)
    subject, time = texts.pop("subject", None), texts.pop("time", None)
    stated = texts.pop("datacontenttype", None)
    content_type = content_type or stated
    extensions: dict[str, str] = {}
    for name, value in texts.items():
        add_extension(extensions, name, value)
    return Envelope(
        id,
        source,
        type,
        body,
        kind_of(content_type) in (ContentKind.JSON, ContentKind.UNSTATED),
        subject=None if subject is None else checked_text("CloudEvent attribute subject", subject),
        time=None if time is None else checked_time(time),
        extensions=extensions or None,
        content_type=content_type,
    )


def _unprefixed(attributes: Mapping[str, str]) -> dict[str, str]:
    if len(attributes) > MAX_ATTRIBUTES:
        raise DecodeError(f"CloudEvent: more than {MAX_ATTRIBUTES} attributes")
    texts: dict[str, str] = {}
    for name, value in attributes.items():
        lower = name.lower()
        if lower[:3] in _SHORT:
            attribute = lower[3:]
        elif lower[:12] in _LONG:
            attribute = lower[12:]
        else:
            continue
        if attribute in texts:
            raise DecodeError("CloudEvent: an attribute is given twice")
        texts[attribute] = value
    return texts
