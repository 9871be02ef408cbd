"""The brokers of the simulator: what a real one does when it is not at its best, and that each is like its namesake."""

from __future__ import annotations

import math

import pytest
from eventkit_sqlite._config import LIMITS, TRAITS

from eventkit.spi import DONE, LOST, Delivery, Extended, Letter, Traits
from eventkit.testing.memory import Change, Kind, MemoryBroker, MemoryQueue, Settings
from eventkit.testing.memory._values import Message
from eventkit.testing.simulation._brokers import BROKERS

LEASE = 10.0


def queue_of(*messages: Message, traits: Traits | None = None) -> MemoryQueue:
    """A queue with these in it, at time 0."""
    queue = MemoryBroker(traits=traits or Traits(key_release="hold"), history=100).queue("q")
    for message in messages or (event(),):
        queue.publish(message, 0.0, 0.0)
    return queue


def event(key: str | None = None) -> Message:
    return Message(body=b"body", message_id="m", attributes={"a": "1"}, content_type="text/plain", key=key)


def twins(queue: MemoryQueue, *, now: float = 0.0) -> tuple[Delivery, Delivery]:
    """One lease under two receipts: source 2 got the event of source 1 once more."""
    [first] = queue.take(1, LEASE, 1, now)
    second = queue.duplicate(first.receipt, 2, now)
    assert second is not None
    return first, second


# -- duplicates ----------------------------------------------------------------------------------


def test_a_duplicate_is_the_same_event_under_a_receipt_of_its_own() -> None:
    """A worker cannot tell it from a redelivery, nor should it try."""
    first, second = twins(queue_of())

    assert second.receipt != first.receipt
    assert (second.message_id, second.body, second.attributes, second.content_type) == (
        first.message_id,
        first.body,
        first.attributes,
        first.content_type,
    )
    assert second.leased_until == first.leased_until


def test_a_duplicate_counts_as_a_delivery() -> None:
    """As it does at every broker that counts."""
    queue = queue_of()
    first, second = twins(queue)

    assert (first.delivery_count, second.delivery_count) == (1, 2)
    assert queue.counts(0.0).delivered == 2
    assert queue.depth(0.0).leased == 1


def test_a_duplicate_is_told_to_observers_with_its_source() -> None:
    """The simulator's ledger knows by it who holds what."""
    seen: list[Change] = []
    broker = MemoryBroker()
    broker.observe(seen.append)
    queue = broker.queue("q")
    queue.publish(event(), 0.0, 0.0)
    first, second = twins(queue)

    delivered = [(change.receipt, change.source, change.until) for change in seen if change.kind is Kind.DELIVERED]
    assert delivered == [(first.receipt, 1, LEASE), (second.receipt, 2, LEASE)]


