"""Order per key on the embedded queue: the trait `hold`."""

from __future__ import annotations

import anyio

from eventkit.spi import DONE, Letter, Outgoing
from tests.adapters.sqlite.support import SOON, Queue, bodies, on_both_loops, receipts


async def _publish(queue: Queue, *pairs: str) -> None:
    """Publish `key:body` each; a pair without a colon has no key."""
    messages = [Outgoing(body=pair.rpartition(":")[2].encode(), key=pair.rpartition(":")[0] or None) for pair in pairs]
    async with queue.sink() as sink:
        assert await sink.publish(messages) == [DONE] * len(messages)


@on_both_loops
async def test_keyed_and_other_events_come_in_publish_order_together(queue: Queue) -> None:
    """Several of one key may be in one batch: the core runs them one after another."""
    await _publish(queue, "x:1", "2", "y:3", "x:4", "5", "x:6", "y:7")
    async with queue.source(ordered=True) as source:
        assert bodies(await source.receive(5, SOON)) == [b"1", b"2", b"3", b"4", b"5"]
        assert bodies(await source.receive(5, SOON)) == [b"6", b"7"]


@on_both_loops
async def test_a_key_that_is_leased_is_closed_to_every_other_source(queue: Queue) -> None:
    """Two workers must not run one key side by side; the holder may have more of it."""
    await _publish(queue, "x:1", "x:2", "y:3")
    async with queue.source(ordered=True) as mine, queue.source(ordered=True) as other:
        (head,) = await mine.receive(1, SOON)
        assert bodies(await other.receive(10, SOON)) == [b"3"]
        assert await other.receive(10, 0.0) == ()
        (follower,) = await mine.receive(10, SOON)
        assert await mine.ack([head.receipt]) == [DONE]
        await _publish(queue, "x:4")
        assert await other.receive(10, 0.0) == ()
        assert await mine.ack([follower.receipt]) == [DONE]
        assert bodies(await other.receive(10, SOON)) == [b"4"]


@on_both_loops
async def test_a_failed_head_holds_its_key_until_it_is_due(queue: Queue) -> None:
    """Later events of the key wait for it, whoever asks; other keys go on."""
    await _publish(queue, "x:1", "x:2", "y:3")
    async with queue.source(ordered=True) as source:
        (head,) = await source.receive(1, SOON)
        await source.nack([(head.receipt, 0.3)])
        assert bodies(await source.receive(10, 0.0)) == [b"3"]
        assert await source.receive(10, 0.0) == ()
        assert bodies(await source.receive(10, 2.0)) == [b"1", b"2"]


@on_both_loops
async def test_the_key_of_a_failed_head_stays_with_the_owner_of_its_followers(queue: Queue) -> None:
    """The owner keeps them leased (`hold`): another source with the head would overtake nothing, but run beside."""
    await _publish(queue, "x:1", "x:2", "x:3", "x:4")
    async with queue.source(ordered=True) as mine, queue.source(ordered=True) as other:
        head, *followers = await mine.receive(3, SOON)
        await mine.nack([(head.receipt, 0.0)])
        assert await other.receive(10, 0.0) == ()
        again, fourth = await mine.receive(10, SOON)
        assert (again.body, again.delivery_count, fourth.body) == (b"1", 2, b"4")
        await mine.ack([again.receipt, fourth.receipt, *receipts(followers)])
        await _publish(queue, "x:5")
        assert bodies(await other.receive(10, SOON)) == [b"5"]


@on_both_loops
async def test_a_head_that_is_given_back_alone_leaves_the_key_free(queue: Queue) -> None:
    """A drain releases followers too, and another worker goes on at once."""
    await _publish(queue, "x:1", "x:2")
    async with queue.source(ordered=True) as mine, queue.source(ordered=True) as other:
        deliveries = await mine.receive(2, SOON)
        await mine.nack([(receipt, 0.0) for receipt in receipts(deliveries)])
        assert bodies(await other.receive(10, SOON)) == [b"1", b"2"]


