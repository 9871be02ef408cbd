"""The doors of the in-memory broker: publishing without a sink, feeds, watching, faults, and the scheme."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import anyio
import pytest

from eventkit.errors import ConfigurationError, ConnectionLost
from eventkit.spi import (
    DONE,
    LOST,
    UNKNOWN,
    Adapter,
    Address,
    Demand,
    Depth,
    Extended,
    Letter,
    Outgoing,
    Settled,
    Traits,
)
from eventkit.testing.memory import (
    Call,
    Change,
    Faults,
    Kind,
    MemoryAdapter,
    MemoryBroker,
    MemoryQueue,
    MemorySource,
    Message,
    Settings,
)
from eventkit.testing.memory import adapter as scheme
from tests.unit.test_memory_broker_loops import on_both_loops, run

DEMAND = Demand(lease=10.0)


async def bodies(source: MemorySource, limit: int = 100) -> list[bytes]:
    return [delivery.body for delivery in await source.receive(limit, 0)]


# -- publishing ----------------------------------------------------------------------------------


@on_both_loops
async def test_publish_takes_bytes_or_anything_json_can_say() -> None:
    """One line a test event."""
    broker = MemoryBroker()
    first = broker.publish("q", b"\xff")
    broker.publish("q", {"a": [1]}, key="k", attributes={"x": "y"}, message_id="mine")
    broker.publish("q", "text", content_type="application/x")
    async with broker.source("q") as source:
        raw, data, text = await source.receive(3, 0)
    assert (raw.body, raw.content_type, raw.message_id) == (b"\xff", None, first)
    assert (json.loads(data.body), data.content_type, data.message_id) == ({"a": [1]}, "application/json", "mine")
    assert (data.key, data.attributes) == ("k", {"x": "y"})
    assert (text.body, text.content_type) == (b'"text"', "application/x")


@on_both_loops
async def test_publish_with_a_type_makes_a_cloud_event() -> None:
    """Binary mode: the body stays what the test wrote."""
    broker = MemoryBroker()
    id = broker.publish("orders", {"a": 1}, type="order.placed", attributes={"ce-subject": "7"})
    async with broker.source("orders") as source:
        [delivery] = await source.receive(1, 0)
    assert delivery.attributes == {
        "ce-specversion": "1.0",
        "ce-id": id,
        "ce-source": "memory://orders",
        "ce-type": "order.placed",
        "ce-subject": "7",
    }


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_is_published_before_the_loop_runs_is_published_when_it_starts(backend: str) -> None:
    """A plain test prepares its broker first; the loop's clock may stand anywhere by then."""
    broker = MemoryBroker(traits=Traits(retention=100.0))
    broker.publish("q", b"a")
    broker.publish("q", b"b", delay=5.0)
    broker.publish("q", b"c", key="k")
    assert broker.depth() == Depth(ready=2, delayed=1, oldest_age=0.0)

    async def main() -> None:
        await anyio.sleep(1000)
        async with broker.source("q") as source:
            assert await bodies(source) == [b"a", b"c"]
            [b] = await source.receive(1, 60)
            assert b.enqueued_at == pytest.approx(1000)
            assert anyio.current_time() == pytest.approx(1005)

    run(backend, main)
    assert broker.counts().delivered == 3


@on_both_loops
async def test_queues_are_apart() -> None:
    """Also their receipts: one of another queue is worth nothing."""
    broker = MemoryBroker()
    broker.publish("q", b"1")
    broker.publish("r", b"2")
    async with broker.source("q") as q, broker.source("r") as r:
        [one], [two] = await q.receive(9, 0), await r.receive(9, 0)
        assert (one.body, two.body) == (b"1", b"2")
        assert await q.ack([two.receipt]) == [LOST]
        assert await r.ack([two.receipt]) == [DONE]
        assert (q.info.name, broker.depth("q").leased, broker.depth("r").leased, broker.leased) == (
            "memory://q",
            1,
            0,
            1,
        )
        assert (broker.counts("q").acked, broker.counts("r").acked, broker.acked) == (0, 1, 1)


def test_a_queue_may_be_declared_with_settings_of_its_own_before_its_first_use() -> None:
    """A local server has FIFO and standard queues side by side."""
    broker = MemoryBroker(traits=Traits(key_release="none"))
    fifo = broker.declare("q.fifo", Settings(traits=Traits(key_release="followers")))
    assert broker.queue("q.fifo") is fifo
    assert broker.queue("q").settings.traits.key_release == "none"
    with pytest.raises(ValueError, match="exists: declare it before"):
        broker.declare("q", Settings())


