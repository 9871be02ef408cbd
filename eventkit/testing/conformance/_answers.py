"""Clauses 1, 2 and 5: an answer for each item, in its place, and no exception for what is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from anyio import sleep_until

from eventkit.spi import Delivery, Letter, NativeDeadLetter, Receipt, Source
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Subject, kind, receipts, stale

# -- 1: positional ---------------------------------------------------------------------------------


async def ack_answers_each_receipt_in_its_place(subject: Subject) -> None:
    """A stale receipt among good ones is answered where it stands."""
    async with subject.holding(b"a", b"b", b"c") as (source, held):
        await source.ack([held[0].receipt])
        answers = await source.ack(receipts(held))
        subject.expect_answers("ack of a settled one and two held", answers, stale(source.info.traits), "DONE", "DONE")


async def nack_answers_each_receipt_in_its_place(subject: Subject) -> None:
    """A stale receipt among good ones is answered where it stands."""
    async with subject.holding(b"a", b"b", b"c") as (source, held):
        await source.ack([held[0].receipt])
        answers = await source.nack([(receipt, 0.0) for receipt in receipts(held)])
        subject.expect_answers("nack of a settled one and two held", answers, stale(source.info.traits), "DONE", "DONE")


async def extend_answers_each_receipt_in_its_place(subject: Subject) -> None:
    """A stale receipt among good ones is answered where it stands."""
    async with subject.holding(b"a", b"b", b"c") as (source, held):
        await source.ack([held[0].receipt])
        answers = await source.extend(receipts(held), subject.terms.lease)
        expected = (stale(source.info.traits, "EXTENDED"), "EXTENDED", "EXTENDED")
        subject.expect_answers("extend of a settled one and two held", answers, *expected)


async def dead_letter_answers_each_receipt_in_its_place(subject: Subject) -> None:
    """A stale receipt among good ones is answered where it stands."""
    async with subject.holding(b"a", b"b", b"c") as (source, held):
        native = _native(subject, source)
        await source.ack([held[0].receipt])
        answers = await native.dead_letter(_letters(held))
        expected = (stale(source.info.traits), "DONE", "DONE")
        subject.expect_answers("dead_letter of a settled one and two held", answers, *expected)


async def the_same_receipt_twice_in_a_call_has_two_answers(subject: Subject) -> None:
    """One of them says DONE, the other DONE or LOST."""
    async with subject.holding(b"a", b"b") as (source, [a, b]):
        answers = await source.ack([a.receipt, a.receipt, b.receipt])
        subject.expect_answers("ack of a, a, b", answers, "DONE|LOST", "DONE|LOST", "DONE")
        subject.expect("DONE" in map(kind, answers[:2]), "ack of a, a, b answered LOST for both a; one of them is done")


async def two_deliveries_of_one_event_are_two_items(subject: Subject) -> None:
    """Batch entry ids are positions: a message id may be in a call twice, once of a delivery that is over."""
    async with subject.holding(b"a", b"b") as (source, [a, b]):
        await source.nack([(a.receipt, 0.0)])
        [again] = await subject.collect(source, 1)
        answers = await source.ack([a.receipt, b.receipt, again.receipt])
        expected = (stale(source.info.traits), "DONE", "DONE")
        subject.expect_answers("ack of the first delivery of a, b, the second of a", answers, *expected)


async def a_call_with_no_items_has_no_answers(subject: Subject) -> None:
    """Same length: an empty call is no error, though a provider may refuse one."""
    async with subject.source() as source:
        subject.expect_answers("ack of nothing", await source.ack([]))
        subject.expect_answers("nack of nothing", await source.nack([]))
        subject.expect_answers("extend of nothing", await source.extend([], subject.terms.lease))
        if isinstance(source, NativeDeadLetter):
            subject.expect_answers("dead_letter of nothing", await source.dead_letter([]))


# -- 2: what is known is returned ------------------------------------------------------------------


async def a_call_in_which_every_item_fails_is_answered(subject: Subject) -> None:
    """A provider may fail such a call as a whole: the items' outcomes are known all the same."""
    async with subject.holding(b"a", b"b") as (source, held):
        await source.ack(receipts(held))
        either = stale(source.info.traits)
        answers = await source.nack([(receipt, 0.0) for receipt in receipts(held)])
        subject.expect_answers("nack of two settled", answers, either, either)
        longer = stale(source.info.traits, "EXTENDED")
        answers_to_extend = await source.extend(receipts(held), subject.terms.lease)
        subject.expect_answers("extend of two settled", answers_to_extend, longer, longer)