@on_both_loops
async def test_a_dead_head_frees_its_key(queue: Queue) -> None:
    """Poison is out of the way once it is stored."""
    await _publish(queue, "x:1", "x:2")
    async with queue.source(ordered=True) as source, queue.source(ordered=True) as other:
        (head,) = await source.receive(1, SOON)
        assert await other.receive(1, 0.0) == ()
        await source.dead_letter([Letter(receipt=head.receipt, reason="r", detail="{}")])
        assert bodies(await other.receive(1, SOON)) == [b"2"]


@on_both_loops
async def test_what_is_put_back_goes_before_the_later_ones_of_its_key(queue: Queue) -> None:
    """It was published before them; and it waits while the key is leased elsewhere."""
    await _publish(queue, "x:1", "x:2", "x:3")
    async with queue.source(ordered=True) as source, queue.source(ordered=True) as other:
        (head,) = await source.receive(1, SOON)
        await source.dead_letter([Letter(receipt=head.receipt, reason="r", detail="{}")])
        (second,) = await other.receive(1, SOON)
        await source.put_back([x.id for x in await source.peek(1)])
        assert await source.receive(1, 0.0) == ()
        await other.ack([second.receipt])
        assert bodies(await source.receive(10, SOON)) == [b"1", b"3"]


@on_both_loops
async def test_an_ended_lease_frees_its_key_in_order(queue: Queue) -> None:
    """A worker that died keeps a key no longer than its leases."""
    await _publish(queue, "x:1", "x:2", "x:3")
    async with queue.source(ordered=True, lease=0.3) as dead, queue.source(ordered=True) as alive:
        await dead.receive(2, SOON)
        assert await alive.receive(10, 0.0) == ()
        assert bodies(await alive.receive(10, 2.0)) == [b"1", b"2", b"3"]


@on_both_loops
async def test_a_delayed_event_holds_the_later_ones_of_its_key(queue: Queue) -> None:
    """Order is by publishing, not by due time."""
    async with queue.sink() as sink, queue.source(ordered=True) as source:
        await sink.publish([Outgoing(body=b"1", key="x", delay=0.3), Outgoing(body=b"2", key="x")])
        assert await source.receive(10, 0.0) == ()
        assert bodies(await source.receive(10, 2.0)) == [b"1", b"2"]


@on_both_loops
async def test_without_demand_for_order_keys_mean_nothing(queue: Queue) -> None:
    """The queue hands out whatever is ready."""
    await _publish(queue, "x:1", "x:2")
    async with queue.source() as source, queue.source() as other:
        (head,) = await source.receive(1, SOON)
        assert bodies(await other.receive(10, SOON)) == [b"2"]
        await source.nack([(head.receipt, 60.0)])
        await _publish(queue, "x:3")
        assert bodies(await source.receive(10, SOON)) == [b"3"]


@on_both_loops
async def test_order_begins_with_the_first_source_that_asks_for_it(queue: Queue) -> None:
    """What was published and leased before counts: keys cost nothing until then, and are looked up at that moment."""
    await _publish(queue, "x:1", "x:2", "y:3")
    async with queue.source() as plain:
        (head,) = await plain.receive(1, SOON)
        async with queue.source(ordered=True) as ordered:
            assert bodies(await ordered.receive(10, SOON)) == [b"3"]
            await plain.ack([head.receipt])
            assert bodies(await ordered.receive(10, SOON)) == [b"2"]


@on_both_loops
async def test_a_waiting_source_is_woken_when_a_key_becomes_free(queue: Queue) -> None:
    """An ack by one source is news to another on the same loop."""
    await _publish(queue, "x:1", "x:2")
    async with queue.source(ordered=True) as mine, queue.source(ordered=True) as other:
        (head,) = await mine.receive(1, SOON)
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                start = anyio.current_time()
                assert bodies(await other.receive(1, 5.0)) == [b"2"]
                assert anyio.current_time() - start < 2.0

            tasks.start_soon(wait)
            await anyio.sleep(0.1)
            await mine.ack([head.receipt])
