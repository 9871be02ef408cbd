"""The verbs and traits of the in-memory broker."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from eventkit.errors import ConfigurationError, PermanentAdapterError
from eventkit.spi import (
    DONE,
    LOST,
    Backlog,
    DeadLetterBrowser,
    Delivery,
    Demand,
    Depth,
    Extended,
    Letter,
    Limits,
    NativeDeadLetter,
    Outgoing,
    SettledKind,
    Traits,
)
from eventkit.testing.memory import MemoryBroker, MemorySource, NativeMemorySource, Settings
from tests.unit.test_memory_broker_loops import on_both_loops

DEMAND = Demand(lease=10.0)


@asynccontextmanager
async def opened(
    *bodies: object, demand: Demand = DEMAND, **options: Any
) -> AsyncIterator[tuple[MemoryBroker, NativeMemorySource]]:
    """A broker with events in queue "q", and a source there."""
    broker = MemoryBroker(**options)
    for body in bodies:
        broker.publish("q", body)
    async with broker.source("q", demand) as source:
        yield broker, source  # type: ignore[misc]  # native unless a test says otherwise


async def one(source: MemorySource, wait: float = 0.0) -> Delivery:
    """The next delivery; there must be one."""
    [delivery] = await source.receive(1, wait)
    return delivery


def kinds(results: Sequence[Any]) -> list[SettledKind]:
    return [result.kind for result in results]


# -- receiving -----------------------------------------------------------------------------------


@on_both_loops
async def test_a_delivery_carries_what_was_published() -> None:
    """Clause 8: byte for byte, with attributes, key and content type."""
    broker = MemoryBroker(wall=lambda: 1_700_000_000.0)
    async with broker.sink("q") as sink, broker.source("q", DEMAND) as source:
        await anyio.sleep(5)
        out = Outgoing(body=b"\x00\xff", attributes={"a": "ä\n"}, content_type="x/y", key="k")
        assert await sink.publish([out, Outgoing(body=b"")]) == [DONE, DONE]
        first, second = await source.receive(10, 0)

    assert (first.body, first.attributes, first.content_type, first.key) == (b"\x00\xff", {"a": "ä\n"}, "x/y", "k")
    assert (second.body, second.attributes, second.content_type, second.key) == (b"", {}, None, None)
    assert first.message_id != second.message_id
    assert (first.delivery_count, first.enqueued_at) == (1, 1_700_000_000.0)
    assert first.leased_until == pytest.approx(5 + 10 - 1)


@on_both_loops
async def test_what_a_consumer_does_to_attributes_stays_with_it() -> None:
    """A broker hands out copies: an event that comes again is what was published."""
    async with opened() as (broker, source):
        broker.publish("q", b"", attributes={"a": "1"})
        delivery = await one(source)
        delivery.attributes["a"] = "2"  # type: ignore[index]
        await source.nack([(delivery.receipt, 0.0)])
        assert (await one(source)).attributes == {"a": "1"}


@on_both_loops
async def test_a_short_lease_is_told_shorter_but_not_by_more_than_half() -> None:
    """Otherwise a lease of one second would be over on arrival."""
    async with opened(b"", demand=Demand(lease=1.0)) as (_, source):
        assert (await one(source)).leased_until == pytest.approx(0.5)


@on_both_loops
async def test_a_receive_returns_at_most_its_limit_and_nothing_twice() -> None:
    """Clause 4; what is leased is nobody else's."""
    async with opened(*range(5)) as (broker, source), broker.source("q", DEMAND) as other:
        assert [d.body for d in await source.receive(3, 0)] == [b"0", b"1", b"2"]
        assert [d.body for d in await other.receive(3, 0)] == [b"3", b"4"]
        assert await source.receive(0, 100) == []
        assert anyio.current_time() == 0


@on_both_loops
async def test_a_receive_waits_as_long_as_it_was_told() -> None:
    """Empty is normal, and comes after the wait."""
    async with opened() as (_, source):
        assert await source.receive(3, 7.0) == []
        assert anyio.current_time() == pytest.approx(7)


@on_both_loops
async def test_a_receive_wakes_at_once_when_something_is_published() -> None:
    """Latency is not the wait."""
    async with opened() as (broker, source), anyio.create_task_group() as group:

        async def publish() -> None:
            await anyio.sleep(3)
            broker.publish("q", b"late")

        group.start_soon(publish)
        assert (await one(source, 60)).body == b"late"
        assert anyio.current_time() == pytest.approx(3)