# -- feeds and memory ----------------------------------------------------------------------------


@on_both_loops
async def test_a_feed_is_published_as_it_is_asked_for() -> None:
    """Nothing is made before a receive wants it, and a waiting receive wakes for it."""
    made: list[int] = []

    def events() -> Iterator[object]:
        for number in range(5):
            made.append(number)
            yield Outgoing(body=b"o", key="k") if number == 3 else number if number % 2 else b"%d" % number

    broker = MemoryBroker()
    async with broker.source("q") as source, anyio.create_task_group() as group:
        got: list[bytes] = []

        async def receive() -> None:
            got.extend(delivery.body for delivery in await source.receive(2, 60))

        group.start_soon(receive)
        await anyio.sleep(1)
        broker.feed("q", events())
        broker.feed("q", [b"last"])
        await anyio.sleep(1)
        assert (got, made) == ([b"0", b"1"], [0, 1])
        assert await bodies(source) == [b"2", b"o", b"4", b"last"]
        assert (await bodies(source), broker.counts("q").published) == ([], 6)


@on_both_loops
async def test_a_feed_does_not_look_like_an_empty_queue() -> None:
    """Who drains until the backlog is empty must not stop before the feed is."""
    broker = MemoryBroker()
    broker.feed("q", [b"a", b"b"])
    async with broker.source("q") as source:
        for expected in (b"a", b"b"):
            assert (await source.depth()) == Depth(ready=1, oldest_age=0.0)
            [delivery] = await source.receive(1, 0)
            assert delivery.body == expected
            await source.ack([delivery.receipt])
        assert (await source.depth()) == Depth(ready=0)


@on_both_loops
async def test_blocked_keys_of_a_feed_do_not_hide_those_behind_them() -> None:
    """Laziness ends where order begins."""
    broker = MemoryBroker(traits=Traits(key_release="followers"))
    broker.feed("q", [Outgoing(body=b"k%d" % n, key="k") for n in range(9)] + [b"free"])
    async with broker.source("q") as source:
        assert await bodies(source, 1) == [b"k0"]
        assert await bodies(source, 1) == [b"free"]


@pytest.mark.parametrize("keys", [0, 7])
def test_events_that_are_done_leave_nothing_behind(keys: int) -> None:
    """Memory is flat over a million events (the benchmark says so); here over fewer, counted exactly."""
    broker = MemoryBroker(traits=Traits(key_release="redelivers"), redelivers_acked=True)
    number = 20_000
    broker.feed("q", (Outgoing(body=bytes(200), key=str(n % keys) if keys else None) for n in range(number)))

    async def main() -> None:
        async with broker.source("q") as source:
            while await round_trip(source):
                pass

    run("asyncio", main)
    flow = broker.queue("q")._flow
    assert (broker.acked, broker.depth()) == (number, Depth(ready=0))
    assert (len(flow.leases), len(flow.delays), len(flow.order._lanes), len(flow.order._line)) == (0, 0, 0, 0)


async def round_trip(source: MemorySource) -> int:
    deliveries = await source.receive(100, 0)
    await source.ack([delivery.receipt for delivery in deliveries])
    return len(deliveries)


@on_both_loops
async def test_what_was_acked_is_kept_no_longer_than_it_can_come_again() -> None:
    """With `redelivers_acked`, a key that is never idle must not remember all its past."""
    broker = MemoryBroker(traits=Traits(key_release="redelivers"), redelivers_acked=True)
    broker.feed("q", (Outgoing(body=b"", key="k") for _ in range(201)))
    async with broker.source("q") as source:
        [first] = await source.receive(1, 0)
        for _ in range(100):
            second, third = await source.receive(2, 0)
            await source.ack([second.receipt, first.receipt])  # third is out all the while, so the key is never idle
            assert broker.queue("q")._flow.order._lanes["k"].acked == []
            first = third


@on_both_loops
async def test_leases_of_odd_lengths_leave_nothing_behind() -> None:
    """Each length has a table of its own while it is in use."""
    broker = MemoryBroker()
    async with broker.source("q", DEMAND) as source:
        for number in range(100):
            broker.publish("q", b"")
            [delivery] = await source.receive(1, 0)
            await source.extend([delivery.receipt], 10.0 + number)
            await source.ack([delivery.receipt])
        assert len(broker.queue("q")._flow.leases._terms) < 10


# -- watching ------------------------------------------------------------------------------------


