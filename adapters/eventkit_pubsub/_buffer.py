"""What has arrived and was not handed over yet: leased, and kept so."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from eventkit_pubsub._stream import Stream
from eventkit_pubsub._unseen import Unseen


class Hold(msgspec.Struct, gc=False):
    """What a receipt is here. `stream` is the one it counts against, until it is settled."""

    ack_id: str
    size: int
    stream: Stream | None

    def settle(self) -> None:
        """It counts no more. Idempotent."""
        if self.stream is not None:
            self.stream.settled(1, self.size)
            self.stream = None


class Group:
    """What one response brought, under one lease; the messages are raw protobuf ones, with their sizes."""

    __slots__ = ("leased_until", "messages", "size", "stream", "unseen")

    def __init__(self, messages: Sequence[Any], stream: Stream, leased_until: float, unseen: Unseen) -> None:
        self.messages = deque(messages)
        self.stream = stream
        self.leased_until = leased_until
        self.unseen = unseen
        self.size = sum(len(each.message.data) for each in messages)

    @property
    def ack_ids(self) -> list[str]:
        """Of what is left of it."""
        return [each.ack_id for each in self.messages]

    def pop(self) -> tuple[Any, Hold]:
        """Take out the first message."""
        message = self.messages.popleft()
        size = len(message.message.data)
        self.size -= size
        return message, Hold(message.ack_id, size, self.stream)

    def keep(self, ack_ids: frozenset[str]) -> None:
        """Forget all but these."""
        kept = deque(each for each in self.messages if each.ack_id in ack_ids)
        size = sum(len(each.message.data) for each in kept)
        self.unseen.add(each for each in self.messages if each.ack_id not in ack_ids)
        self.stream.settled(len(self.messages) - len(kept), self.size - size)
        self.messages, self.size = kept, size

    def forget(self) -> None:
        """Nothing of it is held any more."""
        self.keep(frozenset())


class Buffer:
    """Groups in the order of their arrival."""

    def __init__(self) -> None:
        self._groups: deque[Group] = deque()

    def __len__(self) -> int:
        return sum(len(group.messages) for group in self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(tuple(self._groups))

    @property
    def size(self) -> int:
        """Bytes of all bodies."""
        return sum(group.size for group in self._groups)

    def add(self, group: Group) -> None:
        """A group more."""
        self._groups.append(group)

    def pop(self, limit: int, now: float) -> Iterator[tuple[Any, Hold, float]]:
        """Up to `limit` messages, each with what holds it and the end of its lease; never one whose lease is over."""
        while self._groups and limit > 0:
            group = self._groups[0]
            if group.leased_until <= now:
                group.forget()
            while group.messages and limit > 0:
                limit -= 1
                yield *group.pop(), group.leased_until
            if not group.messages:
                self._groups.popleft()

    def clear(self) -> list[str]:
        """Forget everything. The ack ids of what is leased still."""
        groups, self._groups = self._groups, deque()
        ack_ids = [id for group in groups for id in group.ack_ids]
        for group in groups:
            group.forget()
        return ack_ids
