"""A source of sessions: keys in order, and what becomes of what a session brought."""

from __future__ import annotations

import asyncio
import gc
import time

import anyio
import pytest
from anyio import current_time
from eventkit_servicebus import _link
from eventkit_servicebus._local._session_receiver import SessionReceiver

from eventkit.spi import DONE, LOST, Delivery, Extended, Outgoing
from tests.adapters.servicebus.adapter_support import (
    BILLS,
    ORDERED,
    Rig,
    acked,
    bodies,
    kinds,
    publish,
    receipts,
    received,
    rigged,
    stored,
    until,
)


def of(rig: Rig, key: str, found: list[Delivery]) -> list[bytes]:
    return [each.body for each in found if each.key == key]


async def test_a_receive_reads_all_sessions_and_each_is_in_order() -> None:
    """The key is the session; what has no key comes too, and what is given back comes before those behind it."""
    async with rigged() as rig, rig.source(BILLS, ORDERED) as source, rig.sink(BILLS, "&sessions=on") as sink:
        await publish(sink, *[Outgoing(body=b"%d" % n, key=key) for n in range(5) for key in ("a", "b", "k" * 200)])
        await publish(sink, b"alone")
        found = await received(source, 16)
        for key in ("a", "b", "k" * 200):
            assert of(rig, key, found) == [b"0", b"1", b"2", b"3", b"4"]
        assert of(rig, None, found) == [b"alone"]  # type: ignore[arg-type]
        mine = [each for each in found if each.key == "a"]
        others = [each for each in found if each.key != "a"]
        assert await source.ack(receipts(others)) == [DONE] * 11
        for each in mine:
            assert await source.nack([(each.receipt, 0.0)]) == [DONE]
        again = await received(source, 5)
        assert bodies(again) == [b"0", b"1", b"2", b"3", b"4"]
        assert {each.delivery_count for each in again} == {2}
        assert await source.ack(receipts(again)) == [DONE] * 5
        assert await source.ack(receipts(again)) == [LOST] * 5

    assert rig.server.counts().acked == 16


@pytest.mark.parametrize("how", ["lock", "connection"])
async def test_what_a_lost_session_brought_is_lost_and_the_others_go_on(how: str) -> None:
    """A session is settled on its own link only."""
    async with rigged() as rig, rig.source(BILLS, ORDERED) as source:
        await stored(rig, "a0", "a1", "b0")
        found = await received(source, 3)
        a, b = ([each for each in found if each.key == key] for key in "ab")
        connections = {
            link.session_id: link.session.connection
            for connection in rig.server._server.connections
            for link in connection.links()
            if isinstance(link, SessionReceiver) and link.session_id
        }
        if how == "connection":
            connections["a"].drop()
        else:
            rig.clock.skip(40.0)
            assert kinds(await source.extend([b[0].receipt], 30.0)) == [None]
            rig.skip(40.0)  # that of a has ended
        assert isinstance((await source.extend([b[0].receipt], 30.0))[0], Extended)
        answers = await source.extend([a[0].receipt], 30.0) if how == "lock" else await acked(source, a[0])
        assert answers == [LOST]
        assert await acked(source, *a) == [LOST, LOST]
        again = await received(source, 2)
        assert bodies(again) == [b"a0", b"a1"]
        assert {each.delivery_count for each in again} == {2 if how == "lock" else 1}
        assert await source.ack([*receipts(again), b[0].receipt]) == [DONE] * 3

    assert rig.server.counts().acked == 3


async def test_one_renewal_is_for_all_that_a_session_brought() -> None:
    """It is the session that is locked."""
    async with rigged() as rig, rig.source(BILLS, ORDERED) as source:
        await stored(rig, "a0", "a1", "a2", "b0")
        held = await received(source, 4)
        rig.skip(50.0)
        before = current_time()
        answers = await source.extend(receipts(held), 30.0)  # of a server that is 50 s ahead, and a second is kept back
        assert rig.trouble.of("renew-session-lock") == [None] * 2
        assert [before + 108 < each.until < before + 109.5 for each in answers] == [True] * 4
        rig.skip(50.0)
        assert await source.ack(receipts(held)) == [DONE] * 4


