"""A client's receiver at a queue, subscription or dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._faults import Call
from eventkit_servicebus._local._link import Outgoing
from eventkit_servicebus._local._queue import LOST_LOCK, LocalQueue
from eventkit_servicebus._local._stored import Taken
from eventkit_servicebus._local._types import Described

if TYPE_CHECKING:
    from eventkit_servicebus._local._session import Session

ACCEPTED, REJECTED, RELEASED, MODIFIED = range(0x24, 0x28)
NAMES: Final = {ACCEPTED: "complete", REJECTED: "dead-letter", RELEASED: "release"}


class Receiver(Outgoing):
    """The client gets messages of `queue`, and settles them, or they are gone as they are sent."""

    session_id: str = ""

    def __init__(self, session: Session, attach: p.Attach, queue: LocalQueue) -> None:
        super().__init__(session, attach)
        self.entity = queue.name
        self.queue = queue
        self._namespace = session.connection.server.namespace
        self._pump = self._namespace.pump(queue)
        self._deletes = attach.snd_settle_mode == 1
        self._held_up = 0
        """Messages that were taken for it, and that a fault still has."""
        self._drains = False

    def start(self) -> None:
        """Answer the attach."""
        call = Call(operation="attach", entity=self.queue.name, detail="receiver")
        self.perform(call, self._check, self._opened)

    def _check(self) -> None:
        """Raises AmqpError if this cannot be."""
        if self.queue.settings.sessions:
            text = f"The entity {self.queue.name!r} requires sessions: a receiver must ask for one."
            raise AmqpError("amqp:not-allowed", text)

    def _opened(self, refusal: AmqpError | None) -> None:
        if refusal is not None:
            self.refused(refusal)
            return
        self.opened(initial_delivery_count=0)
        self._pump.join(self)

    def closed(self) -> None:
        """Messages that it holds stay locked: they can be settled from elsewhere, by their tokens."""
        self._pump.leave(self)

    # -- delivering ----------------------------------------------------------------------------

    @property
    def wanted(self) -> int:
        """See `Taker`."""
        room = min(self.credit, self.session.window) if self.session.connection.writable else 0
        return room - self._held_up

    @property
    def lease(self) -> float | None:
        """See `Taker`."""
        return None

    def credited(self) -> None:
        """More may go out."""
        self._pump.ring()

    def drained(self) -> None:
        """First what is there goes out, and what a fault still has."""
        self._pump.serve()
        self._drains = self._held_up > 0
        if not self._drains:
            super().drained()

    def give(self, taken: list[Taken]) -> None:
        """Send these."""
        if self.session.connection.server.faults is None:
            self._give(taken)
            return
        self._held_up += len(taken)
        call = Call(operation="deliver", entity=self.queue.name, detail=len(taken))
        self.perform(call, lambda: self._let_go(taken), self._let_go_or_not)

    def _let_go(self, taken: list[Taken]) -> None:
        self._held_up -= len(taken)
        if self.is_attached:
            self._give(taken)
            self._drain_on()

    def not_done(self, call: Call) -> None:
        """See `Link`: what was to be delivered is locked, and its credit free."""
        if call.operation == "deliver":
            self._held_up -= call.detail
            self.credited()
            self._drain_on()

    def _drain_on(self) -> None:
        if self._drains and self.is_attached:
            self.drained()

    def _let_go_or_not(self, refusal: AmqpError | None) -> None:
        if refusal is not None:
            self.detach(refusal)

    def _give(self, taken: list[Taken]) -> None:
        namespace, server = self._namespace, self.session.connection.server
        offset = namespace.wall() - namespace.now()
        for message, receipt, failures in taken:
            tag = server.tag(receipt)
            if self._deletes:
                self.transfer(tag, message.outgoing(failures, None), settled=True)
                self.queue.complete(receipt, namespace.now())
            else:
                data = message.outgoing(failures, self.locked_until(message.until + offset))
                self.session.unsettled[self.transfer(tag, data, settled=False)] = self, receipt

    def locked_until(self, until: float) -> float | None:
        """What a message says of its lock, in Unix seconds."""
        return until

    # -- settling ------------------------------------------------------------------------------

    def settle(self, id: int, receipt: int, disposition: p.Disposition) -> None:
        """The client says what has become of a delivery."""
        state = disposition.state
        code = int(state.descriptor) if state is not None and isinstance(state.descriptor, int) else RELEASED
        fields = state.value if state is not None and isinstance(state.value, list) else []
        if not ACCEPTED <= code <= MODIFIED:
            return
        name = NAMES.get(code) or _modified(fields)
        self.session.unsettled.pop(id, None)
        call = Call(operation="settle", entity=self.queue.name, detail=name)
        self.perform(
            call,
            lambda: self._settle(name, receipt, fields),
            lambda refusal: self._settled(id, code, disposition, refusal),
        )

    def _settle(self, name: str, receipt: int, fields: list[Any]) -> None:
        now = self._namespace.now()
        queue = self.queue
        match name:
            case "complete":
                done = queue.complete(receipt, now)
            case "abandon":
                done = queue.abandon(receipt, now)
            case "defer":
                done = queue.defer(receipt, now)
            case "dead-letter":
                done = queue.dead_letter(receipt, *_reason(fields), now)
            case _:
                done = queue.release(receipt, now)
        if not done:
            raise self.lock_lost()

    def lock_lost(self) -> AmqpError:
        """Why a message cannot be settled any more."""
        return LOST_LOCK

    def _settled(self, id: int, code: int, disposition: p.Disposition, refusal: AmqpError | None) -> None:
        if disposition.settled:
            return
        state = _CONFIRMED[code] if refusal is None else p.rejected(refusal)
        self.session.dispose(id, state, receiver=False)


_CONFIRMED: Final = {ACCEPTED: p.ACCEPTED, REJECTED: p.rejected(None), RELEASED: p.RELEASED, MODIFIED: p.MODIFIED}


def _modified(fields: list[Any]) -> str:
    if len(fields) > 1 and fields[1] is True:
        return "defer"
    return "abandon" if fields and fields[0] is True else "release"


def _reason(fields: list[Any]) -> tuple[str, str]:
    """The reason and the description in the error of a rejected delivery."""
    error = p.fields(fields[0], 0x1D) if fields and isinstance(fields[0], Described) else None
    if not error:
        return "", ""
    info = error[2] if len(error) > 2 and isinstance(error[2], dict) else {}
    texts = {str(name): str(value) for name, value in info.items() if value is not None}
    return texts.get("DeadLetterReason", ""), texts.get("DeadLetterErrorDescription", "")
