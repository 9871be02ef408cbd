"""What is written beside a dead letter: why it is there, in at most 1 KiB and without secrets."""

from __future__ import annotations

import hashlib
import re

import msgspec

__all__ = ["describe_error", "letter_detail", "letter_id", "redacted"]

DETAIL_BYTES = 1024
MESSAGE_CHARACTERS = 300

# Every repetition that another one may follow is bounded: error texts hold parts of events, which are hostile.
_SECRETS = re.compile(
    r"(?P<dsn>[a-z][a-z0-9+.-]{0,30}://)(?:[^/\s@]{0,256}:\S{0,256}|[^/\s]{0,256})@"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\beyJ[\w-]{8,512}\.[\w-]+(?:\.[\w-]*)?"
    r"|(?P<name>(?:token|secret|password|passwd|api[_-]?key|access[_-]?key|account[_-]?key|authorization"
    r"|signature(?=\\{0,2}[\"']?\s{0,3}[=:])|(?<![a-z0-9])(?:sig|sas|pwd|bearer))"
    r"\b\\{0,2}[\"']?\s{0,3}[=: ]\s{0,3}\\{0,2})"
    r"(?:(?:bearer|basic|digest)\s{1,3})?(?:\"[^\"\n]{0,256}\"|'[^'\n]{0,256}'|[\"']?[^\s&;,\"']+)",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """`text` as valid Unicode, without what looks like a credential: DSN passwords, AWS keys, JWTs, `token=…`."""
    return _SECRETS.sub(_mask, _valid(text[:10_000]))


def _mask(found: re.Match[str]) -> str:
    return f"{found['dsn']}***@" if found["dsn"] else f"{found['name'] or ''}***"


def _valid(text: str) -> str:
    """`text` without lone surrogates, which UTF-8 and JSON cannot say."""
    return text.encode("utf-8", "replace").decode()


def describe_error(error: BaseException | None) -> tuple[str, str]:
    """Qualified class name and redacted, shortened text of `error`; two empty strings for None."""
    if error is None:
        return "", ""
    cls = type(error)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the text of a user's exception is user code
        text = "(its text could not be made)"
    return name, redacted(text)[:MESSAGE_CHARACTERS]


def letter_id(source: str, message_key: str, reason: str) -> str:
    """Stable id of a dead letter, by which a second copy of it can be told; fields are length-prefixed."""
    fields = (source, message_key, reason)
    text = "".join(f"{len(field)}:{field}" for field in fields)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def letter_detail(fields: dict[str, str | int | float]) -> str:
    """`fields` as JSON of at most 1 KiB; the longest texts are cut until it fits."""
    fields = {name: _valid(value) if isinstance(value, str) else value for name, value in fields.items()}
    while len(encoded := msgspec.json.encode(fields)) > DETAIL_BYTES:
        longest = max((name for name in fields if isinstance(fields[name], str)), key=lambda n: len(str(fields[n])))
        text = str(fields[longest])
        fields = {**fields, longest: text[: len(text) * 3 // 4]}
    return encoded.decode()
