"""How many bytes a message takes as the SDK encodes it, and how many it may: added up, since encoding is dear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["SCHEDULE", "TIMESTAMP", "Unfit", "check_size", "fields_size", "properties_size", "section", "text_size"]

# https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas
_MOST_PROPERTY: Final = 32 * 1024 - 1  # of a name with its value
_MOST_BESIDE: Final = 60 * 1024
"""Bytes of all but the body. The service allows 64 KiB with what it adds: times, a lock, why it was dead-lettered.

The last is a reason and a detail of 1 KiB; a scheduled copy has a property more, for which there must be room.
"""
_MOST_SHOWN: Final = 200  # characters of a name in a reason

# https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-messaging-v1.0-os.html#type-properties
_FIELDS: Final = 13
TIMESTAMP: Final = 9


class Unfit(Exception):
    """This message cannot be sent as it is; the text says why, without payload."""


def section(content: int) -> int:
    """Bytes of a section that is a map or a list of this content; 256 items are never a small one."""
    return content + (6 if content < 255 else 12)


def _sized(length: int) -> int:
    """Bytes of a string, symbol or binary value of this length: its type and its length stand before it."""
    return length + (2 if length < 256 else 5)


def _octets(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def text_size(text: str) -> int:
    """Bytes of a text with its type and length."""
    return _sized(_octets(text))


SCHEDULE: Final = section(text_size("x-opt-scheduled-enqueue-time") + TIMESTAMP)
"""Bytes of the annotations of a message that is due at a time."""


def properties_size(wire: Mapping[str, str]) -> int:
    """Bytes of these application properties. Raises Unfit for one that is too large."""
    size = 0
    for name, value in wire.items():
        one, other = _octets(name), _octets(value)
        if one + other > _MOST_PROPERTY:
            raise Unfit(
                f"the property {name[:_MOST_SHOWN]!r} takes {one + other:,} bytes, "
                f"over the limit of {_MOST_PROPERTY:,} for one"
            )
        size += _sized(one) + _sized(other)
    return section(size) if wire else 0


def fields_size(*fields: str | None) -> int:
    """Bytes of the section that holds these of the fields of AMQP; one that is not there takes a byte."""
    given = [text_size(field) for field in fields if field is not None]
    return section(sum(given) + _FIELDS - len(given))


def check_size(beside: int, body: bytes, most: int) -> None:
    """Raise Unfit for a message of this body that is too large; 3 bytes say that it is a section of data."""
    if beside > _MOST_BESIDE:
        raise Unfit(f"all but the body takes {beside:,} bytes, over the limit of {_MOST_BESIDE:,} for that")
    if (size := beside + 3 + _sized(len(body))) > most:
        raise Unfit(
            f"the message takes {size:,} bytes (a body of {len(body):,}, its attributes and its key), "
            f"over the limit of {most:,}"
        )
