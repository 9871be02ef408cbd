"""Clause 11: after `stop` nothing that arrived is stranded."""

from __future__ import annotations

from typing import Final

import anyio
from anyio import current_time

from eventkit.spi import Delivery, Source
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Subject

_MANY: Final = 20  # receives until a buffer of a few events must be empty


async def stop_may_be_called_twice(subject: Subject) -> None:
    """It is no coroutine, and idempotent."""
    async with subject.source() as source:
        for number in ("first", "second"):
            answer: object = source.stop()  # type: ignore[func-returns-value]  # whether it does is the question
            subject.expect(
                answer is None, f"the {number} stop() gave {answer!r}; it is a plain function without a result"
            )


async def a_pending_receive_returns_after_stop(subject: Subject) -> None:
    """As soon as the wire allows: a drain waits for it."""
    wait = 4 * subject.terms.patience + subject.terms.wire
    returned = anyio.Event()

    async def receive(source: Source) -> None:
        await source.receive(1, wait)
        returned.set()

    async with subject.source() as source, anyio.create_task_group() as tasks:
        tasks.start_soon(receive, source)
        await anyio.sleep(subject.terms.slack)
        source.stop()
        within = subject.terms.patience + subject.terms.wire
        with anyio.move_on_after(within):
            await returned.wait()
        tasks.cancel_scope.cancel()
    subject.expect(
        returned.is_set(),
        f"a receive with a wait of {wait:g} s had not returned {within:g} s after stop(); wake it, "
        "or give as `wire` how long the wire cannot be cut short",
    )


async def receives_after_stop_end_with_nothing_for_ever(subject: Subject) -> None:
    """What is buffered is handed over, then nothing, whatever is published."""
    await subject.publish(b"a", b"b", b"c")
    async with subject.source() as source:
        await subject.collect(source, 1)
        source.stop()
        await _handed_over_after_stop(subject, source)
        await subject.publish(b"later")
        for _ in range(2):
            late = await source.receive(10, subject.terms.slack)
            subject.expect(not late, f"a receive after stop() gave {len(late)} deliveries, after one had given none")


async def after_stop_what_arrived_is_handed_over_or_given_back(subject: Subject) -> None:
    """What was fetched ahead goes to another source at once, not when its lease is over."""
    names = [b"%d" % number for number in range(6)]
    await subject.publish(*names)
    async with subject.source(events=len(names)) as source:
        held = await subject.collect(source, 1)
        source.stop()
        held += await _handed_over_after_stop(subject, source)
        await _expect_elsewhere(subject, names, held)


async def closing_gives_back_what_was_never_handed_over(subject: Subject) -> None:
    """Also without `stop`, and without a receive that asks for the rest."""
    names = [b"%d" % number for number in range(6)]
    await subject.publish(*names)
    async with subject.source(events=len(names)) as source:
        held = await subject.collect(source, 1)
    await _expect_elsewhere(subject, names, held)


async def _handed_over_after_stop(subject: Subject, source: Source) -> list[Delivery]:
    """What receives still bring until one brings nothing."""
    seen: list[Delivery] = []
    began = current_time()
    for _ in range(_MANY):
        deliveries = await source.receive(10, subject.terms.slack)
        if not deliveries:
            break
        seen += deliveries
    else:
        subject.fail(f"{_MANY} receives after stop() all brought something, {len(seen)} deliveries")
    took = current_time() - began
    subject.expect(took <= subject.terms.patience + subject.terms.wire, f"receives after stop() took {took:.1f} s")
    return seen


async def _expect_elsewhere(subject: Subject, names: list[bytes], held: list[Delivery]) -> None:
    rest = sorted({*names} - {delivery.body for delivery in held})
    async with subject.source() as other:
        await subject.collect_bodies(other, *rest)


CHECKS: Final = clause(
    "11",
    stop_may_be_called_twice,
    a_pending_receive_returns_after_stop,
    receives_after_stop_end_with_nothing_for_ever,
    after_stop_what_arrived_is_handed_over_or_given_back,
    closing_gives_back_what_was_never_handed_over,
)
