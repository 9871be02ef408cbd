"""What AWS puts around an event on its way to a queue, opened so that the codec sees a CloudEvent in binary mode.

| sent by | id | source | type | time, subject | data |
|---|---|---|---|---|---|
| SNS | MessageId | TopicArn | `com.amazonaws.sns.Notification` | Timestamp, Subject | Message |
| EventBridge | id | source | detail-type | time, first of resources | detail |
| S3 | of request, host, object | `aws:s3.REGION.BUCKET` | `com.amazonaws.s3.EVENT` | eventTime, object key | body |

What SNS carries counts for itself if it is an event: a CloudEvent in either mode, or one of the other two. Its
message attributes are attributes, and one of them named `type` is the type. S3's data is the whole notification, so
that it has one shape for one record and for several; of several, the first gives type, source and time, and there
is no subject. https://github.com/cloudevents/spec/tree/main/cloudevents/adapters

Everything here is hostile: a body is parsed to fixed types, a few times at most and only where it holds the telltale
of an envelope, and what does not fit is handed over as it came. Of a member given twice the last counts, as for
most readers of JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from eventkit_sqs._attributes import content_type_in

__all__ = ["Unwrapped", "is_suspect", "unwrap"]

_SPECVERSION: Final = frozenset(prefix + "specversion" for prefix in ("ce-", "ce_", "cloudevents:", "cloudevents_"))
_JSON: Final = "application/json"

_BEGINNING: Final = 1024
# The first member is looked at first: most bodies begin with another one, and pass at a tenth of the price.
_first_member = re.compile(
    rb'\s*+\{\s*+"(?:Type|Message|MessageId|TopicArn|version|id|detail-type|source|account|Records|Service|Bucket)"'
).match
_SNS, _BUS, _S3_EVENT, _S3_TEST = _TELLTALES = (b'"TopicArn"', b'"detail-type"', b'"aws:s3"', b'"s3:TestEvent"')

# What the codec takes: an attribute of so many bytes, and so many of them beside ours.
_LONGEST: Final = 1024
_MOST_ATTRIBUTES: Final = 24


class Unwrapped(NamedTuple):
    """What was in an envelope, or what was given if it was none."""

    body: bytes
    attributes: Mapping[str, str]
    content_type: str | None


class _SnsAttribute(msgspec.Struct, rename="pascal"):
    value: str


class _Notification(msgspec.Struct, rename="pascal"):
    type: Literal["Notification"]
    message_id: str
    topic_arn: Annotated[str, msgspec.Meta(pattern=r"^arn:[^:]*:sns:")]
    message: str
    timestamp: str
    subject: str | None = None
    message_attributes: dict[str, _SnsAttribute] = {}


class _BusEvent(msgspec.Struct, rename={"detail_type": "detail-type"}):
    version: str
    id: str
    detail_type: str
    source: str
    account: str
    time: str
    region: str
    resources: list[str]
    detail: msgspec.Raw


class _Bucket(msgspec.Struct):
    name: str


class _Object(msgspec.Struct, rename="camel"):
    key: str
    version_id: str | None = None
    sequencer: str | None = None


class _S3(msgspec.Struct):
    bucket: _Bucket
    object: _Object


class _Response(msgspec.Struct, rename={"request_id": "x-amz-request-id", "host_id": "x-amz-id-2"}):
    request_id: str = ""
    host_id: str = ""


class _Record(msgspec.Struct, rename="camel"):
    event_source: Literal["aws:s3"]
    aws_region: str
    event_time: str
    event_name: str
    s3: _S3
    response_elements: _Response = msgspec.field(default_factory=_Response)


class _S3Notification(msgspec.Struct, rename="pascal"):
    records: Annotated[list[_Record], msgspec.Meta(min_length=1)]


class _S3Test(msgspec.Struct, rename="pascal"):
    service: Literal["Amazon S3"]
    event: Literal["s3:TestEvent"]
    bucket: str
    request_id: str
    host_id: str
    time: str


class _Structured(msgspec.Struct):
    specversion: str
    id: str
    source: str
    type: str


_T = TypeVar("_T")


def is_suspect(body: bytes, attributes: Mapping[str, str], content_type: str | None) -> bool:
    """Whether this may be an envelope: cheap, and wrong at times; a CloudEvent by its attributes is none."""
    if _first_member(body) is None or not any(_tells(body, telltale) for telltale in _TELLTALES):
        return False
    return (not content_type or content_type.startswith(_JSON)) and not _is_cloud_event(attributes)


def unwrap(body: bytes, attributes: Mapping[str, str], content_type: str | None) -> Unwrapped:
    """What is in `body`; itself where it is no envelope. The message's own attributes are never replaced."""
    notification = _read(body, _Notification, _SNS)
    if notification is None:
        event = _event(body)
        return Unwrapped(body, attributes, content_type) if event is None else _beside(event, attributes)
    inner = notification.message.encode()
    sent = {name: value.value for name, value in notification.message_attributes.items()}
    inner_type = content_type_in(sent)
    event = None if _is_cloud_event(sent) else _event(inner)
    if event is not None:
        return _beside(event, sent | {**attributes})
    return Unwrapped(inner, _described(notification, inner, sent) | {**attributes}, inner_type)


