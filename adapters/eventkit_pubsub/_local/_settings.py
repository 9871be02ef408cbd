"""What a subscription is set to: what may be, what it means, and what can be changed."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from eventkit_pubsub._local._errors import invalid
from eventkit_pubsub._local._filter import Filter, parsed
from eventkit_pubsub._local._names import check_name
from eventkit_pubsub._local._raw import FieldMask, Raw, seconds_of

MIN_DEADLINE: Final = 10
MAX_DEADLINE: Final = 600
_DAY: Final = 86_400
_FIXED: Final = frozenset({"name", "topic", "enable_message_ordering", "filter", "detached", "state"})
"""Fields of a subscription that stay as they were made."""


class Settings(NamedTuple):
    """The settings that a subscription looks at for every message. Times are in seconds.

    `attempts` is the most deliveries before `dead_letter_topic`; infinite without one.
    """

    exactly_once: bool
    retention: float
    attempts: float
    dead_letter_topic: str
    backoff: tuple[float, float]
    filter: Filter | None

    @classmethod
    def of(cls, config: Raw) -> Settings:
        """Read `config`, which is checked."""
        dead, retry = config.dead_letter_policy, config.retry_policy
        return cls(
            exactly_once=config.enable_exactly_once_delivery,
            retention=seconds_of(config.message_retention_duration),
            attempts=dead.max_delivery_attempts or math.inf,
            dead_letter_topic=dead.dead_letter_topic,
            backoff=(seconds_of(retry.minimum_backoff), seconds_of(retry.maximum_backoff)),
            filter=parsed(config.filter),
        )

    def delay(self, attempt: int) -> float:
        """Seconds until what failed as delivery number `attempt` comes again."""
        first, most = self.backoff
        return min(first * 2.0 ** min(attempt - 1, 62), most)


def complete(config: Raw) -> None:
    """Put what the service puts where nothing is said [doc: Subscription]."""
    config.ack_deadline_seconds = config.ack_deadline_seconds or MIN_DEADLINE
    if not config.HasField("message_retention_duration"):
        config.message_retention_duration.seconds = 7 * _DAY
    if not config.HasField("expiration_policy"):
        config.expiration_policy.ttl.seconds = 31 * _DAY
    if config.HasField("dead_letter_policy") and not config.dead_letter_policy.max_delivery_attempts:
        config.dead_letter_policy.max_delivery_attempts = 5
    if config.HasField("retry_policy"):
        retry = config.retry_policy
        if not retry.HasField("minimum_backoff"):
            retry.minimum_backoff.seconds = 10
        if not retry.HasField("maximum_backoff"):
            retry.maximum_backoff.seconds = 600
    config.push_config.SetInParent()
    config.state = config.State.Value("ACTIVE")


def check(config: Raw) -> None:
    """What a complete subscription says of itself can be. Raises PubsubError."""
    deadline, retention = config.ack_deadline_seconds, seconds_of(config.message_retention_duration)
    if not MIN_DEADLINE <= deadline <= MAX_DEADLINE:
        raise invalid(f"Invalid ack deadline given (ack_deadline_seconds={deadline}): from 10 to 600 s are possible.")
    if not 600 <= retention <= 31 * _DAY:
        raise invalid(f"Invalid message_retention_duration ({retention:g} s): from 10 minutes to 31 days are possible.")
    _check_policies(config)
    if config.push_config.push_endpoint and config.enable_exactly_once_delivery:
        raise invalid("Exactly-once delivery is not supported with push subscriptions.")
    parsed(config.filter)


def _check_policies(config: Raw) -> None:
    if config.HasField("dead_letter_policy"):
        dead = config.dead_letter_policy
        check_name(dead.dead_letter_topic, "topics")
        if not 5 <= dead.max_delivery_attempts <= 100:
            raise invalid(
                f"The value for max_delivery_attempts is {dead.max_delivery_attempts}: it must be from 5 to 100."
            )
    if config.HasField("retry_policy"):
        first, most = (seconds_of(config.retry_policy.minimum_backoff), seconds_of(config.retry_policy.maximum_backoff))
        if not 0 <= first <= most <= MAX_DEADLINE:
            raise invalid(
                f"The retry policy is from {first:g} to {most:g} s: 0 <= minimum <= maximum <= 600 s it must be."
            )


def updated(config: Raw, request: Raw) -> Raw:
    """A copy of `config` with what the mask of an UpdateSubscriptionRequest names. Raises PubsubError."""
    return merged(config, request.subscription, request.update_mask, fixed=_FIXED, kind="Subscription")


def merged(config: Raw, change: Raw, mask: Raw, *, fixed: frozenset[str], kind: str) -> Raw:
    """A copy of `config` with the fields of `change` that `mask` names, but none of `fixed`. Raises PubsubError."""
    where = f"Invalid update_mask provided in the Update{kind}Request:"
    if not mask.paths:
        raise invalid(
            f"The update_mask in the Update{kind}Request must be set, and must contain a non-empty paths list."
        )
    for path in mask.paths:
        if not FieldMask(paths=[path]).IsValidForDescriptor(config.DESCRIPTOR):
            raise invalid(f"{where} {path} is not a known {kind} field.")
        if path.partition(".")[0] in fixed:
            raise invalid(f"{where} the {path} field in the {kind} is not mutable.")
    copy = type(config)()
    copy.CopyFrom(config)
    mask.MergeMessage(change, copy, replace_message_field=True, replace_repeated_field=True)
    return copy