@on_both_loops
async def test_a_receive_wakes_when_time_makes_an_event_deliverable() -> None:
    """By the end of a delay or of a lease, be they set before the receive or while it waits."""
    async with opened(b"a", b"b") as (_, source), anyio.create_task_group() as group:
        a, b = await source.receive(2, 0)

        async def settle() -> None:
            await anyio.sleep(1)
            await source.nack([(a.receipt, 3.0)])
            await source.extend([b.receipt], 6.0)

        group.start_soon(settle)
        assert (await one(source, 60)).body == b"a"
        assert anyio.current_time() == pytest.approx(4)
        assert (await one(source, 60)).body == b"b"
        assert anyio.current_time() == pytest.approx(7)


@on_both_loops
async def test_many_waiting_receives_share_what_comes() -> None:
    """Clause 4: receives run side by side, and no event goes to two of them."""
    async with opened() as (broker, source):
        got: list[bytes] = []

        async def receive() -> None:
            got.extend(d.body for d in await source.receive(1, 5))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(receive)
            await anyio.sleep(1)
            broker.publish("q", b"a")
            broker.publish("q", b"b")
        assert sorted(got) == [b"a", b"b"]
        assert anyio.current_time() == pytest.approx(5)


@on_both_loops
async def test_a_cancelled_receive_leases_nothing() -> None:
    """The core does not do it; a user's test may, and an event stuck for a lease would puzzle it."""
    async with opened() as (broker, source):
        with anyio.move_on_after(2):
            await source.receive(1, 60)
        broker.publish("q", b"")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await source.receive(1, 60)
        assert broker.depth("q") == Depth(ready=1, oldest_age=0.0)


@on_both_loops
async def test_stop_ends_the_waiting_receive_and_leaves_settling() -> None:
    """Clauses 11 and 12: nothing arrives any more, nothing held is unsettleable."""
    async with opened(b"a", b"b", b"c", b"d") as (broker, source), anyio.create_task_group() as group:
        a, b, c, d = await source.receive(4, 0)
        empty: list[Sequence[Delivery]] = []

        async def receive() -> None:
            empty.append(await source.receive(1, 60))

        group.start_soon(receive)
        await anyio.sleep(1)
        source.stop()
        source.stop()
        broker.publish("q", b"e")
        assert await source.receive(1, 60) == []
        assert await source.ack([a.receipt]) == [DONE]
        assert await source.nack([(b.receipt, 0.0)]) == [DONE]
        assert await source.extend([c.receipt], 20.0) == [Extended(21.0)]
        assert await source.dead_letter([Letter(receipt=d.receipt, reason="r", detail="{}")]) == [DONE]
        assert empty == [[]]
        assert anyio.current_time() == pytest.approx(1)


@on_both_loops
async def test_what_is_held_when_a_source_closes_comes_again_after_its_lease() -> None:
    """A worker that dies gives nothing back; a closed source is of no use any more."""
    async with opened(b"a") as (broker, source):
        async with broker.source("q", DEMAND) as dying:
            delivery = await one(dying)
        with pytest.raises(PermanentAdapterError, match="closed"):
            await dying.ack([delivery.receipt])
        assert await source.receive(1, 9.9) == []
        assert (await one(source, 1)).body == b"a"
        assert anyio.current_time() == pytest.approx(10)


@on_both_loops
async def test_calls_above_the_limits_are_refused() -> None:
    """As a provider refuses them: a core that does not chunk is found out here."""
    limits = Limits(receive=2, settle=2, extend=2, publish=2, body=3)
    async with opened(limits=limits) as (broker, source), broker.sink("q") as sink:
        for call in (
            source.receive(3, 0),
            source.ack([1, 2, 3]),
            source.nack([(1, 0.0)] * 3),
            source.extend([1, 2, 3], 1.0),
            source.dead_letter([Letter(receipt=1, reason="", detail="")] * 3),
            sink.publish([Outgoing(body=b"")] * 3),
        ):
            with pytest.raises(PermanentAdapterError, match="the limit is 2"):
                await call


# -- leases and receipts -------------------------------------------------------------------------


@on_both_loops
async def test_an_event_comes_again_when_its_lease_ends_under_a_new_receipt() -> None:
    """At least once, and no answer for the one who came too late."""
    async with opened(b"a") as (broker, source):
        old = await one(source)
        new = await one(source, 60)
        assert anyio.current_time() == pytest.approx(10)
        assert (old.message_id, old.delivery_count) == (new.message_id, 1)
        assert new.delivery_count == 2
        assert new.receipt != old.receipt
        assert broker.counts("q").expired == 1


