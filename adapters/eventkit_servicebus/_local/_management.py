"""What a client can ask the management node of an entity for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._names import Node

if TYPE_CHECKING:
    from eventkit_servicebus._local._server import Server


class Request(NamedTuple):
    """A request: its id, of any type, its application properties, and its body."""

    id: Any
    application: dict[Any, Any]
    body: Any


def manage(server: Server, node: Node, name: str, request: Request) -> dict[Any, Any] | None:
    """Do what is asked, and return the body of the answer, None if nothing was found. Raises AmqpError."""
    raise AmqpError("amqp:not-implemented", f"The local server does not know the operation {name!r}.")
