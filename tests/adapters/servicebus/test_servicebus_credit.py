"""What comes when nobody receives, and what is fetched ahead: it is held up for nobody."""

from __future__ import annotations

import anyio
import pytest
from anyio import current_time
from eventkit_servicebus import _receivers

from eventkit.spi import DONE, Delivery, Demand
from tests.adapters.servicebus.adapter_support import (
    bodies,
    foreign,
    receipts,
    received,
    rigged,
    until,
    written,
)


async def test_no_message_is_held_up_by_a_receiver_that_nobody_reads() -> None:
    """A source has several, and may be idle; another one gets what comes then, and so does a receive of its own."""
    async with rigged() as rig, rig.source(demand=Demand(events=3_000)) as source:
        assert source.info.limits.concurrent_receives == 3
        for limit in (1, 100):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(source.receive, limit, 0.2)
        await anyio.sleep(0.2)  # credit is taken back beside
        for number in range(6):
            await foreign(rig, written(b"%d" % number))
            since = current_time()
            [held] = await received(source, 1)
            assert current_time() - since < 0.5
            assert await source.ack([held.receipt]) == [DONE]
            assert held.delivery_count == 1


async def test_what_was_asked_for_in_vain_is_not_waited_for() -> None:
    """After a call that brought fewer than it asked for; the source is busy with those, and others are free."""
    async with rigged() as rig, rig.source() as busy, rig.source() as free:
        await foreign(rig, *[written(b"%d" % n) for n in range(6)])
        held: list[Delivery] = []
        while len(held) < 6:
            held += await busy.receive(100, 1.0)
        await foreign(rig, *[written(b"%d" % n) for n in range(3)])
        assert len(await received(free, 3, within=1.0)) == 3
        assert await busy.ack(receipts(held)) == [DONE] * 6


async def test_what_came_when_nobody_receives_is_given_back_or_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the next receive; for want of one, to others, and not as a delivery that failed."""
    monkeypatch.setattr(_receivers, "UNUSED", 0.4)
    async with rigged() as rig, rig.source() as idle, rig.source() as other:
        for receives in (True, False):
            assert await idle.receive(1, 0.1) == []
            await foreign(rig, written(b"a"))  # it is the one that has asked for something
            await until(lambda: rig.server.counts().delivered > rig.server.counts().acked)
            [held] = await received(idle if receives else other, 1, within=2.0)
            assert held.delivery_count == 1
            assert await (idle if receives else other).ack([held.receipt]) == [DONE]


async def test_a_source_that_is_stopped_holds_up_nothing() -> None:
    """Nor one that has not received for a while: what comes is another's."""
    async with rigged() as rig, rig.source() as stopped, rig.source() as other:
        assert await stopped.receive(1, 0.2) == []
        stopped.stop()
        await anyio.sleep(0.3)
        await foreign(rig, *[written(b"%d" % n) for n in range(3)])
        found = await received(other, 3, within=2.0)
        assert sorted(bodies(found)) == [b"0", b"1", b"2"]
        assert {each.delivery_count for each in found} == {1}
        assert await other.ack(receipts(found)) == [DONE] * 3


async def test_what_is_fetched_ahead_comes_and_is_settled() -> None:
    """More than is asked for is there already; one after another, long after the first ones were short."""
    async with rigged() as rig, rig.source(more="&prefetch=50") as source:
        assert any("prefetch=50" in each for each in source.info.warnings)
        found: list[Delivery] = []
        for number in range(3):
            await foreign(rig, *[written(b"%d" % (40 * number + n)) for n in range(40)])
            some = await received(source, 40)
            assert await source.ack(receipts(some)) == [DONE] * 40
            found += some
        assert len({*bodies(found)}) == 120
        assert {each.delivery_count for each in found} == {1}


@pytest.mark.parametrize("pause", [1.3, 3.5])
async def test_what_was_fetched_ahead_and_has_expired_is_not_handed_over(pause: float) -> None:
    """It is somebody else's: handed over, it would be handled twice."""
    async with rigged(lock=1.0) as rig, rig.source(more="&prefetch=50") as source:
        await foreign(rig, written(b"a"), written(b"b"))
        first = await received(source, 1)
        await anyio.sleep(pause)
        found = list(first)
        while current_time() and len(found) < 3:
            found += await source.receive(10, 1.0)
        answers = await source.ack(receipts(found[1:]))
        assert answers == [DONE] * len(answers)
