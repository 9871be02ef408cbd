"""The dead letters of one queue."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

from eventkit.spi import DeadLetter
from eventkit.testing.memory._values import Message


class DeadLetters:
    """Dead letters in the order they came, each under an id of its own: a number that only grows."""

    __slots__ = ("_letters", "_numbers")

    def __init__(self) -> None:
        self._letters: dict[str, tuple[DeadLetter, Message]] = {}
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[DeadLetter]:
        return (letter for letter, _ in self._letters.values())

    def add(self, message: Message, reason: str, detail: str, dead_at: float) -> None:
        """Store `message`; `dead_at` is in Unix seconds."""
        letter = DeadLetter(
            id=str(next(self._numbers)),
            reason=reason,
            detail=detail,
            message_id=message.message_id,
            body=message.body,
            attributes=dict(message.attributes or {}),
            content_type=message.content_type,
            key=message.key,
            delivery_count=message.count,
            enqueued_at=message.enqueued_at,
            dead_at=dead_at,
        )
        self._letters[letter.id] = letter, message

    def peek(self, limit: int, after: str | None) -> list[DeadLetter]:
        """Up to `limit`, oldest first, those after the one with id `after`, be it there or not."""
        number = int(after) if after is not None and after.isdecimal() else 0
        return list(islice((letter for letter in self if int(letter.id) > number), limit))

    def take(self, id: str) -> Message | None:
        """Remove one; None if there is none with this id."""
        _, message = self._letters.pop(id, (None, None))
        return message
