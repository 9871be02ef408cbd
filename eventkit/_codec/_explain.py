"""Say what is wrong with data without quoting any of it.

Messages of decoders can carry values: enums and unknown fields quote them, and a type's own check may say
anything. So only what is known to be built from the type passes, the rest is said in our words. For the same
reason the errors of this package are raised `from None`: a traceback would print the message of the cause.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

__all__ = ["explain", "refused_by_type", "type_name"]

_PLACE = re.compile(r" - at (`key` in )?`(\$[^`]*)`\Z")
_MISSING = re.compile(r"Object missing required field `([^`]*)`\Z")
# Built by msgspec from the type and the kind of the JSON value.
_SAFE = (
    "Duration is out of range",
    "Expected `",
    "Integer value out of range",
    "Invalid ISO8601 ",
    "Invalid RFC3339 ",
    "Invalid UUID",
    "Invalid base64 ",
    "Invalid decimal ",
    "Invalid epoch ",
    "Number out of range",
    "Only units ",
    "Timestamp is out of range",
)


def explain(error: Exception, data: bytes) -> str:
    """What msgspec, called in the frame that caught `error`, could not read in `data`."""
    if error.__cause__ is not None:
        # The text is that of the type's own code, with the place put behind it.
        text, own = str(error), str(error.__cause__)
        return _at(text[len(own) :] if text.startswith(own) else "", refused_by_type(error.__cause__))
    raised_in = error.__traceback__
    if raised_in is not None and raised_in.tb_next is not None:
        return refused_by_type(error)
    if isinstance(error, RecursionError):
        return "JSON nested too deeply"
    if not isinstance(error, msgspec.ValidationError):
        return _malformed(str(error)) if isinstance(error, msgspec.DecodeError) else "does not fit its type"
    return _invalid(str(error), data)


def type_name(data_type: Any) -> str:
    """A type as its author would name it."""
    return data_type.__qualname__ if isinstance(data_type, type) else str(data_type)


def refused_by_type(error: BaseException) -> str:
    """What to say of an exception that the user's own type raised."""
    return f"refused by the type's own check ({type(error).__name__})"


def _malformed(message: str) -> str:
    what = message.removeprefix("JSON is malformed: ")
    return f"not JSON: {what[:1].lower()}{what[1:]}"


def _invalid(message: str, data: bytes) -> str:
    what = _PLACE.sub("", message)
    missing = _MISSING.match(what)
    if missing:
        return _at(message, "required, and missing", f".{missing[1]}")
    if what.startswith(_SAFE):
        return _at(message, what[0].lower() + what[1:].replace("`", ""))
    if what.startswith("Invalid "):
        return _at(message, "not one of the allowed values")
    # The field is quoted, and may hold what looks like a place.
    quotable = b"`" not in data and b"\\" not in data
    return _at(message if quotable else "", "has a field its type does not know")


def _at(message: str, what: str, member: str = "") -> str:
    place = _PLACE.search(message)
    key = "a key of " if place and place[1] else ""
    return f"{key}{place[2] if place else '$'}{member}: {what}"
