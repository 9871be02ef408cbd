"""Between eventkit's values and the messages of SQS. Pure: what needs to be unique is an argument.

A body that is text for SQS goes as it is, any other in base64, the empty one as a single character; the attribute
`eventkit-body` says which, so that every body comes back byte for byte. On a FIFO queue the key is the message
group; elsewhere, and where it cannot be one, it travels in the attribute `eventkit-key`.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from eventkit.spi import Delivery, Outgoing, Receipt
from eventkit_sqs import _attributes, _envelopes
from eventkit_sqs._attributes import BODY, KEY, PACKED, Packed, Unfit
from eventkit_sqs._text import is_id, text_of

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

__all__ = ["Entry", "Refused", "delivery_of", "entry_of"]

_MOST_DELAY: Final = 900  # seconds

_BASE64, _EMPTY, _PLAIN = "base64", "empty", "plain"
_NOTHING: Final = "-"  # the body of a message without one: SQS wants a character

_OUR_GROUPS: Final = "eventkit-"
_ALONE: Final = _OUR_GROUPS + "alone-"
_HASHED: Final = _OUR_GROUPS + "sha256-"

_MISSING: Final[Mapping[str, Any]] = {}


class Entry(NamedTuple):
    """One entry of a batch to send, and its size in bytes as SQS counts it."""

    fields: SendMessageBatchRequestEntryTypeDef
    size: int


class Refused(NamedTuple):
    """SQS would not take this message, or not give it back as it is; `cause` says why, without payload."""

    cause: str


class _Form(NamedTuple):
    body: str
    attributes: dict[str, str]
    size: int


def entry_of(message: Outgoing, position: int, *, fifo: bool, most: int, token: str) -> Entry | Refused:
    """The entry at `position` of a batch for a queue whose messages may have `most` bytes.

    `token` is new for each message, at most 100 characters of `[A-Za-z0-9_-]`: the id for deduplication, and the
    group, of one that has none. A message that is too large goes without what may be spared. One that has such
    attributes is a copy to be kept: on a standard queue it would rather be parted from its key than refused.
    """
    try:
        _check(message, fifo=fifo)
    except Unfit as unfit:
        return Refused(str(unfit))
    forms = _forms(message, fifo=fifo)
    form = next(forms)
    while form.size > most:
        smaller = next(forms, None)
        if smaller is None:
            return Refused(_too_large(message, form, most))
        form = smaller
    fields: SendMessageBatchRequestEntryTypeDef = {"Id": str(position), "MessageBody": form.body}
    if form.attributes:
        fields["MessageAttributes"] = {
            name: {"DataType": "String", "StringValue": value} for name, value in form.attributes.items()
        }
    if fifo:
        fields["MessageGroupId"] = _group(message.key, token)
        fields["MessageDeduplicationId"] = _deduplication(message, token)
    elif message.delay > 0:  # without one, a delay that is set on the queue counts
        fields["DelaySeconds"] = math.ceil(message.delay)
    return Entry(fields, form.size)


def _check(message: Outgoing, *, fifo: bool) -> None:
    if not isinstance(message.body, bytes):
        raise Unfit(f"the body is {type(message.body).__name__}, not bytes")
    if not math.isfinite(message.delay):
        raise Unfit(f"the delay is {message.delay} s")
    if fifo and message.delay > 0:
        raise Unfit(f"a delay of {message.delay} s: a FIFO queue has none for a single message")
    if message.delay > _MOST_DELAY:
        raise Unfit(f"a delay of {message.delay} s: SQS delays a message by {_MOST_DELAY} s at most")
    _attributes.check(message)


def _forms(message: Outgoing, *, fifo: bool) -> Iterator[_Form]:
    """The ways to write `message`, each smaller than the one before."""
    text = text_of(message.body)
    if text is not None:
        wrapped = _envelopes.is_suspect(message.body, message.attributes, message.content_type)
        body, marker = text, _PLAIN if wrapped else None
    elif message.body:
        body, marker = binascii.b2a_base64(message.body, newline=False).decode("ascii"), _BASE64
    else:
        body, marker = _NOTHING, _EMPTY
    size = len(body) if marker == _BASE64 else max(1, len(message.body))
    key = message.key
    if fifo and key is not None and _is_group(key):
        key = None
    yield _form(body, size, _attributes.placed(message, key=key, marker=marker))
    if not message.spare:
        return
    kept = {name: value for name, value in message.attributes.items() if name not in message.spare}
    message = msgspec.structs.replace(message, attributes=kept)
    yield _form(body, size, _attributes.placed(message, key=key, marker=marker))
    # What an original may come without: the key of a fair queue, and the mark that its envelope stays closed.
    key, marker = key if fifo else None, None if marker == _PLAIN else marker
    yield _form(body, size, _attributes.placed(message, key=key, marker=marker))


def _form(body: str, size: int, attributes: dict[str, str]) -> _Form:
    beside = sum(_bytes(name) + len("String") + _bytes(value) for name, value in attributes.items())
    return _Form(body, attributes, size + beside)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _too_large(message: Outgoing, form: _Form, most: int) -> str:
    encoded = ", sent in base64" if form.attributes.get(BODY) == _BASE64 else ""
    return (
        f"the message takes {form.size:,} bytes (a body of {len(message.body):,}{encoded}, and its attributes), "
        f"over the queue's limit of {most:,}"
    )


def _is_group(key: str) -> bool:
    return is_id(key) and not key.startswith(_OUR_GROUPS)


def _group(key: str | None, token: str) -> str:
    if key is None:
        return _ALONE + token
    return key if _is_group(key) else _HASHED + _hash(key)


def _deduplication(message: Outgoing, token: str) -> str:
    """The same for a repeat, and for nothing else: what is published twice within 5 minutes is dropped in silence.

    An id alone is not enough: it is its producer's, and two producers may use the same one.
    """
    if not message.event_id:
        return token
    digest = sha256(message.body)
    for text in (message.event_id, message.attributes.get("ce-source", "")):
        digest.update(sha256(text.encode()).digest())
    return digest.hexdigest()


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def delivery_of(
    message: Mapping[str, Any], receipt: Receipt, leased_until: float, *, fifo: bool, unwrap: bool = True
) -> Delivery:
    """The delivery in a message as the SDK gives it, received with all its attributes. Never raises.

    What claims to be written by `entry_of` and cannot be is handed over as it came, for the codec to judge.
    `unwrap` opens what SNS, EventBridge and S3 put around an event; never one that eventkit published.
    """
    system = message.get("Attributes", _MISSING)
    given = message.get("MessageAttributes")
    # SQS has no lone surrogates; of whoever stands in for it, the codec says what is wrong.
    body = message.get("Body", "").encode("utf-8", "surrogatepass")
    attributes: Mapping[str, str] = {}
    content_type = key = None
    as_published = False
    if given:
        body, attributes, content_type, key, as_published = _read(body, _attributes.texts(given))
    if unwrap and not as_published and _envelopes.is_suspect(body, attributes, content_type):
        body, attributes, content_type = _envelopes.unwrap(body, attributes, content_type)
    group = system.get("MessageGroupId")
    if fifo:
        key = _ordered_key(key, group)
    elif key is None:
        key = group
    return Delivery(
        receipt=receipt,
        body=body,
        message_id=message.get("MessageId", ""),
        leased_until=leased_until,
        attributes=attributes,
        content_type=content_type,
        key=key,
        delivery_count=_count(system.get("ApproximateReceiveCount")),
        enqueued_at=_seconds(system.get("SentTimestamp")),
        raw=message,
    )


class _Content(NamedTuple):
    body: bytes
    attributes: dict[str, str]
    content_type: str | None
    key: str | None
    as_published: bool


def _read(body: bytes, attributes: dict[str, str]) -> _Content:
    """What `_forms` wrote, its own attributes taken out."""
    key, content_type = attributes.pop(KEY, None), _attributes.content_type_in(attributes)
    marker, pack = attributes.get(BODY), attributes.get(PACKED)
    if marker is None and pack is None:
        return _Content(body, attributes, content_type, key, as_published=False)
    try:
        original = _original(body, marker)
        packed = Packed() if pack is None else _attributes.unpacked(pack)
    except (ValueError, RecursionError):
        return _Content(body, attributes, content_type, key, as_published=True)
    attributes = {name: text for name, text in attributes.items() if name not in (BODY, PACKED)} | packed.attributes
    key = key if packed.key is None else packed.key
    content_type = content_type if packed.content_type is None else packed.content_type
    return _Content(original, attributes, content_type, key, as_published=marker is not None)


def _original(body: bytes, marker: str | None) -> bytes:
    """The body that was published. Raises ValueError for one that cannot be marked so."""
    if marker == _BASE64:
        return binascii.a2b_base64(body, strict_mode=True)
    if marker == _EMPTY and body == _NOTHING.encode():
        return b""
    if marker in (None, _PLAIN):
        return body
    raise ValueError


def _ordered_key(key: str | None, group: str | None) -> str | None:
    """The key of a message of this group; `key` only where it is what the group stands for: order is by groups."""
    if group is None or (group.startswith(_HASHED) and key is not None and group == _group(key, "")):
        return key
    return None if group.startswith(_ALONE) else group


def _count(text: object) -> int | None:
    try:
        count = int(text)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return None
    return count if count > 0 else None


def _seconds(text: object) -> float | None:
    """Unix seconds, of milliseconds."""
    try:
        return int(text) / 1000  # type: ignore[call-overload,no-any-return]
    except (TypeError, ValueError, OverflowError):
        return None
