"""Links of requests and replies: to `$cbs`, and to the management node of an entity."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._cbs import check
from eventkit_servicebus._local._content import APPLICATION, PROPERTIES, VALUE, Content, message, section
from eventkit_servicebus._local._errors import AmqpError, CodecError
from eventkit_servicebus._local._faults import Call
from eventkit_servicebus._local._link import Incoming, Outgoing
from eventkit_servicebus._local._management import Request, manage
from eventkit_servicebus._local._names import Node
from eventkit_servicebus._local._types import Int, Symbol

if TYPE_CHECKING:
    from eventkit_servicebus._local._session import Session


class Replies(Outgoing):
    """Where the answers of a node go to."""

    def __init__(self, session: Session, attach: p.Attach, node: Node) -> None:
        super().__init__(session, attach)
        self.node = node
        self._waiting: deque[bytes] = deque()

    def start(self) -> None:
        """Answer the attach."""
        self.opened(initial_delivery_count=0)

    def reply(self, data: bytes) -> None:
        """Send an answer, as soon as the client wants one."""
        self._waiting.append(data)
        self.credited()

    def credited(self) -> None:
        """More may go out."""
        while self._waiting and self.credit > 0:
            self.transfer(b"\x00", self._waiting.popleft(), settled=True)


class Requests(Incoming):
    """Where a client asks a node."""

    def __init__(self, session: Session, attach: p.Attach, node: Node) -> None:
        super().__init__(session, attach)
        self._node = node

    def start(self) -> None:
        """Answer the attach. Raises AmqpError if there is no such entity."""
        if self._node.management:
            self.session.connection.server.namespace.target_or_queue(self._node)
        self.ready()

    def message(self, data: bytes, transfer: p.Transfer) -> None:
        """One request: it is answered on the link that receives from the same node."""
        self.answer(transfer, p.ACCEPTED)
        try:
            request = read(data)
        except AmqpError:
            return  # nobody knows to whom the answer would belong
        connection = self.session.connection
        if self._node.cbs:
            call = Call(operation="put-token", entity="")
            self.perform(call, lambda: check(request.application), lambda refusal: self._told(request, refusal))
            return
        name = str(request.application.get("operation", "")).rpartition(":")[2]
        replies: list[Any] = []

        def act() -> None:
            replies.append(manage(connection.server, self._node, name, request))

        call = Call(operation=name, entity=self._node.entity)
        self.perform(call, act, lambda refusal: self._managed(request, replies, refusal))

    def _told(self, request: Request, refusal: AmqpError | None) -> None:
        """Whether the token is believed."""
        status, text = (202, "Accepted") if refusal is None else (_status(refusal), refusal.description)
        self._reply(request, {"status-code": Int(status), "status-description": text}, None)

    def _managed(self, request: Request, replies: list[Any], refusal: AmqpError | None) -> None:
        if refusal is not None:
            self._reply(request, _failure(refusal), None)
            return
        body = replies[0]
        status = 204 if body is None else 200
        self._reply(request, {"statusCode": Int(status), "statusDescription": "OK"}, body)

    def _reply(self, request: Request, application: dict[str, Any], body: Any) -> None:
        properties = [None, None, None, None, None, request.id]
        data = message(properties, dict(application), body)
        for link in self.session.links.values():
            if isinstance(link, Replies) and link.node == self._node:
                link.reply(data)
                return


_STATUS = {
    "com.microsoft:message-lock-lost": 410,
    "com.microsoft:session-lock-lost": 410,
    "com.microsoft:message-not-found": 404,
    "amqp:not-found": 404,
    "com.microsoft:server-busy": 503,
    "com.microsoft:timeout": 408,
    "amqp:unauthorized-access": 401,
    "amqp:internal-error": 500,
}


def _status(refusal: AmqpError) -> int:
    return _STATUS.get(refusal.condition, 400)


def _failure(refusal: AmqpError) -> dict[str, Any]:
    return {
        "statusCode": Int(_status(refusal)),
        "statusDescription": refusal.description,
        "errorCondition": Symbol(refusal.condition),
    }


def read(data: bytes) -> Request:
    """A request. Raises CodecError."""
    bare = Content.read(data).bare
    properties, application = section(bare, PROPERTIES), section(bare, APPLICATION)
    if not isinstance(properties, list) or not properties or not isinstance(application, dict):
        raise CodecError("a request without an id, or without an operation")
    return Request(properties[0], application, section(bare, VALUE))