@on_both_loops
async def test_every_verb_answers_lost_to_a_stale_receipt_and_changes_nothing() -> None:
    """A receipt is good for one delivery: not after another settled it, nor after its lease."""
    async with opened(b"a", b"b") as (broker, source):
        acked = await one(source)
        await source.ack([acked.receipt])
        expired = await one(source)
        await anyio.sleep(10)
        for receipt in (acked.receipt, expired.receipt, 12345):
            assert await source.ack([receipt]) == [LOST]
            assert await source.nack([(receipt, 0.0)]) == [LOST]
            assert await source.nack([(receipt, 5.0)]) == [LOST]
            assert await source.extend([receipt], 5.0) == [LOST]
            assert await source.dead_letter([Letter(receipt=receipt, reason="r", detail="")]) == [LOST]
        assert broker.depth("q") == Depth(ready=1, oldest_age=10.0)
        assert broker.counts("q").stale == 15


@on_both_loops
async def test_a_stale_receipt_does_not_settle_the_delivery_that_followed() -> None:
    """The fence of every adapter: old hands off."""
    async with opened(b"a") as (broker, source):
        old = await one(source)
        await source.nack([(old.receipt, 0.0)])
        new = await one(source)
        assert await source.ack([old.receipt]) == [LOST]
        assert broker.leased == 1
        assert await source.ack([new.receipt, new.receipt]) == [DONE, LOST]
        assert (broker.acked, broker.depth("q")) == (1, Depth(ready=0))


@on_both_loops
async def test_results_stand_where_their_receipts_stood() -> None:
    """Clause 1."""
    async with opened(*range(4)) as (_, source):
        a, b, c, d = [delivery.receipt for delivery in await source.receive(4, 0)]
        assert await source.ack([a, 99, b]) == [DONE, LOST, DONE]
        assert await source.extend([99, c], 7.0) == [LOST, Extended(7.0)]
        assert kinds(await source.nack([(99, 0.0), (c, -1.0), (d, 0.0)])) == [
            SettledKind.LOST,
            SettledKind.REFUSED,
            SettledKind.DONE,
        ]


@on_both_loops
async def test_an_extended_lease_ends_later_and_a_shortened_one_sooner() -> None:
    """Both count from the extend."""
    async with opened(b"a", b"b") as (_, source):
        a, b = await source.receive(2, 0)
        await anyio.sleep(4)
        assert await source.extend([a.receipt], 30.0) == [Extended(34.0)]
        assert await source.extend([b.receipt], 1.0) == [Extended(5.0)]
        assert (await one(source, 60)).body == b"b"
        assert anyio.current_time() == pytest.approx(5)
        await anyio.sleep(28.5)
        assert await source.ack([a.receipt]) == [DONE]


@on_both_loops
async def test_an_extension_by_nothing_is_refused() -> None:
    """It is neither an extension nor a nack."""
    async with opened(b"a") as (_, source):
        delivery = await one(source)
        for lease in (0.0, -1.0, math.nan):
            assert kinds(await source.extend([delivery.receipt], lease)) == [SettledKind.REFUSED]
        assert await source.ack([delivery.receipt]) == [DONE]


@on_both_loops
async def test_a_fixed_lease_has_the_length_of_the_queue_whatever_is_asked() -> None:
    """Service Bus: LockDuration."""
    async with opened(b"a", traits=Traits(lease_fixed=True), lease=20.0, demand=Demand(lease=300.0)) as (_, source):
        delivery = await one(source)
        assert delivery.leased_until == pytest.approx(19)
        await anyio.sleep(5)
        assert await source.extend([delivery.receipt], 300.0) == [Extended(25.0)]


@on_both_loops
async def test_no_lease_is_longer_than_lease_max() -> None:
    """Pub/Sub: 600 s a step."""
    async with opened(b"a", lease_max=600.0, demand=Demand(lease=1000.0)) as (_, source):
        delivery = await one(source)
        assert delivery.leased_until == pytest.approx(599)
        assert await source.extend([delivery.receipt], 1000.0) == [Extended(600.0)]


