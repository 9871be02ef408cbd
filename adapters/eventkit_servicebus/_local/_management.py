"""What a client can ask the management node of an entity for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from uuid import UUID

from eventkit_servicebus._local._content import Content
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._names import Node
from eventkit_servicebus._local._queue import LOST_LOCK, LocalQueue
from eventkit_servicebus._local._sessions import LOST_SESSION
from eventkit_servicebus._local._stored import Taken
from eventkit_servicebus._local._types import Array, Int, Long, Timestamp

if TYPE_CHECKING:
    from eventkit_servicebus._local._server import Server

T = TypeVar("T")

MOST: Final = 1_000
"""Messages that one request peeks at or asks for."""
_LONG, _TIMESTAMP, _STRING = 0x81, 0x83, 0xB1


class Request(NamedTuple):
    """A request: its id, of any type, its application properties, and its body."""

    id: Any
    application: dict[Any, Any]
    body: Any


class Management:
    """One request at one entity. Each operation returns the body of the answer: None if nothing was found.

    An array is never empty: the SDK cannot read one.
    """

    def __init__(self, server: Server, node: Node, body: Any) -> None:
        if not isinstance(body, dict):
            raise _wrong("the body is no map")
        self._server = server
        self._namespace = server.namespace
        self._node = node
        self._body = body
        self._now = server.namespace.now()

    # -- locks ---------------------------------------------------------------------------------

    def renew_lock(self) -> dict[str, Any] | None:
        """Lock messages again. If one is lost, the others are renewed all the same."""
        untils = [self._queue.renew(receipt, self._now) for receipt in self._receipts()]
        if None in untils:
            raise LOST_LOCK
        return {"expirations": Array(_TIMESTAMP, tuple(self._moment(until) for until in untils if until is not None))}

    def update_disposition(self) -> dict[str, Any] | None:
        """Settle messages by their tokens, on whatever connection they were received."""
        queue, now = self._queue, self._now
        status = self._get("disposition-status", str)
        reason = self._find("deadletter-reason", str) or "", self._find("deadletter-description", str) or ""
        settle: Callable[[int], bool] | None = {
            "completed": lambda receipt: queue.complete(receipt, now),
            "abandoned": lambda receipt: queue.abandon(receipt, now),
            "defered": lambda receipt: queue.defer(receipt, now),
            "suspended": lambda receipt: queue.dead_letter(receipt, *reason, now),
        }.get(status)
        if settle is None:
            raise _wrong(f"disposition-status {status!r}")
        session = self._session()
        settled = [settle(receipt) for receipt in self._receipts()]
        if not all(settled):
            raise LOST_LOCK if session is None else LOST_SESSION
        return {}

    def _receipts(self) -> list[int]:
        tokens = self._get("lock-tokens", Array).items
        if not tokens or not all(isinstance(token, UUID) for token in tokens):
            raise _wrong("lock-tokens")
        return [self._server.receipt(token.bytes_le) for token in tokens]

    # -- looking, and deferred messages --------------------------------------------------------

    def peek_message(self) -> dict[str, Any] | None:
        """Show messages, in whatever state they are."""
        first, number = self._get("from-sequence-number", int), self._get("message-count", int)
        found = self._queue.peek(first, max(0, min(number, MOST)), self._find("session-id", str), self._now)
        shown = [{"message": message.outgoing(failures, None)} for message, _, failures in found]
        return {"messages": shown} if shown else None

    def receive_by_sequence_number(self) -> dict[str, Any] | None:
        """Lock deferred messages, or take them out at once."""
        queue, now = self._queue, self._now
        session = self._session()
        taken = queue.take_deferred(self._numbers(), now, session=session)
        deletes = self._find("receiver-settle-mode", int) == 0
        shown = [self._deferred(each, timed=session is None and not deletes) for each in taken]
        if deletes:
            for each in taken:
                queue.complete(each.receipt, now)
        return {"messages": shown}

    def _deferred(self, taken: Taken, *, timed: bool) -> dict[str, Any]:
        message, receipt, failures = taken
        until = message.until + self._namespace.wall() - self._now if timed else None
        return {
            "lock-token": UUID(bytes_le=self._server.tag(receipt)),
            "message": message.outgoing(failures, until),
        }

    # -- scheduling ----------------------------------------------------------------------------

    def schedule_message(self) -> dict[str, Any] | None:
        """Accept messages that say when they are to be enqueued."""
        entries = self._get("messages", list)
        if not entries or not all(isinstance(entry, dict) for entry in entries):
            raise _wrong("messages")
        contents = [Content.read(_is(entry.get("message"), bytes, "message")) for entry in entries]
        numbers = self._namespace.target(self._node).accept(contents, self._now)
        return {"sequence-numbers": Array(_LONG, tuple(map(Long, numbers)))}

    def cancel_scheduled_message(self) -> dict[str, Any] | None:
        """Forget what is scheduled."""
        self._namespace.target(self._node).cancel(self._numbers(), self._now)
        return {}

    # -- sessions ------------------------------------------------------------------------------

    def renew_session_lock(self) -> dict[str, Any] | None:
        """Lock a session again."""
        until = self._namespace.sessions(self._queue).renew(self._get("session-id", str), self._now)
        return {"expiration": self._moment(until)}

    def get_session_state(self) -> dict[str, Any] | None:
        """What was stored with a session."""
        session = self._held_session()
        return {"session-state": self._namespace.sessions(self._queue).states.get(session)}

    def set_session_state(self) -> dict[str, Any] | None:
        """Store something with a session, or nothing."""
        session, state = self._held_session(), self._find("session-state", bytes)
        states = self._namespace.sessions(self._queue).states
        if state is None:
            states.pop(session, None)
        else:
            states[session] = state
        return {}

    def get_message_sessions(self) -> dict[str, Any] | None:
        """The sessions that have something to deliver."""
        skip, top = max(0, self._get("skip", int)), max(0, self._get("top", int))
        found = self._queue.sessions(self._now)[skip : skip + top]
        return {"skip": Int(skip + len(found)), "sessions-ids": Array(_STRING, tuple(found))} if found else None

    def _session(self) -> str | None:
        """The session that is meant, which must be held by somebody; None if none is. Raises AmqpError."""
        session: str | None = self._find("session-id", str)
        if session is not None and self._queue.settings.sessions:
            self._namespace.sessions(self._queue).held(session, self._now)
            return session
        return None

    def _held_session(self) -> str:
        session = self._get("session-id", str)
        self._namespace.sessions(self._queue).held(session, self._now)
        return session

    # -- reading the request -------------------------------------------------------------------

    @property
    def _queue(self) -> LocalQueue:
        return self._namespace.queue(self._node)

    def _numbers(self) -> list[int]:
        numbers = self._get("sequence-numbers", Array).items
        if not 0 < len(numbers) <= MOST or not all(isinstance(number, int) for number in numbers):
            raise _wrong("sequence-numbers")
        return [int(number) for number in numbers]

    def _get(self, name: str, kind: type[T]) -> T:
        return _is(self._body.get(name), kind, name)

    def _find(self, name: str, kind: type[T]) -> T | None:
        value = self._body.get(name)
        return None if value is None else _is(value, kind, name)

    def _moment(self, time: float) -> Timestamp:
        return Timestamp((time + self._namespace.wall() - self._now) * 1000)


def _is(value: Any, kind: type[T], name: str) -> T:
    if not isinstance(value, kind):
        raise _wrong(name)
    return value


def _wrong(what: str) -> AmqpError:
    return AmqpError("com.microsoft:argument-error", f"The request cannot be understood: {what}.")


_OPERATIONS: Final[dict[str, Callable[[Management], dict[str, Any] | None]]] = {
    "renew-lock": Management.renew_lock,
    "update-disposition": Management.update_disposition,
    "peek-message": Management.peek_message,
    "receive-by-sequence-number": Management.receive_by_sequence_number,
    "schedule-message": Management.schedule_message,
    "cancel-scheduled-message": Management.cancel_scheduled_message,
    "renew-session-lock": Management.renew_session_lock,
    "get-session-state": Management.get_session_state,
    "set-session-state": Management.set_session_state,
    "get-message-sessions": Management.get_message_sessions,
}


def manage(server: Server, node: Node, name: str, request: Request) -> dict[str, Any] | None:
    """Do what is asked, and return the body of the answer, None if nothing was found. Raises AmqpError."""
    operation = _OPERATIONS.get(name)
    if operation is None:
        raise AmqpError("amqp:not-implemented", f"The local server does not know the operation {name!r}.")
    return operation(Management(server, node, request.body))
