"""Sources whose settlements and leases are not what they say, in one way each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from eventkit.spi import (
    DONE,
    LOST,
    Delivery,
    Extended,
    Receipt,
    Settled,
)
from tests.conformance.wrong import BOUNDED, Passing, but


class AcksNothing(Passing):
    """A success that was never sent."""

    fails = (
        "a_call_in_which_every_item_fails_is_answered",
        "a_dead_letter_after_an_ack_is_an_answer",
        "a_nack_after_an_ack_is_an_answer",
        "a_second_ack_is_an_answer",
        "ack_answers_each_receipt_in_its_place",
        "an_ack_after_a_nack_is_an_answer",
        "an_acked_event_does_not_come_again",
        "dead_letter_answers_each_receipt_in_its_place",
        "extend_answers_each_receipt_in_its_place",
        "nack_answers_each_receipt_in_its_place",
        "settling_after_the_lease_is_an_answer",
        "two_deliveries_of_one_event_are_two_items",
    )

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        await checkpoint()
        return [DONE] * len(receipts)


class NacksNothing(Passing):
    """The lease will end some day."""

    fails = (
        "a_call_in_which_every_item_fails_is_answered",
        "a_delay_beyond_the_longest_is_refused_in_its_place",
        "a_delay_is_rounded_up",
        "a_failed_head_comes_again_before_what_follows",
        "a_nack_after_an_ack_is_an_answer",
        "a_nacked_event_comes_again_at_once",
        "a_release_counts_as_declared",
        "an_ack_after_a_nack_is_an_answer",
        "an_event_that_comes_again_is_the_same",
        "each_event_comes_back_after_its_own_delay",
        "nack_answers_each_receipt_in_its_place",
        "no_event_comes_more_often_than_the_receive_limit",
        "settling_after_the_lease_is_an_answer",
        "two_deliveries_of_one_event_are_two_items",
    )

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        await checkpoint()
        return [DONE] * len(items)


class IgnoresDelays(Passing):
    """Given back is given back."""

    fails = ("a_delay_is_rounded_up", "each_event_comes_back_after_its_own_delay")

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        return await super().nack([(receipt, delay if delay > 4 else 0.0) for receipt, delay in items])


class OneDelayForAll(Passing):
    """A call has one delay: the first."""

    fails = ("each_event_comes_back_after_its_own_delay",)

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        if any(delay > 4 for _, delay in items):
            return await super().nack(items)
        return await super().nack([(receipt, items[0][1]) for receipt, _ in items])


class RoundsDelaysDown(Passing):
    """int(delay), in steps."""

    fails = ("a_delay_is_rounded_up",)

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        return await super().nack([(receipt, delay // 0.5 * 0.5) for receipt, delay in items])


class RefusesLongDelays(Passing):
    """It can do less than it declares."""

    fails = ("the_longest_delay_is_accepted",)

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        return await super().nack([(receipt, delay if delay < 2 else 100.0) for receipt, delay in items])


class ExtendsFromAfter(Passing):
    """The end of a lease is measured when the answer is there."""

    fails = ("an_extend_is_measured_from_before_the_call", "no_lease_lasts_longer_than_the_total")

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        answers = await super().extend(receipts, lease)
        await anyio.sleep(0.1)
        until = Extended(anyio.current_time() + lease)
        return [until if isinstance(answer, Extended) else answer for answer in answers]


class ExtendsNothing(Passing):
    """The lease stays as it is, whatever the answer says."""

    fails = ("an_extended_lease_lasts",)

    traits = but(BOUNDED, lease_total_max=None)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ends: dict[Receipt, float] = {}

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        deliveries = await super().receive(limit, wait)
        end = anyio.current_time() + self.demand.lease
        self._ends.update((delivery.receipt, end) for delivery in deliveries)
        return deliveries

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        return [await self._extend(receipt, lease) for receipt in receipts]

    async def _extend(self, receipt: Receipt, lease: float) -> Extended | Settled:
        now = anyio.current_time()
        [answer] = await self.inner.extend([receipt], max(self._ends[receipt] - now, 0.001))
        return Extended(now + lease) if isinstance(answer, Extended) else answer


class ExtendsWhatIsLost(Passing):
    """An answer nobody reads."""

    fails = (
        "a_call_in_which_every_item_fails_is_answered",
        "an_extend_after_the_lease_is_lost",
        "extend_answers_each_receipt_in_its_place",
    )

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        until = Extended(anyio.current_time() + lease)
        return [until if answer == LOST else answer for answer in await super().extend(receipts, lease)]


class ExtendsBeyondTheTotal(Passing):
    """The wish is told, not what the provider gave."""

    fails = ("no_lease_lasts_longer_than_the_total",)

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        until = Extended(anyio.current_time() + lease)
        answers = await super().extend(receipts, lease)
        return [until if isinstance(answer, Extended) else answer for answer in answers]
