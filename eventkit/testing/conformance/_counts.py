"""Delivery counts, receive limits and retention, as the traits declare them."""

from __future__ import annotations

from typing import Final

from anyio import current_time, sleep_until

from eventkit.spi import Delivery, Source
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Subject

_MANY: Final = 10  # deliveries to make for a receive limit
_FEW: Final = 5  # leases a retention may be, to be waited for


async def deliveries_are_counted_as_declared(subject: Subject) -> None:
    """1, 2, 3 where exact; from 1 and never down where approximate; None where not counted."""
    await subject.publish(b"a")
    counts: list[int | None] = []
    async with subject.source(lease=subject.terms.lease) as source:
        declared = source.info.traits.delivery_count
        [delivery] = await subject.collect(source, 1)
        counts.append(delivery.delivery_count)
        for _ in range(2):
            if source.info.traits.release_counts:
                await source.nack([(delivery.receipt, 0.0)])
            [delivery] = await subject.collect(source, 1, within=subject.terms.lease + subject.terms.patience)
            counts.append(delivery.delivery_count)
    known = [count for count in counts if count is not None]
    holds = {
        "exact": counts == [1, 2, 3],
        "approximate": len(known) == len(counts) and known[0] == 1 and known == sorted(known),
        "none": not known,
    }[declared]
    subject.expect(
        holds, f"three deliveries were counted {counts}, with trait delivery_count={declared!r}; 1 is the first"
    )


async def a_release_counts_as_declared(subject: Subject) -> None:
    """Whether a delivery that was given back without a delay is in the count of the next."""
    async with subject.holding(b"a") as (source, [first]):
        traits = source.info.traits
        subject.skip_if(traits.delivery_count != "exact", f"trait delivery_count is {traits.delivery_count!r}")
        again = await _again(subject, source, first)
        if again.delivery_count is None or first.delivery_count is None:
            subject.fail("a delivery has no count, with trait delivery_count='exact'")
        more = again.delivery_count - first.delivery_count
    subject.expect(
        more == (1 if traits.release_counts else 0),
        f"a nack without a delay moved the count by {more}, with trait release_counts={traits.release_counts}",
    )


async def no_event_comes_more_often_than_the_receive_limit(subject: Subject) -> None:
    """What the provider takes away by itself is declared, so that `attempts` can stay below it."""
    async with subject.holding(b"a") as (source, [first]):
        limit = source.info.traits.native_receive_limit
        if limit is None or limit > _MANY or not source.info.traits.release_counts:
            subject.skip_if(ruled_out=True, why=f"trait native_receive_limit is {limit}, or releases do not count")
            return
        delivery = first
        for _ in range(limit - 1):
            delivery = await _again(subject, source, delivery)
        await source.nack([(delivery.receipt, 0.0)])
        until = current_time() + min(1.0, subject.terms.lease / 2)
        await subject.expect_nothing(source, until, f"it was delivered {limit} times, the native_receive_limit")


async def nothing_comes_after_the_retention(subject: Subject) -> None:
    """What is older is gone; claims and dead letters are kept as long."""
    async with subject.source() as source:
        retention = source.info.traits.retention
        if retention is None or retention > _FEW * subject.terms.lease:
            subject.skip_if(ruled_out=True, why=f"trait retention is {retention}: too long to wait for")
            return
        await subject.publish(b"a")
        await sleep_until(current_time() + retention + subject.terms.slack)
        until = current_time() + min(1.0, subject.terms.lease / 2)
        await subject.expect_nothing(source, until, f"it is older than the retention of {retention:g} s")


async def _again(subject: Subject, source: Source, delivery: Delivery) -> Delivery:
    """The next delivery of an event that is given back."""
    await source.nack([(delivery.receipt, 0.0)])
    [again] = await subject.collect(source, 1)
    return again


CHECKS: Final = (
    *clause("delivery_count", deliveries_are_counted_as_declared),
    *clause("release_counts", a_release_counts_as_declared),
    *clause("native_receive_limit", no_event_comes_more_often_than_the_receive_limit),
    *clause("retention", nothing_comes_after_the_retention),
)
