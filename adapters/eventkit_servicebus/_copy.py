"""A retry that is delayed on a queue: a scheduled copy, with a new id, which duplicate detection cannot drop.

The property `eventkit-copy` carries what the service starts anew: the first id, the deliveries so far, and the time
at which the first message was enqueued. `delivery_of` shows them. Pure.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
from azure.servicebus import ServiceBusMessage
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageProperties

from eventkit.spi import Delivery
from eventkit_servicebus._attributes import CONTENT_TYPE, COPY, KEY, First, escaped
from eventkit_servicebus._content import ENQUEUED, Message, Refused, delivery_of, moment, whole
from eventkit_servicebus._sizes import (
    SCHEDULE,
    TIMESTAMP,
    Unfit,
    check_size,
    fields_size,
    properties_size,
    section,
    text_size,
)
from eventkit_servicebus._text import body_of, text_of, texts

__all__ = ["copy_of"]

_PARTITION_KEY: Final = b"x-opt-partition-key"
# The SDK writes a time to live into the header, and as two times into the properties.
_LIFE: Final = section(4 + 5) + 2 * (TIMESTAMP - 1)
_LONGEST_LIFE: Final = 2**32  # milliseconds
_COPIED: Final = ("group_id", "to", "subject", "reply_to", "correlation_id", "content_encoding", "reply_to_group_id")

_first_out = msgspec.json.Encoder().encode


def copy_of(received: Any, *, delay_until: float, token: str, most: int) -> Message | Refused:
    """A copy of a `ServiceBusReceivedMessage` for the queue that it came from, due at `delay_until`, in Unix seconds.

    Its delivery is that of the original, counted on: body, attributes, content type, key, first id, first time. It
    keeps session, partition key, subject, addresses and correlation, and lives no longer than the original would.
    `token` is its own id. Refused is one that does not fit into `most` bytes: then the original must not be settled.
    """
    original = received.raw_amqp_message
    shown = delivery_of(received, None, 0.0, sessions=False)
    try:
        due = moment(delay_until)
        wire: dict[Any, Any] = _carried(shown, original)
        copy = ServiceBusMessage(
            shown.body,
            application_properties=wire,
            message_id=token,
            content_type=None if CONTENT_TYPE in wire else shown.content_type,
            scheduled_enqueue_time_utc=due,
        )
        fields = _like(original.properties, copy)
        annotated = _partitioned(original, copy)
        _limit_life(original, copy, delay_until)
        size = properties_size(wire) + fields_size(token, copy.content_type, *fields) + annotated + _LIFE
        check_size(size, shown.body, most)
    except Unfit as unfit:
        return Refused(str(unfit))
    return copy


def _carried(shown: Delivery, original: AmqpAnnotatedMessage) -> dict[str, str]:
    """The properties of a copy: those of the original, read and written, and what the copy is of."""
    wire = {escaped(name): value for name, value in shown.attributes.items()}
    given, fields = texts(original.application_properties), original.properties
    if KEY in given:
        wire[KEY] = given[KEY]
    if CONTENT_TYPE in given and (fields is None or fields.content_type is None) and not body_of(original)[1]:
        wire[CONTENT_TYPE] = given[CONTENT_TYPE]
    first = First(shown.message_id, shown.delivery_count or 1, shown.enqueued_at)
    wire[COPY] = _first_out(first).decode()
    return wire


def _like(original: AmqpMessageProperties | None, copy: Message) -> list[str]:
    """Give `copy` the fields of `original` that a sender gives, as text; these."""
    fields = copy.raw_amqp_message.properties
    given = {name: text_of(getattr(original, name, None)) for name in _COPIED}
    if fields is not None:  # the SDK's constructor makes them
        for name, text in given.items():
            setattr(fields, name, text)
    return [text for text in given.values() if text is not None]


def _partitioned(original: AmqpAnnotatedMessage, copy: Message) -> int:
    """Give `copy` the partition key of `original`; the size of the annotations that it has then."""
    given, annotations = original.annotations, copy.raw_amqp_message.annotations
    key = text_of(given.get(_PARTITION_KEY)) if isinstance(given, dict) else None
    if key is None or annotations is None:
        return SCHEDULE
    annotations[_PARTITION_KEY] = key
    return SCHEDULE + text_size(_PARTITION_KEY.decode()) + text_size(key) + 6  # if the map is a large one with it


def _limit_life(original: AmqpAnnotatedMessage, copy: Message, due: float) -> None:
    """Let `copy`, which is due at `due`, expire when `original` would, a second later than that at least.

    What has 49 days left, all that the SDK can write, is left to the default of the queue.
    """
    header, fields = original.header, original.properties
    given: Any = None if header is None else header.time_to_live
    life = given if isinstance(given, int) else 0
    if fields is not None and isinstance(fields.absolute_expiry_time, int) and isinstance(fields.creation_time, int):
        life = max(life, fields.absolute_expiry_time - fields.creation_time)  # what the header has no room for
    ours = copy.raw_amqp_message.header
    if ours is None or life <= 0:
        return
    enqueued = whole(original.annotations, ENQUEUED)
    left = max(1000, life if enqueued is None else enqueued + life - math.ceil(due * 1000))
    if left < _LONGEST_LIFE:
        ours.time_to_live = left
