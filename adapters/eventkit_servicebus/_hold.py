"""What a receipt is here, and how long its lock lasts by the clock of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from azure.servicebus import ServiceBusReceivedMessage

from eventkit_servicebus._content import whole

if TYPE_CHECKING:
    from eventkit_servicebus._link import Link

LONGEST_LOCK: Final = 300.0
SHORTEST_LOCK: Final = 5.0
"""Seconds that an entity may keep what it hands over locked, by the limits of the service."""
_MARGIN: Final = 4.0
"""Seconds that a clock is ahead without being suspected: a lock that looks shorter than it is does no harm."""

_LOCKED_UNTIL: Final = b"x-opt-locked-until"


class Hold:
    """A message that is ours until `until`, on the loop's clock."""

    __slots__ = ("_token", "copied", "link", "message", "until")

    def __init__(self, message: ServiceBusReceivedMessage, link: Link, until: float) -> None:
        self.message = message
        self.link = link
        self.until = until
        self.copied = False
        """Whether a copy is confirmed: what is left to do is to complete the original."""
        self._token = ""

    @property
    def token(self) -> str:
        """The id of its copy, which a second one has too: where duplicates are detected, it is dropped."""
        if not self._token:
            self._token = uuid4().hex
        return self._token


def fresh_lock(message: ServiceBusReceivedMessage, *, wall: float, age: float) -> float:
    """Seconds that a message which has come stays locked; 0 or less if that time has passed on its way.

    The service says until when, by its own clock. What no lock can say that began in the last `age` seconds is said by
    two clocks that differ: then nothing but the shortest lock can be relied upon. The SDK, which settles nothing that
    looks expired, is told the same.
    """
    annotations: Any = message.raw_amqp_message.annotations
    until = whole(annotations, _LOCKED_UNTIL)
    if until is None:
        return LONGEST_LOCK
    left = until / 1000 - wall
    if SHORTEST_LOCK - age - _MARGIN <= left <= LONGEST_LOCK + 1:
        return left
    annotations[_LOCKED_UNTIL] = int((wall + SHORTEST_LOCK) * 1000)
    return SHORTEST_LOCK


def new_lock(until: float, *, wall: float) -> float:
    """Seconds that a lock lasts which was given or renewed just now, until a time of the service's clock."""
    left = until - wall
    return left if 0 < left <= LONGEST_LOCK + 1 else SHORTEST_LOCK


def lease_of(lock: float) -> float:
    """Seconds that we count on, of a lock of which nobody knows exactly when it began."""
    return max(lock - 1.0, lock / 2)
