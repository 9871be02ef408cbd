"""The contract of a source, on the embedded queue, with real leases of fractions of a second."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import pytest
from blockbuster import BlockingError, blockbuster_ctx

from eventkit.spi import DONE, LOST, Backlog, Depth, Extended, Letter, NativeDeadLetter, Outgoing
from tests.adapters.sqlite.support import SOON, Queue, bodies, on_both_loops, receipts


@on_both_loops
async def test_events_come_in_publish_order_up_to_the_limit(queue: Queue) -> None:
    """The whole point, and that a batch is cut at `limit`."""
    await queue.publish(b"a", b"b", b"c")
    await queue.publish(b"d")
    async with queue.source() as source:
        first = await source.receive(3, SOON)
        assert bodies(first) == [b"a", b"b", b"c"]
        assert bodies(await source.receive(3, SOON)) == [b"d"]
        assert await source.receive(3, 0) == ()
        assert await source.ack(receipts(first)) == [DONE] * 3


@on_both_loops
async def test_a_delivery_tells_what_was_published_and_when_its_lease_ends(queue: Queue) -> None:
    """Times are on the clocks the contract names: Unix seconds, and the loop's."""
    async with queue.sink() as sink, queue.source(lease=7.0) as source:
        before = time.time()
        await sink.publish([Outgoing(body=b"x", attributes={"a": ""}, content_type="text/plain", key="k")])
        asked = anyio.current_time()
        (delivery,) = await source.receive(1, SOON)
        assert (delivery.body, delivery.attributes, delivery.content_type) == (b"x", {"a": ""}, "text/plain")
        assert (delivery.key, delivery.delivery_count) == ("k", 1)
        assert before <= (delivery.enqueued_at or 0) <= time.time()
        assert asked + 7.0 <= delivery.leased_until <= anyio.current_time() + 7.0


@on_both_loops
async def test_message_ids_are_never_used_twice_even_in_a_new_file(queue: Queue) -> None:
    """An idempotency store remembers them longer than a file may live."""
    seen: set[str] = set()
    for _ in range(2):
        await queue.publish(b"a", b"b")
        async with queue.source() as source:
            seen |= {delivery.message_id for delivery in await source.receive(10, SOON)}
        await anyio.to_thread.run_sync(queue.path.unlink)
    assert len(seen) == 4


@on_both_loops
async def test_what_is_given_back_comes_again_with_a_new_receipt_and_the_next_count(queue: Queue) -> None:
    """Counts are exact, and the old receipt is worthless in every verb."""
    await queue.publish(b"a")
    async with queue.source() as source:
        (first,) = await source.receive(1, SOON)
        assert await source.nack([(first.receipt, 0.0)]) == [DONE]
        (second,) = await source.receive(1, SOON)
        assert (second.message_id, second.delivery_count) == (first.message_id, 2)
        await _assert_lost_in_every_verb(source, first.receipt)
        assert await source.ack([second.receipt]) == [DONE]
        await _assert_lost_in_every_verb(source, second.receipt)


@on_both_loops
async def test_an_ended_lease_is_lost_in_every_verb_before_anybody_else_took_the_event(queue: Queue) -> None:
    """An ack that comes late must not succeed by luck."""
    await queue.publish(b"a")
    async with queue.source(lease=0.1) as source:
        (delivery,) = await source.receive(1, SOON)
        await anyio.sleep(0.12)
        await _assert_lost_in_every_verb(source, delivery.receipt)


async def _assert_lost_in_every_verb(source: Any, receipt: Any) -> None:
    assert await source.ack([receipt]) == [LOST]
    assert await source.nack([(receipt, 0.0)]) == [LOST]
    assert await source.extend([receipt], 30.0) == [LOST]
    assert await source.dead_letter([Letter(receipt=receipt, reason="r", detail="{}")]) == [LOST]


@on_both_loops
async def test_an_event_comes_again_when_its_lease_ends(queue: Queue) -> None:
    """A worker that died must not keep it; the waiting receive is woken by the time, not by luck."""
    await queue.publish(b"a")
    async with queue.source(lease=0.2) as dead, queue.source() as alive:
        (first,) = await dead.receive(1, SOON)
        start = anyio.current_time()
        (second,) = await alive.receive(1, 5.0)
        assert 0.1 < anyio.current_time() - start < 1.0
        assert (second.message_id, second.delivery_count) == (first.message_id, 2)


