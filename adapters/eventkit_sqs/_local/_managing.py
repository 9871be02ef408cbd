"""The operations on queues as such."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eventkit_sqs._local import _wire as wire
from eventkit_sqs._local._account import Account
from eventkit_sqs._local._attributes import COUNTED, KNOWN, check, defaults
from eventkit_sqs._local._errors import SqsError, invalid

_PAGE: Final = 1_000


def create_queue(account: Account, request: wire.CreateQueue) -> wire.QueueUrl:
    """Make a queue."""
    return wire.QueueUrl(queue_url=account.create(request.queue_name, request.attributes, request.tags).url)


def delete_queue(account: Account, request: wire.ToQueue) -> wire.Reply:
    """Delete a queue with all that is in it."""
    account.delete(account.queue(request.queue_url))
    return wire.Reply()


def purge_queue(account: Account, request: wire.ToQueue) -> wire.Reply:
    """Empty a queue, at once and as often as one likes."""
    account.queue(request.queue_url).purge(account.now())
    return wire.Reply()


def get_queue_url(account: Account, request: wire.GetQueueUrl) -> wire.QueueUrl:
    """Where a queue is."""
    return wire.QueueUrl(queue_url=account.queue(request.queue_name).url)


def list_queues(account: Account, request: wire.ListQueues) -> wire.QueueUrls:
    """Where the queues are whose names start so."""
    names = [name for name in account.queues if name.startswith(request.queue_name_prefix)]
    page, token = _page(names, request.max_results, request.next_token)
    return wire.QueueUrls(queue_urls=[account.queues[name].url for name in page] or None, next_token=token)


def list_sources(account: Account, request: wire.ListSources) -> wire.SourceUrls:
    """Where the queues are whose dead letters go to this one."""
    names = [queue.name for queue in account.sources(account.queue(request.queue_url))]
    page, token = _page(names, request.max_results, request.next_token)
    return wire.SourceUrls(queue_urls=[account.queues[name].url for name in page], next_token=token)


def _page(names: Sequence[str], most: int | None, after: str) -> tuple[list[str], str | None]:
    """A page of names in order, and what to ask the next one with; the token is the last name."""
    if most is not None and not 1 <= most <= _PAGE:
        raise invalid("MaxResults", most, f"Must be between 1 and {_PAGE}, if provided.")
    rest = sorted(name for name in names if name > after)
    page = rest[: most or _PAGE]
    return page, page[-1] if len(page) < len(rest) and most else None


def get_attributes(account: Account, request: wire.GetQueueAttributes) -> wire.QueueAttributes:
    """The attributes of a queue that were asked for."""
    queue, names = account.queue(request.queue_url), request.attribute_names
    unknown = [name for name in names if name not in KNOWN]
    if unknown:
        raise SqsError("InvalidAttributeName", f"Unknown Attribute {unknown[0]}.")
    if not names:
        return wire.QueueAttributes()
    texts = {
        "QueueArn": queue.arn,
        "CreatedTimestamp": str(queue.created),
        "LastModifiedTimestamp": str(queue.modified),
        **defaults(fifo=queue.fifo),
        **queue.attributes,
    }
    if "All" in names or not set(names).isdisjoint(COUNTED):  # it takes a look at every message
        visible, delayed, in_flight = queue.depth(account.now())
        texts |= dict(zip(COUNTED, map(str, (visible, delayed, in_flight)), strict=True))
    chosen = texts if "All" in names else {name: texts[name] for name in names if name in texts}
    return wire.QueueAttributes(attributes=chosen or None)


def set_attributes(account: Account, request: wire.SetQueueAttributes) -> wire.Reply:
    """Change attributes of a queue."""
    queue = account.queue(request.queue_url)
    check(request.attributes, fifo=queue.fifo, new=False)
    account.check_redrive(request.attributes, fifo=queue.fifo)
    queue.set(request.attributes)
    return wire.Reply()


def tag_queue(account: Account, request: wire.TagQueue) -> wire.Reply:
    """Set tags."""
    account.queue(request.queue_url).tags.update(request.tags)
    return wire.Reply()


def untag_queue(account: Account, request: wire.UntagQueue) -> wire.Reply:
    """Remove tags."""
    tags = account.queue(request.queue_url).tags
    for key in request.tag_keys:
        tags.pop(key, None)
    return wire.Reply()


def list_tags(account: Account, request: wire.ToQueue) -> wire.Tags:
    """The tags of a queue."""
    return wire.Tags(tags=account.queue(request.queue_url).tags or None)
