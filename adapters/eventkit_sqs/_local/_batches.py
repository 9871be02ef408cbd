"""What the batch operations share: the rules for entries, and how one fails alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

from eventkit_sqs._local._errors import SqsError
from eventkit_sqs._local._wire import Batch, Done, Failed

MOST: Final = 10
_ID: Final = re.compile("[A-Za-z0-9_-]{1,80}")


class Entry(Protocol):
    """One of a batch."""

    id: str


def check_entries(entries: Sequence[Entry]) -> None:
    """Refuse a batch that has none, too many, or an id that is no id or not its only one. Raises SqsError."""
    if not entries:
        raise SqsError("EmptyBatchRequest", "There should be at least one entry in the request.")
    if len(entries) > MOST:
        raise SqsError(
            "TooManyEntriesInBatchRequest",
            f"Maximum number of entries per request are {MOST}. You have sent {len(entries)}.",
        )
    seen: set[str] = set()
    for entry in entries:
        if not _ID.fullmatch(entry.id):
            raise SqsError(
                "InvalidBatchEntryId",
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
                "It can be at most 80 letters long.",
            )
        if entry.id in seen:
            raise SqsError("BatchEntryIdsNotDistinct", f"Id {entry.id} repeated.")
        seen.add(entry.id)


def fared(entries: Sequence[Entry], errors: Sequence[SqsError | None]) -> Batch:
    """How the entries fared, in two lists."""
    pairs = list(zip(entries, errors, strict=True))
    return Batch(
        successful=[Done(id=entry.id) for entry, error in pairs if error is None] or None,
        failed=[failed(entry.id, error) for entry, error in pairs if error is not None] or None,
    )


def failed(id: str, error: SqsError) -> Failed:
    """An entry that was not done."""
    return Failed(id=id, sender_fault=error.senders_fault, code=error.code, message=error.message)
