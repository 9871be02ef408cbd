"""What a link is attached to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._link import Link
from eventkit_servicebus._local._names import node
from eventkit_servicebus._local._receiver import Receiver
from eventkit_servicebus._local._requests import Replies, Requests
from eventkit_servicebus._local._sender import Sender
from eventkit_servicebus._local._session_receiver import SessionReceiver, asks

if TYPE_CHECKING:
    from eventkit_servicebus._local._session import Session

SOURCE, TARGET = 0x28, 0x29


def attached(session: Session, attach: p.Attach) -> Link:
    """The link that the client asks for. Raises AmqpError if there cannot be one."""
    where = node(_address(attach))
    if where.cbs or where.management:
        return Replies(session, attach, where) if attach.receiver else Requests(session, attach, where)
    namespace = session.connection.server.namespace
    if not attach.receiver:
        return Sender(session, attach, namespace.target(where))
    queue = namespace.queue(where)
    made = SessionReceiver if asks(attach) else Receiver
    return made(session, attach, queue)


def _address(attach: p.Attach) -> str:
    terminus = p.fields(attach.source, SOURCE) if attach.receiver else p.fields(attach.target, TARGET)
    address: Any = p.field(terminus, 0, str) if terminus else None
    if address is None:
        raise AmqpError("amqp:invalid-field", "a link without an address")
    return str(address)
