"""What a subscription says of itself at start, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.api_core.exceptions import GoogleAPICallError
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient
from google.pubsub_v1.types import RetryPolicy, Subscription

from eventkit.errors import AccessDenied, AdapterError, ConfigurationError, ConnectionLost, SourceNotFound
from eventkit.spi import Limits, Traits
from eventkit_pubsub._config import Place
from eventkit_pubsub._content import MOST_BODY
from eventkit_pubsub._errors import translated_errors
from eventkit_pubsub._leases import LONGEST_LEASE, MOST_IDS
from eventkit_pubsub._wire import ONCE, Way, answered

LIMITS: Final = Limits(
    receive=1_000, concurrent_receives=1, settle=MOST_IDS, extend=MOST_IDS, publish=1_000, body=MOST_BODY
)
_CONSUME: Final = "pubsub.subscriptions.consume"
_PUBLISH: Final = "pubsub.topics.publish"
_DELETED: Final = "_deleted-topic_"
_ELSEWHERE: Final = (
    ("pushes to an endpoint", "push_config", "push_endpoint"),
    ("exports to BigQuery", "bigquery_config", "table"),
    ("exports to Bigtable", "bigtable_config", "table"),
    ("exports to Cloud Storage", "cloud_storage_config", "bucket"),
)
"""What a subscription may do instead of waiting to be pulled from, and the setting that says so."""
_AGENT: Final = "@gcp-sa-pubsub.iam.gserviceaccount.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One subscription as Pub/Sub describes it. `receive_limit` and `dead_letters` are its dead-letter policy's.

    `retry` is (minimum, maximum) of its retry policy in seconds, `retention` in seconds.
    """

    path: str
    topic: str
    ordered: bool = False
    exactly_once: bool = False
    retention: float | None = None
    receive_limit: int | None = None
    dead_letters: str | None = None
    retry: tuple[float, float] | None = None
    filter: str = ""

    def traits(self) -> Traits:
        """The differences of this source from others."""
        return Traits(
            delivery_count="none" if self.dead_letters is None else "approximate",
            confirms_ack=self.exactly_once,
            max_retry_delay=0.0,
            # Such a nack is a lease that nobody holds, and what follows in the key would pass it.
            nack_delay_max=0.0 if self.ordered else LONGEST_LEASE,
            key_release="redelivers" if self.ordered else "none",
            native_receive_limit=self.receive_limit,
            retention=self.retention,
        )


async def facts_of(client: SubscriberAsyncClient, place: Place, way: Way) -> Facts:
    """Ask Pub/Sub. Raises SourceNotFound, AccessDenied or another AdapterError, ConfigurationError."""
    path = f"projects/{way.project}/subscriptions/{place.name}"
    try:
        with translated_errors("read the settings of", place):
            found = await answered(client.get_subscription(request={"subscription": path}, **ONCE))
    except SourceNotFound as exc:
        raise SourceNotFound(
            f"there is no subscription {place.name} in project {way.project}{way.shown}: create it, or correct project "
            f"or name in {place.address} (a source is a subscription, not a topic)"
        ) from exc.__cause__
    except ConnectionLost as exc:
        raise unreachable(place, way, exc) from exc.__cause__
    if not await permitted(client, path, _CONSUME):
        raise AccessDenied(
            f"{place.address}: these credentials may not receive from it ({_CONSUME}); "
            "grant them roles/pubsub.subscriber on the subscription"
        )
    return read_facts(found, place)


def unreachable(place: Place, way: Way, exc: AdapterError) -> ConnectionLost:
    """What to say when nobody answers at start."""
    if way.credentials is None:
        mend = "start the local server (eventkit local pubsub), or correct ?endpoint=… or PUBSUB_EMULATOR_HOST"
    else:
        mend = "check network and proxy, and the endpoint (?region=…, ?endpoint=…)"
    why = str(exc).removeprefix("cannot ").partition(": ")[2]
    return ConnectionLost(f"cannot reach {place.address}: nobody answers at {way.target} ({why}); {mend}")


def read_facts(found: Subscription, place: Place) -> Facts:
    """What `found` says. Raises ConfigurationError for one that cannot be received from."""
    for what, settings, name in _ELSEWHERE:
        if getattr(getattr(found, settings, None), name, ""):  # an older SDK does not know all of them
            raise ConfigurationError(f"{place.address} {what}: one can receive from a pull subscription only")
    if found.detached:
        raise ConfigurationError(f"{place.address} is detached from its topic, and empty: create it again")
    policy = found.dead_letter_policy
    return Facts(
        path=found.name,
        topic=found.topic,
        ordered=found.enable_message_ordering,
        exactly_once=found.enable_exactly_once_delivery,
        retention=_seconds(found.message_retention_duration),
        receive_limit=(policy.max_delivery_attempts or 5) if policy.dead_letter_topic else None,
        dead_letters=policy.dead_letter_topic or None,
        retry=_backoff(found.retry_policy) if "retry_policy" in found else None,
        filter=found.filter,
    )


