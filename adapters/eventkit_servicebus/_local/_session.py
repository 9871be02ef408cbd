"""One session of a connection: its links by handle, its windows, and what is unsettled in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._link import WRAP, Incoming, Link, Outgoing, refuse
from eventkit_servicebus._local._nodes import attached
from eventkit_servicebus._local._types import Described

if TYPE_CHECKING:
    from eventkit_servicebus._local._connection import Connection
    from eventkit_servicebus._local._receiver import Receiver

WINDOW: Final = 5_000
"""Transfers that a client may send before it is told again, which it is much sooner."""
HANDLES: Final = 255


class Session:
    """One session. The window of the client is kept; the client's own use of this end's is not counted (see notes)."""

    def __init__(self, connection: Connection, channel: int, begin: p.Begin) -> None:
        self.connection = connection
        self.channel = channel
        self.links: dict[int, Link] = {}
        self.unsettled: dict[int, tuple[Receiver, int]] = {}
        """Who was sent a delivery, and under which receipt, by delivery id."""
        self._next_incoming = begin.next_outgoing_id or 0
        self._next_outgoing = 0
        self._next_delivery = 0
        self.window = begin.incoming_window or 0
        """Transfers that the client takes."""

    def opened(self) -> None:
        """Answer the begin."""
        self.send(
            p.Begin(
                remote_channel=self.channel,
                next_outgoing_id=0,
                incoming_window=WINDOW,
                outgoing_window=WINDOW,
                handle_max=HANDLES,
            )
        )

    # -- what comes in -------------------------------------------------------------------------

    def received(self, performative: p.Performative, payload: bytes) -> None:
        """One performative of this session. Raises AmqpError, which ends the connection."""
        match performative:
            case p.Transfer():
                self._transferred(performative, payload)
            case p.Disposition():
                self._settled(performative)
            case p.Flow():
                self._flowed(performative)
            case p.Attach():
                self._attach(performative)
            case p.Detach():
                self._detached(performative)
            case _:
                raise AmqpError("amqp:not-allowed", f"{type(performative).__name__} within a session")

    def _attach(self, attach: p.Attach) -> None:
        if attach.handle in self.links or attach.handle > HANDLES:
            raise AmqpError("amqp:session:handle-in-use", f"handle {attach.handle} is in use, or too high")
        try:
            link = self.links[attach.handle] = attached(self, attach)
            link.start()
        except AmqpError as exc:
            self.links.pop(attach.handle, None)
            refuse(self, attach, exc)

    def _detached(self, detach: p.Detach) -> None:
        link = self.links.get(detach.handle)
        if link is not None:
            self.drop(link)
            self.send(p.Detach(handle=detach.handle, closed=True))

    def _transferred(self, transfer: p.Transfer, payload: bytes) -> None:
        self._next_incoming = (self._next_incoming + 1) % WRAP
        link = self.links.get(transfer.handle)
        if isinstance(link, Incoming):
            link.transferred(transfer, payload)
        elif link is not None:
            raise AmqpError("amqp:session:errant-link", "a transfer on a link that receives")
        # Else this side has detached it, and the client has not read that yet.

    def _flowed(self, flow: p.Flow) -> None:
        if flow.incoming_window is not None:
            seen = flow.next_incoming_id or 0
            self.window = (seen + flow.incoming_window - self._next_outgoing) % WRAP
        if flow.handle is None:
            self.restart()
            return
        link = self.links.get(flow.handle)
        if link is not None:
            link.flowed(flow)

    def restart(self) -> None:
        """What waited for the session's window, or for the connection, may go out."""
        for link in list(self.links.values()):
            if isinstance(link, Outgoing):
                link.credited()

    def _settled(self, disposition: p.Disposition) -> None:
        if not disposition.receiver:
            return
        first = disposition.first
        last = first if disposition.last is None else disposition.last
        within = range(first, last + 1)
        ids = within if len(within) < 1_000 else [id for id in self.unsettled if id in within]
        for id in ids:
            entry = self.unsettled.get(id)
            if entry is not None:
                entry[0].settle(id, entry[1], disposition)

    # -- what goes out -------------------------------------------------------------------------

    def send(self, performative: p.Performative) -> None:
        """Send something that is no transfer."""
        self.connection.send(self.channel, p.written(performative))

    def dispose(self, id: int, state: Described, *, receiver: bool) -> None:
        """Say what has become of one delivery, for good."""
        if state is p.ACCEPTED:
            self.connection.send(self.channel, p.confirmed(id, receiver=receiver))
        else:
            self.send(p.Disposition(receiver=receiver, first=id, settled=True, state=state))

    def flow(self, handle: int, **link: Any) -> None:
        """Tell the client how the session and one of its links stand."""
        self.send(
            p.Flow(
                next_incoming_id=self._next_incoming,
                incoming_window=WINDOW,
                next_outgoing_id=self._next_outgoing,
                outgoing_window=WINDOW,
                handle=handle,
                **link,
            )
        )

    def next_delivery(self) -> int:
        """A new delivery id."""
        id = self._next_delivery
        self._next_delivery = (id + 1) % WRAP
        return id

    def transfer(self, body: bytes) -> None:
        """Send a transfer frame."""
        self._next_outgoing = (self._next_outgoing + 1) % WRAP
        self.window -= 1
        self.connection.send(self.channel, body)

    # -- its end -------------------------------------------------------------------------------

    def drop(self, link: Link) -> None:
        """This link is no more."""
        self.links.pop(link.handle, None)
        link.closed()

    def end(self) -> None:
        """It is over: every link is."""
        for link in list(self.links.values()):
            self.drop(link)
