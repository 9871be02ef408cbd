"""The ways to read a delivery, one function each, made once for a content type."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from eventkit._codec._binary import is_binary, read_binary
from eventkit._codec._bounds import Bounds
from eventkit._codec._envelope import Envelope, checked_text
from eventkit._codec._structured import is_structured, read_structured
from eventkit.errors import DecodeError
from eventkit.spi import Delivery

__all__ = ["Form", "binary_or", "plain", "refused", "structured", "unstated"]

Form: TypeAlias = Callable[[Delivery], Envelope]

_SHORT = 256


def plain(source: str, *, is_json: bool) -> Form:
    """No envelope: the broker's message id and an attribute name the event. The body is not looked at."""

    def read(delivery: Delivery) -> Envelope:
        id, attributes = delivery.message_id, delivery.attributes
        if not (id.isprintable() and len(id) <= _SHORT):
            checked_text("message id", id)
        if not attributes:
            return Envelope(id, source, "", delivery.body, is_json)
        type = attributes.get("type") or attributes.get("event_type", "")
        return Envelope(id, source, checked_text("attribute type", type), delivery.body, is_json)

    return read


def structured(bounds: Bounds) -> Form:
    """A CloudEvent in structured mode, and nothing else."""

    def read(delivery: Delivery) -> Envelope:
        bounds.check(delivery.body)
        return read_structured(delivery.body)

    return read


def binary_or(otherwise: Form) -> Form:
    """A CloudEvent in binary mode if the attributes are those of one."""

    def read(delivery: Delivery) -> Envelope:
        attributes = delivery.attributes
        if attributes and is_binary(attributes):
            return read_binary(attributes, delivery.body, delivery.content_type)
        return otherwise(delivery)

    return read


def unstated(source: str, bounds: Bounds) -> Form:
    """Nobody says what it is: a CloudEvent if it has what each of them has, otherwise JSON."""
    as_json = plain(source, is_json=True)

    def read(delivery: Delivery) -> Envelope:
        body = delivery.body
        if body.find(b'"specversion"') < 0:
            return as_json(delivery)
        bounds.check(body)
        try:
            return read_structured(body)
        except DecodeError:
            if is_structured(body):
                raise
        return as_json(delivery)

    return read


def refused(_: Delivery) -> Envelope:
    """A content type that is not on the list."""
    raise DecodeError("content type is none of CloudEvents, JSON, text and octets in UTF-8; set format to read it")
