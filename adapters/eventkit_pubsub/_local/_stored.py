"""A message as a subscription keeps it, and what a subscription counts."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from eventkit.testing.memory import Message


class Stored(Message, weakref=True, gc=True):
    """A message in a subscription; its body is the whole of a serialized PubsubMessage, its key the ordering key.

    `count` is 1 + nacks + expiries once it is delivered. `number` is its place among all that was published,
    `published` its publish time in Unix seconds, `retry_at` when it may come again after its deadline has passed,
    `acked` whether it is only kept to be brought back.
    """

    number: int = 0
    published: float = 0.0
    retry_at: float = 0.0
    acked: bool = False


class Taken(NamedTuple):
    """A message leased to somebody; `attempt` is 0 where nobody is to know it."""

    message: Stored
    receipt: int
    ack_id: str
    attempt: int


class Holder(Protocol):
    """Who takes messages: a stream, or a pull."""

    source: int
    """Its number in the broker: an ordering key is one holder's while something of it is out."""

    def freed(self, message: Stored) -> None:
        """A message it holds was settled, or its deadline has passed."""
        ...


class Lease(NamedTuple):
    """A message that is out, and with whom."""

    message: Stored
    holder: Holder


class Tally:
    """What a subscription has done. See `LocalCounts`."""

    def __init__(self) -> None:
        self.published = self.delivered = self.acked = self.nacked = self.expired = self.dead = 0
