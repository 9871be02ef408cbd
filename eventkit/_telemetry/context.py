"""What a handler is working on, for log lines written while it does."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventkit._event import Event

__all__ = ["current_event", "current_handler"]

current_event: ContextVar[Event[Any] | None] = ContextVar("eventkit.current_event", default=None)
"""The event of the running call; None between calls, and in a call on more than one event."""

current_handler: ContextVar[str] = ContextVar("eventkit.current_handler", default="")
"""The handler of the running call; set once, in the context that a handler's calls are copied from."""