def _seconds(span: Any) -> float | None:
    """Seconds of a duration, which the SDK gives as a timedelta, whatever its types say."""
    return span.total_seconds() if span else None


def _backoff(policy: RetryPolicy) -> tuple[float, float]:
    """(minimum, maximum) in seconds; 10 and 600 are Pub/Sub's own."""
    minimum = (_seconds(policy.minimum_backoff) or 0.0) if "minimum_backoff" in policy else 10.0
    maximum = (_seconds(policy.maximum_backoff) or 0.0) if "maximum_backoff" in policy else 600.0
    return minimum, max(minimum, maximum)


async def permitted(client: Any, path: str, permission: str) -> bool:
    """Whether these credentials have `permission` there; True where that is not told."""
    try:
        request = {"resource": path, "permissions": [permission]}
        reply = await answered(client.test_iam_permissions(request=request, **ONCE))
    except GoogleAPICallError:
        return True
    return permission in reply.permissions


def warnings(place: Place, facts: Facts, way: Way, *, ordered: bool) -> Iterator[str]:
    """What works, and will surprise."""
    if facts.ordered and not ordered:
        yield (
            f"{place.address} has message ordering, and the worker keeps no order: events of a key may be handled side "
            'by side; set ordering = "key"'
        )
    if facts.dead_letters is None:
        yield (
            f"{place.address} has no dead-letter policy, and Pub/Sub counts deliveries only with one: give it one "
            "(gcloud pubsub subscriptions update --dead-letter-topic --max-delivery-attempts)"
        )
    if facts.retry is not None:
        minimum, maximum = facts.retry
        yield (
            f"{place.address} has a retry policy ({minimum:g} to {maximum:g} s), which is added to every retry and "
            "release of the worker, who waits himself: take it away (gcloud pubsub subscriptions update "
            "--clear-retry-policy)"
        )
    if way.is_global and (facts.exactly_once or facts.ordered):
        what = "exactly-once delivery" if facts.exactly_once else "order"
        yield (
            f"{place.address}: {what} holds within one region, and {way.target} leads to the nearest one: "
            "name the region of the publishers, ?region=europe-north1 for example"
        )
    if facts.filter:
        yield f"{place.address} has a filter: what does not match {facts.filter!r} is acked by Pub/Sub, unseen"
    if facts.topic == _DELETED:
        yield f"{place.address}: its topic was deleted, nothing new comes; create topic and subscription again"


async def letter_warnings(client: PublisherAsyncClient, place: Place, facts: Facts, way: Way) -> list[str]:
    """What may become of dead letters: nobody allowed to publish them, nobody to read them."""
    topic = facts.dead_letters
    if topic is None:
        return []
    found = []
    if not await permitted(client, topic, _PUBLISH):
        found.append(
            f"{place.address}: its dead-letter topic {topic} does not exist, or these credentials may not publish to "
            "it: grant them roles/pubsub.publisher there, or events that fail for good stay where they are"
        )
    if await _is_unread(client, topic):
        found.append(
            f"{place.address}: nobody subscribes to its dead-letter topic {topic}: what goes there is gone; create a "
            "subscription for it"
        )
    if way.credentials is not None and await lacks_agent(client, topic):
        found.append(
            f"{place.address}: Pub/Sub's own service agent (service-…{_AGENT}) has no role on {topic}: unless it has "
            "one on the project, Pub/Sub does not dead-letter what no worker could settle"
        )
    return found


async def _is_unread(client: PublisherAsyncClient, topic: str) -> bool:
    try:
        pages = await answered(client.list_topic_subscriptions(request={"topic": topic, "page_size": 1}, **ONCE))
        return not [name async for name in pages]
    except GoogleAPICallError:
        return False


async def lacks_agent(client: PublisherAsyncClient, topic: str) -> bool:
    """Whether the policy of `topic` can be read, and names no service agent of Pub/Sub."""
    try:
        policy = await answered(client.get_iam_policy(request={"resource": topic}, **ONCE))
    except GoogleAPICallError:
        return False
    return not any(member.endswith(_AGENT) for binding in policy.bindings for member in binding.members)
