"""Requests and replies as they are on the wire."""

from __future__ import annotations

import msgspec

from eventkit_sqs._local._content import Attributes


class Request(msgspec.Struct, rename="pascal"):
    """Every request; fields that a server for development has no use for are passed over."""


class Reply(msgspec.Struct, rename="pascal", omit_defaults=True):
    """Every reply; this one says nothing."""


class Empty(Request):
    """A request without content."""


class ToQueue(Request):
    """A request about one queue, and nothing else."""

    queue_url: str


# -- queues --------------------------------------------------------------------------------------


class CreateQueue(Request):
    """Make a queue."""

    queue_name: str
    attributes: dict[str, str] = {}
    tags: dict[str, str] = msgspec.field(name="tags", default_factory=dict)


class GetQueueUrl(Request):
    """Find a queue."""

    queue_name: str


class ListQueues(Request):
    """Name the queues, page by page."""

    queue_name_prefix: str = ""
    max_results: int | None = None
    next_token: str = ""


class GetQueueAttributes(ToQueue):
    """Ask for attributes of a queue."""

    attribute_names: list[str] = []


class SetQueueAttributes(ToQueue):
    """Change attributes of a queue."""

    attributes: dict[str, str]


class TagQueue(ToQueue):
    """Set tags of a queue."""

    tags: dict[str, str]


class UntagQueue(ToQueue):
    """Remove tags of a queue."""

    tag_keys: list[str]


class ListSources(ToQueue):
    """Name the queues that this one takes the dead letters of."""

    max_results: int | None = None
    next_token: str = ""


class QueueUrl(Reply):
    """Where a queue is."""

    queue_url: str


class QueueUrls(Reply):
    """Where queues are."""

    queue_urls: list[str] | None = None
    next_token: str | None = None


class SourceUrls(Reply):
    """Where the sources of a dead-letter queue are; here the wire spells `queueUrls`."""

    queue_urls: list[str] = msgspec.field(name="queueUrls")
    next_token: str | None = None


class QueueAttributes(Reply):
    """Attributes of a queue."""

    attributes: dict[str, str] | None = None


class Tags(Reply):
    """Tags of a queue."""

    tags: dict[str, str] | None = None


# -- messages ------------------------------------------------------------------------------------


class SendEntry(Request, kw_only=True):
    """One message of a batch."""

    id: str
    message_body: str
    delay_seconds: int | None = None
    message_attributes: Attributes | None = None
    message_system_attributes: Attributes | None = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class Send(SendEntry, kw_only=True):
    """Send a message; it has no `Id`, unlike an entry."""

    queue_url: str
    id: str = ""


class SendBatch(ToQueue):
    """Send messages."""

    entries: list[SendEntry] = []


class Receive(ToQueue):
    """Receive messages."""

    max_number_of_messages: int = 1
    visibility_timeout: int | None = None
    wait_time_seconds: int | None = None
    receive_request_attempt_id: str | None = None
    attribute_names: list[str] = []
    message_system_attribute_names: list[str] = []
    message_attribute_names: list[str] = []


class Delete(ToQueue):
    """Delete a message."""

    receipt_handle: str


class DeleteEntry(Request):
    """One message to delete."""

    id: str
    receipt_handle: str


class DeleteBatch(ToQueue):
    """Delete messages."""

    entries: list[DeleteEntry] = []


class Change(ToQueue):
    """Change when a message is visible again."""

    receipt_handle: str
    visibility_timeout: int


class ChangeEntry(Request):
    """One message to change."""

    id: str
    receipt_handle: str
    visibility_timeout: int | None = None


class ChangeBatch(ToQueue):
    """Change when messages are visible again."""

    entries: list[ChangeEntry] = []


class Sent(Reply):
    """A message that was accepted."""

    message_id: str
    body_md5: str = msgspec.field(name="MD5OfMessageBody")
    id: str | None = None
    attributes_md5: str | None = msgspec.field(name="MD5OfMessageAttributes", default=None)
    system_md5: str | None = msgspec.field(name="MD5OfMessageSystemAttributes", default=None)
    sequence_number: str | None = None


class Received(Reply, gc=False):
    """A message that is handed over."""

    message_id: str
    receipt_handle: str
    body: str
    body_md5: str = msgspec.field(name="MD5OfBody")
    attributes: dict[str, str] | None = None
    attributes_md5: str | None = msgspec.field(name="MD5OfMessageAttributes", default=None)
    message_attributes: Attributes | None = None


class Messages(Reply):
    """What a receive brings; nothing at all when it is empty."""

    messages: list[Received] | None = None


class Done(Reply):
    """An entry of a batch that was done."""

    id: str


class Failed(Reply):
    """An entry of a batch that was not."""

    id: str
    sender_fault: bool
    code: str
    message: str


class Batch(Reply):
    """How the entries of a batch fared; AWS leaves out a list that is empty."""

    successful: list[Sent] | list[Done] | None = None
    failed: list[Failed] | None = None


# -- moving dead letters -------------------------------------------------------------------------


class StartMove(Request):
    """Move what waits in a dead-letter queue."""

    source_arn: str
    destination_arn: str | None = None
    max_number_of_messages_per_second: int | None = None


class CancelMove(Request):
    """Stop a move."""

    task_handle: str


class ListMoves(Request):
    """Show the newest moves from a queue."""

    source_arn: str
    max_results: int = 1


class Move(Reply):
    """A move, and how far it got."""

    source_arn: str
    status: str
    started: int = msgspec.field(name="StartedTimestamp")
    moved: int = msgspec.field(name="ApproximateNumberOfMessagesMoved")
    to_move: int = msgspec.field(name="ApproximateNumberOfMessagesToMove")
    destination_arn: str | None = None
    per_second: int | None = msgspec.field(name="MaxNumberOfMessagesPerSecond", default=None)
    failure_reason: str | None = None


class Moves(Reply):
    """The newest moves."""

    results: list[Move] | None = None


class MoveStarted(Reply):
    """A move has begun."""

    task_handle: str
