"""Sources whose deliveries break the contract in one way each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import anyio
import msgspec

from eventkit.spi import (
    Delivery,
)
from tests.conformance.wrong import Passing


class Changing(Passing):
    """A source that changes each delivery on its way."""

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        """The fields that are different."""
        raise NotImplementedError

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        deliveries = await super().receive(limit, wait)
        return [msgspec.structs.replace(delivery, **self.changed(delivery)) for delivery in deliveries]


class DecodesBodies(Changing):
    """A body is text, is it not?"""

    fails = ("a_body_that_is_no_text_arrives_byte_for_byte", "a_dead_letter_can_be_received_where_the_place_says")

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        return {"body": delivery.body.decode("utf-8", "replace").encode()}


class LowersNames(Changing):
    """Headers have no case."""

    fails = ("attribute_names_keep_their_case",)

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        return {"attributes": {name.lower(): value for name, value in delivery.attributes.items()}}


class LosesTheContentType(Changing):
    """It has no place in the provider's envelope."""

    fails = ("what_was_published_arrives_as_it_was",)

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        return {"content_type": None}


class NamesDeliveries(Changing):
    """The message id is that of the delivery."""

    fails = ("a_dead_letter_keeps_its_event_and_reason", "an_event_that_comes_again_is_the_same")

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        return {"message_id": f"{delivery.message_id}-{delivery.receipt}"}


class NamesContents(Changing):
    """The message id is a hash of the content."""

    fails = ("a_dead_letter_keeps_its_event_and_reason", "message_ids_tell_events_apart")

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        return {"message_id": str(hash(delivery.body))}


class SharesRaw(Changing):
    """The reply of the whole call stands in every delivery."""

    fails = ("raw_is_the_providers_own_object",)

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        return {"raw": self}


class EnqueuedInMilliseconds(Changing):
    """As the provider's header has it."""

    fails = ("enqueued_at_is_in_unix_seconds",)

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        return {"enqueued_at": (delivery.enqueued_at or 0.0) * 1000}


class LeasedByTheWallClock(Changing):
    """As the provider's header has it."""

    fails = ("an_event_comes_again_when_its_lease_is_over", "leased_until_is_on_the_loops_clock")

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        return {"leased_until": delivery.leased_until - anyio.current_time() + time.time()}


class LeasedTooLong(Changing):
    """The wish is told, not what the provider gave."""

    fails = ("an_event_comes_again_when_its_lease_is_over",)

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        left = delivery.leased_until - anyio.current_time()
        return {"leased_until": anyio.current_time() + 3.0} if left < 2.0 else {}


class CountsFromZero(Changing):
    """The provider's header counts failed deliveries."""

    fails = (
        "a_dead_letter_keeps_its_event_and_reason",
        "a_dead_letter_put_back_is_delivered_as_new",
        "deliveries_are_counted_as_declared",
    )

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        return {"delivery_count": (delivery.delivery_count or 0) - 1}


class LosesTheKey(Changing):
    """The session id is nowhere in the delivery."""

    fails = ("a_delivery_carries_its_key",)

    def changed(self, delivery: Delivery) -> dict[str, Any]:
        return {"key": None}
