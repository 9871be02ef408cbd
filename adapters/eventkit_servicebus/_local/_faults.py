"""What goes wrong between a client and the queues, for tests."""

from __future__ import annotations

from typing import Any

import msgspec

from eventkit_servicebus._local._errors import AmqpError


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a client asks for, or gets, as a fault sees it.

    `operation` is "put-token", "attach", "send", "settle", "deliver", or a management operation as in "renew-lock".
    "read-entity" is a question over HTTP: AmqpError "amqp:unauthorized-access" is 401, "com.microsoft:server-busy" 503.
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


class LinkDetached(AmqpError):
    """Raised by a fault: the link that the call came by is detached for this reason, and nothing is answered."""


class ConnectionClosed(AmqpError):
    """Raised by a fault: the connection is closed for this reason, and nothing is answered."""


class Faults:
    """Subclass it; here, nothing goes wrong.

    Both methods may wait, which delays the call and not those after it, and may raise AmqpError, which refuses it, as
    with "com.microsoft:server-busy" when throttled: a link that is attached or delivers is detached so. AnswerLost,
    LinkDetached, ConnectionClosed and ConnectionDropped may be raised, too.
    """

    async def before(self, call: Call) -> None:
        """The call has not reached the queues. Raise, and it never does."""

    async def after(self, call: Call) -> None:
        """The call is done, and about to be answered. Raise, and the answer is lost, or another one."""
