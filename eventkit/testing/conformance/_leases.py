"""How long a delivery is ours: until its lease ends, an extend moves that, or an ack makes it good."""

from __future__ import annotations

from typing import Final

from anyio import current_time, sleep_until

from eventkit.spi import Extended
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Arrival, Subject, kind, stale

_FEW: Final = 6  # leases that a lease_total_max may be, to be waited for


async def an_event_comes_again_when_its_lease_is_over(subject: Subject) -> None:
    """And not before the time its delivery named."""
    lease = subject.terms.lease
    async with subject.holding(b"a", lease=lease) as (source, [a]):
        held_at = current_time()
        until = held_at + lease + subject.terms.patience
        again = await subject.arrivals(source, until=until, enough=bool)
        subject.expect(
            bool(again), f"it did not come again {until - held_at:g} s after a receive with {lease:g} s lease"
        )
        early = a.leased_until - again[0].at
        subject.expect(
            early <= subject.terms.slack,
            f"it came again {early:.2f} s before its first delivery's leased_until: that one said too much",
        )


async def an_acked_event_does_not_come_again(subject: Subject) -> None:
    """DONE means done, also when the lease would have been over."""
    lease = subject.terms.lease
    async with subject.holding(b"a", lease=lease) as (source, [a]):
        until = subject.over(lease)
        subject.in_time(a)
        subject.expect_answers("ack", await source.ack([a.receipt]), "DONE")
        await subject.expect_nothing(source, until, "it was acked within its lease")


async def a_nacked_event_comes_again_at_once(subject: Subject) -> None:
    """With no delay asked for: well before its lease would have been over."""
    async with subject.holding(b"a") as (source, [a]):
        subject.expect_answers("nack", await source.nack([(a.receipt, 0.0)]), "DONE")
        await subject.collect(source, 1)


async def an_extended_lease_lasts(subject: Subject) -> None:
    """Nobody gets the event past the first lease, and it can be settled then."""
    lease = subject.terms.lease
    async with subject.holding(b"a", lease=lease) as (source, [a]):
        received = current_time()
        await sleep_until(received + 0.3 * lease)
        subject.in_time(a)
        [answer] = await source.extend([a.receipt], 2 * lease)
        subject.expect_answers("extend within the lease", [answer], "EXTENDED")
        until = received + lease + 2 * subject.terms.slack
        await subject.expect_nothing(source, until, "its lease was extended")
        assert isinstance(answer, Extended)
        subject.before(answer.until)
        subject.expect_answers("ack within the extended lease", await source.ack([a.receipt]), "DONE")


async def an_extend_is_measured_from_before_the_call(subject: Subject) -> None:
    """What the answer took on its way is no lease."""
    async with subject.holding(b"a") as (source, [a]):
        asked = subject.lease_of(source, 2 * subject.terms.lease)
        began = current_time()
        [answer] = await source.extend([a.receipt], asked)
    subject.expect_answers("extend", [answer], "EXTENDED")
    assert isinstance(answer, Extended)
    told = answer.until - began
    most = asked + subject.terms.slack / 2
    least = 0.0 if source.info.traits.lease_total_max is not None else asked / 2
    subject.expect(
        least < told <= most,
        f"extend for {asked:g} s said until {told:.3f} s after the call began; it is `lease` seconds on the loop's "
        "clock (anyio.current_time), measured before the request is sent",
    )


async def an_extend_after_the_lease_is_lost(subject: Subject) -> None:
    """What is over cannot be kept; where acks are not confirmed, the source may not know."""
    lease = subject.terms.lease
    async with subject.holding(b"a", lease=lease) as (source, [a]):
        await sleep_until(subject.over(lease))
        answers = await source.extend([a.receipt], lease)
        expected = stale(source.info.traits, "EXTENDED")
        subject.expect_answers("extend after the lease", answers, expected)


async def no_lease_lasts_longer_than_the_total(subject: Subject) -> None:
    """An extend beyond `lease_total_max` is shortened or refused."""
    async with subject.holding(b"a") as (source, [a]):
        received = current_time()
        total = source.info.traits.lease_total_max
        if total is None:
            subject.skip_if(ruled_out=True, why="trait lease_total_max is None: leases may be extended for ever")
            return
        [answer] = await source.extend([a.receipt], 2 * total)
        subject.expect(kind(answer) in {"EXTENDED", "REFUSED"}, f"extend beyond the total answered {kind(answer)}")
        until = answer.until if isinstance(answer, Extended) else a.leased_until
    subject.expect(
        until <= received + total + subject.terms.slack,
        f"a lease until {until - received:.1f} s after the receive, with lease_total_max={total:g}",
    )


async def a_lease_ends_for_good_at_the_total(subject: Subject) -> None:
    """However often it is extended, the event comes again then."""
    lease = subject.terms.lease
    async with subject.holding(b"a", lease=lease) as (source, [a]):
        received = current_time()
        total = source.info.traits.lease_total_max
        if total is None or total > _FEW * lease:
            subject.skip_if(ruled_out=True, why=f"trait lease_total_max is {total}: too long to wait for")
            return
        again: list[Arrival] = []
        while not again and current_time() < received + total + subject.terms.patience:
            await source.extend([a.receipt], lease)
            again = await subject.arrivals(source, until=current_time() + lease / 3, enough=bool)
    subject.expect(
        bool(again),
        f"extended again and again, it did not come {total + subject.terms.patience:g} s after its receive, with "
        f"lease_total_max={total:g}",
    )


CHECKS: Final = (
    *clause("ack", an_acked_event_does_not_come_again),
    *clause("nack", a_nacked_event_comes_again_at_once),
    *clause(
        "extend",
        an_extended_lease_lasts,
        an_extend_is_measured_from_before_the_call,
        an_extend_after_the_lease_is_lost,
    ),
    *clause("Delivery", an_event_comes_again_when_its_lease_is_over),
    *clause("lease_total_max", no_lease_lasts_longer_than_the_total, a_lease_ends_for_good_at_the_total),
)
