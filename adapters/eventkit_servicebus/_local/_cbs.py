"""Tokens: every one is believed."""

from __future__ import annotations

from typing import Any

from eventkit_servicebus._local._errors import AmqpError


def check(application: dict[Any, Any]) -> None:
    """Look at what a client asks of `$cbs`. Raises AmqpError if it shows no token."""
    if application.get("operation") != "put-token":
        raise AmqpError("amqp:not-implemented", "The only operation is put-token.")
