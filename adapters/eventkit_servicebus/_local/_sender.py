"""A client's sender at a queue or topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._content import BATCH, Content, batch
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._faults import Call
from eventkit_servicebus._local._link import Incoming
from eventkit_servicebus._local._namespace import Topic
from eventkit_servicebus._local._queue import LocalQueue

if TYPE_CHECKING:
    from eventkit_servicebus._local._session import Session


class Sender(Incoming):
    """What the client sends goes to `target`, and is confirmed."""

    def __init__(self, session: Session, attach: p.Attach, target: LocalQueue | Topic) -> None:
        super().__init__(session, attach)
        self.entity = target.name
        self._target = target

    def start(self) -> None:
        """Answer the attach."""
        call = Call(operation="attach", entity=self._target.name, detail="sender")
        self.perform(call, _granted, self._opened)

    def _opened(self, refusal: AmqpError | None) -> None:
        if refusal is None:
            self.ready()
        else:
            self.refused(refusal)

    def message(self, data: bytes, transfer: p.Transfer) -> None:
        """Accept it, and say so."""
        try:
            parts = batch(data) if transfer.message_format == BATCH else [data]
            contents = [Content.read(part) for part in parts]
        except AmqpError as exc:
            self._answered(transfer, exc)
            return
        namespace = self.session.connection.server.namespace

        def accept() -> None:
            self._target.accept(contents, namespace.now())

        call = Call(operation="send", entity=self._target.name, detail=len(contents))
        self.perform(call, accept, lambda refusal: self._answered(transfer, refusal))

    def _answered(self, transfer: p.Transfer, refusal: AmqpError | None) -> None:
        self.answer(transfer, p.ACCEPTED if refusal is None else p.rejected(refusal))


def _granted() -> None:
    pass