@on_both_loops
async def test_a_lease_ends_for_good_at_the_total_cap() -> None:
    """SQS: 12 h from the receive. An extension beyond is shortened; after it, the event is another delivery's."""
    async with opened(b"a", b"b", traits=Traits(lease_total_max=25.0)) as (_, source):
        a = await one(source)
        await anyio.sleep(1)
        b = await one(source)
        await anyio.sleep(8)
        assert await source.extend([b.receipt, a.receipt], 10.0) == [Extended(19.0), Extended(19.0)]
        await anyio.sleep(9)
        assert await source.extend([b.receipt, a.receipt], 10.0) == [Extended(26.0), Extended(25.0)]
        assert (await one(source, 60)).body == b"a"
        assert anyio.current_time() == pytest.approx(25)
        assert await source.extend([a.receipt], 10.0) == [LOST]
        assert (await one(source, 60)).body == b"b"
        assert anyio.current_time() == pytest.approx(26)


@on_both_loops
async def test_leases_of_many_lengths_end_each_at_its_time() -> None:
    """Leases are kept by length: the bookkeeping must not mix them up, nor grow with every length."""
    async with opened(*range(20)) as (broker, source):
        for place, delivery in enumerate(await source.receive(20, 0)):
            await source.extend([delivery.receipt], 40.0 - place)
        for place in reversed(range(20)):
            delivery = await one(source, 60)
            assert delivery.body == b"%d" % place
            assert anyio.current_time() == pytest.approx(40 - place)
            assert await source.ack([delivery.receipt]) == [DONE]
        assert broker.counts("q").expired == 20


# -- counts, delays, traits ----------------------------------------------------------------------


@on_both_loops
async def test_a_broker_that_does_not_count_says_nothing() -> None:
    """Pub/Sub without a dead-letter policy."""
    async with opened(b"a", traits=Traits(delivery_count="none")) as (_, source):
        assert (await one(source)).delivery_count is None


@on_both_loops
async def test_every_delivery_counts_where_a_release_counts() -> None:
    """SQS and Service Bus: one given back at once has been received."""
    async with opened(b"a") as (_, source):
        for expected in (1, 2, 3):
            delivery = await one(source)
            assert delivery.delivery_count == expected
            await source.nack([(delivery.receipt, 0.0)])


@on_both_loops
async def test_a_release_does_not_count_where_the_trait_says_so_but_a_delay_and_an_expiry_do() -> None:
    """`release_counts=False` is about a nack with delay 0 alone."""
    async with opened(b"a", traits=Traits(release_counts=False)) as (_, source):
        await source.nack([((await one(source)).receipt, 0.0)])
        again = await one(source)
        assert again.delivery_count == 1
        await source.nack([(again.receipt, 1.0)])
        assert (await one(source, 60)).delivery_count == 2
        assert (await one(source, 60)).delivery_count == 3


@on_both_loops
async def test_a_nacked_event_comes_after_its_delay_and_others_meanwhile() -> None:
    """Delayed retry, native."""
    async with opened(b"a", b"b") as (broker, source):
        a = await one(source)
        assert await source.nack([(a.receipt, 30.0)]) == [DONE]
        assert (broker.ready, broker.delayed, broker.leased) == (1, 1, 0)
        b = await one(source, 60)
        assert b.body == b"b"
        await source.ack([b.receipt])
        assert (await one(source, 60)).body == b"a"
        assert anyio.current_time() == pytest.approx(30)


@on_both_loops
async def test_a_delay_above_the_maximum_is_refused_and_the_lease_goes_on() -> None:
    """SQS and Pub/Sub answer with an error: whoever does not clamp is found out here."""
    async with opened(b"a", traits=Traits(max_retry_delay=10.0)) as (broker, source):
        receipt = (await one(source)).receipt
        for delay in (10.5, -1.0, math.inf, math.nan):
            assert kinds(await source.nack([(receipt, delay)])) == [SettledKind.REFUSED]
        assert broker.leased == 1
        assert await source.nack([(receipt, 10.0)]) == [DONE]


@on_both_loops
async def test_delays_are_rounded_up_to_the_granularity() -> None:
    """SQS: whole seconds."""
    async with opened(b"a", traits=Traits(delay_granularity=0.1)) as (_, source):
        await source.nack([((await one(source)).receipt, 0.31)])
        again = await one(source, 60)
        assert anyio.current_time() == pytest.approx(0.4)
        await source.nack([(again.receipt, 0.3)])
        await one(source, 60)
        assert anyio.current_time() == pytest.approx(0.7)


