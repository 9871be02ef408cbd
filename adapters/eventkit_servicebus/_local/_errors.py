"""What the server refuses, and why."""

from __future__ import annotations


class AmqpError(Exception):
    """A refusal as the wire shows it: `condition` as in "amqp:not-found", `description` for people.

    A fault raises it to refuse; the server raises it for everything that a client does wrong.
    """

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(condition, description)
        self.condition = condition
        self.description = description


class CodecError(AmqpError):
    """Bytes that are no AMQP, or values that AMQP has no type for."""

    def __init__(self, description: str) -> None:
        super().__init__("amqp:decode-error", description)