@pytest.mark.parametrize(("used", "other"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("verb", ["ack", "nack", "dead_letter"])
def test_either_receipt_settles_and_the_other_is_stale_from_then_on(verb: str, used: int, other: int) -> None:
    """Two workers have one event: whoever is first decides, and the other must be able to notice."""
    queue = queue_of()
    receipts = [delivery.receipt for delivery in twins(queue)]

    def settle(receipt: int) -> object:
        match verb:
            case "ack":
                return queue.ack([receipt], 1.0)
            case "nack":
                return queue.nack([(receipt, 0.0)], 1.0)
            case _:
                return queue.dead_letter([Letter(receipt=receipt, reason="bad", detail="")], 1.0)

    assert settle(receipts[used]) == [DONE]
    assert [settle(receipt) for receipt in receipts] == [[LOST], [LOST]]
    assert queue.extend([receipts[other]], LEASE, 1.0) == [LOST]
    counts = queue.counts(1.0)
    assert (counts.acked, counts.nacked, counts.dead) == (verb == "ack", verb == "nack", verb == "dead_letter")
    assert counts.stale == 3


@pytest.mark.parametrize("by", [0, 1])
def test_either_receipt_extends_the_lease_of_both(by: int) -> None:
    """It is one lease."""
    queue = queue_of()
    receipts = [delivery.receipt for delivery in twins(queue)]

    assert queue.extend([receipts[by]], LEASE, 8.0) == [Extended(18.0)]
    assert queue.extend([receipts[1 - by]], LEASE, 15.0) == [Extended(25.0)]
    assert queue.ack([receipts[by]], 24.0) == [DONE]


def test_the_end_of_the_lease_ends_both_receipts() -> None:
    """The event is somebody else's, and comes once, not twice."""
    queue = queue_of()
    receipts = [delivery.receipt for delivery in twins(queue)]
    again = queue.take(9, LEASE, 3, LEASE)

    assert [delivery.delivery_count for delivery in again] == [3]
    assert queue.ack(receipts, LEASE) == [LOST, LOST]
    assert queue.ack([again[0].receipt], LEASE) == [DONE]
    assert queue.counts(LEASE).expired == 1


def test_an_event_with_an_order_is_not_duplicated() -> None:
    """A second delivery would run beside the first, which no source with an order per key allows."""
    queue = queue_of(event(key="k"))
    [delivery] = queue.take(1, LEASE, 1, 0.0)

    assert queue.duplicate(delivery.receipt, 2, 0.0) is None
    assert queue.ack([delivery.receipt], 0.0) == [DONE]


def test_a_key_without_an_order_is_no_hindrance() -> None:
    """A standard queue carries keys and does not heed them."""
    twins(queue_of(event(key="k"), traits=Traits(key_release="none")))


def test_only_what_is_leased_and_has_no_duplicate_is_duplicated() -> None:
    """A stale receipt brings nothing back."""
    queue = queue_of()
    first, second = twins(queue)
    assert queue.duplicate(first.receipt, 3, 0.0) is None
    assert queue.duplicate(second.receipt, 3, 0.0) is None
    queue.ack([first.receipt], 0.0)
    assert queue.duplicate(first.receipt, 3, 0.0) is None
    assert queue.duplicate(12345, 3, 0.0) is None


# -- leases that end early -----------------------------------------------------------------------


def test_a_lease_ends_before_its_time() -> None:
    """A broker that fails over has forgotten who holds what: the event comes again at once."""
    queue = queue_of()
    [first] = queue.take(1, LEASE, 1, 0.0)
    assert queue.expire(first.receipt, 1.0)
    [second] = queue.take(1, LEASE, 2, 1.0)

    assert (second.message_id, second.delivery_count) == ("m", 2)
    assert queue.ack([first.receipt], 1.0) == [LOST]
    assert queue.counts(1.0).expired == 1


@pytest.mark.parametrize("by", [0, 1])
def test_a_lease_that_ends_early_ends_for_both_receipts(by: int) -> None:
    """Whichever the broker was asked about when it had forgotten."""
    queue = queue_of()
    receipts = [delivery.receipt for delivery in twins(queue)]

    assert queue.expire(receipts[by], 1.0)
    assert not queue.expire(receipts[1 - by], 1.0)
    assert queue.ack(receipts, 1.0) == [LOST, LOST]
    assert len(queue.take(9, LEASE, 3, 1.0)) == 1


def test_nothing_ends_where_there_is_no_lease() -> None:
    """The fault must not count what it did not do."""
    queue = queue_of()
    assert not queue.expire(1, 0.0)
    [delivery] = queue.take(1, LEASE, 1, 0.0)
    assert not queue.expire(delivery.receipt, LEASE)
    assert queue.counts(LEASE).expired == 1


def test_a_lease_that_ends_early_keeps_its_place_in_the_order() -> None:
    """It is the head of its key again, and its followers wait."""
    queue = queue_of(event(key="k"))
    queue.publish(Message(body=b"", message_id="follower", key="k"), 0.0, 0.0)
    [head] = queue.take(1, LEASE, 1, 0.0)
    assert queue.expire(head.receipt, 1.0)

    assert [delivery.message_id for delivery in queue.take(9, LEASE, 1, 1.0)] == ["m", "follower"]


# -- namesakes -----------------------------------------------------------------------------------


def named(prefix: str) -> list[Settings]:
    return [settings for name, settings in BROKERS.items() if name.startswith(prefix)]


SQS = [BROKERS["sqs"], BROKERS["fifo"]]
SERVICE_BUS = [BROKERS["servicebus"], BROKERS["sessions"]]
PUBSUB = named("pubsub")


def test_the_embedded_queue_has_the_traits_of_its_adapter() -> None:
    """What is proved of the simulated one holds for the real one."""
    sqlite = BROKERS["sqlite"]

    assert sqlite.traits == TRAITS
    assert sqlite.native_dead_letter
    assert sqlite.limits.concurrent_receives == LIMITS.concurrent_receives


@pytest.mark.parametrize("settings", SQS)
def test_sqs_takes_ten_at_a_time_and_says_done_to_a_stale_ack(settings: Settings) -> None:
    """Entries of a batch are limited to ten; a delete under a stale receipt handle succeeds and deletes nothing."""
    limits, traits = settings.limits, settings.traits

    assert (limits.receive, limits.settle, limits.extend, limits.publish) == (10, 10, 10, 10)
    assert (traits.delivery_count, traits.confirms_ack, traits.release_counts) == ("approximate", False, True)


@pytest.mark.parametrize("settings", SQS)
def test_sqs_delays_by_whole_seconds_within_twelve_hours_of_the_receive(settings: Settings) -> None:
    """Visibility time-outs are integers, and all of them together end twelve hours after the receive."""
    traits = settings.traits

    assert (traits.delay_granularity, traits.lease_total_max, traits.lease_fixed) == (1.0, 12 * 3600.0, False)
    assert traits.max_retry_delay is not None
    assert 10 * 3600 < traits.max_retry_delay < 12 * 3600


@pytest.mark.parametrize("settings", SERVICE_BUS)
def test_service_bus_has_locks_of_one_length_and_no_delays(settings: Settings) -> None:
    """The entity sets the length of a lock; an abandoned message is there at once, counted, exactly."""
    traits = settings.traits

    assert (traits.lease_fixed, traits.max_retry_delay, traits.lease_total_max) == (True, 0.0, None)
    assert (traits.delivery_count, traits.confirms_ack, traits.release_counts) == ("exact", True, True)
    assert settings.native_dead_letter


@pytest.mark.parametrize("settings", PUBSUB)
def test_pubsub_leases_ten_minutes_at_most_and_has_no_delays(settings: Settings) -> None:
    """An ack deadline is up to 600 s from each extension, without an end; delays are parked under it."""
    assert (settings.lease_max, settings.traits.lease_total_max, settings.traits.max_retry_delay) == (600.0, None, 0.0)
    assert not settings.traits.lease_fixed


def test_pubsub_confirms_acks_with_exactly_once_delivery_only() -> None:
    """Otherwise an ack is best effort; and without a dead-letter policy nothing is counted."""
    assert [settings.traits.confirms_ack for settings in PUBSUB] == [False, True, False]
    assert [settings.traits.delivery_count for settings in PUBSUB] == ["approximate", "none", "approximate"]


@pytest.mark.parametrize("settings", [*SQS, *PUBSUB])
def test_where_a_queue_cannot_dead_letter_one_event_the_core_must_publish_it(settings: Settings) -> None:
    """SQS and Pub/Sub only know limits on receives."""
    assert not settings.native_dead_letter


def test_each_order_per_key_is_that_of_its_source() -> None:
    """FIFO wants followers released, sessions and the embedded queue hold them, Pub/Sub brings them again."""
    assert {name: settings.traits.key_release for name, settings in BROKERS.items()} == {
        "sqlite": "hold",
        "sqs": "none",
        "fifo": "followers",
        "servicebus": "none",
        "sessions": "hold",
        "pubsub": "none",
        "pubsub-exactly-once": "none",
        "pubsub-ordered": "redelivers",
    }
    assert BROKERS["pubsub-ordered"].redelivers_acked


def test_no_simulated_broker_loses_events_by_itself() -> None:
    """A receive limit or a retention would hide what the core loses."""
    for settings in BROKERS.values():
        assert (settings.traits.native_receive_limit, settings.traits.retention) == (None, None)
        assert settings.lease_max in {600.0, math.inf}
