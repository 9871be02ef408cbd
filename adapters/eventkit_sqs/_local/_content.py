"""What a message may say: its body and attributes, their size, and the digests that SDKs check."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from struct import Struct as Layout
from typing import Final

import msgspec

from eventkit_sqs._local._attributes import MAX_SIZE
from eventkit_sqs._local._errors import SqsError, invalid, missing

# [doc: SendMessage] What XML 1.0 can say.
_ILLEGAL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME: Final = re.compile(r"(?!.*\.\.)(?!\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_RESERVED: Final = ("aws.", "amazon.")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_LENGTH: Final = Layout(">I")
MAX_ATTRIBUTES: Final = 10


class Value(msgspec.Struct, rename="pascal", omit_defaults=True, gc=False):
    """One attribute of a message."""

    data_type: str
    string_value: str | None = None
    binary_value: bytes | None = None

    @property
    def counted(self) -> bytes:
        """The value as it counts and is digested."""
        return self.binary_value or (self.string_value or "").encode()


Attributes = dict[str, Value]


class Content(msgspec.Struct, gc=False):
    """The checked content of a message; `size` is in bytes, with the attributes."""

    body: bytes
    attributes: Attributes
    size: int
    body_md5: str
    attributes_md5: str | None
    trace: str | None
    trace_md5: str | None


def checked(text: str, attributes: Attributes | None, system: Attributes | None) -> Content:
    """The content of a message about to be sent. Raises SqsError for what SQS would refuse, its size apart."""
    if not text:
        raise missing("MessageBody")
    # What can be printed is legal in XML, and much faster to find out.
    if not text.isprintable() and _ILLEGAL.search(text):
        raise SqsError(
            "InvalidMessageContents",
            "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | "
            "#xE000 to #xFFFD | #x10000 to #x10FFFF",
        )
    body = text.encode()
    attributes = attributes or {}
    if attributes:
        _check_attributes(attributes)
    trace = _trace(system) if system else None
    return Content(
        body=body,
        attributes=attributes,
        size=len(body) + (_size(attributes) if attributes else 0),
        body_md5=hashlib.md5(body, usedforsecurity=False).hexdigest(),
        attributes_md5=attributes_md5(attributes) if attributes else None,
        trace=trace,
        trace_md5=attributes_md5(system) if system else None,
    )


def check_size(content: Content, most: int) -> None:
    """Refuse what is larger than `most` bytes. Raises SqsError."""
    if content.size > most:
        raise SqsError(
            "InvalidParameterValue",
            f"One or more parameters are invalid. Reason: Message must be shorter than {most} bytes.",
        )


def check_batch_size(sizes: Iterable[int]) -> None:
    """Refuse a batch that is too large as a whole. Raises SqsError."""
    total = sum(sizes)
    if total > MAX_SIZE:
        raise SqsError(
            "BatchRequestTooLong",
            f"Batch requests cannot be longer than {MAX_SIZE} bytes. You have sent {total} bytes.",
        )


def attributes_md5(attributes: Mapping[str, Value]) -> str:
    """The digest of message attributes.

    [doc: Amazon SQS message metadata, Calculating the MD5 message digest for message attributes] By name: the
    length and bytes of name and of type, one byte for text (1) or binary (2), the length and bytes of the value.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for name, value in sorted(attributes.items()):
        kind = b"\x02" if value.binary_value is not None else b"\x01"
        digest.update(_sized(name.encode()) + _sized(value.data_type.encode()) + kind + _sized(value.counted))
    return digest.hexdigest()


def _sized(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _size(attributes: Attributes) -> int:
    return sum(
        len(name.encode()) + len(value.data_type.encode()) + len(value.counted) for name, value in attributes.items()
    )


def _check_attributes(attributes: Attributes) -> None:
    if len(attributes) > MAX_ATTRIBUTES:
        raise SqsError(
            "InvalidParameterValue",
            f"Number of message attributes [{len(attributes)}] exceeds the allowed maximum [10].",
        )
    for name, value in attributes.items():
        _check_name(name)
        _check_value(name, value)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.lower().startswith(_RESERVED):
        raise SqsError(
            "InvalidParameterValue", f"Invalid attribute name: {name!r}: see the rules for message attributes."
        )


def _check_value(name: str, value: Value) -> None:
    kind = value.data_type.partition(".")[0]
    if kind not in {"String", "Number", "Binary"} or len(value.data_type) > 256:
        raise SqsError(
            "InvalidParameterValue",
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes "
            "is Binary, Number, and String.",
        )
    given = value.binary_value if kind == "Binary" else value.string_value
    if not given:
        raise SqsError(
            "InvalidParameterValue",
            f"Message (user) attribute '{name}' must contain a non-empty value of type '{kind}'.",
        )
    if value.string_value is not None and _ILLEGAL.search(value.string_value):
        raise SqsError(
            "InvalidParameterValue", f"Message (user) attribute '{name}' has characters that are not allowed."
        )
    if kind == "Number" and not _NUMBER.fullmatch(value.string_value or ""):
        raise invalid(
            name, value.string_value, f"Can't cast the value of message (user) attribute '{name}' to a number."
        )


def _trace(system: Attributes) -> str:
    if set(system) != {"AWSTraceHeader"}:
        raise SqsError("InvalidParameterValue", "Message system attribute names: only AWSTraceHeader can be sent.")
    value = system["AWSTraceHeader"]
    if value.data_type != "String" or not value.string_value:
        raise SqsError("InvalidParameterValue", "Message system attribute 'AWSTraceHeader' must be a non-empty String.")
    return value.string_value
