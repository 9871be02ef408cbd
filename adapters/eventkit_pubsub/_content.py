"""Between eventkit's values and the messages of Pub/Sub, as raw protobuf: the SDK's own wrappers are slow. Pure.

A body goes as it is, a key as the ordering key; what Pub/Sub has no room for is written as `_attributes` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from google.pubsub_v1 import types

from eventkit.spi import Delivery, Outgoing, Receipt
from eventkit_pubsub._attributes import Unfit, placed, read

__all__ = ["MOST_BODY", "MOST_BYTES", "Message", "Refused", "delivery_of", "message_of"]

MOST_BYTES: Final = 10_000_000
"""Of a whole request to publish. https://docs.cloud.google.com/pubsub/quotas#resource_limits"""
_FRAME: Final = 1000  # bytes around a single message: the topic's name and the lengths
MOST_BODY: Final = MOST_BYTES - _FRAME - 5
"""Bytes of a body that goes alone: a tag and a length of four bytes stand before it."""

Message: TypeAlias = Any
"""A raw `google.pubsub.v1.PubsubMessage`, which has no types."""

_message: Final = types.PubsubMessage.pb()
_sdk_object: Final = types.ReceivedMessage.wrap


class Refused(NamedTuple):
    """Pub/Sub would not take this message, or not give it back as it is; `cause` says why, without payload."""

    cause: str


def message_of(message: Outgoing, *, most: int = MOST_BYTES - _FRAME) -> Message | Refused:
    """The message to publish, of at most `most` bytes.

    One that does not go with all its attributes goes without those that may be spared.
    """
    try:
        _check(message, most)
        try:
            return _written(message, message.attributes, most)
        except Unfit:
            if not message.spare:
                raise
        kept = {name: value for name, value in message.attributes.items() if name not in message.spare}
        return _written(message, kept, most)
    except Unfit as unfit:
        return Refused(str(unfit))


def _check(message: Outgoing, most: int) -> None:
    if not isinstance(message.body, bytes):
        raise Unfit(f"the body is {type(message.body).__name__}, not bytes")
    if not math.isfinite(message.delay):
        raise Unfit(f"the delay is {message.delay} s")
    if message.delay > 0:
        raise Unfit(f"a delay of {message.delay} s: Pub/Sub delays no message")
    if len(message.body) > most:  # before it is copied
        raise Unfit(f"the body has {len(message.body):,} bytes, over Pub/Sub's limit of {most:,} for a message")


def _written(message: Outgoing, attributes: Mapping[str, str], most: int) -> Message:
    wire, ordering_key = placed(message, attributes)
    written = _message(data=message.body)
    if ordering_key:
        written.ordering_key = ordering_key
    names = written.attributes
    for name, value in wire.items():  # half the price of handing them to the constructor
        names[name] = value
    if (size := written.ByteSize()) > most:
        raise Unfit(
            f"the message takes {size:,} bytes (a body of {len(message.body):,}, its attributes and its key), "
            f"over Pub/Sub's limit of {most:,}"
        )
    return written


def delivery_of(received: Any, receipt: Receipt, leased_until: float, *, counted: bool, unseen: int = 0) -> Delivery:
    """The delivery in a raw `ReceivedMessage`. Never raises.

    `counted` says that Pub/Sub counts deliveries, `unseen` how many of those it has counted were never handed over.

    What claims to be written by `message_of` and cannot be is handed over as it came, for the codec to judge.
    `raw` is the SDK's `ReceivedMessage` around the same data, which costs 0.4 us.
    """
    message = received.message
    body, ordering_key, wire = message.data, message.ordering_key, message.attributes
    attributes: dict[str, str] = {}
    content_type, key = None, ordering_key or None
    if wire:
        # Two thirds of the price of `dict(wire)`, whose iterator makes a pair for each.
        attributes, content_type, key = read({name: wire[name] for name in wire}, ordering_key, empty=not body)
    count, when = received.delivery_attempt, message.publish_time
    seconds, nanos = when.seconds, when.nanos
    return Delivery(
        receipt=receipt,
        body=body,
        message_id=message.message_id,
        leased_until=leased_until,
        attributes=attributes,
        content_type=content_type,
        key=key,
        delivery_count=max(1, count - unseen) if counted and count > 0 else None,
        enqueued_at=seconds + nanos / 1e9 if seconds or nanos else None,
        raw=_sdk_object(received),
    )
