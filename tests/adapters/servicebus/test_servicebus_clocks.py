"""A server whose clock differs from this machine's: nothing is lost for it, and no lease is longer than its lock."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from anyio import current_time
from eventkit_servicebus._hold import LONGEST_LOCK, SHORTEST_LOCK, fresh_lock, lease_of, new_lock
from hypothesis import given
from hypothesis import strategies as st

from eventkit.spi import DONE, Demand, Extended
from tests.adapters.servicebus.adapter_support import (
    BILLS,
    DEMAND,
    ORDERED,
    foreign,
    receipts,
    received,
    rigged,
    written,
)


@pytest.mark.parametrize("skew", [-300.0, 300.0, -3_600.0, 86_400.0 * 400])
@pytest.mark.parametrize(("name", "demand"), [("orders", DEMAND), (BILLS, ORDERED)])
async def test_a_clock_that_is_wrong_costs_no_event(name: str, demand: Demand, skew: float) -> None:
    """Received, extended and settled, once; a lease that no lock can have is not believed."""
    async with rigged(max_deliveries=2) as rig:
        rig.clock.skew = skew
        async with rig.source(name, demand) as source:
            await foreign(rig, *[written(b"%d" % n, session="s") for n in range(4)], queue=name)
            held = await received(source, 4)
            now = current_time()
            assert all(now + 1.5 <= each.leased_until <= now + 60.0 for each in held)
            extended = await source.extend(receipts(held), 30.0)
            assert all(isinstance(each, Extended) and now + 1.5 <= each.until <= now + 61.0 for each in extended)
            assert await source.nack([(held[3].receipt, 0.0)]) == [DONE]
            assert await source.ack(receipts(held[:3])) == [DONE] * 3
            [again] = await received(source, 1)
            assert again.delivery_count == 2
            assert await source.ack([again.receipt]) == [DONE]

    counts = rig.server.counts()
    assert (counts.acked, counts.dead, counts.expired) == (4, 0, 0)


@pytest.mark.parametrize(("lock", "skew"), [(60.0, -60.4), (300.0, -300.0), (5.0, -5.3), (60.0, -59.8)])
async def test_a_clock_that_is_behind_by_as_much_as_a_lock_lasts_costs_no_event(lock: float, skew: float) -> None:
    """Each lock looks as if it had just ended, or were about to: the event would come, and come, and be dead."""
    async with rigged(max_deliveries=2, lock=lock) as rig:
        rig.clock.skew = skew
        async with rig.source() as source:
            await foreign(rig, written(b"a"))
            [held] = await received(source, 1)
            assert held.leased_until > current_time()
            assert [type(each) for each in await source.extend([held.receipt], 30.0)] == [Extended]
            assert await source.ack([held.receipt]) == [DONE]
    assert rig.server.counts().acked == 1


async def test_a_clock_that_jumps_while_something_is_held_costs_no_event() -> None:
    """As after a machine was suspended, or its clock set: the loop's clock goes on."""
    async with rigged() as rig, rig.source() as source:
        await foreign(rig, *[written(b"%d" % n) for n in range(3)])
        held = await received(source, 3)
        for skew in (-300.0, 300.0, 0.0):
            rig.clock.skew = skew
            now = current_time()
            extended = await source.extend(receipts(held), 30.0)
            assert all(isinstance(each, Extended) and now + 1.5 <= each.until <= now + 61.0 for each in extended)
            each = held.pop()
            assert await source.ack([each.receipt]) == [DONE]


async def test_a_clock_that_is_wrong_is_found_out_after_a_long_silence() -> None:
    """What comes then was locked then, and not when somebody last received."""
    async with rigged(max_deliveries=2) as rig, rig.source() as source:
        assert await source.receive(1, 0.2) == []
        [slot] = source._pool._slots
        await slot.rest()
        slot._link._empty_at -= 600.0
        rig.clock.skew = -300.0
        await foreign(rig, written(b"a"))
        [held] = await received(source, 1, within=2.0)
        assert await source.ack([held.receipt]) == [DONE]


async def test_a_delay_is_by_the_clock_of_the_worker() -> None:
    """The service has no other way: a wrong clock makes it longer or shorter by as much, and loses nothing."""
    async with rigged() as rig, rig.source() as source:
        rig.clock.skew = 300.0
        await foreign(rig, written(b"a"))
        [held] = await received(source, 1)
        assert await source.nack([(held.receipt, 100.0)]) == [DONE]
        [again] = await received(source, 1)  # the server takes it for due
        assert (again.body, again.delivery_count) == (b"a", 2)
        assert await source.ack([again.receipt]) == [DONE]


class _Received:
    """As much of a message as a lock is read from."""

    def __init__(self, until: Any) -> None:
        self.raw_amqp_message = self
        self.annotations = {} if until is None else {b"x-opt-locked-until": until}


@given(skew=st.floats(-400_000, 400_000), lock=st.floats(5, 300), late=st.floats(0, 2))
def test_a_lock_is_never_believed_to_last_longer_than_any(skew: float, lock: float, late: float) -> None:
    """And one that has just come always lasts a moment."""
    wall = 1_700_000_000.0
    message = _Received(int((wall + lock + skew) * 1000))
    left = fresh_lock(message, wall=wall + late, age=late)  # type: ignore[arg-type]
    assert left <= LONGEST_LOCK + 1
    if abs(skew) > 310:
        assert left == SHORTEST_LOCK  # evident: nothing more can be relied upon
        assert message.annotations[b"x-opt-locked-until"] / 1000 > wall + late  # or the SDK would settle nothing
    if skew == 0:
        assert left == pytest.approx(lock - late, abs=0.01)
    assert 0 < new_lock(wall + lock + skew, wall=wall) <= LONGEST_LOCK + 1


def test_what_may_have_waited_for_long_is_not_believed_to_be_fresh() -> None:
    """Only what cannot be true is a clock that is wrong: a lock of five seconds that ended two seconds ago can."""
    for ago, age, left in ((2.0, 10.0, -2.0), (100.0, math.inf, -100.0), (2.0, 0.1, SHORTEST_LOCK)):
        message = _Received(int((1_700_000_000.0 - ago) * 1000))
        assert fresh_lock(message, wall=1_700_000_000.0, age=age) == left  # type: ignore[arg-type]


@given(lock=st.floats(0.001, 300))
def test_a_lease_is_a_second_shorter_than_a_lock_or_half_as_long(lock: float) -> None:
    """Nobody knows when exactly it began."""
    assert lease_of(lock) == max(lock - 1.0, lock / 2)
    assert 0 < lease_of(lock) < lock


def test_a_message_without_a_lock_is_taken_for_one_with_the_longest() -> None:
    """As those of a session, whose own lock counts."""
    assert fresh_lock(_Received(None), wall=time.time(), age=0.0) == LONGEST_LOCK  # type: ignore[arg-type]
    assert fresh_lock(_Received("soon"), wall=time.time(), age=0.0) == LONGEST_LOCK  # type: ignore[arg-type]
