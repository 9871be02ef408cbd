"""Retries: when they are due, and which attempt they are."""

from __future__ import annotations

import math
from itertools import pairwise

import anyio
from anyio import current_time

from eventkit import FlowLimits, Retry
from eventkit._telemetry.records import EventReleased, EventRetried
from tests.adapters.contract.handlers import One
from tests.adapters.contract.results import case
from tests.adapters.contract.stage import Stage

EARLY = 0.02
"""Seconds by which a provider's clock may be ahead of ours over one delay."""

LATE = 1.0
NO_PARKING = FlowLimits(parked=0)
"""What fails transiently finds no place to wait, and is released at once."""


async def a_retry_is_due_not_early_and_at_most_a_second_late(stage: Stage) -> None:
    """What `Retry(after=…)` asks for, rounded up to what the source can count."""
    waits = {"soon": 0.3, "later": 1.3, "after-a-lease": stage.lease * 1.5}

    async def act(name: str) -> None:
        if len(stage.of(name)) == 1:
            raise Retry(after=waits[name])

    async with stage.working(One(stage, act)):
        await stage.publish(*waits)
        await stage.until_done(*waits, within=max(waits.values()) + 8)
    for name, after in waits.items():
        _expect_between(stage, name, [after])
        stage.expect(len(stage.of(name)) == 2, f"{name} was called {len(stage.of(name))} times")


async def a_backoff_is_due_not_early_and_at_most_a_second_late(stage: Stage) -> None:
    """What the worker has drawn, and said in its telemetry, is what the source does."""
    names = [f"failing-{n}" for n in range(4)]

    async def act(name: str) -> None:
        if len(stage.of(name)) < 3:
            raise ValueError("bad")

    async with stage.working(One(stage, act), retry=stage.backoff(0.6)):
        await stage.publish(*names)
        await stage.until_done(*names, within=12)
    for name in names:
        message = stage.of(name)[0].message_id
        drawn = [r.delay for r in stage.records if isinstance(r, EventRetried) and r.message_id == message]
        stage.expect(len(drawn) == 2, f"{name} was retried {len(drawn)} times")
        for delay, most in zip(drawn, (0.6, 1.2), strict=True):
            stage.expect(delay <= _rounded_up(stage, most), f"{name}: a delay of {delay:g} s, above {most:g} s")
        _expect_between(stage, name, drawn)


def _expect_between(stage: Stage, name: str, delays: list[float]) -> None:
    for (sooner, later), delay in zip(pairwise(stage.of(name)), delays, strict=True):
        waited = later.began - sooner.ended
        stage.expect(waited >= delay - EARLY, f"{name} came after {waited:.3f} s: before {delay:g} s were over")
        latest = _rounded_up(stage, delay) + LATE
        stage.expect(
            waited <= latest, f"{name} came after {waited:.3f} s: asked for {delay:g} s, late after {latest:g}"
        )


def _rounded_up(stage: Stage, delay: float) -> float:
    step = stage.traits.delay_granularity
    return math.ceil(round(delay / step, 9)) * step if step else delay


async def attempts_count_failures_and_no_releases(stage: Stage) -> None:
    """1, 2, 3, whatever is given back in between: the worker remembers what it did not count."""
    stage.skip_if(stage.traits.delivery_count == "none", "trait delivery_count is 'none'")
    down, bad = ConnectionError("down"), ValueError("bad")
    scripts: dict[str, list[Exception | None]] = {
        "plain": [bad, bad, None],
        "released": [down, bad, down, down, bad, None],
    }

    async def act(name: str) -> None:
        error = scripts[name][len(stage.of(name)) - 1]
        if error is not None:
            raise error

    async with stage.working(One(stage, act), retry=stage.backoff(0.1, maximum=0.1), limits=NO_PARKING):
        await stage.publish("released", "plain")
        await stage.until_done("released", "plain", within=15)
    _expect_attempts(stage, "plain", [1, 2, 3])
    _expect_attempts(stage, "released", [1, 1, 2, 2, 2, 3])
    released = [record for record in stage.records if isinstance(record, EventReleased)]
    stage.expect(len(released) == 3, f"{len(released)} releases: the case needs three to say anything")


