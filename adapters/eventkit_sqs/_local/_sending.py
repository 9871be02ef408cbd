"""SendMessage and SendMessageBatch."""

from __future__ import annotations

import re
from typing import Final

from eventkit_sqs._local import _wire as wire
from eventkit_sqs._local._account import Account
from eventkit_sqs._local._batches import check_entries, failed
from eventkit_sqs._local._content import Content, check_batch_size, check_size, checked
from eventkit_sqs._local._errors import SqsError, invalid, missing
from eventkit_sqs._local._queue import LocalQueue

_ID: Final = re.compile("[!-~]{1,128}")
"""[doc: SendMessage] What a group id and a deduplication id may be: letters, digits and punctuation."""
WRONG_TYPE: Final = "The request include parameter that is not valid for this queue type."


def send(account: Account, request: wire.Send) -> wire.Sent:
    """Accept one message."""
    queue = account.queue(request.queue_url)
    _require_order(queue, request, one=True)
    return _accept(queue, request, _content(queue, request), account.now())


def send_batch(account: Account, request: wire.SendBatch) -> wire.Batch:
    """Accept up to ten messages, each for itself."""
    queue = account.queue(request.queue_url)
    check_entries(request.entries)
    for entry in request.entries:
        _require_order(queue, entry, one=False)
    contents = [_try_content(queue, entry) for entry in request.entries]
    check_batch_size(content.size for content in contents if isinstance(content, Content))
    now = account.now()
    batch = wire.Batch()
    sent: list[wire.Sent] = []
    errors: list[wire.Failed] = []
    for entry, content in zip(request.entries, contents, strict=True):
        if isinstance(content, SqsError):
            errors.append(failed(entry.id, content))
            continue
        accepted = _accept(queue, entry, content, now)
        sent.append(
            wire.Sent(
                id=entry.id,
                message_id=accepted.message_id,
                body_md5=content.body_md5,
                attributes_md5=content.attributes_md5,
                system_md5=content.trace_md5,
                sequence_number=accepted.sequence_number,
            )
        )
    batch.successful, batch.failed = sent or None, errors or None
    return batch


def _accept(queue: LocalQueue, entry: wire.SendEntry, content: Content, now: float) -> wire.Sent:
    return queue.send(
        content,
        delay=None if queue.fifo else entry.delay_seconds,
        group=entry.message_group_id,
        deduplication=entry.message_deduplication_id,
        now=now,
    )


def _try_content(queue: LocalQueue, entry: wire.SendEntry) -> Content | SqsError:
    try:
        return _content(queue, entry)
    except SqsError as exc:
        return exc


def _content(queue: LocalQueue, entry: wire.SendEntry) -> Content:
    _check_parameters(queue, entry)
    content = checked(entry.message_body, entry.message_attributes, entry.message_system_attributes)
    check_size(content, queue.settings.size)
    return content


def _require_order(queue: LocalQueue, entry: wire.SendEntry, *, one: bool) -> None:
    """A FIFO queue needs a group and an id; AWS refuses a batch as a whole for one entry without."""
    if not queue.fifo:
        return
    if entry.message_group_id is None:
        error = missing("MessageGroupId")
        raise error if one else SqsError("InvalidParameterValue", error.message)
    if entry.message_deduplication_id is None and not queue.settings.by_content:
        raise SqsError(
            "InvalidParameterValue",
            "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
            "explicitly",
        )


def _check_parameters(queue: LocalQueue, entry: wire.SendEntry) -> None:
    delay = entry.delay_seconds
    if delay is not None and not 0 <= delay <= 900:
        raise invalid("DelaySeconds", delay, "DelaySeconds must be >= 0 and <= 900.")
    if delay and queue.fifo:
        raise invalid("DelaySeconds", delay, WRONG_TYPE)
    if entry.message_deduplication_id is not None and not queue.fifo:
        raise invalid("MessageDeduplicationId", entry.message_deduplication_id, WRONG_TYPE)
    ids = {"MessageGroupId": entry.message_group_id, "MessageDeduplicationId": entry.message_deduplication_id}
    for name, id in ids.items():
        if id is not None and not _ID.fullmatch(id):
            rule = "can only include alphanumeric and punctuation characters. 1 to 128 in length"
            raise invalid(name, id, f"{name} {rule}.")
