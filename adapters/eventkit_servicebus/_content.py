"""Between eventkit's values and the messages of azure-servicebus. Pure: time, and what is unique, are arguments.

A body goes as one data section, a content type where AMQP has it, all else as `_attributes` says. Of a received
message only `raw_amqp_message` is read, which is public, and a third of the price of the properties around it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias

from azure.servicebus import ServiceBusMessage
from azure.servicebus.amqp import AmqpMessageHeader

from eventkit.spi import Delivery, Outgoing, Receipt
from eventkit_servicebus._attributes import (
    CONTENT_TYPE,
    check,
    first_in,
    is_symbol,
    key_in,
    placed,
    session_of,
    unescaped,
)
from eventkit_servicebus._sizes import SCHEDULE, Unfit, check_size, fields_size, properties_size
from eventkit_servicebus._text import body_of, text_of, texts

__all__ = ["ENQUEUED", "Message", "Refused", "delivery_of", "message_of", "moment", "whole"]

Message: TypeAlias = ServiceBusMessage

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND

_JSON: Final = "application/json"
ENQUEUED: Final = b"x-opt-enqueued-time"
_SEQUENCE_NUMBER: Final = b"x-opt-sequence-number"


class Refused(NamedTuple):
    """Service Bus would not take this message, or not give it back as it is; `cause` says why, without payload."""

    cause: str


def message_of(
    message: Outgoing, *, most: int, sessions: bool, token: str, now: float, alone: str | None = None
) -> Message | Refused:
    """The message to send, of at most `most` bytes as the SDK counts them, to an entity with or without sessions.

    `token` is new for each message, at most 100 characters: the id of one that has none. One without a key is of the
    session `alone` names, or of one of its own. `now` is in Unix seconds; a delay ends as many seconds later. A
    message that is too large goes without the attributes that may be spared.
    """
    try:
        _check(message, most)
        session = session_of(message.key, alone or token) if sessions else None
        due = _due(message.delay, now)
        try:
            return _written(message, message.attributes, most=most, session=session, token=token, due=due)
        except Unfit:
            if not message.spare:
                raise
        kept = {name: value for name, value in message.attributes.items() if name not in message.spare}
        return _written(message, kept, most=most, session=session, token=token, due=due)
    except Unfit as unfit:
        return Refused(str(unfit))


def _check(message: Outgoing, most: int) -> None:
    if not isinstance(message.body, bytes):
        raise Unfit(f"the body is {type(message.body).__name__}, not bytes")
    if len(message.body) > most:  # before it is hashed
        raise Unfit(f"the body has {len(message.body):,} bytes, over the limit of {most:,} for a message")
    if not math.isfinite(message.delay) or message.delay < 0:
        raise Unfit(f"the delay is {message.delay} s")
    for what, text in (("key", message.key), ("content type", message.content_type), ("event id", message.event_id)):
        if text is not None:
            check(what, text)


def _due(delay: float, now: float) -> datetime | None:
    return moment(now + delay) if delay > 0 else None


def moment(when: float) -> datetime:
    """That time, in whole milliseconds, as AMQP has it; never earlier."""
    if not 0 <= when * 1000 <= _LAST:
        raise Unfit(f"it would be due {when} s after 1970, which is no time before the year 10000")
    return _EPOCH + math.ceil(when * 1000) * _MILLISECOND


def _written(
    message: Outgoing,
    attributes: Mapping[str, str],
    *,
    most: int,
    session: str | None,
    token: str,
    due: datetime | None,
) -> Message:
    wire: dict[Any, Any] = placed(message, attributes, session=session)
    id = _id(message, attributes, token)
    content_type = message.content_type
    if content_type is not None and not is_symbol(content_type):
        content_type = None
    size = properties_size(wire) + fields_size(id, content_type, session)
    check_size(size if due is None else size + SCHEDULE, message.body, most)
    return ServiceBusMessage(
        message.body,
        application_properties=wire or None,
        session_id=session,
        message_id=id,
        content_type=content_type,
        # The SDK writes it as a timestamp of AMQP.
        scheduled_enqueue_time_utc=due,
    )


def _id(message: Outgoing, attributes: Mapping[str, str], token: str) -> str:
    """The same for a repeat, and for nothing else: duplicate detection drops what comes twice in silence.

    An event's id alone is not enough: it is its producer's, and two producers may use the same one.
    """
    if not message.event_id:
        return token
    digest = sha256(message.body)
    for text in (message.event_id, attributes.get("ce-source", "")):
        digest.update(sha256(text.encode()).digest())
    return digest.hexdigest()


def delivery_of(received: Any, receipt: Receipt, leased_until: float, *, sessions: bool) -> Delivery:
    """The delivery in a `ServiceBusReceivedMessage` of an entity with or without sessions. Never raises.

    What claims to be written by `message_of` or `copy_of` and cannot be is handed over as it came. A message whose
    sender gave no id has its sequence number for one. `raw` is `received`.
    """
    message = received.raw_amqp_message
    body, made = body_of(message)
    wire = texts(message.application_properties)
    fields, annotations = message.properties, message.annotations
    id = content_type = session = None
    if fields is not None:
        id, content_type, session = text_of(fields.message_id), text_of(fields.content_type), text_of(fields.group_id)
    if made:
        content_type = _JSON
    count, stored = _count(message.header), whole(annotations, ENQUEUED)
    enqueued = None if stored is None else stored / 1000
    key = session
    if wire:
        if content_type is None:
            content_type = wire.pop(CONTENT_TYPE, None)
        if (first := first_in(wire)) is not None:
            id, count = first.id, count + first.deliveries
            enqueued = enqueued if first.enqueued is None else first.enqueued
        key = key_in(wire, session, sessions=sessions)
        wire = unescaped(wire)
    elif session is not None:
        key = key_in(wire, session, sessions=sessions)
    if id is None:
        number = whole(annotations, _SEQUENCE_NUMBER)
        id = "" if number is None else str(number)
    return Delivery(
        receipt=receipt,
        body=body,
        message_id=id,
        leased_until=leased_until,
        attributes=wire,
        content_type=content_type,
        key=key,
        delivery_count=count,
        enqueued_at=enqueued,
        raw=received,
    )


def _count(header: AmqpMessageHeader | None) -> int:
    """How often it was delivered, this time included; a header that says nothing says none before."""
    before: Any = 0 if header is None else header.delivery_count
    return before + 1 if isinstance(before, int) and 0 < before < 2**32 else 1


def whole(annotations: Any, name: bytes) -> int | None:
    """The annotation of this name, where it is a whole number."""
    number = annotations.get(name) if isinstance(annotations, dict) else None
    return number if isinstance(number, int) and -(2**63) <= number < 2**63 else None