async def attempts_count_no_release_behind_a_failed_event_of_the_key(stage: Stage) -> None:
    """Followers that had to go back, or came again, because of their head have not been tried."""
    stage.skip_if(not stage.variant.ordered, "trait key_release is 'none'")
    stage.skip_if(stage.traits.delivery_count == "none", "trait delivery_count is 'none'")

    async def act(name: str) -> None:
        if name == "head" and len(stage.of(name)) < 3:
            raise ValueError("bad")

    async with stage.working(One(stage, act)):
        await stage.publish("head", "second", "third", key="key")
        await stage.until_done("head", "second", "third", within=15)
    _expect_attempts(stage, "head", [1, 2, 3])
    for name in ("second", "third"):
        stage.expect(all(call.attempt == 1 for call in stage.of(name)), f"{name} was called with an attempt above 1")


def _expect_attempts(stage: Stage, name: str, expected: list[int]) -> None:
    found = [call.attempt for call in stage.of(name)]
    if stage.variant.repeats:
        found, expected = sorted({*found}), sorted({*expected})
    stage.expect(found == expected, f"{name} had the attempts {found}; expected {expected}")


async def a_restart_forgets_releases_and_dead_letters_nothing_for_them(stage: Stage) -> None:
    """Without a store the count is too high after a restart; it is judged only after a failure."""
    enough = anyio.Event()

    async def give_back(name: str) -> None:
        if len(stage.of(name)) == 4:
            enough.set()
        raise ConnectionError("down")

    async with stage.working(
        One(stage, give_back, worker="first"), retry=stage.backoff(0.1, attempts=2), limits=NO_PARKING
    ):
        await stage.publish("released")
        await stage.until(enough.is_set, 10, "four calls, each followed by a release")
    released = sum(isinstance(record, EventReleased) for record in stage.records)
    async with stage.working(One(stage, worker="second"), retry=stage.backoff(0.1, attempts=2)):
        await stage.until_done("released")
    attempt = stage.of("released")[-1].attempt
    stage.expect(1 <= attempt <= released + 1, f"attempt {attempt} after {released} deliveries that did not count")
    stage.expect(not await stage.dead_letters(0), "it is among the dead letters")
    await stage.expect_nothing_left()


async def an_outage_burns_no_attempts(stage: Stage) -> None:
    """Long enough to close the gate, with more events than there is room for: all are handled, at attempt 1."""
    names = [f"event-{n}" for n in range(30)]
    up_at = math.inf

    async def act(name: str) -> None:
        if current_time() < up_at:
            raise ConnectionError("the database is down")

    limits = FlowLimits(in_flight=20, parked=10)
    async with stage.working(One(stage, act), retry=stage.backoff(0.2, maximum=1.0, attempts=2), limits=limits):
        await stage.publish(*names)
        await stage.until(lambda: bool(stage.calls), 10, "the first call")
        up_at = stage.calls[0].began + 3.0
        await stage.until_done(*names, within=20)
    attempts = {call.name: call.attempt for call in stage.calls if call.attempt != 1}
    if stage.traits.delivery_count != "none":
        stage.expect(not attempts, f"attempts were burnt: {attempts}")
    returned = [call.name for call in stage.calls if call.result == "ok"]
    stage.expect(stage.variant.repeats or len(returned) == len(names), f"some were handled twice: {sorted(returned)}")
    stage.expect(not await stage.dead_letters(0), "something is among the dead letters")
    await stage.expect_nothing_left()


CASES = (
    case(a_retry_is_due_not_early_and_at_most_a_second_late),
    case(a_backoff_is_due_not_early_and_at_most_a_second_late),
    case(attempts_count_failures_and_no_releases),
    case(attempts_count_no_release_behind_a_failed_event_of_the_key),
    case(a_restart_forgets_releases_and_dead_letters_nothing_for_them),
    case(an_outage_burns_no_attempts),
)
