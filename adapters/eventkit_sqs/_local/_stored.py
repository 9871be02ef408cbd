"""A message as a queue keeps it, and what a queue counts."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from eventkit.testing.memory import Message
from eventkit_sqs._local._content import Attributes


class Stored(Message):
    """A message in a queue, with what only SQS knows of it. Its group is its `key`.

    `first_received` is in Unix milliseconds, 0 before; `receipt` is the newest; `dead_from` is the ARN of the queue
    that it was moved from as a dead letter.
    """

    content_attributes: Attributes = msgspec.field(default_factory=dict)
    body_md5: str = ""
    attributes_md5: str | None = None
    deduplication: str | None = None
    sequence: str | None = None
    trace: str | None = None
    first_received: int = 0
    receipt: int = 0
    dead_from: str | None = None


class Taken(NamedTuple):
    """A message handed over, and its receipt handle."""

    message: Stored
    handle: str


class Tally:
    """What a queue, or a server, has done. See `LocalCounts`."""

    def __init__(self) -> None:
        self.published = self.delivered = self.acked = self.nacked = self.dead = 0