def _beside(event: Unwrapped, attributes: Mapping[str, str]) -> Unwrapped:
    return event._replace(attributes={**event.attributes, **attributes})


def _described(notification: _Notification, inner: bytes, sent: dict[str, str]) -> dict[str, str]:
    """The attributes of what came by SNS: `sent`, and those of a CloudEvent where nothing else makes it one."""
    if _is_cloud_event(sent) or len(sent) > _MOST_ATTRIBUTES:
        return sent
    if _read(inner, _Structured, b'"specversion"') is not None:
        return sent
    type = sent.get("type") or sent.get("event_type") or "com.amazonaws.sns.Notification"
    made = _cloud_event(
        (notification.message_id, notification.topic_arn, type),
        time=notification.timestamp,
        subject=notification.subject,
    )
    return sent if made is None else made | sent


def _event(body: bytes) -> Unwrapped | None:
    """The event of EventBridge or S3 that `body` is."""
    if (event := _read(body, _BusEvent, _BUS)) is not None:
        return _of_event_bridge(event)
    if (notification := _read(body, _S3Notification, _S3_EVENT)) is not None:
        return _of_s3(body, notification.records)
    if (test := _read(body, _S3Test, _S3_TEST)) is not None:
        names = (_joined(test.request_id, test.host_id), f"aws:s3.{test.bucket}", "com.amazonaws.s3.TestEvent")
        return _wrapped(body, _cloud_event(names, time=test.time))
    return None


def _of_event_bridge(event: _BusEvent) -> Unwrapped | None:
    detail = bytes(event.detail)
    if not detail.startswith(b"{"):
        return None
    made = _cloud_event(
        (event.id, event.source, event.detail_type),
        time=event.time,
        subject=event.resources[0] if event.resources else None,
        account=event.account,
        region=event.region,
    )
    return _wrapped(detail, made)


def _of_s3(body: bytes, records: Sequence[_Record]) -> Unwrapped | None:
    first = records[0]
    response = first.response_elements
    names = (
        _joined(response.request_id, response.host_id, _distinction(records)),
        f"{first.event_source}.{first.aws_region}.{first.s3.bucket.name}",
        f"com.amazonaws.s3.{first.event_name}",
    )
    subject = first.s3.object.key if len(records) == 1 else None
    return _wrapped(body, _cloud_event(names, time=first.event_time, subject=subject))


def _distinction(records: Sequence[_Record]) -> str:
    """What tells events of one request apart.

    CloudEvents' adapter for S3 makes the id of the request's ids alone, and one DeleteObjects has an event for each
    of its thousand objects: they would be taken for repeats of the first.
    """
    objects = [(x.event_name, x.s3.object.key, x.s3.object.version_id, x.s3.object.sequencer) for x in records]
    return sha256(msgspec.json.encode(objects)).hexdigest()[:32]


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


_Names: TypeAlias = tuple[str, str, str]


def _cloud_event(
    names: _Names, *, time: str, subject: str | None = None, account: str = "", region: str = ""
) -> dict[str, str] | None:
    """The attributes of a CloudEvent with this id, source and type; None where the codec would refuse one of those.

    Of the others, what is too long or unprintable is left out: an S3 key may have 3 KiB with its characters escaped.
    """
    if not all(map(_is_clean, names)):
        return None
    id, source, type = names
    made = {"ce-specversion": "1.0", "ce-id": id, "ce-source": source, "ce-type": type}
    optional = {"ce-time": time, "ce-subject": subject, "ce-account": account, "ce-region": region}
    return made | {name: text for name, text in optional.items() if text and _is_clean(text)}


def _is_clean(text: str) -> bool:
    return bool(text) and text.isprintable() and len(text.encode()) <= _LONGEST


def _wrapped(body: bytes, attributes: dict[str, str] | None) -> Unwrapped | None:
    return None if attributes is None else Unwrapped(body, attributes, _JSON)


def _is_cloud_event(attributes: Mapping[str, str]) -> bool:
    return any(name.lower() in _SPECVERSION for name in attributes)


def _tells(body: bytes, telltale: bytes) -> bool:
    return body.find(telltale, 0, _BEGINNING) >= 0


def _read(body: bytes, type: type[_T], telltale: bytes) -> _T | None:
    if not _tells(body, telltale):
        return None
    try:
        return msgspec.json.decode(body, type=type)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors, and so are those of UTF-8
        return None