@on_both_loops
async def test_a_delayed_publish_arrives_when_it_is_due() -> None:
    """Scheduled copies of Service Bus, DelaySeconds of SQS."""
    async with opened() as (broker, source), broker.sink("q") as sink:
        assert kinds(await sink.publish([Outgoing(body=b"", delay=-1.0)])) == [SettledKind.REFUSED]
        assert await sink.publish([Outgoing(body=b"later", delay=20.0), Outgoing(body=b"now")]) == [DONE, DONE]
        now = await one(source, 60)
        assert now.body == b"now"
        await source.ack([now.receipt])
        assert (await one(source, 60)).body == b"later"
        assert anyio.current_time() == pytest.approx(20)


@on_both_loops
async def test_a_broker_that_confirms_no_acks_says_done_to_a_stale_one_and_does_nothing() -> None:
    """SQS deletes nothing under an old receipt handle, and reports success."""
    async with opened(b"a", traits=Traits(confirms_ack=False)) as (broker, source):
        delivery = await one(source)
        await anyio.sleep(10)
        assert await source.ack([delivery.receipt]) == [DONE]
        assert await source.nack([(delivery.receipt, 0.0)]) == [LOST]
        assert (broker.acked, broker.ready) == (0, 1)
        again = await one(source)
        assert await source.ack([again.receipt, again.receipt]) == [DONE, DONE]
        assert (broker.acked, broker.ready) == (1, 0)


@on_both_loops
async def test_events_older_than_the_retention_are_dropped_and_counted() -> None:
    """Those who wait; what is leased may be finished, or is dropped when it comes back."""
    async with opened(b"a", b"b", b"c", traits=Traits(retention=15.0)) as (broker, source):
        a, b = await source.receive(2, 0)
        await source.extend([a.receipt, b.receipt], 60.0)
        await anyio.sleep(14)
        broker.publish("q", b"d")
        broker.publish("q", b"e", delay=100.0)
        assert broker.depth("q") == Depth(ready=2, delayed=1, leased=2, oldest_age=14.0)
        await anyio.sleep(1)
        assert await source.nack([(a.receipt, 0.0)]) == [DONE]
        assert await source.ack([b.receipt]) == [DONE]
        assert (await one(source)).body == b"d"
        assert broker.counts("q").dropped == 2
        await anyio.sleep(20)
        assert broker.counts("q").dropped == 4
        assert broker.depth("q") == Depth(ready=0)


@on_both_loops
async def test_a_look_at_the_depth_drops_old_keyed_events_too() -> None:
    """The head of a key that is too old stands in nobody's way."""
    async with opened(traits=Traits(retention=15.0, key_release="hold")) as (broker, source):
        broker.publish("q", b"a", key="k")
        await source.nack([((await one(source)).receipt, 1000.0)])
        await anyio.sleep(10)
        broker.publish("q", b"b", key="k")
        broker.publish("q", b"c", key="l")
        assert await source.receive(1, 0) != []  # c
        await anyio.sleep(5)
        assert broker.depth("q").ready == 1
        assert (await one(source)).body == b"b"


@on_both_loops
async def test_a_receive_passes_over_what_is_too_old() -> None:
    """Without a look at the queue before, and with nothing of it left behind."""
    for rule in ("none", "followers", "hold", "redelivers"):
        async with opened(traits=Traits(retention=15.0, key_release=rule)) as (broker, source):
            broker.publish("q", b"a", key="k")
            broker.publish("q", b"b", key="l")
            await anyio.sleep(10)
            broker.publish("q", b"c", key="k")
            await anyio.sleep(5)
            assert [delivery.body for delivery in await source.receive(9, 0)] == [b"c"]
            assert broker.counts("q").dropped == 2


# -- dead letters and backlog --------------------------------------------------------------------


@on_both_loops
async def test_a_native_dead_letter_keeps_event_reason_and_detail() -> None:
    """It is where people look first."""
    broker = MemoryBroker(wall=lambda: 1000.0)
    broker.publish("q", b"bad", key="k", attributes={"a": "b"}, content_type="x/y", message_id="m")
    async with broker.source("q", DEMAND) as source:
        assert isinstance(source, NativeMemorySource)
        receipt = (await one(source)).receipt
        letter = Letter(receipt=receipt, reason="decode", detail="{}")
        assert await source.dead_letter([letter, letter]) == [DONE, LOST]
        [dead] = broker.dead_letters
        assert (dead.reason, dead.detail, dead.message_id, dead.body) == ("decode", "{}", "m", b"bad")
        assert (dead.key, dead.attributes, dead.content_type) == ("k", {"a": "b"}, "x/y")
        assert (dead.delivery_count, dead.enqueued_at, dead.dead_at) == (1, 1000.0, 1000.0)
        assert await source.depth() == Depth(ready=0, dead=1)


