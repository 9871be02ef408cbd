"""Names of resources, and what the names of queues ask for."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from eventkit_pubsub._local._errors import invalid

DELETED_TOPIC: Final = "_deleted-topic_"
RULE: Final = (
    "must start with a letter, have 3 to 255 letters, digits and -_.~+% (ASCII), and not start with goog"
    # [doc: Guidelines to name a topic, subscription, schema, or snapshot]
)
_ID: Final = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9\-_.~+%]{2,254}")
_PROJECT: Final = re.compile(r"[A-Za-z][A-Za-z0-9.:\-]{0,99}")
_ORDERED: Final = ".ordered"
_EXACTLY_ONCE: Final = ".exactly-once"


def check_name(name: str, kind: str) -> None:
    """`name` is projects/PROJECT/KIND/ID. Raises PubsubError."""
    parts = name.split("/")
    good = len(parts) == 4 and (parts[0], parts[2]) == ("projects", kind) and _PROJECT.fullmatch(parts[1])
    if not good or not _ID.fullmatch(parts[3]):
        raise invalid(f"Invalid [{kind}] name: (name={name}). It is projects/PROJECT/{kind}/ID, and the ID {RULE}.")


def check_project(name: str) -> None:
    """`name` is projects/PROJECT. Raises PubsubError."""
    if not name.startswith("projects/") or not _PROJECT.fullmatch(name.removeprefix("projects/")):
        raise invalid(f"Invalid [projects] name: (name={name}).")


class Kind(NamedTuple):
    """What the name of a queue says of its subscription."""

    ordered: bool
    exactly_once: bool


def kind_of(queue: str) -> Kind:
    """Read the suffixes `.ordered` and `.exactly-once`, in any order."""
    found = set()
    while suffix := next((each for each in (_ORDERED, _EXACTLY_ONCE) if queue.endswith(each)), None):
        queue = queue.removesuffix(suffix)
        found.add(suffix)
    return Kind(_ORDERED in found, _EXACTLY_ONCE in found)
