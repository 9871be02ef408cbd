"""What every link has: its handles, its session, its credit."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._doing import Asked
from eventkit_servicebus._local._encode import as_binary, as_list, encode
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._faults import Call
from eventkit_servicebus._local._types import Uint

if TYPE_CHECKING:
    from eventkit_servicebus._local._session import Session

CREDIT: Final = 1_000
"""Messages that a client may send without being asked; it is told again before they are used up."""
TOP_UP: Final = 500
LARGEST: Final = 256 * 1024
"""Bytes of a message, or of a batch, as the standard tier of the service has it."""
WRAP: Final = 2**32

_U32: Final = Struct(">I").pack
_NULLS: Final = b"\x40\x40\x40\x40\x40"


def refuse(session: Session, attach: p.Attach, refusal: AmqpError) -> None:
    """Answer an attach as the protocol has it: a link from nowhere to nowhere, which ends at once."""
    session.send(
        p.Attach(
            name=attach.name,
            handle=attach.handle,
            receiver=not attach.receiver,
            initial_delivery_count=0 if attach.receiver else None,
        )
    )
    session.send(p.Detach(handle=attach.handle, closed=True, error=p.error(refusal)))


class Link:
    """One link, by the server's end. Its own handle is the number that the client chose for its end."""

    entity: str | None = None
    """The queue, topic or subscription that it sends to or receives from; None for a link of requests and replies."""

    def __init__(self, session: Session, attach: p.Attach) -> None:
        self.session = session
        self.name = attach.name
        self.handle = attach.handle
        self.attach = attach

    def start(self) -> None:
        """Answer the attach. Raises AmqpError if there cannot be such a link."""
        self.opened()

    def opened(self, **more: Any) -> None:
        """Answer the attach: it is granted."""
        asked = self.attach
        answer = p.Attach(
            name=asked.name,
            handle=asked.handle,
            receiver=not asked.receiver,
            snd_settle_mode=asked.snd_settle_mode,
            rcv_settle_mode=asked.rcv_settle_mode,
            source=asked.source,
            target=asked.target,
        )
        for name, value in more.items():
            setattr(answer, name, value)
        self.session.send(answer)

    def refused(self, refusal: AmqpError) -> None:
        """Answer the attach: it is not granted."""
        self.session.drop(self)
        refuse(self.session, self.attach, refusal)

    def flowed(self, flow: p.Flow) -> None:
        """The client says how much may come, or asks."""

    def closed(self) -> None:
        """The client has detached, or is gone."""

    @property
    def is_attached(self) -> bool:
        """Whether it is still there."""
        return self.session.links.get(self.handle) is self

    def detach(self, refusal: AmqpError) -> None:
        """End it from this side."""
        self.session.drop(self)
        self.session.send(p.Detach(handle=self.handle, closed=True, error=p.error(refusal)))

    def not_done(self, call: Call) -> None:
        """A fault has lost a call before it was done."""

    def perform(self, call: Call, act: Callable[[], None], answer: Callable[[AmqpError | None], None]) -> None:
        """Do `act`, which may raise AmqpError, and `answer` with that, or with None. Faults come between."""
        self.session.connection.perform(Asked(self, call, act, answer))


class Incoming(Link):
    """A link on which the client sends."""

    def __init__(self, session: Session, attach: p.Attach) -> None:
        super().__init__(session, attach)
        self._parts: list[bytes] = []
        self._first: p.Transfer | None = None
        self._size = 0
        self._received = 0

    def ready(self) -> None:
        """Answer the attach, and let messages come."""
        self.opened(max_message_size=LARGEST)
        self.grant()

    def grant(self) -> None:
        """Let more messages come."""
        self.session.flow(self.handle, delivery_count=self._received, link_credit=CREDIT)

    def transferred(self, transfer: p.Transfer, payload: bytes) -> bool:
        """A part of a message has come; whether it was the last one."""
        first = self._first
        if first is None:
            first = self._first = transfer
        self._parts.append(payload)
        self._size += len(payload)
        if transfer.aborted:
            self._reset()
            return True
        if self._size > LARGEST:
            self._reset()
            text = f"The received message is larger than {LARGEST} bytes, the most that the link takes."
            self.detach(AmqpError("amqp:link:message-size-exceeded", text))
            return True
        if transfer.more:
            return False
        data = b"".join(self._parts)
        self._reset()
        self._received = (self._received + 1) % WRAP
        if self._received % TOP_UP == 0:
            self.grant()
        self.message(data, first)
        return True

    def _reset(self) -> None:
        self._parts, self._first, self._size = [], None, 0

    def message(self, data: bytes, transfer: p.Transfer) -> None:
        """A whole message has come."""
        raise NotImplementedError

    def answer(self, transfer: p.Transfer, state: Any) -> None:
        """Say what became of it."""
        if not transfer.settled and transfer.delivery_id is not None:
            self.session.dispose(transfer.delivery_id, state, receiver=True)


class Outgoing(Link):
    """A link on which the client receives."""

    def __init__(self, session: Session, attach: p.Attach) -> None:
        super().__init__(session, attach)
        self.credit = 0
        self._sent = 0
        self._head = encode(Uint(attach.handle))

    def flowed(self, flow: p.Flow) -> None:
        """The client says how much may come: since its own count, which may be behind."""
        if flow.link_credit is None:
            return
        # A client that says no count has seen nothing yet, as it opens the link.
        seen = flow.delivery_count or 0
        self.credit = min((seen + flow.link_credit - self._sent) % WRAP, 2**31)
        if self.credit == 2**31:  # it has less than is on its way
            self.credit = 0
        self.credited()
        if flow.drain:
            self.drained()
        elif flow.echo:
            self.session.flow(self.handle, delivery_count=self._sent, link_credit=self.credit)

    def credited(self) -> None:
        """More may go out."""

    def drained(self) -> None:
        """What is left of the credit is used up, and the client is told so."""
        self._sent = (self._sent + self.credit) % WRAP
        self.credit = 0
        self.session.flow(self.handle, delivery_count=self._sent, link_credit=0, drain=True)

    def transfer(self, tag: bytes, data: bytes, *, settled: bool) -> int:
        """Send one message, in as many frames as it takes, and return its delivery id."""
        session = self.session
        id = session.next_delivery()
        self.credit -= 1
        self._sent = (self._sent + 1) % WRAP
        head = self._head + b"\x70" + _U32(id) + as_binary(tag) + b"\x43" + (b"\x41" if settled else b"\x42")
        most = session.connection.largest_payload
        if len(data) <= most:
            session.transfer(b"\x00\x53\x14" + as_list(head + b"\x42" + _NULLS, 11) + data)
            return id
        for start in range(0, len(data), most):
            more = b"\x41" if start + most < len(data) else b"\x42"
            session.transfer(b"\x00\x53\x14" + as_list(head + more + _NULLS, 11) + data[start : start + most])
        return id