@on_both_loops
async def test_an_extended_lease_lasts(queue: Queue) -> None:
    """And its end is told on the loop's clock, measured from before the call."""
    await queue.publish(b"a")
    async with queue.source(lease=0.2) as source:
        (delivery,) = await source.receive(1, SOON)
        before = anyio.current_time()
        (extended,) = await source.extend([delivery.receipt], 30.0)
        assert isinstance(extended, Extended)
        assert before + 30.0 <= extended.until <= anyio.current_time() + 30.0
        assert await source.receive(1, 0.3) == ()
        assert await source.ack([delivery.receipt]) == [DONE]


@on_both_loops
async def test_results_are_positional_and_one_receipt_twice_is_done_then_lost(queue: Queue) -> None:
    """Clauses 1 and 5."""
    await queue.publish(b"a", b"b")
    async with queue.source() as source:
        a, b = receipts(await source.receive(2, SOON))
        assert await source.ack([a, a, b]) == [DONE, LOST, DONE]
        assert await source.ack([b, a]) == [LOST, LOST]


@on_both_loops
async def test_each_nack_has_its_own_delay(queue: Queue) -> None:
    """The backoff is per event."""
    await queue.publish(b"a", b"b", b"c")
    async with queue.source() as source:
        a, b, c = receipts(await source.receive(3, SOON))
        assert await source.nack([(a, 0.3), (b, 60.0), (c, 0.0)]) == [DONE] * 3
        assert bodies(await source.receive(3, 0.0)) == [b"c"]
        start = anyio.current_time()
        assert bodies(await source.receive(3, 5.0)) == [b"a"]
        assert 0.1 < anyio.current_time() - start < 1.0


@on_both_loops
async def test_a_published_delay_is_honoured(queue: Queue) -> None:
    """And nothing comes a moment early."""
    start = anyio.current_time()
    await queue.publish(b"a", delay=0.3)
    async with queue.source() as source:
        assert bodies(await source.receive(1, 5.0)) == [b"a"]
        assert 0.3 <= anyio.current_time() - start < 1.0


@on_both_loops
async def test_a_publish_on_the_same_loop_wakes_the_receive_at_once(queue: Queue) -> None:
    """No polling interval lies between a publisher and a worker in one process."""
    woken: list[float] = []
    async with queue.sink() as sink, queue.source() as source, anyio.create_task_group() as tasks:

        async def wait() -> None:
            for _ in range(3):
                await source.receive(1, 5.0)
                woken.append(anyio.current_time())

        tasks.start_soon(wait)
        published: list[float] = []
        for _ in range(3):
            await anyio.sleep(0.3)  # polling has slowed down meanwhile
            published.append(anyio.current_time())
            await sink.publish([Outgoing(body=b"a")])
    assert min(got - sent for got, sent in zip(woken, published, strict=True)) < 0.02


@on_both_loops
async def test_stop_ends_the_pending_receive_and_settling_goes_on(queue: Queue) -> None:
    """Clauses 11 and 12: a drain does not wait for a long receive, and loses nothing that is held."""
    await queue.publish(b"a", b"b")
    async with queue.source() as source:
        (a,) = await source.receive(1, SOON)
        (b,) = await source.receive(1, SOON)
        async with anyio.create_task_group() as tasks:
            with anyio.fail_after(1):

                async def receive() -> None:
                    assert await source.receive(10, 30.0) == ()

                tasks.start_soon(receive)
                await anyio.sleep(0.1)
                source.stop()
                source.stop()
        await queue.publish(b"c")
        assert await source.receive(10, 30.0) == ()
        assert isinstance((await source.extend([a.receipt], 30.0))[0], Extended)
        assert await source.ack([a.receipt]) == [DONE]
        assert await source.nack([(b.receipt, 0.0)]) == [DONE]
    async with queue.source() as later:
        assert bodies(await later.receive(10, SOON)) == [b"b", b"c"]


@on_both_loops
async def test_queues_of_one_file_are_apart(queue: Queue) -> None:
    """And so are their counts."""
    other = Queue(queue.path, "other")
    await queue.publish(b"a")
    await other.publish(b"b", b"c")
    async with queue.source() as source, other.source() as second:
        assert bodies(await source.receive(10, SOON)) == [b"a"]
        assert bodies(await second.receive(10, SOON)) == [b"b", b"c"]
        assert (await source.depth()).leased == 1


