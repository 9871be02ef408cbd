"""Acks, nacks and extensions: what is known of each message, and what is said when nothing is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from anyio import current_time

from eventkit.errors import ConnectionLost
from eventkit.spi import DONE, LOST, UNKNOWN, Delivery, Demand, Extended, Outgoing, Settled, SettledKind, Source
from tests.adapters.pubsub.adapter_support import bodies, error, received, rigged, subscription

EXACTLY_ONCE = "sums.exactly-once"
OPERATIONS = ["Acknowledge", "ModifyAckDeadline"]


async def settled(source: Source, operation: str, held: Sequence[Delivery]) -> Sequence[Settled]:
    """Ack or nack them, by the name of what is called for it."""
    if operation == "Acknowledge":
        return await source.ack([each.receipt for each in held])
    return await source.nack([(each.receipt, 0.0) for each in held])


def kinds(results: Sequence[Extended | Settled]) -> list[SettledKind]:
    return [result.kind for result in results if isinstance(result, Settled)]


async def test_what_is_acked_is_gone_in_one_call() -> None:
    """500 ids a call: one call each would be most of the cost."""
    async with rigged() as rig:
        await rig.publish(*[b"%d" % n for n in range(100)])
        async with rig.source() as source:
            held = await received(source, 100)
            assert await source.ack([each.receipt for each in held]) == [DONE] * 100
            assert await source.receive(10, 0.2) == []

        [request] = rig.trouble.of("Acknowledge")
        assert len(request.ack_ids) == 100
        assert rig.server.counts().acked == 100


async def test_what_is_nacked_comes_again_as_the_next_delivery() -> None:
    """At once, and counted."""
    async with rigged() as rig:
        await rig.publish(b"a")
        async with rig.source() as source:
            [first] = await received(source, 1)
            assert await source.nack([(first.receipt, 0.0)]) == [DONE]
            [again] = await received(source, 1)

    assert (first.delivery_count, again.delivery_count) == (1, 2)
    assert again.receipt.ack_id != first.receipt.ack_id


async def test_delays_go_in_one_call_for_each_second() -> None:
    """A call has one deadline for all its ids; a retry is never early."""
    async with rigged() as rig:
        await rig.publish(*[b"%d" % n for n in range(5)])
        async with rig.source() as source:
            held = await received(source, 5)
            delays = [0.0, 7.0, 6.2, 600.0, 601.0]
            results = await source.nack([(each.receipt, delay) for each, delay in zip(held, delays, strict=True)])

        assert results[:4] == [DONE] * 4
        assert (results[4].kind, results[4].cause) == (
            SettledKind.REFUSED,
            f"{source.info.name} delays a retry by 600 s at most",
        )
        asked = {call.ack_deadline_seconds: len(call.ack_ids) for call in rig.trouble.of("ModifyAckDeadline")}
        assert asked == {0: 1, 7: 2, 600: 1}


async def test_a_lease_is_extended_from_before_the_call() -> None:
    """What we believe must end before what is."""
    async with rigged() as rig:
        await rig.publish(b"a")
        async with rig.source() as source:
            [held] = await received(source, 1)
            before = current_time()
            [result] = await source.extend([held.receipt], 60.0)
            [longest] = await source.extend([held.receipt], 10_000.0)
            [refused] = await source.extend([held.receipt], 0.0)

    assert isinstance(result, Extended)
    assert before + 60 <= result.until <= before + 60.1
    assert isinstance(longest, Extended)
    assert longest.until <= current_time() + 600
    assert isinstance(refused, Settled)
    assert refused.kind is SettledKind.REFUSED


async def test_with_exactly_once_delivery_each_id_has_its_answer() -> None:
    """The call fails for the sake of one; the others were settled."""
    async with rigged() as rig:
        await rig.publish(*[b"%d" % n for n in range(4)], to=EXACTLY_ONCE)
        async with rig.source(EXACTLY_ONCE) as source:
            held = await received(source, 4)
            await source.ack([held[0].receipt])
            failing = held[1].receipt.ack_id
            rig.trouble.ids["Acknowledge"] = lambda ack_id: "TRANSIENT_FAILURE_INTERNAL" if ack_id == failing else None
            results = await source.ack([each.receipt for each in held[:3]])
            assert kinds(results) == [SettledKind.LOST, SettledKind.RETRY, SettledKind.DONE]

            rig.trouble.ids.clear()
            assert await source.ack([held[1].receipt]) == [DONE], "what failed in passing can be repeated"
            assert await source.nack([(held[2].receipt, 0.0), (held[3].receipt, 0.0)]) == [LOST, DONE]
            [lost] = await source.extend([held[2].receipt], 10.0)
            assert lost is LOST


async def test_without_exactly_once_delivery_an_old_receipt_is_answered_like_any_other() -> None:
    """Pub/Sub does not tell; the trait says so."""
    async with rigged() as rig:
        await rig.publish(b"a")
        async with rig.source() as source:
            [first] = await received(source, 1)
            await source.nack([(first.receipt, 0.0)])
            [again] = await received(source, 1)
            assert await source.ack([first.receipt]) == [DONE]
            assert rig.server.counts().acked == 0, "the newer delivery is not touched"
            assert await source.ack([again.receipt, again.receipt]) == [DONE, DONE]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("RESOURCE_EXHAUSTED", SettledKind.RETRY),
        ("PERMISSION_DENIED", SettledKind.REFUSED),
        ("NOT_FOUND", SettledKind.REFUSED),
        ("INVALID_ARGUMENT", SettledKind.REFUSED),
    ],
)
async def test_a_call_that_was_not_done_is_an_answer(operation: str, code: str, kind: SettledKind) -> None:
    """Known is known: raising it would make everything in the call a doubt."""
    async with rigged() as rig:
        await rig.publish(b"a", b"b")
        async with rig.source() as source:
            held = await received(source, 2)
            rig.trouble.errors[operation] = error(code)
            results = await settled(source, operation, held)
            rig.trouble.errors.clear()

    assert kinds(results) == [kind, kind]
    assert all(result.cause for result in results)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_lost_answer_is_not_taken_for_one(operation: str) -> None:
    """It was done here, and nobody can know: neither DONE nor LOST would be true."""
    async with rigged() as rig:
        await rig.publish(b"a", b"b")
        async with rig.source() as source:
            held = await received(source, 2)
            rig.trouble.lost[operation] = error("UNAVAILABLE")
            with pytest.raises(ConnectionLost):
                await settled(source, operation, held)


async def test_of_nacks_with_several_delays_only_the_lost_call_is_unknown() -> None:
    """What the other call did is known."""
    async with rigged() as rig:
        await rig.publish(b"a", b"b")
        async with rig.source() as source:
            held = await received(source, 2)
            rig.trouble.lost["ModifyAckDeadline"] = error("UNAVAILABLE")
            results = await source.nack([(held[0].receipt, 0.0), (held[1].receipt, 30.0)])

    assert sorted(map(str, results)) == sorted(map(str, [DONE, UNKNOWN]))


async def test_an_event_of_an_ordered_key_comes_again_with_those_behind_it() -> None:
    """As the trait `redelivers` says; other keys are left alone."""
    async with rigged() as rig:
        made = [Outgoing(body=name.encode(), key=name[0]) for name in ("a1", "a2", "a3", "b1")]
        await rig.publish(*made, to="bills.ordered")
        async with rig.source("bills.ordered") as source:
            held = {each.body: each for each in await received(source, 4)}
            assert await source.ack([held[b"a2"].receipt]) == [DONE]
            assert await source.nack([(held[b"a1"].receipt, 0.0)]) == [DONE]
            again = await received(source, 3)

    assert bodies(again) == [b"a1", b"a2", b"a3"]


async def test_an_extension_that_is_throttled_is_no_lease_that_is_lost() -> None:
    """The key is in hand all the same: what follows in it stays behind."""
    made = [Outgoing(body=name, key="a") for name in (b"a1", b"a2")]
    async with rigged() as rig:
        await rig.publish(*made, to="bills.ordered")
        async with rig.source("bills.ordered") as source:
            [head] = await source.receive(1, 2.0)
            rig.trouble.errors["ModifyAckDeadline"] = error("RESOURCE_EXHAUSTED")
            [result] = await source.extend([head.receipt], 10.0)
            rig.trouble.errors.clear()
            assert isinstance(result, Settled)
            assert result.kind is SettledKind.RETRY
            assert bodies(await received(source, 1)) == [b"a2"]


async def test_a_lease_that_is_lost_is_known_at_once() -> None:
    """What waits here of its key comes again after it."""
    made = [Outgoing(body=name, key="a") for name in (b"a1", b"a2")]
    async with rigged("both.ordered.exactly-once") as rig:
        await rig.publish(*made, to="both.ordered.exactly-once")
        async with rig.source("both.ordered.exactly-once", Demand(lease=30.0, ordered=True)) as source:
            [head] = await source.receive(1, 2.0)
            request = {"subscription": subscription("both.ordered.exactly-once"), "ack_ids": [head.receipt.ack_id]}
            await rig.subscriber.modify_ack_deadline(request=request | {"ack_deadline_seconds": 0})
            assert await source.extend([head.receipt], 30.0) == [LOST]
            assert bodies(await received(source, 2)) == [b"a1", b"a2"]
