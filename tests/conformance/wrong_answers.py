"""Sources whose answers, errors or contexts break the contract in one way each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import anyio

from eventkit.errors import PermanentAdapterError, TransientAdapterError
from eventkit.spi import (
    DONE,
    LOST,
    Demand,
    Extended,
    Letter,
    Receipt,
    Settled,
    SettledKind,
)
from eventkit.testing import MemoryAdapter
from eventkit.testing.memory import NativeMemorySource
from tests.conformance.wrong import Passing, start_unowned

# -- answers (clauses 1, 2, 5) -----------------------------------------------------------------------


class AnswersReversed(Passing):
    """Answers in the order in which the provider happened to give them."""

    fails = (
        "a_delay_beyond_the_longest_is_refused_in_its_place",
        "ack_answers_each_receipt_in_its_place",
        "dead_letter_answers_each_receipt_in_its_place",
        "extend_answers_each_receipt_in_its_place",
        "nack_answers_each_receipt_in_its_place",
        "two_deliveries_of_one_event_are_two_items",
    )

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        return [*await super().ack(receipts)][::-1]

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        return [*await super().nack(items)][::-1]

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        return [*await super().extend(receipts, lease)][::-1]

    async def dead_letter(self, letters: Sequence[Letter]) -> Sequence[Settled]:
        return [*await super().dead_letter(letters)][::-1]


class AnswersByMessageId(Passing):
    """Batch entry ids are message ids, so two deliveries of one event share an answer."""

    fails = ("the_same_receipt_twice_in_a_call_has_two_answers", "two_deliveries_of_one_event_are_two_items")

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        ids = [self.held[receipt].message_id for receipt in receipts]
        by_id = dict(zip(ids, await super().ack(receipts), strict=True))
        return [by_id[id] for id in ids]


class AnswersForTheSuccessful(Passing):
    """Only what the provider listed as done is answered."""

    fails = (
        "a_call_in_which_every_item_fails_is_answered",
        "a_delay_beyond_the_longest_is_refused_in_its_place",
        "a_nack_after_an_ack_is_an_answer",
        "nack_answers_each_receipt_in_its_place",
        "settling_after_the_lease_is_an_answer",
    )

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        return [answer for answer in await super().nack(items) if answer == DONE]


class RefusesAnEmptyCall(Passing):
    """An empty call is sent, and the provider refuses it."""

    fails = ("a_call_with_no_items_has_no_answers",)

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        if not receipts:
            raise PermanentAdapterError("EmptyBatchRequest")
        return await super().ack(receipts)


class RaisesForOneItem(Passing):
    """One lost lease fails the whole extend."""

    fails = (
        "a_call_in_which_every_item_fails_is_answered",
        "an_extend_after_the_lease_is_lost",
        "extend_answers_each_receipt_in_its_place",
    )

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        answers = await super().extend(receipts, lease)
        if LOST in answers:
            raise TransientAdapterError("MessageNotInflight")
        return answers


class RaisesWhenAllFail(Passing):
    """A call in which every item fails looks like a failed call."""

    fails = ("a_call_in_which_every_item_fails_is_answered",)

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        answers = await super().nack(items)
        if len(answers) > 1 and {answer.kind for answer in answers} == {SettledKind.LOST}:
            raise TransientAdapterError("MessageLockLost")
        return answers


class RaisesOnASecondAck(Passing):
    """What the SDK calls MessageAlreadySettled is a ValueError."""

    fails = (
        "a_cancelled_call_leaves_the_source_usable",
        "a_second_ack_is_an_answer",
        "ack_answers_each_receipt_in_its_place",
        "the_same_receipt_twice_in_a_call_has_two_answers",
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._acked: set[Receipt] = set()

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        if self._acked & {*receipts} or len({*receipts}) < len(receipts):
            raise ValueError("MessageAlreadySettled")
        self._acked |= {*receipts}
        return await super().ack(receipts)


class ClampsDelays(Passing):
    """A delay beyond the longest is shortened in silence."""

    fails = ("a_delay_beyond_the_longest_is_refused_in_its_place",)

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        return await super().nack([(receipt, min(delay, 4.0)) for receipt, delay in items])


# -- the context (clauses 3, 7, 12) ------------------------------------------------------------------


class LeavesATask(Passing):
    """A keeper that nobody owns."""

    fails = ("no_task_outlives_a_source",)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, inner: NativeMemorySource, demand: Demand, adapter: MemoryAdapter, broker: str
    ) -> AsyncIterator[Self]:
        start_unowned(anyio.sleep_forever)
        yield cls(inner, demand, adapter, broker)


class ClosesSlowly(Passing):
    """It retries what it could not settle."""

    fails = ("a_source_closes_in_time",)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, inner: NativeMemorySource, demand: Demand, adapter: MemoryAdapter, broker: str
    ) -> AsyncIterator[Self]:
        self = cls(inner, demand, adapter, broker)
        yield self
        if len(self.held) == 1:
            await anyio.sleep(7.0)


class RaisesKeyErrorWhenClosed(Passing):
    """Its own books are closed before its doors."""

    fails = ("a_source_that_is_closed_raises_adapter_errors_only",)

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        try:
            return await super().nack(items)
        except PermanentAdapterError:
            raise KeyError("link") from None


class BreaksWhenCancelled(Passing):
    """A cancelled ack leaves its channel taken."""

    fails = ("a_cancelled_call_leaves_the_source_usable",)

    _broken = False

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        if self._broken:
            raise TransientAdapterError("the channel is in use")
        try:
            return await super().ack(receipts)
        except anyio.get_cancelled_exc_class():
            self._broken = True
            raise


class _Cut(Exception):
    """What a client raises when a call of its own is cancelled."""


class EndsWithACancelledCall(Passing):
    """A cancelled ack ends the context, and whoever works in it, and nobody is told."""

    fails = ("a_cancelled_call_leaves_the_source_usable",)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, inner: NativeMemorySource, demand: Demand, adapter: MemoryAdapter, broker: str
    ) -> AsyncIterator[Self]:
        with suppress(_Cut):
            yield cls(inner, demand, adapter, broker)

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        try:
            return await super().ack(receipts)
        except anyio.get_cancelled_exc_class():
            raise _Cut from None


class SettlesNothingAfterStop(Passing):
    """The link is closed by stop."""

    fails = ("settling_and_extending_go_on_after_stop",)

    _stopped = False

    def stop(self) -> None:
        super().stop()
        self._stopped = True

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        if self._stopped:
            raise PermanentAdapterError("the link is detached")
        return await super().ack(receipts)


class AcksWhatItHoldsAtTheEnd(Passing):
    """What is left at the end of the context is lost."""

    fails = ("a_head_whose_lease_ends_comes_before_what_follows", "what_was_held_when_the_context_ended_comes_again")

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, inner: NativeMemorySource, demand: Demand, adapter: MemoryAdapter, broker: str
    ) -> AsyncIterator[Self]:
        self = cls(inner, demand, adapter, broker)
        yield self
        await inner.ack([*self.held])
