"""What goes wrong between a client and the queues, for tests."""

from __future__ import annotations

from typing import Any

import msgspec


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a client asks for, or gets, as a fault sees it.

    `operation` is "put-token", "attach", "send", "settle", "deliver", or a management operation as in "renew-lock".
    `entity` is the name of the queue or subscription, empty for none. `detail` is the outcome of a settlement
    ("complete", "abandon", "defer", "dead-letter", "release"), the role of an attach ("sender", "receiver"), or how
    many messages are sent or delivered.
    """

    operation: str
    entity: str
    detail: Any = None


class ConnectionDropped(Exception):
    """Raised by a fault: the connection is cut, and nothing is answered."""


class AnswerLost(Exception):
    """Raised by a fault: nothing is answered, and the connection goes on."""


class Faults:
    """Subclass it; here, nothing goes wrong.

    Both methods may wait, which delays the call and not those after it, and may raise AmqpError, which refuses it: a
    link that is attached or delivers is detached so, as with "com.microsoft:server-busy" when throttled.
    ConnectionDropped and AnswerLost may be raised, too.
    """

    async def before(self, call: Call) -> None:
        """The call has not reached the queues. Raise, and it never does."""

    async def after(self, call: Call) -> None:
        """The call is done, and about to be answered. Raise, and the answer is lost, or another one."""
