"""Delayed retries: each delivery comes back after its own delay, and no delay the traits rule out is accepted."""

from __future__ import annotations

import math
from typing import Final

from anyio import current_time

from eventkit.spi import Delivery, Source, Traits
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Subject


async def each_event_comes_back_after_its_own_delay(subject: Subject) -> None:
    """One call, three delays: none early, and a short one does not wait for the long one."""
    names = (b"a", b"b", b"c")
    async with subject.holding(*names) as (source, held):
        traits = source.info.traits
        step = max(traits.delay_granularity, subject.terms.lease / 4, 4 * subject.terms.slack)
        delays = dict(zip(names, (step, 3 * step, step), strict=True))
        _skip_beyond(subject, traits, 3 * step)
        at = await _came_back(subject, source, held, delays)
        subject.expect(
            max(at[b"a"], at[b"c"]) < at[b"b"],
            f"delays of {step:g}, {3 * step:g}, {step:g} s brought the second first; each has its own delay",
        )


async def a_delay_is_rounded_up(subject: Subject) -> None:
    """A provider that counts in steps must not bring an event back early."""
    async with subject.holding(b"a") as (source, held):
        traits = source.info.traits
        step = traits.delay_granularity
        subject.skip_if(
            step < 4 * subject.terms.slack,
            f"trait delay_granularity is {step:g}: no longer than the slack of {subject.terms.slack:g} s lets see",
        )
        _skip_beyond(subject, traits, 2 * step)
        await _came_back(subject, source, held, {b"a": 1.5 * step})


async def the_longest_delay_is_accepted(subject: Subject) -> None:
    """Up to what a nack may be delayed by, or a day where any delay is possible."""
    async with subject.holding(b"a") as (source, [a]):
        most = source.info.traits.longest_nack
        subject.skip_if(most == 0, "traits max_retry_delay and nack_delay_max are 0: no delay is possible")
        # What SQS can do shrinks with the age of the receive: a little less than the most.
        delay = 86400.0 if most is None else math.floor(most * 0.9) or most
        subject.expect_answers(f"nack with {delay:g} s", await source.nack([(a.receipt, delay)]), "DONE")


def _skip_beyond(subject: Subject, traits: Traits, delay: float) -> None:
    most = traits.longest_nack
    why = f"trait max_retry_delay or nack_delay_max is {most}: {delay:g} s are not possible"
    subject.skip_if(most is not None and most < delay, why)


async def _came_back(
    subject: Subject, source: Source, held: list[Delivery], delays: dict[bytes, float]
) -> dict[bytes, float]:
    """Nack, and wait until all are back; when each came, on the loop's clock. None may come early, or very late."""
    began = current_time()
    answers = await source.nack([(delivery.receipt, delays[delivery.body]) for delivery in held])
    subject.expect_answers(f"nack with {list(delays.values())} s", answers, *["DONE"] * len(held))
    longest = max(delays.values()) + source.info.traits.delay_granularity
    seen = await subject.collect_bodies(source, *delays, within=longest + subject.terms.patience)
    at = {arrival.delivery.body: arrival.at - began for arrival in reversed(seen)}
    for body, delay in delays.items():
        subject.expect(
            at[body] >= delay - subject.terms.slack,
            f"{body!r}, nacked with {delay:g} s, came back after {at[body]:.2f} s; delays are rounded up, never down",
        )
    return at


CHECKS: Final = (
    *clause("nack", each_event_comes_back_after_its_own_delay),
    *clause("delay_granularity", a_delay_is_rounded_up),
    *clause("max_retry_delay", the_longest_delay_is_accepted),
)
