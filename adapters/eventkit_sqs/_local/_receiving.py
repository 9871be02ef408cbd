"""ReceiveMessage, DeleteMessage(Batch) and ChangeMessageVisibility(Batch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eventkit_sqs._local import _wire as wire
from eventkit_sqs._local._account import Account
from eventkit_sqs._local._batches import check_entries, fared
from eventkit_sqs._local._content import Attributes, attributes_md5
from eventkit_sqs._local._errors import SqsError, invalid, missing
from eventkit_sqs._local._stored import Stored, Taken

SENDER: Final = "AIDALOCALDEVELOPMENT0"
"""The made-up id of whoever sent a message."""

_SYSTEM: Final = (
    "SenderId",
    "SentTimestamp",
    "ApproximateReceiveCount",
    "ApproximateFirstReceiveTimestamp",
    "MessageGroupId",
    "MessageDeduplicationId",
    "SequenceNumber",
    "AWSTraceHeader",
    "DeadLetterQueueSourceArn",
)


async def receive(account: Account, request: wire.Receive) -> wire.Messages:
    """Hand over messages, waiting for the first if asked to."""
    queue = account.queue(request.queue_url)
    _check(request)
    names = request.attribute_names + request.message_system_attribute_names
    system = _system_names(names)
    lease = queue.settings.lease if request.visibility_timeout is None else request.visibility_timeout
    wait = queue.settings.wait if request.wait_time_seconds is None else request.wait_time_seconds
    attempt = request.receive_request_attempt_id if queue.fifo else None
    taken = queue.repeat(attempt, lease, account.now()) if attempt else ()
    if not taken:
        taken = await account.polls(queue).receive(request.max_number_of_messages, lease, wait)
        if attempt and taken:
            queue.remember(attempt, taken, account.now())
    return wire.Messages(messages=[_shown(one, system, request.message_attribute_names) for one in taken] or None)


def _check(request: wire.Receive) -> None:
    number, lease, wait = request.max_number_of_messages, request.visibility_timeout, request.wait_time_seconds
    if not 1 <= number <= 10:
        raise invalid("MaxNumberOfMessages", number, "Must be between 1 and 10, if provided.")
    if lease is not None and not 0 <= lease <= 43_200:
        raise invalid("VisibilityTimeout", lease, "Must be between 0 and 43200, if provided.")
    if wait is not None and not 0 <= wait <= 20:
        raise invalid("WaitTimeSeconds", wait, "Must be >= 0 and <= 20, if provided.")


def _system_names(names: Sequence[str]) -> Sequence[str]:
    unknown = [name for name in names if name not in _SYSTEM and name != "All"]
    if unknown:
        raise SqsError("InvalidAttributeName", f"Unknown Attribute {unknown[0]}.")
    return _SYSTEM if "All" in names else names


def _system(message: Stored, names: Sequence[str]) -> dict[str, str]:
    """Those of the system's attributes that were asked for, and that the message has."""
    texts = {
        "SenderId": SENDER,
        "SentTimestamp": str(int(message.enqueued_at * 1000)),
        "ApproximateReceiveCount": str(message.count),
        "ApproximateFirstReceiveTimestamp": str(message.first_received),
    }
    if message.key is not None:
        texts["MessageGroupId"] = message.key
    if message.deduplication is not None and message.sequence is not None:
        texts["MessageDeduplicationId"] = message.deduplication
        texts["SequenceNumber"] = message.sequence
    if message.trace is not None:
        texts["AWSTraceHeader"] = message.trace
    if message.dead_from is not None:
        texts["DeadLetterQueueSourceArn"] = message.dead_from
    return texts if names is _SYSTEM else {name: texts[name] for name in names if name in texts}


def _shown(taken: Taken, system: Sequence[str], wanted: Sequence[str]) -> wire.Received:
    message, handle = taken
    received = wire.Received(
        message_id=message.message_id, receipt_handle=handle, body=message.body.decode(), body_md5=message.body_md5
    )
    if system:
        received.attributes = _system(message, system)
    if wanted and message.content_attributes:
        attributes = _wanted(message.content_attributes, wanted)
        if attributes:
            whole = len(attributes) == len(message.content_attributes)
            received.message_attributes = attributes
            received.attributes_md5 = message.attributes_md5 if whole else attributes_md5(attributes)
    return received


def _wanted(attributes: Attributes, names: Sequence[str]) -> Attributes:
    """Those of these names, or of names that start like `prefix.*`."""
    if "All" in names or ".*" in names or "*" in names:
        return attributes
    prefixes = tuple(name.removesuffix("*").removesuffix(".") for name in names if name.endswith("*"))
    return {
        name: value for name, value in attributes.items() if name in names or (prefixes and name.startswith(prefixes))
    }


def delete(account: Account, request: wire.Delete) -> wire.Reply:
    """Delete one message."""
    [error] = account.queue(request.queue_url).delete([request.receipt_handle], account.now())
    if error is not None:
        raise error
    return wire.Reply()


def delete_batch(account: Account, request: wire.DeleteBatch) -> wire.Batch:
    """Delete up to ten messages, each for itself."""
    queue = account.queue(request.queue_url)
    check_entries(request.entries)
    return fared(request.entries, queue.delete([entry.receipt_handle for entry in request.entries], account.now()))


def change(account: Account, request: wire.Change) -> wire.Reply:
    """Change when one message is visible again."""
    error = account.queue(request.queue_url).change(request.receipt_handle, request.visibility_timeout, account.now())
    if error is not None:
        raise error
    return wire.Reply()


def change_batch(account: Account, request: wire.ChangeBatch) -> wire.Batch:
    """Change when up to ten messages are visible again, each for itself."""
    queue, now = account.queue(request.queue_url), account.now()
    check_entries(request.entries)
    errors = [
        missing("VisibilityTimeout")
        if entry.visibility_timeout is None
        else queue.change(entry.receipt_handle, entry.visibility_timeout, now)
        for entry in request.entries
    ]
    return fared(request.entries, errors)
