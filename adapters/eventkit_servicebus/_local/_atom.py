"""Queues, topics and subscriptions as the management API over HTTP describes them: Atom with a description in it.

https://learn.microsoft.com/rest/api/servicebus/queues
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from eventkit_servicebus._local._namespace import Topic
from eventkit_servicebus._local._queue import LocalQueue
from eventkit_servicebus._local._stored import ACTIVE, SCHEDULED

_ATOM: Final = "http://www.w3.org/2005/Atom"
_CONNECT: Final = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
_COUNTS: Final = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
_INSTANCE: Final = "http://www.w3.org/2001/XMLSchema-instance"
_FOREVER: Final = "P10675199DT2H48M5.4775807S"
"""The longest span of time that .NET has, by which the service says that there is no end."""
_MOST: Final = 2**62


class Told(NamedTuple):
    """When something is told, and since when the server has run: Unix seconds. `url` is what was asked for."""

    url: str
    now: float
    since: float


class Counts(NamedTuple):
    """Messages of one entity. `active` counts those that are locked, too; `all` what is put aside as well."""

    active: int = 0
    scheduled: int = 0
    dead: int = 0
    all: int = 0


def counts_of(queue: LocalQueue, now: float) -> Counts:
    """What waits in a queue or subscription, on the server's clock."""
    states = Counter(taken.message.state for taken in queue.peek(0, _MOST, None, now))
    dead = 0 if queue.dead_letters is None else len(queue.dead_letters.peek(0, _MOST, None, now))
    return Counts(states[ACTIVE], states[SCHEDULED], dead, states.total() + dead)


def _as_subscription(counts: Counts) -> Counts:
    """What is scheduled waits at the topic, whose count it is."""
    return Counts(counts.active, 0, counts.dead, counts.all - counts.scheduled)


def queue_entry(queue: LocalQueue, counts: Counts, told: Told) -> str:
    """A queue."""
    settings = queue.settings
    fields = {
        "LockDuration": _span(settings.lock),
        "MaxSizeInMegabytes": "1024",
        "RequiresDuplicateDetection": _word(settings.duplicates > 0),
        "RequiresSession": _word(settings.sessions),
        "DefaultMessageTimeToLive": _span(settings.ttl),
        "DeadLetteringOnMessageExpiration": _word(settings.dead_letter_expired),
        "DuplicateDetectionHistoryTimeWindow": _span(settings.duplicates or 600.0),
        "MaxDeliveryCount": str(settings.max_deliveries),
        "EnableBatchedOperations": "true",
        "SizeInBytes": "0",
        "MessageCount": str(counts.all),
        "IsAnonymousAccessible": "false",
        "Status": "Active",
        **_times(told),
        "SupportOrdering": "true",
    }
    ends = {"AutoDeleteOnIdle": _FOREVER, "EnablePartitioning": "false", **_AVAILABLE, "EnableExpress": "false"}
    return _entry("QueueDescription", queue.name, _elements(fields) + _details(counts) + _elements(ends), told)


def subscription_entry(queue: LocalQueue, counts: Counts, told: Told) -> str:
    """A subscription of a topic."""
    settings, counts = queue.settings, _as_subscription(counts)
    fields = {
        "LockDuration": _span(settings.lock),
        "RequiresSession": _word(settings.sessions),
        "DefaultMessageTimeToLive": _span(settings.ttl),
        "DeadLetteringOnMessageExpiration": _word(settings.dead_letter_expired),
        "DeadLetteringOnFilterEvaluationExceptions": "true",
        "MessageCount": str(counts.all),
        "MaxDeliveryCount": str(settings.max_deliveries),
        "EnableBatchedOperations": "true",
        "Status": "Active",
        **_times(told),
    }
    ends = {"AutoDeleteOnIdle": _FOREVER, **_AVAILABLE}
    inside = _elements(fields) + _details(counts) + _elements(ends)
    return _entry("SubscriptionDescription", queue.name.partition("/")[2], inside, told)


def topic_entry(topic: Topic, scheduled: int, told: Told) -> str:
    """A topic. It holds nothing but what is scheduled: all else is in its subscriptions at once."""
    window = max((each.settings.duplicates for each in topic.subscriptions), default=0.0)
    fields = {
        "DefaultMessageTimeToLive": _FOREVER,
        "MaxSizeInMegabytes": "1024",
        "RequiresDuplicateDetection": _word(window > 0),
        "DuplicateDetectionHistoryTimeWindow": _span(window or 600.0),
        "EnableBatchedOperations": "true",
        "SizeInBytes": "0",
        "FilteringMessagesBeforePublishing": "false",
        "IsAnonymousAccessible": "false",
        "Status": "Active",
        **_times(told),
        "SupportOrdering": "true",
    }
    ends = {
        "SubscriptionCount": str(len(topic.subscriptions)),
        "AutoDeleteOnIdle": _FOREVER,
        "EnablePartitioning": "false",
        **_AVAILABLE,
        "EnableSubscriptionPartitioning": "false",
        "EnableExpress": "false",
    }
    return _entry(
        "TopicDescription",
        topic.name,
        _elements(fields) + _details(Counts(scheduled=scheduled)) + _elements(ends),
        told,
    )


def empty_feed(told: Told) -> str:
    """What the service answers, with 200, when there is no queue or topic of a name: a list of nothing."""
    return (
        f'<feed xmlns="{_ATOM}"><title type="text">Publicly Listed Services</title>'
        f"<id>{escape(told.url)}</id><updated>{_moment(told.now)}</updated></feed>"
    )


def error(code: int, detail: str) -> str:
    """A refusal."""
    return f"<Error><Code>{code}</Code><Detail>{escape(detail)}</Detail></Error>"


_AVAILABLE: Final[Mapping[str, str]] = {"EntityAvailabilityStatus": "Available"}


def _entry(kind: str, title: str, description: str, told: Told) -> str:
    moment = _moment(told.since)
    return (
        f'<entry xmlns="{_ATOM}"><id>{escape(told.url)}</id><title type="text">{escape(title)}</title>'
        f"<published>{moment}</published><updated>{moment}</updated><author><name>eventkit-local</name></author>"
        f'<link rel="self" href="{escape(told.url, {chr(34): "&quot;"})}"/><content type="application/xml">'
        f'<{kind} xmlns="{_CONNECT}" xmlns:i="{_INSTANCE}">{description}</{kind}></content></entry>'
    )


def _details(counts: Counts) -> str:
    fields = {
        "ActiveMessageCount": counts.active,
        "DeadLetterMessageCount": counts.dead,
        "ScheduledMessageCount": counts.scheduled,
        "TransferMessageCount": 0,
        "TransferDeadLetterMessageCount": 0,
    }
    inside = "".join(f"<d2p1:{name}>{value}</d2p1:{name}>" for name, value in fields.items())
    return f'<CountDetails xmlns:d2p1="{_COUNTS}">{inside}</CountDetails>'


def _elements(fields: Mapping[str, str]) -> str:
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())


def _times(told: Told) -> Mapping[str, str]:
    since = _moment(told.since)
    return {"CreatedAt": since, "UpdatedAt": since, "AccessedAt": _moment(told.now)}


def _moment(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _span(seconds: float) -> str:
    return _FOREVER if math.isinf(seconds) else f"PT{seconds:.6f}".rstrip("0").rstrip(".") + "S"


def _word(value: bool) -> str:  # noqa: FBT001 - as XML writes it
    return "true" if value else "false"
