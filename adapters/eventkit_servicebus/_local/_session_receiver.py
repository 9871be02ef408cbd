"""A client's receiver at one session of a queue or subscription."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._faults import Call
from eventkit_servicebus._local._queue import LocalQueue
from eventkit_servicebus._local._receiver import Receiver
from eventkit_servicebus._local._sessions import LOST_SESSION
from eventkit_servicebus._local._types import Described, Long, Symbol, Ulong

if TYPE_CHECKING:
    from eventkit_servicebus._local._session import Session

FILTER: Final = Symbol("com.microsoft:session-filter")
TIMEOUT: Final = Symbol("com.microsoft:timeout")
LOCKED_UNTIL: Final = Symbol("com.microsoft:locked-until-utc")
_EPOCH: Final = 621_355_968_000_000_000
"""Ticks of 100 ns from year 1 to 1970."""
_SOURCE, _FILTERS = 0x28, 7
_NOBODY: Final = AmqpError("com.microsoft:timeout", "No session was free within the time that the receiver waits.")


class SessionReceiver(Receiver):
    """It asks for a session by its name, or for the next one that is free, and gets its messages only.

    The session's lock rules: a message has no time of its own, and goes back when the lock ends, or the link does.
    """

    def __init__(self, session: Session, attach: p.Attach, queue: LocalQueue) -> None:
        super().__init__(session, attach, queue)
        self._sessions = self._namespace.sessions(queue)
        self._is_held = False
        self.waits_until = math.inf

    def start(self) -> None:
        """Answer the attach, as soon as there is a session."""
        call = Call(operation="attach", entity=self.queue.name, detail="receiver")
        self.perform(call, self._ask, self._asked)

    def _ask(self) -> None:
        now = self._namespace.now()
        asked = asked_session(self.attach)
        if asked is not None:
            self._sessions.accept(asked, self, now)
            return
        milliseconds = (self.attach.properties or {}).get(TIMEOUT)
        self.waits_until = now + (milliseconds / 1000 if isinstance(milliseconds, int) else 60.0)
        self._sessions.wait(self)

    def _asked(self, refusal: AmqpError | None) -> None:
        if refusal is not None and self._is_held:
            self.detach(refusal)
        elif refusal is not None:
            self.refused(refusal)

    # -- Owner ---------------------------------------------------------------------------------

    def granted(self, session: str, until: float) -> None:
        """See `Owner`."""
        self.session_id = session
        self._is_held = True
        source = self.attach.source
        assert source is not None
        fields = list(source.value)
        fields[_FILTERS] = {FILTER: session}
        ticks = int((until + self._namespace.wall() - self._namespace.now()) * 10_000_000) + _EPOCH
        self.opened(
            source=Described(Ulong(_SOURCE), fields),
            initial_delivery_count=0,
            properties={LOCKED_UNTIL: Long(ticks)},
        )
        self._pump.join(self)

    def lost(self) -> None:
        """See `Owner`."""
        self._is_held = False
        self.detach(LOST_SESSION)

    def waited(self) -> None:
        """See `Owner`."""
        self.refused(_NOBODY)

    def closed(self) -> None:
        """The session is free at once, and what it held goes back, not counted."""
        super().closed()
        self._sessions.release(self, self._namespace.now())

    # -- Receiver ------------------------------------------------------------------------------

    @property
    def lease(self) -> float | None:
        """See `Taker`: the session's lock ends it."""
        return math.inf

    def locked_until(self, until: float) -> float | None:
        """See `Receiver`."""
        return None

    def _settle(self, name: str, receipt: int, fields: list[Any]) -> None:
        self._sessions.expire(self._namespace.now())
        super()._settle(name, receipt, fields)

    def lock_lost(self) -> AmqpError:
        """See `Receiver`."""
        return LOST_SESSION


def asks(attach: p.Attach) -> bool:
    """Whether the client asks for a session, by name or not."""
    return FILTER in _filters(attach)


def asked_session(attach: p.Attach) -> str | None:
    """The session that the client asks for; None if it is the next one that is free. Raises CodecError."""
    value = _filters(attach)[FILTER]
    value = value.value if isinstance(value, Described) else value
    if value is not None and not isinstance(value, str):
        raise AmqpError("amqp:invalid-field", "a session is named by a text")
    return value


def _filters(attach: p.Attach) -> dict[Any, Any]:
    fields = p.fields(attach.source, _SOURCE) or []
    return p.field(fields, _FILTERS, dict) or {}
