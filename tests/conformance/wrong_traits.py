"""Sources and adapters that are not what they declare, in one way each."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from eventkit.errors import TransientAdapterError
from eventkit.spi import (
    DONE,
    Address,
    DeadLetter,
    Delivery,
    Depth,
    Letter,
    Settled,
)
from tests.conformance.wrong import BOUNDED, Passing, WrongAdapter, but

# -- traits that are not true ------------------------------------------------------------------------


class DeclaresUncountedReleases(Passing):
    """A release is counted all the same."""

    fails = ("a_release_counts_as_declared",)

    declared = but(BOUNDED, release_counts=False)


class DeclaresConfirmedAcks(Passing):
    """Its provider says DONE to everything."""

    fails = (
        "a_second_ack_is_an_answer",
        "ack_answers_each_receipt_in_its_place",
        "an_ack_after_a_nack_is_an_answer",
        "settling_after_the_lease_is_an_answer",
        "two_deliveries_of_one_event_are_two_items",
    )

    traits = but(BOUNDED, confirms_ack=False)
    declared = BOUNDED


class DeclaresNoCount(Passing):
    """It counts all the same."""

    fails = ("a_dead_letter_put_back_is_delivered_as_new", "deliveries_are_counted_as_declared")

    declared = but(BOUNDED, delivery_count="none")


class DeclaresALowReceiveLimit(Passing):
    """The events come more often than that."""

    fails = ("no_event_comes_more_often_than_the_receive_limit",)

    declared = but(BOUNDED, native_receive_limit=2)


class DeclaresAShortRetention(Passing):
    """The events stay longer than that."""

    fails = ("nothing_comes_after_the_retention",)

    declared = but(BOUNDED, retention=3.0)


class DeclaresAShortTotal(Passing):
    """Its leases can be extended for ever."""

    fails = (
        "a_lease_ends_for_good_at_the_total",
        "leased_until_is_on_the_loops_clock",
        "no_lease_lasts_longer_than_the_total",
    )

    traits = but(BOUNDED, lease_total_max=None)
    declared = BOUNDED


class DeclaresOrder(Passing):
    """Its provider has none."""

    fails = (
        "a_failed_head_comes_again_before_what_follows",
        "a_head_whose_lease_ends_comes_before_what_follows",
        "a_key_in_hand_is_given_to_nobody_else",
    )

    traits = but(BOUNDED, key_release="none")
    declared = BOUNDED


class DeclaresHeldKeys(Passing):
    """Its provider brings the later ones again by itself."""

    fails = ("a_failed_head_comes_again_before_what_follows",)

    traits = but(BOUNDED, key_release="redelivers")
    declared = BOUNDED


# -- order -------------------------------------------------------------------------------------------


class ShufflesBatches(Passing):
    """Each receive comes in the reverse order."""

    fails = (
        "a_failed_head_comes_again_before_what_follows",
        "a_head_whose_lease_ends_comes_before_what_follows",
        "events_of_a_key_come_in_order",
    )

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        return [*await super().receive(limit, wait)][::-1]


class OneKeyForAll(Passing):
    """While an event is in hand, no other is received."""

    fails = ("a_key_in_hand_does_not_hold_up_others",)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        if self.demand.ordered and limit == 10 and any(d.key == "order-7" for d in self.held.values()):
            await anyio.sleep(wait)
            return []
        return await super().receive(limit, wait)


# -- dead letters and depth --------------------------------------------------------------------------


class BuriesNothing(Passing):
    """A success that was never sent."""

    fails = (
        "a_dead_letter_after_an_ack_is_an_answer",
        "a_dead_letter_can_be_received_where_the_place_says",
        "a_dead_letter_does_not_come_again",
        "a_dead_letter_keeps_its_event_and_reason",
        "a_dead_letter_put_back_is_delivered_as_new",
        "a_dead_letter_that_was_taken_is_gone",
        "dead_letter_answers_each_receipt_in_its_place",
        "dead_letters_are_shown_in_pages_oldest_first",
    )

    async def dead_letter(self, letters: Sequence[Letter]) -> Sequence[Settled]:
        await checkpoint()
        return [DONE] * len(letters)


class BuriesWithoutAReason(Passing):
    """The provider has no field for it."""

    fails = ("a_dead_letter_keeps_its_event_and_reason",)

    async def dead_letter(self, letters: Sequence[Letter]) -> Sequence[Settled]:
        return await super().dead_letter([msgspec.structs.replace(letter, detail="") for letter in letters])


class PeeksFromTheStart(Passing):
    """Every page is the first."""

    fails = ("dead_letters_are_shown_in_pages_oldest_first",)

    async def peek(self, limit: int, after: str | None = None) -> Sequence[DeadLetter]:
        return await super().peek(limit)


class TakesForGranted(Passing):
    """DONE, there or not."""

    fails = ("a_dead_letter_that_was_taken_is_gone",)

    async def take(self, ids: Sequence[str]) -> Sequence[Settled]:
        await super().take(ids)
        return [DONE] * len(ids)


class PutsBackOnce(Passing):
    """DONE, there or not."""

    fails = ("a_dead_letter_put_back_is_delivered_as_new",)

    async def put_back(self, ids: Sequence[str]) -> Sequence[Settled]:
        await super().put_back(ids)
        return [DONE] * len(ids)


class DepthOfWhatIsReady(Passing):
    """What is leased is nobody's business."""

    fails = ("the_depth_tells_what_waits",)

    async def depth(self) -> Depth | None:
        depth = await super().depth()
        return None if depth is None else Depth(ready=depth.ready)


# -- the adapter -------------------------------------------------------------------------------------


class OpensWhatIsMissing(WrongAdapter):
    """A queue that is not there is found out at the first receive."""

    fails = ("a_missing_sink_is_said_to_be_missing", "a_missing_source_is_said_to_be_missing")

    def reach(self, address: Address) -> None:
        if address.host != "missing":
            super().reach(address)


class ForgetsTheCause(WrongAdapter):
    """Nobody will know what the SDK said."""

    fails = ("a_source_out_of_reach_raises_adapter_errors_only",)

    def reach(self, address: Address) -> None:
        if address.host == "unreachable":
            raise TransientAdapterError("nobody answers")
        super().reach(address)


class IgnoresUnknownParameters(WrongAdapter):
    """A misspelt option does nothing."""

    fails = ("an_unknown_parameter_is_a_configuration_error", "an_unknown_parameter_is_a_configuration_error_for_sinks")

    def understood(self, address: Address) -> Address:
        known = tuple((name, value) for name, value in address.query if name == "broker")
        return msgspec.structs.replace(address, query=known)
