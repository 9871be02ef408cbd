"""Clauses 3 and 12: what the context is worth while it lasts, and what is left when it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from anyio import TaskInfo, current_time, get_running_tasks

from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Subject, receipts

# -- 3: nothing outlives the context ---------------------------------------------------------------


async def no_task_outlives_a_source(subject: Subject) -> None:
    """When the context of a source has ended, the loop runs what it ran before."""

    async def use() -> None:
        await subject.publish(b"a", b"b")
        async with subject.source() as source:
            held = await subject.collect(source, 2)
            await source.extend(receipts(held), subject.terms.lease)
            await source.ack(receipts(held))

    await expect_no_task_after(subject, use, "the source")


async def no_task_outlives_a_sink(subject: Subject) -> None:
    """When the context of a sink has ended, the loop runs what it ran before."""

    async def use() -> None:
        await subject.publish(b"a")

    await expect_no_task_after(subject, use, "the sink")


async def a_source_closes_in_time(subject: Subject) -> None:
    """The end of the context waits for nothing, whatever is held."""
    async with subject.holding(b"a"):
        began = current_time()
    took = current_time() - began
    subject.expect(
        took <= subject.terms.patience + subject.terms.wire,
        f"the context took {took:.1f} s to end with one delivery held; end it at once, nothing is retried",
    )


async def expect_no_task_after(subject: Subject, use: Callable[[], Awaitable[None]], what: str) -> None:
    """Run `use` twice: the first may make what belongs to the process, such as a pool or a server's own tasks."""
    idle = get_running_tasks()
    await use()
    await _new_tasks(subject, idle)
    before = get_running_tasks()
    await use()
    left = await _new_tasks(subject, before)
    names = ", ".join(task.name or str(task.id) for task in left)
    subject.expect(
        not left,
        f"{len(left)} tasks still run {subject.terms.patience:g} s after the context of {what}: {names}; "
        "start them in a task group that the context owns",
    )


async def _new_tasks(subject: Subject, before: list[TaskInfo]) -> list[TaskInfo]:
    """What runs now and did not run `before`, after the patience for it to end."""
    known = {task.id for task in before}
    until = current_time() + subject.terms.patience
    while True:
        new = [task for task in get_running_tasks() if task.id not in known]
        if not new or current_time() >= until:
            return new
        await anyio.sleep(0.02)


# -- 12: what is held can be settled until the end -----------------------------------------------------


async def settling_and_extending_go_on_after_stop(subject: Subject) -> None:
    """A drain settles what is in hand after it has stopped the intake."""
    async with subject.holding(b"a", b"b", b"c") as (source, [a, b, c]):
        source.stop()
        answers_to_extend = await source.extend([a.receipt], subject.terms.lease)
        subject.expect_answers("extend after stop", answers_to_extend, "EXTENDED")
        subject.expect_answers("ack after stop", await source.ack([a.receipt, b.receipt]), "DONE", "DONE")
        subject.expect_answers("nack after stop", await source.nack([(c.receipt, 0.0)]), "DONE")


async def what_was_held_when_the_context_ended_comes_again(subject: Subject) -> None:
    """An event that a dying worker had in hand goes to the next one when its lease is over, if not before."""
    async with subject.holding(b"a", b"b", lease=subject.terms.lease):
        pass
    async with subject.source() as other:
        await subject.collect_bodies(other, b"a", b"b", within=subject.terms.lease + subject.terms.patience)


CHECKS: Final = (
    *clause("3", no_task_outlives_a_source, alone=True),
    *clause("3", a_source_closes_in_time),
    *clause(
        "12",
        settling_and_extending_go_on_after_stop,
        what_was_held_when_the_context_ended_comes_again,
    ),
)