@on_both_loops
async def test_observers_are_told_every_change_in_order() -> None:
    """A simulator checks its invariants at each of them."""
    broker = MemoryBroker(traits=Traits(key_release="redelivers", retention=100.0), history=100)
    seen: list[Change] = []
    broker.observe(seen.append)
    async with broker.source("q", DEMAND) as source:
        broker.publish("q", b"", key="k", message_id="a")
        broker.publish("q", b"", key="k", message_id="b")
        a, b = await source.receive(2, 0)
        await source.extend([b.receipt], 20.0)
        await source.nack([(a.receipt, 3.0)])
        await source.ack([b.receipt])
        a, b = await source.receive(2, 5)
        await source.ack([a.receipt])
        await anyio.sleep(10)
        [b] = await source.receive(1, 0)
        await source.dead_letter([dead(b.receipt)])  # type: ignore[attr-defined]
        [letter] = await source.peek(1)
        await source.put_back([letter.id])
        await anyio.sleep(100)
        assert broker.ready == 0
    assert seen == broker.history
    assert [(change.kind, change.message_id, change.receipt) for change in seen] == [
        (Kind.PUBLISHED, "a", 0),
        (Kind.PUBLISHED, "b", 0),
        (Kind.DELIVERED, "a", 1),
        (Kind.DELIVERED, "b", 2),
        (Kind.EXTENDED, "b", 2),
        (Kind.NACKED, "a", 1),
        (Kind.RECALLED, "b", 2),
        (Kind.STALE, "", 2),
        (Kind.DUE, "a", 0),
        (Kind.DELIVERED, "a", 3),
        (Kind.DELIVERED, "b", 4),
        (Kind.ACKED, "a", 3),
        (Kind.EXPIRED, "b", 4),
        (Kind.DELIVERED, "b", 5),
        (Kind.DEAD, "b", 5),
        (Kind.PUT_BACK, "b", 0),
        (Kind.DROPPED, "b", 0),
    ]
    assert [(change.at, change.until) for change in seen[4:6]] == [(0.0, 20.0), (0.0, 3.0)]
    assert seen[12].at == pytest.approx(13)
    assert (seen[2].source, seen[2].queue, seen[2].count, seen[14].reason) == (1, "q", 1, "r")
    assert broker.acked_ids == ["a"]


def dead(receipt: Any) -> Letter:
    return Letter(receipt=receipt, reason="r", detail="")


@on_both_loops
async def test_the_history_is_bounded_and_off_by_default() -> None:
    """A million events must not be remembered by accident, nor an empty list be taken for the truth."""
    broker = MemoryBroker(history=3)
    for number in range(5):
        broker.publish("q", number)
    assert [change.message_id for change in broker.history] == ["3", "4", "5"]
    with pytest.raises(RuntimeError, match=r"make it with MemoryBroker\(history=10_000\)"):
        _ = MemoryBroker().acked_ids


# -- faults --------------------------------------------------------------------------------------


