"""What has arrived and was not handed over yet: leased, and kept so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from eventkit_pubsub._stream import Stream
from eventkit_pubsub._unseen import Unseen


class Taken(NamedTuple):
    """Messages, as raw protobuf, that leave the buffer; each counts for `share` bytes against `stream`."""

    messages: Sequence[Any]
    leased_until: float
    stream: Stream
    share: float


class Group:
    """What one response brought, under one lease: raw protobuf messages, each of `share` bytes, their mean."""

    __slots__ = ("leased_until", "messages", "share", "stream", "unseen")

    def __init__(self, messages: list[Any], share: float, stream: Stream, leased_until: float, unseen: Unseen) -> None:
        self.messages = messages
        self.share = share
        self.stream = stream
        self.leased_until = leased_until
        self.unseen = unseen

    @property
    def ack_ids(self) -> list[str]:
        """Of what is left of it."""
        return [each.ack_id for each in self.messages]

    def take(self, limit: int) -> Taken:
        """Take out the first messages."""
        taken, self.messages = self.messages[:limit], self.messages[limit:]
        return Taken(taken, self.leased_until, self.stream, self.share)

    def drop(self, dropped: Callable[[Any], bool]) -> list[str]:
        """Forget those messages, which nobody has seen. Their ack ids."""
        gone = [each for each in self.messages if dropped(each)]
        if gone:
            self.messages = [each for each in self.messages if not dropped(each)]
            self.stream.settled(len(gone), len(gone) * self.share)
            self.unseen.add(gone)
        return [each.ack_id for each in gone]

    def absorbs(self, other: Group) -> bool:
        """Take over the messages of a group of the same stream; False for another."""
        if other.stream is not self.stream:
            return False
        size = len(self.messages) * self.share + len(other.messages) * other.share
        self.messages = self.messages + other.messages
        self.share = size / max(1, len(self.messages))
        self.leased_until = min(self.leased_until, other.leased_until)
        return True

    def drop_all(self) -> None:
        """Forget what is left of it."""
        self.drop(lambda _: True)


class Buffer:
    """Groups in the order of their arrival."""

    def __init__(self) -> None:
        self._groups: deque[Group] = deque()

    def __len__(self) -> int:
        return sum(len(group.messages) for group in self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(tuple(self._groups))

    @property
    def size(self) -> float:
        """Bytes of all messages."""
        return sum(len(group.messages) * group.share for group in self._groups)

    def add(self, group: Group) -> None:
        """A group more."""
        self._groups.append(group)

    def take(self, limit: int, now: float) -> list[Taken]:
        """Up to `limit` messages, never one whose lease is over."""
        found: list[Taken] = []
        while self._groups and limit > 0:
            group = self._groups[0]
            if group.leased_until <= now:
                group.drop_all()
            elif group.messages:
                found.append(taken := group.take(limit))
                limit -= len(taken.messages)
            if not group.messages:
                self._groups.popleft()
        return found

    def drop(self, dropped: Callable[[Any], bool]) -> list[str]:
        """Forget those messages. Their ack ids: they are leased still."""
        ack_ids = [id for group in self._groups for id in group.drop(dropped)]
        self._groups = deque(group for group in self._groups if group.messages)
        return ack_ids
