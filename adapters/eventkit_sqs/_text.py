"""What SQS takes as text, as an attribute's name and as an id.

Bodies and values: XML 1.0 characters, at least one; names and ids: a few ASCII characters.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_id", "is_name", "is_text", "is_unicode", "text_of"]

_CONTROLS: Final = bytes(byte for byte in range(32) if byte not in b"\t\n\r")
_NO_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_NAME: Final = re.compile(r"(?!(?i:aws|amazon)\.)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_LONGEST_NAME: Final = 256
_ID: Final = re.compile("[!-~]{1,128}")


def text_of(body: bytes) -> str | None:
    """`body` as the text SQS would keep byte for byte; None where it is no such text."""
    # Deleting is a quarter of the price of searching for one of a class.
    if not body or len(body.translate(None, _CONTROLS)) != len(body):
        return None
    if body.isascii():
        return body.decode("ascii")
    if body.find("\ufffe".encode()) >= 0 or body.find("\uffff".encode()) >= 0:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def is_text(value: str) -> bool:
    """Whether an attribute may have this value."""
    return bool(value) and (value.isprintable() or not _NO_XML.search(value))


def is_name(name: str) -> bool:
    """Whether an attribute may have this name."""
    return len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None


def is_id(text: str) -> bool:
    """Whether this may be a message group's id, or one for deduplication."""
    return _ID.fullmatch(text) is not None


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: it has no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
