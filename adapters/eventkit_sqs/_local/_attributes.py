"""The attributes of a queue: their names, the values they may have, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from eventkit_sqs._local._errors import SqsError

MAX_SIZE: Final = 1_048_576
"""Bytes of a message with its attributes, and of a batch."""

# [doc: CreateQueue] Least, most and default.
_NUMBERS: Final = {
    "DelaySeconds": (0, 900, 0),
    "MaximumMessageSize": (1_024, MAX_SIZE, MAX_SIZE),
    "MessageRetentionPeriod": (60, 1_209_600, 345_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20, 0),
    "VisibilityTimeout": (0, 43_200, 30),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400, 300),
}
_FIFO_WORDS: Final = {
    "ContentBasedDeduplication": ("false", "true"),
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
}
_WORDS: Final = {"SqsManagedSseEnabled": ("true", "false")}
_TEXT: Final = frozenset({"Policy", "KmsMasterKeyId", "RedriveAllowPolicy", "RedrivePolicy"})
COUNTED: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
)
READ_ONLY: Final = frozenset({*COUNTED, "CreatedTimestamp", "LastModifiedTimestamp", "QueueArn"})
KNOWN: Final = READ_ONLY | {*_NUMBERS, *_FIFO_WORDS, *_WORDS, *_TEXT, "All", "FifoQueue"}


class _Policy(msgspec.Struct, rename="camel"):
    dead_letter_target_arn: str
    max_receive_count: int | str


class Redrive(msgspec.Struct, frozen=True):
    """Where a message goes at the receive after its `most`-th."""

    target: str
    most: int


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the attributes of a queue mean. Times are in seconds, sizes in bytes."""

    delay: int
    lease: int
    retention: int
    size: int
    wait: int
    by_content: bool
    per_group: bool
    redrive: Redrive | None

    @classmethod
    def of(cls, attributes: Mapping[str, str]) -> Settings:
        """Read attributes that are checked and complete."""
        policy = attributes.get("RedrivePolicy")
        return cls(
            delay=int(attributes["DelaySeconds"]),
            lease=int(attributes["VisibilityTimeout"]),
            retention=int(attributes["MessageRetentionPeriod"]),
            size=int(attributes["MaximumMessageSize"]),
            wait=int(attributes["ReceiveMessageWaitTimeSeconds"]),
            by_content=attributes.get("ContentBasedDeduplication") == "true",
            per_group=attributes.get("DeduplicationScope") == "messageGroup",
            redrive=redrive(policy) if policy else None,
        )


def defaults(*, fifo: bool) -> dict[str, str]:
    """The attributes of a queue that nobody has set."""
    texts = {name: str(default) for name, (*_, default) in _NUMBERS.items() if not name.startswith("Kms")}
    texts |= {name: words[0] for name, words in _WORDS.items()}
    if fifo:
        texts |= {"FifoQueue": "true", **{name: words[0] for name, words in _FIFO_WORDS.items()}}
    return texts


def check(attributes: Mapping[str, str], *, fifo: bool, new: bool) -> None:
    """Refuse what a queue cannot be set to. Raises SqsError."""
    for name, text in attributes.items():
        if name == "FifoQueue":
            _check_type(text, fifo=fifo, new=new)
        elif name not in KNOWN or name in READ_ONLY or name == "All" or (name in _FIFO_WORDS and not fifo):
            raise SqsError("InvalidAttributeName", f"Unknown Attribute {name}.")
        elif not _fits(name, text):
            raise SqsError("InvalidAttributeValue", f"Invalid value for the parameter {name}.")
        elif name == "RedrivePolicy" and text:
            redrive(text)


def _check_type(text: str, *, fifo: bool, new: bool) -> None:
    if new and fifo and text == "true":
        return
    if not fifo:
        raise SqsError("InvalidAttributeName", "Unknown Attribute FifoQueue.")
    if text != "true":
        problem = "Reason: Modifying queue type is not supported."
        raise SqsError("InvalidAttributeValue", f"Invalid value for the parameter FifoQueue. {problem}")


def _fits(name: str, text: str) -> bool:
    if name in _NUMBERS:
        least, most, _ = _NUMBERS[name]
        return re.fullmatch("[0-9]{1,9}", text) is not None and least <= int(text) <= most
    words = _WORDS.get(name) or _FIFO_WORDS.get(name)
    return words is None or text in words


def redrive(text: str) -> Redrive:
    """Read a RedrivePolicy. Raises SqsError."""
    try:
        policy = msgspec.json.decode(text, type=_Policy)
    except msgspec.DecodeError as exc:
        raise bad_redrive(text, "Amazon SQS can't create the redrive policy, as it's in an unsupported format") from exc
    most = str(policy.max_receive_count)
    if not re.fullmatch("[0-9]{1,4}", most) or not 1 <= int(most) <= 1_000:
        raise bad_redrive(text, "Invalid value for maxReceiveCount: must be between 1 and 1000")
    if not policy.dead_letter_target_arn.startswith("arn:aws:sqs:"):
        raise bad_redrive(text, "Invalid value for deadLetterTargetArn")
    return Redrive(policy.dead_letter_target_arn, int(most))


def bad_redrive(text: str, reason: str) -> SqsError:
    """A RedrivePolicy that cannot be."""
    return SqsError("InvalidParameterValue", f"Value {text} for parameter RedrivePolicy is invalid. Reason: {reason}.")
