"""Google's messages as plain protobuf: the SDK's wrappers around them cost a hundred times as much."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.protobuf import duration_pb2, empty_pb2, field_mask_pb2, timestamp_pb2
from google.pubsub_v1 import types
from google.rpc import error_details_pb2, status_pb2

Raw: TypeAlias = Any
"""A protobuf message, or the class of one: they are made at run time, and no type checker knows them."""

Duration: Final[Raw] = duration_pb2.Duration
Empty: Final[Raw] = empty_pb2.Empty
ErrorInfo: Final[Raw] = error_details_pb2.ErrorInfo
FieldMask: Final[Raw] = field_mask_pb2.FieldMask
Policy: Final[Raw] = policy_pb2.Policy
Status: Final[Raw] = status_pb2.Status
Timestamp: Final[Raw] = timestamp_pb2.Timestamp


def raw(name: str) -> Raw:
    """The class of the message `google.pubsub.v1.NAME`."""
    return getattr(types, name).pb()


def iam(name: str) -> Raw:
    """The class of the message `google.iam.v1.NAME`."""
    return getattr(iam_policy_pb2, name)


PubsubMessage: Final = raw("PubsubMessage")
PullResponse: Final = raw("PullResponse")
StreamingPullResponse: Final = raw("StreamingPullResponse")
Subscription: Final = raw("Subscription")
Topic: Final = raw("Topic")


def timestamp(seconds: float) -> Raw:
    """A time, from Unix seconds."""
    made = Timestamp()
    made.FromNanoseconds(round(seconds * 1_000_000) * 1_000)
    return made


def seconds_of(span: Raw) -> float:
    """Seconds, of a Duration or of a Timestamp since 1970."""
    return float(span.seconds + span.nanos / 1e9)