class Script(Faults):
    """Does what its attributes say, and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.refuse: dict[int, Settled] = {}
        self.fail_before: Exception | None = None
        self.fail_after: Exception | None = None
        self.reply: Sequence[Any] | None = None
        self.pause = 0.0

    async def before(self, call: Call) -> Mapping[int, Settled]:
        self.calls.append((call.verb, call.source, len(call.items)))
        await anyio.sleep(self.pause)
        if self.fail_before is not None:
            raise self.fail_before
        return self.refuse

    async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
        if self.fail_after is not None:
            raise self.fail_after
        return results if self.reply is None else self.reply


@on_both_loops
async def test_a_fault_before_a_call_keeps_it_from_the_broker() -> None:
    """And one after it loses the reply: the caller cannot tell them apart, the broker can."""
    faults = Script()
    broker = MemoryBroker(faults=faults)
    broker.publish("q", b"a")
    async with broker.source("q", DEMAND) as source:
        faults.fail_before = ConnectionLost("gone")
        with pytest.raises(ConnectionLost):
            await source.receive(1, 0)
        assert broker.ready == 1
        faults.fail_before = None
        [delivery] = await source.receive(1, 0)
        faults.fail_after = ConnectionLost("gone")
        with pytest.raises(ConnectionLost):
            await source.ack([delivery.receipt])
        assert broker.acked == 1
        faults.fail_after = None
        assert await source.ack([delivery.receipt]) == [LOST]
    assert faults.calls == [("receive", 1, 1), ("receive", 1, 1), ("ack", 1, 1), ("ack", 1, 1)]


@on_both_loops
async def test_a_fault_may_answer_for_single_items() -> None:
    """A partial failure: those items are not done, the others are, and each answer stands in its place."""
    faults = Script()
    broker = MemoryBroker(faults=faults)
    async with broker.source("q", DEMAND) as source, broker.sink("q") as sink:
        faults.refuse = {1: UNKNOWN}
        assert await sink.publish([Outgoing(body=b"%d" % n) for n in range(3)]) == [DONE, UNKNOWN, DONE]
        a, b = await source.receive(3, 0)
        assert (a.body, b.body) == (b"0", b"2")
        faults.refuse = {0: Settled.retry(3.0)}
        assert await source.extend([a.receipt, b.receipt], 20.0) == [Settled.retry(3.0), Extended(20.0)]
        assert await source.nack([(a.receipt, 0.0), (b.receipt, 0.0)]) == [Settled.retry(3.0), DONE]
        assert await source.dead_letter([dead(a.receipt)]) == [Settled.retry(3.0)]  # type: ignore[attr-defined]
        assert await source.ack([a.receipt]) == [Settled.retry(3.0)]
        assert (broker.ready, broker.leased, broker.dead_letters) == (1, 1, [])


@on_both_loops
async def test_a_fault_may_change_or_lose_what_a_receive_brings() -> None:
    """An empty answer whose events are stranded for a lease; the call itself may be slow, and settles too late."""
    faults = Script()
    broker = MemoryBroker(faults=faults)
    broker.publish("q", b"a")
    async with broker.source("q", DEMAND) as source:
        faults.reply = []
        assert await source.receive(1, 0) == []
        assert broker.leased == 1
        faults.reply = None
        [delivery] = await source.receive(1, 60)
        assert anyio.current_time() == pytest.approx(10)
        faults.pause = 10.0
        assert await source.ack([delivery.receipt]) == [LOST]
        broker.faults = None
        assert await source.receive(1, 0) != []


@on_both_loops
async def test_faults_as_they_come_do_nothing() -> None:
    """So that a subclass says only what it changes."""
    broker = MemoryBroker(faults=Faults())
    broker.publish("q", b"a")
    async with broker.source("q", DEMAND) as source:
        [delivery] = await source.receive(1, 0)
        assert await source.ack([delivery.receipt]) == [DONE]


# -- the scheme ----------------------------------------------------------------------------------


@on_both_loops
async def test_an_address_leads_to_the_same_queue_from_both_ends() -> None:
    """`memory://orders`, and another broker by name."""
    adapter: Adapter = MemoryAdapter()
    for text in ("memory://Orders", "memory://Orders?broker=other"):
        address = Address.parse(text)
        async with adapter.open_sink(address) as sink, adapter.open_source(address, DEMAND) as source:
            assert await sink.publish([Outgoing(body=text.encode())]) == [DONE]
            [delivery] = await source.receive(9, 0)
            assert delivery.body == text.encode()


@on_both_loops
async def test_brokers_are_kept_until_reset_and_may_be_ones_own() -> None:
    """The process-wide place is the adapter, and a test can have its own or clear it."""
    adapter = MemoryAdapter()
    mine = MemoryBroker("mine", traits=Traits(key_release="none"))
    adapter.use(mine)
    async with adapter.open_source(Address.parse("memory://q?broker=mine"), DEMAND) as source:
        assert source.info.traits.key_release == "none"
        assert source.info.name == "mine://q"
    assert adapter.broker("mine") is mine
    assert adapter.broker() is adapter.broker("memory")
    adapter.reset()
    assert adapter.broker("mine") is not mine
    assert isinstance(scheme, MemoryAdapter)


def test_a_wrong_address_is_a_clear_error() -> None:
    """Before anything is received."""
    adapter = MemoryAdapter()
    for text, words in {
        "memory://": "a queue is named memory://QUEUE",
        "memory://a/b": "a queue is named memory://QUEUE",
        "memory://a?colour=red": "unknown parameter 'colour'; known: broker",
    }.items():
        with pytest.raises(ConfigurationError, match=words):
            adapter.open_sink(Address.parse(text))


def test_a_queue_takes_messages_that_know_more_than_it() -> None:
    """A stand-in for a provider keeps its own facts beside the broker's: in a subclass of what it publishes."""

    class Stamped(Message):
        stamp: str = ""

    queue = MemoryQueue("q", Settings(), iter(range(1, 9)), lambda now: now)
    message = Stamped(b"x", "1", stamp="mine")
    queue.publish(message, 0.0, 5.0)

    [delivery] = queue.take(9, 30.0, 1, 6.0)
    assert (delivery.body, delivery.message_id, message.stamp) == (b"x", "1", "mine")
    assert (message.count, message.leased_at, message.until) == (1, 6.0, 36.0)
    assert queue.ack([delivery.receipt], 7.0) == [DONE]
