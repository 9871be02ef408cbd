"""How a delivery ends: once, with a reason, and not before its time."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from anyio import current_time

from eventkit import Reject
from tests.adapters.contract.handlers import Many, One, TwoAtATime
from tests.adapters.contract.results import case
from tests.adapters.contract.stage import Stage

UNDECODABLE = b'{"name": '


async def a_dead_letter_says_why_and_where_it_comes_from(stage: Stage) -> None:
    """Whoever finds it has nothing else; its body is what it was."""
    reasons = {"unwanted": "no such customer", "failing": "attempts", UNDECODABLE.decode(): "decode"}
    if not _counts(stage):
        del reasons["failing"]  # there, age decides

    async def act(name: str) -> None:
        if name == "unwanted":
            raise Reject("no such customer")
        raise ValueError("bad")

    async with stage.working(One(stage, act), retry=stage.backoff(attempts=1)):
        await stage.publish(*[name for name in ("unwanted", "failing") if name in reasons])
        await stage.publish("undecodable", body=UNDECODABLE)
        letters = await stage.dead_letters(len(reasons))
    found = {letter.name: letter.reason for letter in letters}
    stage.expect(found == reasons, f"the dead letters are {found}; expected {reasons}")
    for letter in letters:
        origin, reason, attempts = (letter.detail.get(name) for name in ("origin", "reason", "attempts"))
        stage.expect(reason == letter.reason, f"{letter.name}: its detail gives the reason {reason!r}")
        stage.expect(origin == stage.info.name, f"{letter.name}: its origin is {origin!r}, not {stage.info.name!r}")
        stage.expect(attempts == 1 or not _counts(stage), f"{letter.name}: it has had {attempts!r} attempts")
    await stage.expect_nothing_left()


def _counts(stage: Stage) -> bool:
    return stage.traits.delivery_count != "none"


async def a_handler_three_leases_long_is_not_run_twice(stage: Stage) -> None:
    """With another worker waiting for the lease to end; and it is acked once."""

    async def act(name: str) -> None:
        await anyio.sleep(stage.lease * 3)

    async with stage.working(One(stage, act, worker="one")), stage.working(One(stage, act, worker="other")):
        await stage.publish("long", "longer")
        await stage.until_done("long", "longer", within=stage.lease * 3 + 10)
    stage.expect_once("long", "longer")
    _expect_counts(stage, 2)
    await stage.expect_nothing_left()


def _expect_counts(stage: Stage, number: int) -> None:
    if stage.place.counts is None or stage.variant.repeats:
        return
    counts = stage.place.counts()
    stage.expect(
        (counts.delivered, counts.acked) == (number, number),
        f"the server says delivered {counts.delivered} times and acked {counts.acked} times; expected {number} each",
    )


async def a_drain_leaves_nothing_leased(stage: Stage) -> None:
    """What has not started goes to the next worker at once, long before its lease would have ended."""
    names = [f"event-{n}" for n in range(12)]
    finish = anyio.Event()
    lease = stage.lease if stage.traits.lease_fixed else max(20.0, stage.lease)

    async def first(name: str) -> None:
        if name == "parked":
            raise ConnectionError("down")
        await finish.wait()

    async with stage.working(
        TwoAtATime(stage, first, worker="first"), lease=lease, retry=stage.backoff(30.0)
    ) as draining:
        await stage.publish("parked")
        await stage.until(lambda: any(call.result for call in stage.of("parked")), 10, "an event parked")
        await stage.publish(*names)
        await stage.until(lambda: len(_running(stage)) == 2, 10, "two calls running")
        await anyio.sleep(0.5)  # for the others to arrive
        draining.drain()
        drained = current_time()
        stage.note("drain")
        running = _running(stage)
        waiting = ["parked", *(name for name in names if name not in running)]
        async with stage.working(One(stage, worker="second")):
            await stage.until_done(*waiting, within=min(3.0, lease * 0.6))  # it has more left of it
            finish.set()
            await stage.until_done(*names, within=5)
    stage.expect(
        all(call.began >= drained for call in stage.calls if call.worker == "second"),
        "the second worker was there too early: the case says nothing",
    )
    stage.expect_once(*names)
    await stage.expect_nothing_left()


def _running(stage: Stage) -> list[str]:
    return [call.name for call in stage.calls if not call.result]


async def a_poison_event_is_dead_lettered_alone(stage: Stage) -> None:
    """Its company is acked once, whatever searching it took."""
    stage.skip_if(not _counts(stage), "trait delivery_count is 'none'")
    names = [f"event-{n}" for n in range(8)]

    async def act(batch: Sequence[str]) -> None:
        if "event-5" in batch:
            raise ValueError("poison")

    await stage.publish(*names)
    async with stage.working(Many(stage, act), retry=stage.backoff(attempts=1)):
        good = [name for name in names if name != "event-5"]
        await stage.until_done(*good)
        delivered = stage.place.counts().delivered if stage.place.counts is not None else len(names)
        letters = await stage.dead_letters(1)
    stage.expect(stage.of("event-5")[0].company > 1, "the poison had no company: the case says nothing")
    stage.expect(
        [(letter.name, letter.reason) for letter in letters] == [("event-5", "attempts")],
        f"the dead letters are {[(letter.name, letter.reason) for letter in letters]}",
    )
    for name in good:
        returned = [call for call in stage.of(name) if call.result == "ok"]
        stage.expect(stage.variant.repeats or len(returned) == 1, f"{name} was handled {len(returned)} times")
    stage.expect(
        stage.variant.repeats or delivered == len(names),
        f"{delivered} deliveries of {len(names)} events: some came twice",
    )
    await stage.expect_nothing_left()


CASES = (
    case(a_dead_letter_says_why_and_where_it_comes_from),
    case(a_handler_three_leases_long_is_not_run_twice),
    case(a_drain_leaves_nothing_leased),
    case(a_poison_event_is_dead_lettered_alone),
)
