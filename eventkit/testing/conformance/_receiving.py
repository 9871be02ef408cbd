"""Clauses 4, 10 and 13: how many are received and when, side by side, and under a lease that still runs."""

from __future__ import annotations

from typing import Final

import anyio
from anyio import current_time, sleep_until

from eventkit.spi import Delivery, Source
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Arrival, Subject, receipts

# -- 4: limit and wait -------------------------------------------------------------------------------


async def a_receive_gives_at_most_its_limit(subject: Subject) -> None:
    """What the core has no room for must not be leased to it; and all come in the end, each once."""
    names = [b"%d" % number for number in range(5)]
    await subject.publish(*names)
    seen: list[bytes] = []
    async with subject.source() as source:
        limit = min(2, source.info.limits.receive)
        until = current_time() + subject.terms.patience
        while len(seen) < len(names) and current_time() < until:
            deliveries = await source.receive(limit, min(1.0, subject.terms.patience))
            subject.expect(len(deliveries) <= limit, f"receive({limit}, …) gave {len(deliveries)} deliveries")
            seen += [delivery.body for delivery in deliveries]
            await anyio.sleep(0.01 if not deliveries else 0)
    subject.expect(sorted(seen) == names, f"receives of {limit} gave {sorted(seen)} in all; expected {names}")


async def a_receive_at_an_empty_source_takes_about_its_wait(subject: Subject) -> None:
    """Returning at once would be a hot loop; returning late would hold up a drain."""
    wait = min(1.0, subject.terms.patience / 2)
    async with subject.source() as source:
        began = current_time()
        for _ in range(2):
            asked = current_time()
            deliveries = await source.receive(10, wait)
            took = current_time() - asked
            subject.expect(not deliveries, f"an empty source gave {len(deliveries)} deliveries")
            subject.expect(took <= wait + subject.terms.patience, f"receive(10, {wait:g}) of nothing took {took:.2f} s")
        both = current_time() - began
    subject.expect(both >= wait, f"two empty receives with a wait of {wait:g} s took {both:.3f} s together: a hot loop")


async def a_receive_without_a_wait_returns(subject: Subject) -> None:
    """A look into the queue: whatever is there, or nothing."""
    async with subject.source() as source:
        asked = current_time()
        await source.receive(1, 0.0)
        took = current_time() - asked
        subject.expect(took <= subject.terms.patience, f"receive(1, 0.0) took {took:.2f} s")


async def a_receive_returns_when_something_is_published(subject: Subject) -> None:
    """Latency is not the wait."""
    wait = 3 * subject.terms.patience
    got: list[Arrival] = []

    async def receive(source: Source) -> None:
        got.extend(await subject.arrivals(source, until=began + wait, enough=bool, wait=wait))

    async with subject.source() as source, anyio.create_task_group() as tasks:
        began = current_time()
        tasks.start_soon(receive, source)
        await anyio.sleep(subject.terms.slack)
        await subject.publish(b"a")
        published = current_time()
    subject.expect(bool(got), f"a receive that waited {wait:g} s did not bring what was published meanwhile")
    took = got[0].at - published
    subject.expect(
        took <= subject.terms.patience,
        f"a receive with a wait of {wait:g} s brought an event {took:.1f} s after its publish; return on the first",
    )


async def receives_side_by_side_share_what_there_is(subject: Subject) -> None:
    """As many receives as `limits.concurrent_receives` allows bring each event once."""
    names = [b"%02d" % number for number in range(12)]
    await subject.publish(*names)
    seen: list[bytes] = []
    async with subject.source() as source:
        number = min(source.info.limits.concurrent_receives, 4)
        subject.skip_if(number < 2, "limits.concurrent_receives is 1")
        until = current_time() + subject.terms.patience

        async def receive() -> None:
            while len(seen) < len(names) and current_time() < until:
                seen.extend(delivery.body for delivery in await source.receive(3, 0.5))
                await anyio.sleep(0.01)

        async with anyio.create_task_group() as tasks:
            for _ in range(number):
                tasks.start_soon(receive)
    subject.expect(sorted(seen) == names, f"{number} receives side by side gave {sorted(seen)}; expected {names}")


async def what_one_source_holds_another_is_not_given(subject: Subject) -> None:
    """A lease is for one."""
    async with subject.holding(b"a") as (_, [a]), subject.source() as other:
        until = current_time() + min(1.0, subject.terms.lease / 3)
        await subject.expect_nothing(other, min(until, a.leased_until), "another source holds it under a lease")


# -- 10: methods run concurrently ------------------------------------------------------------------


