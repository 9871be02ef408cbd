"""What a user may set about decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from eventkit.errors import ConfigurationError

__all__ = ["Decoding", "Format"]

Format: TypeAlias = Literal["auto", "cloudevents", "json", "raw"]
Keys: TypeAlias = Literal["allow", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How bodies are read, and how much of one is accepted; what breaks a limit is dead-lettered as `decode`.

    `format`: *auto* takes CloudEvents, JSON, text and octets, and refuses any other content type; *cloudevents*
    refuses what is not a CloudEvent; *json* and *raw* never look for an envelope, whatever the content type.

    `max_bytes` bounds the body, `max_depth` the nesting of its JSON (a CloudEvent's envelope is the first level),
    `max_elements` its commas and opening brackets, `max_digits` the digits of one number.
    `duplicate_keys` is about the data, where the last one wins if allowed, and costs a second parse if refused;
    in the envelope of a CloudEvent they are always refused.

    Raises ConfigurationError that lists every mistake.
    """

    format: Format = "auto"
    max_bytes: int = 1024 * 1024
    max_depth: int = 64
    max_elements: int = 50_000
    max_digits: int = 64
    duplicate_keys: Keys = "allow"

    def __post_init__(self) -> None:
        problems = [
            f"Decoding({name}={value!r}): must be one of {', '.join(allowed)}"
            for name, value, allowed in (
                ("format", self.format, get_args(Format)),
                ("duplicate_keys", self.duplicate_keys, get_args(Keys)),
            )
            if value not in allowed
        ]
        for name in ("max_bytes", "max_depth", "max_elements", "max_digits"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                problems.append(f"Decoding({name}={value!r}): must be a whole number, at least 1")
        if problems:
            raise ConfigurationError(*problems)