@on_both_loops
async def test_a_source_dead_letters_by_itself_only_where_the_broker_does() -> None:
    """The core chooses by `isinstance`: it must not be told yes by a method that fails."""
    async with opened() as (_, native), opened(native_dead_letter=False) as (_, plain):
        sources: list[object] = [native, plain]
        assert [isinstance(source, NativeDeadLetter) for source in sources] == [True, False]
        assert all(isinstance(source, Backlog) and isinstance(source, DeadLetterBrowser) for source in sources)


@on_both_loops
async def test_the_broker_itself_dead_letters_after_the_native_receive_limit() -> None:
    """SQS's maxReceiveCount: nacked, delayed or expired, the second delivery was the last."""
    async with opened(b"a", b"b", b"c", traits=Traits(native_receive_limit=2)) as (broker, source):
        for _ in range(2):
            for delivery in await source.receive(3, 0):
                if delivery.body != b"c":
                    await source.nack([(delivery.receipt, 0.0 if delivery.body == b"a" else 5.0)])
            await anyio.sleep(10)
        assert await source.receive(3, 60) == []
        assert sorted((dead.body, dead.reason) for dead in broker.dead_letters) == [
            (b"a", "receive_limit"),
            (b"b", "receive_limit"),
            (b"c", "receive_limit"),
        ]


@on_both_loops
async def test_dead_letters_are_read_in_pages_taken_and_put_back() -> None:
    """`dlq ls`, `purge` and `redrive` of the command line."""
    async with opened(*range(5)) as (broker, source):
        deliveries = await source.receive(5, 0)
        await source.dead_letter([Letter(receipt=d.receipt, reason="r", detail="") for d in deliveries])
        first = await source.peek(2)
        assert [dead.body for dead in first] == [b"0", b"1"]
        assert await source.take([first[1].id, first[1].id, "what"]) == [DONE, LOST, LOST]
        rest = await source.peek(10, after=first[1].id)
        assert [dead.body for dead in rest] == [b"2", b"3", b"4"]
        assert await source.put_back([rest[0].id, first[1].id]) == [DONE, LOST]
        again = await one(source)
        assert (again.body, again.delivery_count) == (b"2", 1)
        assert await source.depth() == Depth(ready=0, leased=1, dead=3, oldest_age=0.0)
        assert broker.counts("q").dead == 5


@on_both_loops
async def test_depth_tells_every_state_and_the_oldest_age() -> None:
    """Drained means all of them are 0, so none may be forgotten."""
    async with opened(b"a") as (broker, source):
        await anyio.sleep(2)
        for number in range(4):
            broker.publish("q", number, key="k")
        a, b = await source.receive(2, 0)
        await source.nack([(b.receipt, 5.0)])
        assert await source.depth() == Depth(ready=3, delayed=1, leased=1, oldest_age=2.0)
        await source.ack([a.receipt])
        assert await source.depth() == Depth(ready=3, delayed=1, oldest_age=0.0)


@on_both_loops
async def test_a_sink_refuses_what_would_not_survive() -> None:
    """Clause 8: with a reason, and the others of the call are published."""
    async with opened(limits=Limits(body=3)) as (broker, _), broker.sink("q") as sink:
        results = await sink.publish(
            [
                Outgoing(body=b"1234"),
                Outgoing(body=bytearray(b"12")),  # type: ignore[arg-type]
                Outgoing(body=b"", attributes={"a": 1}),  # type: ignore[dict-item]
                Outgoing(body=b"123"),
            ]
        )
        assert kinds(results) == [SettledKind.REFUSED] * 3 + [SettledKind.DONE]
        assert results[0].cause == "body: 4 bytes, the limit is 3"
        assert broker.ready == 1


def test_settings_that_cannot_work_are_refused() -> None:
    """At once, and not as a lease that is over before it begins."""
    for lease, lease_max in ((0.0, 1.0), (math.inf, 1.0), (math.nan, 1.0), (1.0, 0.0), (1.0, math.nan)):
        with pytest.raises(ConfigurationError, match="must be above 0 s"):
            Settings(lease=lease, lease_max=lease_max)