async def settling_goes_on_while_a_receive_waits(subject: Subject) -> None:
    """A receive waits long; leases and settlements cannot wait for it."""
    wait = 4 * subject.terms.patience

    async def receive() -> None:
        await subject.arrivals(source, until=began + wait, enough=bool, wait=wait)

    async with subject.holding(b"a", b"b") as (source, [a, b]), anyio.create_task_group() as tasks:
        began = current_time()
        tasks.start_soon(receive)
        await anyio.sleep(subject.terms.slack)
        extended = await source.extend([a.receipt, b.receipt], subject.terms.lease)
        acked = await source.ack([a.receipt])
        took = current_time() - began
        await source.nack([(b.receipt, 0.0)])  # which ends the receive
        subject.expect_answers("extend beside a receive", extended, "EXTENDED", "EXTENDED")
        subject.expect_answers("ack beside a receive", acked, "DONE")
        subject.expect(took <= subject.terms.patience, f"extend and ack beside a waiting receive took {took:.1f} s")


async def settlements_side_by_side_are_done(subject: Subject) -> None:
    """Four acks, two nacks and an extend in flight at once, each answered for its own items."""
    answers: dict[str, list[object]] = {}
    async with subject.holding(*(b"%d" % number for number in range(7))) as (source, held):
        tokens = receipts(held)

        async def ack(number: int) -> None:
            answers[f"ack {number}"] = [*await source.ack([tokens[number]])]

        async def nack(number: int) -> None:
            answers[f"nack {number}"] = [*await source.nack([(tokens[number], 0.0)])]

        async def extend(number: int) -> None:
            answers[f"extend {number}"] = [*await source.extend([tokens[number]], subject.terms.lease)]

        async with anyio.create_task_group() as tasks:
            for number, verb in enumerate((ack, ack, nack, ack, extend, ack, nack)):
                tasks.start_soon(verb, number)
    for call, answer in sorted(answers.items()):
        expected = "EXTENDED" if call.startswith("extend") else "DONE"
        subject.expect_answers(f"{call} among others", answer, expected)


# -- 13: what is handed over is leased ---------------------------------------------------------------


async def what_is_handed_over_is_still_leased(subject: Subject) -> None:
    """After a long pause, what the adapter had fetched is leased still or fetched anew, and reception goes on."""
    names = [b"%d" % number for number in range(4)]
    await subject.publish(*names)
    lease = subject.terms.lease
    async with subject.source(lease=lease, events=len(names)) as source:
        [first, *_] = await subject.collect(source, 1)
        await sleep_until(current_time() + 1.5 * lease)
        await subject.publish(b"new")
        wanted = {*names, b"new"} - {first.body}
        until = current_time() + lease + subject.terms.patience
        while wanted and current_time() < until:
            for delivery in await source.receive(1, 0.5):
                wanted.discard(delivery.body)
                await _expect_leased(subject, source, delivery)
            await anyio.sleep(0.01)
    subject.expect(not wanted, f"after a pause of {1.5 * lease:g} s, receives did not bring {sorted(wanted)}")


async def _expect_leased(subject: Subject, source: Source, delivery: Delivery) -> None:
    now = current_time()
    subject.expect(
        delivery.leased_until > now,
        f"{delivery.body!r} was handed over {now - delivery.leased_until:.2f} s after its lease had ended",
    )
    [answer] = await source.ack([delivery.receipt])
    if source.info.traits.confirms_ack:
        subject.expect_answers(f"ack of {delivery.body!r}, just handed over", [answer], "DONE")


async def what_is_not_asked_for_goes_to_another(subject: Subject) -> None:
    """Without a receive for a third of the lease, what an adapter had fetched is given back."""
    names = [b"%d" % number for number in range(4)]
    await subject.publish(*names)
    lease = subject.terms.lease
    async with subject.source(lease=lease, events=len(names)) as source:
        held = await subject.collect(source, 1)
        await anyio.sleep(lease / 3)
        async with subject.source() as other:
            rest = sorted({*names} - {delivery.body for delivery in held})
            await subject.collect_bodies(other, *rest, within=lease + subject.terms.patience)


CHECKS: Final = (
    *clause(
        "4",
        a_receive_gives_at_most_its_limit,
        a_receive_at_an_empty_source_takes_about_its_wait,
        a_receive_without_a_wait_returns,
        a_receive_returns_when_something_is_published,
        receives_side_by_side_share_what_there_is,
        what_one_source_holds_another_is_not_given,
    ),
    *clause("10", settling_goes_on_while_a_receive_waits, settlements_side_by_side_are_done),
    *clause("13", what_is_handed_over_is_still_leased, what_is_not_asked_for_goes_to_another),
)
