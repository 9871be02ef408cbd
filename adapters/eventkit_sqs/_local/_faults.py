"""What goes wrong between a client and the queues, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from eventkit_sqs._local._errors import SqsError


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a client, as a fault sees it: `operation` without its prefix, `request` as it was sent."""

    operation: str
    request: dict[str, Any]

    @property
    def queue(self) -> str:
        """The name of the queue it is about, or an empty string."""
        return str(self.request.get("QueueUrl", "")).rpartition("/")[2]


class ConnectionDropped(Exception):
    """Raised by a fault: close the connection without an answer."""


class Faults:
    """Subclass it; here, nothing goes wrong.

    Both methods may wait, and may raise SqsError, which is answered, or ConnectionDropped. A client that goes
    away while they wait cancels them.
    """

    async def before(self, call: Call) -> Mapping[str, SqsError]:
        """The call has not reached the queues. Raise, and it never does.

        The entries of a batch whose Id is returned fail so, and are not done; other calls ignore it.
        """
        return {}

    async def after(self, call: Call, reply: dict[str, Any]) -> dict[str, Any]:
        """The call is done; what is returned is the reply. Raise, and the reply is lost."""
        return reply