async def a_delay_beyond_the_longest_is_refused_in_its_place(subject: Subject) -> None:
    """The items beside it are done, and its lease goes on."""
    async with subject.holding(b"a", b"b", b"c") as (source, [a, b, c]):
        most = source.info.traits.longest_nack
        if most is None:
            subject.skip_if(ruled_out=True, why="trait max_retry_delay is None: any delay is possible")
            return
        answers = await source.nack([(a.receipt, most * 2 + 60), (b.receipt, 0.0), (c.receipt, 0.0)])
        subject.expect_answers(f"nack with {most * 2 + 60:g}, 0, 0 s", answers, "REFUSED", "DONE", "DONE")
        subject.expect(bool(answers[0].cause), "a delay beyond the longest was refused without a `cause`")
        answers_to_extend = await source.extend([a.receipt], subject.terms.lease)
        subject.expect_answers("extend of the one refused, still leased", answers_to_extend, "EXTENDED")


# -- 5: settling twice -------------------------------------------------------------------------------


async def a_second_ack_is_an_answer(subject: Subject) -> None:
    """LOST where acks are confirmed, otherwise DONE or LOST."""
    async with subject.holding(b"a") as (source, [a]):
        subject.expect_answers("the first ack", await source.ack([a.receipt]), "DONE")
        subject.expect_answers("the second ack", await source.ack([a.receipt]), stale(source.info.traits))


async def a_nack_after_an_ack_is_an_answer(subject: Subject) -> None:
    """And it does not bring back what is done."""
    async with subject.holding(b"a") as (source, [a]):
        await source.ack([a.receipt])
        answers = await source.nack([(a.receipt, 0.0)])
        subject.expect_answers("a nack after the ack", answers, stale(source.info.traits))


async def an_ack_after_a_nack_is_an_answer(subject: Subject) -> None:
    """And where acks are confirmed, it does not take away what was given back."""
    async with subject.holding(b"a") as (source, [a]):
        subject.expect_answers("a nack", await source.nack([(a.receipt, 0.0)]), "DONE")
        answers = await source.ack([a.receipt])
        subject.expect_answers("an ack after the nack", answers, stale(source.info.traits))
        if source.info.traits.confirms_ack:
            await subject.collect(source, 1)


async def a_dead_letter_after_an_ack_is_an_answer(subject: Subject) -> None:
    """What is done cannot be dead-lettered."""
    async with subject.holding(b"a") as (source, held):
        native = _native(subject, source)
        await source.ack(receipts(held))
        answers = await native.dead_letter(_letters(held))
        subject.expect_answers("dead_letter after the ack", answers, stale(source.info.traits))


async def settling_after_the_lease_is_an_answer(subject: Subject) -> None:
    """LOST where acks are confirmed: the delivery belongs to somebody else, or will."""
    async with subject.holding(b"a", b"b", lease=subject.terms.lease) as (source, [a, b]):
        await sleep_until(subject.over(subject.terms.lease))
        either = stale(source.info.traits)
        subject.expect_answers("ack after the lease", await source.ack([a.receipt]), either)
        subject.expect_answers("nack after the lease", await source.nack([(b.receipt, 0.0)]), either)


def _native(subject: Subject, source: Source) -> NativeDeadLetter:
    subject.skip_if(not isinstance(source, NativeDeadLetter), "the source is no NativeDeadLetter")
    assert isinstance(source, NativeDeadLetter)
    return source


def _letters(held: Sequence[Delivery]) -> list[Letter]:
    found: list[Receipt] = receipts(held)
    return [Letter(receipt=receipt, reason="conformance", detail="{}") for receipt in found]


CHECKS: Final = (
    *clause(
        "1",
        ack_answers_each_receipt_in_its_place,
        nack_answers_each_receipt_in_its_place,
        extend_answers_each_receipt_in_its_place,
        dead_letter_answers_each_receipt_in_its_place,
        the_same_receipt_twice_in_a_call_has_two_answers,
        two_deliveries_of_one_event_are_two_items,
        a_call_with_no_items_has_no_answers,
    ),
    *clause(
        "2",
        a_call_in_which_every_item_fails_is_answered,
        a_delay_beyond_the_longest_is_refused_in_its_place,
    ),
    *clause(
        "5",
        a_second_ack_is_an_answer,
        a_nack_after_an_ack_is_an_answer,
        an_ack_after_a_nack_is_an_answer,
        a_dead_letter_after_an_ack_is_an_answer,
        settling_after_the_lease_is_an_answer,
    ),
)
