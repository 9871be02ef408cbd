"""The topics and subscriptions that the server stands for, of any project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from itertools import count

from eventkit.spi import LocalCounts
from eventkit_pubsub._local._errors import PubsubError, already_exists, not_found, stopped, wrong_state
from eventkit_pubsub._local._line import Line
from eventkit_pubsub._local._names import DELETED_TOPIC, check_name
from eventkit_pubsub._local._raw import PubsubMessage, Raw, timestamp
from eventkit_pubsub._local._settings import check, complete
from eventkit_pubsub._local._stored import Stored, Tally
from eventkit_pubsub._local._subscription import LocalSubscription


class LocalTopic:
    """A topic, and who is subscribed to it. `published` counts what clients have published."""

    def __init__(self, config: Raw) -> None:
        self.config = config
        self.subscriptions: list[LocalSubscription] = []
        self.published = 0


class Project:
    """Topics and subscriptions by their full names, each subscription with those who wait for its messages.

    A name may be used again as soon as it is free. The state of the whole server, so more than seven methods.
    """

    def __init__(self, *, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self.now = clock
        self.wall = wall
        self.topics: dict[str, LocalTopic] = {}
        self.subscriptions: dict[str, LocalSubscription] = {}
        self.policies: dict[str, Raw] = {}
        self._lines: dict[str, Line] = {}
        self._past: list[Tally] = []
        """What subscriptions had done that are deleted."""
        self._numbers = count(1)
        self._first_id = int(wall() * 1_000) % 10**10 * 1_000_000
        self.ended = False

    # -- topics --------------------------------------------------------------------------------

    def create_topic(self, config: Raw) -> LocalTopic:
        """Make a topic. Raises PubsubError."""
        check_name(config.name, "topics")
        if config.name in self.topics:
            raise already_exists(config.name)
        config.state = config.State.Value("ACTIVE")
        topic = self.topics[config.name] = LocalTopic(config)
        return topic

    def topic(self, name: str) -> LocalTopic:
        """The topic of this name. Raises PubsubError."""
        topic = self.topics.get(name)
        if topic is None:
            check_name(name, "topics")
            raise not_found(name)
        return topic

    def delete_topic(self, name: str) -> None:
        """Delete a topic; its subscriptions keep what they have. Raises PubsubError."""
        for subscription in self.topic(name).subscriptions:
            subscription.config.topic = DELETED_TOPIC
        del self.topics[name]

    def publish(self, topic: LocalTopic, messages: Sequence[Raw]) -> list[str]:
        """Publish messages, which are good and become the server's own; return their ids."""
        now, published = self.now(), self.wall()
        published_at = timestamp(published)
        ids = []
        for message in messages:
            number = next(self._numbers)
            id = message.message_id = str(self._first_id + number)
            message.publish_time.CopyFrom(published_at)
            body = message.SerializeToString()
            for subscription in topic.subscriptions:
                wanted = subscription.settings.filter
                if wanted is None or wanted(message.attributes):
                    key = message.ordering_key or None if subscription.config.enable_message_ordering else None
                    subscription.publish(Stored(body, id, key=key, number=number, published=published), now)
            ids.append(id)
        return ids

    # -- subscriptions -------------------------------------------------------------------------

    def create_subscription(self, config: Raw) -> LocalSubscription:
        """Make a subscription. Raises PubsubError."""
        check_name(config.name, "subscriptions")
        check_name(config.topic, "topics")
        if config.name in self.subscriptions:
            raise already_exists(config.name)
        topic = self.topic(config.topic)
        complete(config)
        self.check(config)
        subscription = LocalSubscription(config, wall=self.wall, dead_letters=self)
        line = self._lines[config.name] = Line(subscription, self.now)
        subscription.on_ready = line.ring
        self.subscriptions[config.name] = subscription
        topic.subscriptions.append(subscription)
        return subscription

    def check(self, config: Raw) -> None:
        """A complete subscription can be, and the topic of its dead letters is there. Raises PubsubError."""
        check(config)
        if config.HasField("dead_letter_policy"):
            self.topic(config.dead_letter_policy.dead_letter_topic)

    def subscription(self, name: str) -> LocalSubscription:
        """The subscription of this name. Raises PubsubError."""
        subscription = self.subscriptions.get(name)
        if subscription is None:
            check_name(name, "subscriptions")
            raise not_found(name)
        return subscription

    def update_subscription(self, subscription: LocalSubscription, config: Raw) -> None:
        """Change it; those who wait at one that is to be pulled no more are told."""
        subscription.set(config, self.now())
        problem = why_not_pulled(subscription)
        if problem is not None:
            self.line(subscription).end(problem)

    def detach(self, subscription: LocalSubscription) -> None:
        """Take it away from its topic, with all that it holds."""
        topic = self.topics.get(subscription.config.topic)
        if topic is not None:
            topic.subscriptions.remove(subscription)
        subscription.config.detached = True
        subscription.drop(self.now())
        self.update_subscription(subscription, subscription.config)

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription with all that it holds, and tell those who wait at it. Raises PubsubError."""
        subscription = self.subscription(name)
        topic = self.topics.get(subscription.config.topic)
        if topic is not None and subscription in topic.subscriptions:
            topic.subscriptions.remove(subscription)
        if not self._is_for_dead_letters(subscription):
            subscription.catch_up(self.now())
            self._past.append(subscription.tally)
        del self.subscriptions[name]
        self._lines.pop(name).end(not_found(name))

    def line(self, subscription: LocalSubscription) -> Line:
        """Those who wait at it."""
        return self._lines[subscription.name]

    # -- dead letters --------------------------------------------------------------------------

    def takes(self, topic: str) -> bool:
        """See `DeadLetters`."""
        return topic in self.topics

    def put(self, topic: str, message: Stored, subscription: str) -> None:
        """See `DeadLetters`; the attributes are those of the service [tried:emu]."""
        letter = PubsubMessage.FromString(message.body)
        _, project, _, name = subscription.split("/")
        letter.attributes.update(
            {
                "CloudPubSubDeadLetterSourceDeliveryCount": str(message.count),
                "CloudPubSubDeadLetterSourceSubscription": name,
                "CloudPubSubDeadLetterSourceSubscriptionProject": project,
                "CloudPubSubDeadLetterSourceTopicPublishTime": letter.publish_time.ToDatetime(UTC).isoformat(
                    timespec="milliseconds"
                ),
            }
        )
        self.publish(self.topics[topic], [letter])

    def _dead_letter_topics(self) -> set[str]:
        return {each.settings.dead_letter_topic for each in self.subscriptions.values()} - {""}

    def _is_for_dead_letters(self, subscription: LocalSubscription) -> bool:
        return subscription.config.topic in self._dead_letter_topics()

    # -- the whole -----------------------------------------------------------------------------

    def counts(self) -> LocalCounts:
        """What was done at the subscriptions that are not on the dead-letter topic of another. It sees to the time."""
        now = self.now()
        for subscription in self.subscriptions.values():
            subscription.catch_up(now)
            self.line(subscription).ring()
        topics = self._dead_letter_topics()
        done = [each.tally for each in self.subscriptions.values() if each.config.topic not in topics] + self._past
        return LocalCounts(
            published=sum(tally.published for tally in done),
            delivered=sum(tally.delivered for tally in done),
            acked=sum(tally.acked for tally in done),
            nacked=sum(tally.nacked for tally in done),
            expired=sum(tally.expired for tally in done),
            dead=sum(tally.dead for tally in done)
            + sum(topic.published for name, topic in self.topics.items() if name in topics),
        )

    def end_waiting(self, error: PubsubError) -> None:
        """End all streams and pulls."""
        for line in self._lines.values():
            line.end(error)

    def end(self) -> None:
        """The server stops."""
        self.ended = True
        self.end_waiting(stopped())


def why_not_pulled(subscription: LocalSubscription) -> PubsubError | None:
    """What forbids Pull and StreamingPull, if anything does."""
    config = subscription.config
    if config.detached:
        return wrong_state("The subscription is detached from its topic: it cannot be pulled from.")
    kinds: Mapping[str, str] = {
        "push": config.push_config.push_endpoint,
        "BigQuery": config.bigquery_config.table,
        "Cloud Storage": config.cloud_storage_config.bucket,
        # Older versions of the SDK do not know it.
        "Bigtable": getattr(getattr(config, "bigtable_config", None), "table", ""),
    }
    kind = next((kind for kind, target in kinds.items() if target), None)
    return wrong_state(f"This method is not supported for the {kind} subscription type.") if kind else None