@on_both_loops
async def test_one_receive_brings_no_more_bytes_than_asked_for_and_one_body(queue: Queue) -> None:
    """500 bodies of 16 MiB at once would end the process."""
    await queue.publish(*[bytes(1000)] * 10)
    async with queue.source(bytes=2500) as source:
        assert [len(await source.receive(10, SOON)) for _ in range(4)] == [3, 3, 3, 1]
    async with queue.source(bytes=2500, ordered=True) as source:
        assert await source.receive(10, 0) == ()


@on_both_loops
async def test_depth_counts_every_state_by_the_time_of_now(queue: Queue) -> None:
    """A lease that has ended counts as ready, before any receive has looked."""
    async with queue.source(lease=60.0) as source, queue.source(lease=0.1) as short:
        assert await source.depth() == Depth(ready=0)
        await queue.publish(b"a", b"b", b"c", b"d", b"e")
        await queue.publish(b"f", delay=60.0)
        await queue.publish(b"g", key="k")
        (a,) = await source.receive(1, SOON)
        (b,) = await source.receive(1, SOON)
        await short.receive(1, SOON)
        await source.dead_letter([Letter(receipt=a.receipt, reason="r", detail="{}")])
        await anyio.sleep(0.15)
        depth = await source.depth()
        assert (depth.ready, depth.delayed, depth.leased, depth.dead) == (4, 1, 1, 1)
        assert 0.15 <= (depth.oldest_age or 0) < 5
        assert await source.ack([b.receipt]) == [DONE]


@on_both_loops
async def test_methods_may_run_side_by_side(queue: Queue) -> None:
    """Clause 10: a waiting receive holds nobody up, and no two calls meet on one connection."""
    await queue.publish(*(b"%d" % number for number in range(300)))
    acked: list[bytes] = []
    async with queue.source() as source, queue.sink() as sink, anyio.create_task_group() as tasks:

        async def consume() -> None:
            while deliveries := await source.receive(7, SOON):
                tasks.start_soon(settle, deliveries)

        async def settle(deliveries: Any) -> None:
            await source.extend(receipts(deliveries), 30.0)
            assert await source.ack(receipts(deliveries)) == [DONE] * len(deliveries)
            acked.extend(bodies(deliveries))

        tasks.start_soon(consume)
        for number in range(300, 400):
            await sink.publish([Outgoing(body=b"%d" % number)])
    assert sorted(map(int, acked)) == list(range(400))


@on_both_loops
async def test_a_cancelled_call_leaves_the_connection_usable(queue: Queue) -> None:
    """A drain cancels what runs over its budget, at any await."""
    await queue.publish(*(b"%d" % number for number in range(50)))
    async with queue.source(lease=0.2) as source:
        for number in range(40):
            with anyio.move_on_after(number * 0.0002):
                await source.ack(receipts(await source.receive(1, 0.05)))
        await anyio.sleep(0.25)
        left = await source.receive(100, SOON)
        assert await source.ack(receipts(left)) == [DONE] * len(left)
        assert await source.depth() == Depth(ready=0)


async def test_a_call_cut_by_asyncio_itself_leaves_the_connection_usable(queue: Queue) -> None:
    """A plain `Task.cancel` does not wait for the thread: the next call must."""
    await queue.publish(*(b"%d" % number for number in range(200)))
    async with queue.source() as source:
        for number in range(50):
            task = asyncio.create_task(source.nack([(r, 0.0) for r in receipts(await source.receive(50, 0.0))]))
            await asyncio.sleep(number * 0.00006)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        depth = await source.depth()
        assert depth.ready + depth.leased == 200


async def test_the_guard_against_blocking_would_see_sqlite_on_the_loop(queue: Queue) -> None:
    """The other tests prove something only if this one fails inside them."""
    async with queue.source() as source:
        with blockbuster_ctx(), pytest.raises(BlockingError):
            source._leases.depth()


def test_the_source_has_the_optional_parts(queue: Queue) -> None:
    """The core finds them by protocol."""

    async def check() -> None:
        async with queue.source() as source:
            assert isinstance(source, NativeDeadLetter)
            assert isinstance(source, Backlog)

    anyio.run(check)