async def test_a_session_is_replaced_before_its_management_link_runs_dry(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a receiver of a queue is; what it brought is settled first."""
    monkeypatch.setattr(_link, "MOST_MANAGED", 3)
    async with rigged() as rig, rig.source(BILLS, ORDERED) as source:
        await stored(rig, "a0", "a1")
        held = await received(source, 2)
        for _ in range(3):
            assert kinds(await source.extend(receipts(held), 30.0)) == [None, None]
        link = held[0].receipt.link
        await stored(rig, "a2")
        assert await source.receive(1, 0.6) == []
        assert kinds(await source.extend(receipts(held), 30.0)) == [None, None]
        assert await source.ack(receipts(held)) == [DONE, DONE]
        [last] = await received(source, 1)
        assert last.body == b"a2"
        assert last.receipt.link is not link
        assert await source.ack([last.receipt]) == [DONE]


async def test_a_session_of_which_something_is_held_goes_on() -> None:
    """Its next message comes while the one before it is in work, whoever else waits for its place."""
    async with rigged() as rig, rig.source(BILLS, ORDERED) as source:
        await stored(rig, "a0")
        held = await received(source, 1)
        assert await source.receive(1, 0.6) == []
        await stored(rig, "a1")
        held += await received(source, 1, within=0.4)
        assert bodies(held) == [b"a0", b"a1"]
        assert held[0].receipt.link is held[1].receipt.link
        assert await source.ack(receipts(held)) == [DONE, DONE]


async def test_what_nobody_extends_comes_again() -> None:
    """A session whose other messages are extended would keep it for ever."""
    async with rigged(lock=1.0) as rig, rig.source(BILLS, ORDERED) as source:
        assert await source.receive(1, 2.0) == []  # so that the session is not left just because it is empty
        await stored(rig, "a0", "a1")
        held = await received(source, 2)
        assert bodies(held) == [b"a0", b"a1"]
        while current_time() < held[0].leased_until + 1:
            await source.extend([held[1].receipt], 30.0)
            assert await source.receive(10, 0.2) == []
        await stored(rig, "a2")
        for _ in range(3):
            await source.extend([held[1].receipt], 30.0)
            assert await source.receive(10, 0.2) == [], "it is behind what has to come again"
        await source.ack([held[1].receipt])
        assert bodies(await received(source, 2, within=8.0)) == [b"a0", b"a2"]
        assert await source.ack([held[0].receipt]) == [LOST]


async def test_a_session_that_is_lost_while_a_receive_waits_is_no_error() -> None:
    """Whoever settles what it brought is told; what waits for others, or for itself again, goes on."""
    async with rigged() as rig, rig.source(BILLS, ORDERED) as source:
        await stored(rig, "a0")
        [held] = await received(source, 1)
        again: list[Delivery] = []

        async def receive() -> None:
            while not again:
                again.extend(await source.receive(1, 1.0))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.sleep(0.2)
            rig.skip(61.0)
        assert (again[0].body, again[0].delivery_count) == (b"a0", 2)
        assert await source.extend([held.receipt], 30.0) == [LOST]
        assert await source.ack([held.receipt, again[0].receipt]) == [LOST, DONE]
        assert await source.extend([again[0].receipt], 30.0) == [LOST]


async def test_stop_gives_back_what_nobody_has_seen_and_ends_what_waits() -> None:
    """What is held is settled after it; what is free is left at once, and closing waits for no session."""
    async with rigged() as rig:
        async with rig.source(BILLS, ORDERED) as source:
            await stored(rig, "a0", "a1", "b0", "b1", "c0")
            held = await received(source, 1)
            await anyio.sleep(0.3)
            async with anyio.create_task_group() as tasks:
                started = time.monotonic()
                source.stop()
                source.stop()
                handed: list[Delivery] = []

                async def hand_over() -> None:
                    handed.extend(await source.receive(100, 20.0))

                tasks.start_soon(hand_over)
            assert time.monotonic() - started < 1.5
            assert await source.receive(100, 20.0) == []
            await until(
                lambda: len(rig.server._server.connections) == 1 + len({each.key for each in handed} - {held[0].key})
            )
            assert await source.ack(receipts(held + handed)) == [DONE] * (1 + len(handed))
            await until(lambda: not rig.server._server.connections)
            started = time.monotonic()
        assert time.monotonic() - started < 1.5
        async with rig.source(BILLS, ORDERED) as another:
            rest = await received(another, 4 - len(handed))
            assert {each.body for each in held + handed + rest} == {b"a0", b"a1", b"b0", b"b1", b"c0"}


async def test_closing_does_not_wait_for_a_session_to_come() -> None:
    """There may be none for hours."""
    async with rigged() as rig:
        async with rig.source(BILLS, ORDERED) as source:
            assert await source.receive(1, 0.8) == []
            assert rig.trouble.of("attach").count("receiver") >= 4
            started = time.monotonic()
        assert time.monotonic() - started < 1.5


async def test_a_session_that_is_asked_for_when_it_stops_leaves_nothing() -> None:
    """In the middle of the handshake the SDK drops what it has opened."""
    async with rigged() as rig:
        for pause in (0.001, 0.003, 0.1):
            async with rig.source(BILLS, ORDERED) as source, anyio.create_task_group() as tasks:
                tasks.start_soon(source.receive, 1, 3.0)
                await anyio.sleep(pause)
                source.stop()
    gc.collect()  # what it collects, warns


async def test_what_came_for_a_receive_that_had_enough_is_given_back_in_time() -> None:
    """By a third of its lease, if nobody receives; a receive has it, if there is one."""
    async with rigged(lock=3.0) as rig, rig.source(BILLS, ORDERED) as source:
        await stored(rig, "a0", "b0", "c0")
        [first] = await received(source, 1)
        await until(lambda: len(source._pool._ready) == 2)
        since = current_time()
        await until(lambda: rig.server.counts().nacked == 2)
        assert current_time() - since < 1.5
        await until(lambda: not source._pool._watching)  # or it would never watch again
        assert await source.ack([first.receipt]) == [DONE]
        again = await received(source, 2)
        assert {each.delivery_count for each in again} == {1}  # nobody has seen it
        assert await source.ack(receipts(again)) == [DONE, DONE]


async def test_receives_that_leave_something_behind_leave_one_watch_behind() -> None:
    """Each of a thousand a second would sleep for a third of a lease."""
    async with rigged() as rig, rig.source(BILLS, ORDERED) as source:
        await stored(rig, *[f"{key}{n}" for n in range(8) for key in "abcd"])
        found = await received(source, 1)
        await until(lambda: len(source._pool._ready) >= 3)
        for _ in range(20):
            found += await received(source, 1)
        assert sum("_give_back_late" in task.get_name() for task in asyncio.all_tasks()) <= 1
        assert set(await source.ack(receipts(found))) == {DONE}


async def test_the_dead_letters_of_sessions_have_none() -> None:
    """They are received as those of any queue."""
    async with rigged(max_deliveries=1) as rig:
        async with rig.source(BILLS, ORDERED) as source:
            await stored(rig, "a0")
            [held] = await received(source, 1)
            assert await source.nack([(held.receipt, 0.0)]) == [DONE]
        async with rig.source(f"{BILLS}/$DeadLetterQueue") as dead:
            [letter] = await received(dead, 1)
            assert letter.body == b"a0"
            assert await dead.ack([letter.receipt]) == [DONE]


async def test_what_has_no_key_shares_a_few_sessions() -> None:
    """One each would have to be accepted one by one, at half a second, and sent one by one."""
    async with (
        rigged() as rig,
        rig.source(BILLS, ORDERED, "&sessions=20") as source,
        rig.sink(BILLS, "&sessions=on") as sink,
    ):
        await publish(sink, *[b"%d" % n for n in range(40)])
        found = await received(source, 40, within=10.0)

    assert {each.key for each in found} == {None}
    assert len({getattr(each.raw, "session_id", None) for each in found}) == 16
