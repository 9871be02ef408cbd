"""Names of entities, and the addresses that clients write for them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

SESSIONS: Final = ".sessions"
"""What the name of a queue or subscription ends in that requires sessions."""

_SEGMENT: Final = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,258}[A-Za-z0-9_])?")
_DEAD: Final = ("$deadletterqueue", "$dlq")


class Node(NamedTuple):
    """What an address stands for: `entity` as in "queue" or "topic/subscription", in lower case; all may be empty."""

    entity: str
    dead_letters: bool
    management: bool
    cbs: bool


def node(address: str) -> Node:
    """Read an address: a URI, or a path."""
    path = unquote(address)
    if "://" in path:
        path = path.partition("://")[2].partition("/")[2]
    parts = [part for part in path.lower().split("/") if part]
    if parts == ["$cbs"]:
        return Node("", dead_letters=False, management=False, cbs=True)
    management = bool(parts) and parts[-1] == "$management"
    if management:
        parts.pop()
    dead = bool(parts) and parts[-1] in _DEAD
    if dead:
        parts.pop()
    if len(parts) > 2 and parts[-2] == "subscriptions":
        del parts[-2]
    return Node("/".join(parts), dead_letters=dead, management=management, cbs=False)


def problem(name: str) -> str | None:
    """What is wrong with the name of a queue, or of a topic and its subscription; None if nothing is."""
    parts = name.split("/")
    if len(parts) > 2 or not all(_SEGMENT.fullmatch(part) for part in parts):
        return (
            "a name has letters, digits, '.', '-' and '_', and starts and ends with a letter or a digit; "
            "TOPIC/SUBSCRIPTION names a subscription"
        )
    return None
