"""Order per key, in the variant that the trait `key_release` declares."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from anyio import current_time

from eventkit.spi import Delivery, Outgoing, Source
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Subject, bodies, receipts

KEY: Final = "order-7"


async def events_of_a_key_come_in_order(subject: Subject) -> None:
    """In the order of their publish, whatever other keys do."""
    mixed = [(b"a1", "a"), (b"b1", "b"), (b"a2", "a"), (b"a3", "a"), (b"b2", "b")]
    async with ordered(subject) as source:
        await subject.publish(*(Outgoing(body=body, key=key) for body, key in mixed))
        seen = await subject.collect_acking(source, len(mixed))
    for key in ("a", "b"):
        found = [body for body in seen if body.startswith(key.encode())]
        expected = [body for body, its in mixed if its == key]
        subject.expect(found == expected, f"key {key!r} came as {found}; expected {expected}")


async def a_delivery_carries_its_key(subject: Subject) -> None:
    """The core runs one event per key at a time: it has to know."""
    async with ordered(subject, b"1") as source:
        [delivery, *_] = await subject.collect(source, 1)
    subject.expect(delivery.key == KEY, f"the key {KEY!r} arrived as {delivery.key!r}")


async def a_failed_head_comes_again_before_what_follows(subject: Subject) -> None:
    """Given back as `key_release` says it has to be, the head of a key is not overtaken."""
    async with ordered(subject, b"1", b"2", b"3") as source:
        held = await _take(subject, source)
        rule = source.info.traits.key_release
        delay = _possible_delay(subject, source)
        followers = held[1:] if rule == "followers" else []
        await source.nack([(held[0].receipt, delay), *((follower.receipt, 0.0) for follower in followers)])
        await subject.publish(b"4", key=KEY)
        kept = bodies(held[1:]) if rule == "hold" else []
        expected = [body for body in (b"1", b"2", b"3", b"4") if body not in kept]
        within = delay + source.info.traits.delay_granularity + subject.terms.patience
        seen = await subject.collect_acking(source, len(expected), within=within)
        if kept:
            await _expect_still_held(subject, source, held[1:])
    first_time = list(dict.fromkeys(seen))
    subject.expect(
        first_time == expected,
        f"with key_release={rule!r}, after {bodies(held)} came and the head was given back with {delay:g} s, "
        f"{first_time} came; expected {expected}",
    )


async def a_head_whose_lease_ends_comes_before_what_follows(subject: Subject) -> None:
    """A worker that died must not change the order of a key."""
    lease = subject.terms.lease
    async with ordered(subject, b"1", b"2", b"3", lease=lease) as source:
        await subject.collect(source, 1)
    async with subject.source() as other:
        seen = await subject.collect_acking(other, 3, within=lease + subject.terms.patience)
    subject.expect(
        list(dict.fromkeys(seen)) == [b"1", b"2", b"3"], f"after the lease of the head was lost, {seen} came"
    )


async def a_key_in_hand_is_given_to_nobody_else(subject: Subject) -> None:
    """Two workers never have two events of one key."""
    async with ordered(subject, b"1", b"2") as source:
        [head, *_] = await subject.collect(source, 1)
        async with subject.source() as other:
            until = min(current_time() + min(1.0, subject.terms.lease / 3), head.leased_until)
            await subject.expect_nothing(other, until, f"another source holds {head.body!r}, of the same key")


async def a_key_in_hand_does_not_hold_up_others(subject: Subject) -> None:
    """One slow key is no reason for the others to wait."""
    async with ordered(subject, b"1", b"2") as source:
        await subject.collect(source, 1)
        await subject.publish(b"other", key="order-8")
        await subject.collect_bodies(source, b"other")


@asynccontextmanager
async def ordered(subject: Subject, *events: bytes, lease: float | None = None) -> AsyncIterator[Source]:
    """A source that was asked for order, with `events` of one key before it. Skips where there is no order."""
    subject.skip_if(not subject.terms.ordered, "the terms say ordered=False")
    async with subject.source(lease=lease) as source:
        subject.skip_if(source.info.traits.key_release == "none", "trait key_release is 'none'")
        if events:
            await subject.publish(*events, key=KEY)
        yield source


async def _take(subject: Subject, source: Source) -> list[Delivery]:
    """What the first receive brings: the head, and its followers where the source hands out several."""
    until = current_time() + subject.terms.patience
    held = [arrival.delivery for arrival in await subject.arrivals(source, until=until, enough=bool)]
    subject.expect(
        bodies(held) == [b"1", b"2", b"3"][: len(held)] and bool(held),
        f"the first receive brought {bodies(held)}; expected the first of the key, in order",
    )
    return held


async def _expect_still_held(subject: Subject, source: Source, held: list[Delivery]) -> None:
    subject.in_time(*held)
    answers = await source.ack(receipts(held))
    subject.expect_answers(
        "ack of the followers that were held, with key_release='hold'", answers, *["DONE"] * len(held)
    )


def _possible_delay(subject: Subject, source: Source) -> float:
    traits = source.info.traits
    step = max(traits.delay_granularity, subject.terms.lease / 4)
    return step if (most := traits.longest_nack) is None or most >= step else 0.0


CHECKS: Final = clause(
    "key_release",
    events_of_a_key_come_in_order,
    a_delivery_carries_its_key,
    a_failed_head_comes_again_before_what_follows,
    a_head_whose_lease_ends_comes_before_what_follows,
    a_key_in_hand_is_given_to_nobody_else,
    a_key_in_hand_does_not_hold_up_others,
)
