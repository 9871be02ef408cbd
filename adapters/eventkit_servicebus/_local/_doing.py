"""Doing what a client asks for while a test has its faults come between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._faults import (
    AnswerLost,
    Call,
    ConnectionClosed,
    ConnectionDropped,
    Faults,
    LinkDetached,
)

if TYPE_CHECKING:
    from eventkit_servicebus._local._link import Link


class Asked(NamedTuple):
    """What came by `link`: `act` does it, and may raise AmqpError; `answer` is given that, or None."""

    link: Link
    call: Call
    act: Callable[[], None]
    answer: Callable[[AmqpError | None], None]


def do(asked: Asked) -> None:
    """Do it, and answer."""
    try:
        asked.act()
    except AmqpError as exc:
        asked.answer(exc)
    else:
        asked.answer(None)


async def do_with(faults: Faults, asked: Asked) -> None:
    """Do it, and answer, but for what faults make of that."""
    link, call = asked.link, asked.call
    connection = link.session.connection
    attaches = call.operation == "attach"
    refusal: AmqpError | None = None
    reached = False
    try:
        await faults.before(call)
        # What a client has settled before it detached is settled all the same.
        if not connection.is_open or (attaches and not link.is_attached):
            return
        reached = True
        asked.act()
        await faults.after(call)
    except ConnectionDropped:
        connection.drop()
    except ConnectionClosed as exc:
        connection.close(exc)
    except AnswerLost:
        if not reached:
            link.not_done(call)
        return
    except AmqpError as exc:
        refusal = exc
    if not link.is_attached:
        return
    if isinstance(refusal, LinkDetached) and not attaches:
        link.detach(refusal)
    else:
        asked.answer(refusal)
