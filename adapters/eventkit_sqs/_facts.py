"""What a queue says of itself at start, and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError, EndpointConnectionError

from eventkit.errors import AccessDenied, AdapterError, ConfigurationError, ConnectionLost, SourceNotFound
from eventkit.spi import Limits, Traits
from eventkit_sqs._config import Place
from eventkit_sqs._errors import is_missing, translated_errors

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

MOST_BYTES: Final = 1024 * 1024
"""Bytes of one message, and of all messages of one call."""
LONGEST_LEASE: Final = 43_200
"""Seconds from its receive to the end of the last extension of a lease, or of the delay it is given back with."""
LEFT_FOR_DELAY: Final = 3_600
"""Seconds of those that an event may have been in hand before a retry with the longest delay."""
_POLLS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One queue as SQS describes it. `receive_limit` and `dead_letters` (an ARN) are those of its redrive policy."""

    url: str
    body_limit: int = MOST_BYTES
    retention: float | None = None
    receive_limit: int | None = None
    dead_letters: str | None = None

    def traits(self, *, fifo: bool) -> Traits:
        """The differences of this source from others."""
        return Traits(
            delivery_count="approximate",
            confirms_ack=False,
            max_retry_delay=LONGEST_LEASE - LEFT_FOR_DELAY,
            delay_granularity=1.0,
            lease_total_max=LONGEST_LEASE,
            key_release="followers" if fifo else "none",
            native_receive_limit=self.receive_limit,
            retention=self.retention,
        )

    def limits(self, events: int) -> Limits:
        """Most items of one call; `events` is how many the worker holds at once."""
        polls = max(1, min(_POLLS, events // 10))
        return Limits(receive=10, concurrent_receives=polls, settle=10, extend=10, publish=10, body=self.body_limit)


async def url_of(client: SQSClient, place: Place) -> str:
    """Where the queue is. Raises SourceNotFound, AccessDenied or another AdapterError."""
    if place.url is not None:
        return place.url
    owner: Any = {"QueueOwnerAWSAccountId": place.account} if place.account is not None else {}
    with _asking(client, place, "find"):
        return (await client.get_queue_url(QueueName=place.name, **owner))["QueueUrl"]


async def facts_of(client: SQSClient, place: Place) -> Facts:
    """Ask the queue. Raises SourceNotFound, AccessDenied or another AdapterError, ConfigurationError."""
    url = await url_of(client, place)
    with _asking(client, place, "read the attributes of"):
        reply = await client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    attributes: Any = reply.get("Attributes", {})
    return read_facts(url, attributes, place)


@contextmanager
def _asking(client: SQSClient, place: Place, doing: str) -> Iterator[None]:
    """Raise an AdapterError in place of the SDK's; of a queue that is not there, say where it was looked for."""
    endpoint = client.meta.endpoint_url
    at = "" if "amazonaws" in endpoint else f" at {endpoint}"
    with translated_errors(doing, place.address):
        try:
            yield
        except ClientError as exc:
            if not is_missing(exc):
                raise
            hint = "" if place.fifo else ", and that of a FIFO queue ends in .fifo"
            raise SourceNotFound(
                f"there is no queue {place.name} in {client.meta.region_name}{at} for these credentials: create it, or "
                f"correct its name, its region (?region=…) or its account (by ARN) in {place.address}{hint}"
            ) from exc
        except EndpointConnectionError as exc:
            mend = "start the local server (eventkit local sqs), or correct" if at else "check network and proxy, and"
            raise ConnectionLost(
                f"cannot reach {place.address}: nobody answers at {endpoint}; {mend} the region or endpoint "
                "(?region=…, ?endpoint=…, AWS_ENDPOINT_URL_SQS)"
            ) from exc


def read_facts(url: str, attributes: Mapping[str, str], place: Place) -> Facts:
    """What `attributes`, as GetQueueAttributes gives them, say. Raises ConfigurationError."""
    fifo = attributes.get("FifoQueue") == "true"
    if fifo != place.fifo and "FifoQueue" in attributes:
        raise ConfigurationError(f"{place.address}: a FIFO queue's name ends in .fifo, and no other's does")
    policy = _redrive(attributes.get("RedrivePolicy", ""), place)
    return Facts(
        url=url,
        body_limit=min(_number(attributes, "MaximumMessageSize") or MOST_BYTES, MOST_BYTES),
        retention=_number(attributes, "MessageRetentionPeriod"),
        receive_limit=_number(policy, "maxReceiveCount"),
        dead_letters=policy.get("deadLetterTargetArn"),
    )


def _redrive(text: str, place: Place) -> Mapping[str, Any]:
    try:
        policy = json.loads(text or "{}")
    except ValueError as exc:
        raise ConfigurationError(f"{place.address}: its redrive policy is no JSON") from exc
    return policy if isinstance(policy, dict) else {}


def _number(values: Mapping[str, Any], name: str) -> int | None:
    try:
        return int(values[name])
    except (KeyError, TypeError, ValueError):
        return None


def warnings(place: Place, facts: Facts, letters: Facts | AdapterError | None, *, ordered: bool) -> Iterator[str]:
    """What works, and will surprise."""
    if place.fifo and not ordered:
        yield (
            f"{place.address} is a FIFO queue, and the worker keeps no order: events of a group may be handled side "
            'by side; set ordering = "key"'
        )
    if isinstance(letters, AccessDenied):
        yield f"{letters}; whether the dead-letter queue can be written to shows with the first dead letter"
    elif isinstance(letters, AdapterError):
        yield f"{place.address}: its dead-letter queue: {letters}"
    elif letters is not None and not place.fifo and (letters.retention or 0) <= (facts.retention or 0):
        yield (
            f"{place.address}: its dead-letter queue keeps a message for {_days(letters.retention)} days, no longer "
            f"than the queue itself ({_days(facts.retention)}), and what SQS moves there keeps its age: raise its "
            "MessageRetentionPeriod, at most to 14 days"
        )


def _days(seconds: float | None) -> str:
    return f"{(seconds or 0) / 86_400:.3g}"
