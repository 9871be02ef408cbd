"""The optional operations: dead-lettering, looking at dead letters, and telling how much waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol, cast

import msgspec
from anyio import current_time, sleep

from eventkit.spi import (
    Backlog,
    DeadLetter,
    DeadLetterBrowser,
    Delivery,
    Depth,
    Letter,
    NativeDeadLetter,
    Outgoing,
    Source,
)
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Subject

_DETAIL: Final = msgspec.json.encode({"error": 'Ä "quoted"\n', "fill": "x" * 960}).decode()
_REASON: Final = "decode: Ä <b>&\n"
_AGE: Final = 300.0  # how far the provider's wall clock may be from ours, seconds
_EVENT: Final = Outgoing(body=b"\x00\xffpoison", attributes={"trace": "00-ab"}, content_type="x/y")


class _Browsed(Source, NativeDeadLetter, DeadLetterBrowser, Protocol):
    """What most of these checks need."""


# -- NativeDeadLetter --------------------------------------------------------------------------------


async def a_dead_letter_does_not_come_again(subject: Subject) -> None:
    """Not even when its lease would have been over."""
    lease = subject.terms.lease
    async with subject.holding(b"a", lease=lease) as (source, [a]):
        native = _native(subject, source)
        until = subject.over(lease)
        subject.in_time(a)
        answers = await native.dead_letter([_letter(a)])
        subject.expect_answers("dead_letter", answers, "DONE")
        await subject.expect_nothing(source, until, "it was dead-lettered")


async def a_dead_letter_can_be_received_where_the_place_says(subject: Subject) -> None:
    """At the address of the dead letters, as it was."""
    address = subject.place.dead_letters
    subject.skip_if(address is None, "the place gives no address `dead_letters`")
    assert address is not None
    await subject.publish(_EVENT)
    async with subject.source() as source:
        native = _native(subject, source)
        [poison] = await subject.collect(source, 1)
        await native.dead_letter([_letter(poison)])
    async with subject.terms.adapter.open_source(address, subject.terms.demand) as graveyard:
        [dead] = await subject.collect(graveyard, 1)
    subject.expect(dead.body == _EVENT.body, f"the dead letter has the body {dead.body!r}; expected {_EVENT.body!r}")
    lost = {name for name, value in _EVENT.attributes.items() if dead.attributes.get(name) != value}
    subject.expect(not lost, f"the dead letter has lost or changed the attributes {sorted(lost)}")


# -- DeadLetterBrowser -------------------------------------------------------------------------------


async def a_dead_letter_keeps_its_event_and_reason(subject: Subject) -> None:
    """Whoever looks at it later must know what it was, and why it is there."""
    await subject.publish(_EVENT)
    async with subject.source() as source:
        browsed = _browsed(subject, source)
        [poison] = await subject.collect(source, 1)
        subject.expect_answers("dead_letter", await browsed.dead_letter([_letter(poison)]), "DONE")
        [dead] = await _peeked(subject, browsed, 1)
    expected = {
        "body": _EVENT.body,
        "attributes": _EVENT.attributes,
        "content_type": _EVENT.content_type,
        "reason": _REASON,
        "detail": _DETAIL,
        "message_id": poison.message_id,
        "delivery_count": poison.delivery_count,
    }
    found = {name: getattr(dead, name) for name in expected}
    changed = [
        f"{name} is {found[name]!r}, not {expected[name]!r}" for name in expected if found[name] != expected[name]
    ]
    subject.expect(not changed, f"a dead letter is not what was buried: {'; '.join(changed)}")


async def dead_letters_are_shown_in_pages_oldest_first(subject: Subject) -> None:
    """`after` is the id of the last one seen."""
    async with _three_dead(subject) as (source, dead):
        first = await source.peek(2)
        rest = await source.peek(2, first[-1].id)
        beyond = await source.peek(2, dead[-1].id)
    pages = [[letter.body for letter in page] for page in (first, rest, beyond)]
    subject.expect(
        pages == [[b"a", b"b"], [b"c"], []], f"peek(2) page by page gave {pages}; expected [[a, b], [c], []]"
    )


async def a_dead_letter_that_was_taken_is_gone(subject: Subject) -> None:
    """And taking it again is LOST, in its place."""
    async with _three_dead(subject) as (source, [a, b, c]):
        subject.expect_answers("take of one dead letter", await source.take([b.id]), "DONE")
        subject.expect_answers("take of b, gone, and a", await source.take([b.id, a.id]), "LOST", "DONE")
        left = [letter.id for letter in await source.peek(10)]
    subject.expect(left == [c.id], f"after two of three were taken, peek shows {len(left)}")


async def a_dead_letter_put_back_is_delivered_as_new(subject: Subject) -> None:
    """Its count starts again; putting it back twice is LOST, in its place."""
    async with _three_dead(subject) as (source, [a, b, c]):
        subject.expect_answers("put_back of one dead letter", await source.put_back([b.id]), "DONE")
        subject.expect_answers("put_back of b, gone, and a", await source.put_back([b.id, a.id]), "LOST", "DONE")
        back = [arrival.delivery for arrival in await subject.collect_bodies(source, b"a", b"b")]
        left = [letter.id for letter in await source.peek(10)]
        counted = source.info.traits.delivery_count != "none"
    counts = [delivery.delivery_count for delivery in back]
    expected = [1, 1] if counted else [None, None]
    subject.expect(counts == expected, f"events that were put back have the counts {counts}; expected {expected}")
    subject.expect(left == [c.id], f"after two of three were put back, peek shows {len(left)}")


# -- Backlog -----------------------------------------------------------------------------------------


async def the_depth_tells_what_waits(subject: Subject) -> None:
    """Three events, whether ready or leased; None without the permission to ask."""
    await subject.publish(b"a", b"b", b"c")
    async with subject.source() as source:
        subject.skip_if(not isinstance(source, Backlog), "the source is no Backlog")
        backlog = cast("Backlog", source)
        await subject.collect(source, 1)
        until = current_time() + subject.terms.patience
        depth = await backlog.depth()
        while _in_all(depth) not in {None, 3} and current_time() < until:  # a provider may count late
            await sleep(0.1)
            depth = await backlog.depth()
    subject.expect(_in_all(depth) in {None, 3}, f"three events are not settled, and the depth is {depth}")
    age = None if depth is None else depth.oldest_age
    subject.expect(age is None or 0 <= age <= _AGE, f"three new events, and the oldest age is {age} s")


def _in_all(depth: Depth | None) -> int | None:
    return None if depth is None else depth.ready + depth.delayed + depth.leased


# -- shared ------------------------------------------------------------------------------------------


@asynccontextmanager
async def _three_dead(subject: Subject) -> AsyncIterator[tuple[_Browsed, Sequence[DeadLetter]]]:
    """A source with the dead letters a, b, c, which died in this order."""
    async with subject.holding(b"a", b"b", b"c") as (source, held):
        browsed = _browsed(subject, source)
        for delivery in held:
            subject.expect_answers("dead_letter", await browsed.dead_letter([_letter(delivery)]), "DONE")
        yield browsed, await _peeked(subject, browsed, 3)


async def _peeked(subject: Subject, browsed: DeadLetterBrowser, number: int) -> Sequence[DeadLetter]:
    shown = await browsed.peek(10)
    subject.expect(len(shown) == number, f"{number} deliveries were dead-lettered, and peek(10) shows {len(shown)}")
    return shown


def _letter(delivery: Delivery) -> Letter:
    return Letter(receipt=delivery.receipt, reason=_REASON, detail=_DETAIL)


def _native(subject: Subject, source: Source) -> NativeDeadLetter:
    subject.skip_if(not isinstance(source, NativeDeadLetter), "the source is no NativeDeadLetter")
    return cast("NativeDeadLetter", source)


def _browsed(subject: Subject, source: Source) -> _Browsed:
    _native(subject, source)
    subject.skip_if(not isinstance(source, DeadLetterBrowser), "the source is no DeadLetterBrowser")
    return cast("_Browsed", source)


CHECKS: Final = (
    *clause(
        "NativeDeadLetter",
        a_dead_letter_does_not_come_again,
        a_dead_letter_can_be_received_where_the_place_says,
    ),
    *clause(
        "DeadLetterBrowser",
        a_dead_letter_keeps_its_event_and_reason,
        dead_letters_are_shown_in_pages_oldest_first,
        a_dead_letter_that_was_taken_is_gone,
        a_dead_letter_put_back_is_delivered_as_new,
    ),
    *clause("Backlog", the_depth_tells_what_waits),
)
