"""Order per key under the four policies: by example, and against a simple model."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventkit.spi import DONE, LOST, Delivery, Demand, Depth, Extended, Letter, Settled, SettledKind, Traits
from eventkit.testing.memory import MemoryBroker, MemoryQueue, MemorySource, Settings
from eventkit.testing.memory._values import Message
from tests.unit.test_memory_broker_loops import on_both_loops

Rule: TypeAlias = Literal["followers", "hold", "redelivers", "none"]
RULES: tuple[Rule, ...] = ("followers", "hold", "redelivers", "none")


@asynccontextmanager
async def opened(rule: Rule, *names: str) -> AsyncIterator[tuple[MemoryBroker, MemorySource, MemorySource]]:
    """Events such as "k1", whose key is the letter, and two sources with leases of 10 s."""
    broker = MemoryBroker(traits=Traits(key_release=rule))
    for name in names:
        broker.publish("q", name.encode(), key=name[0])
    async with broker.source("q", Demand(lease=10)) as one, broker.source("q", Demand(lease=10)) as two:
        yield broker, one, two


def names(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.body.decode() for delivery in deliveries]


# -- by example ----------------------------------------------------------------------------------


@on_both_loops
async def test_without_order_keys_are_only_told() -> None:
    """`key_release="none"`: a standard queue of SQS takes group ids too, and orders nothing."""
    async with opened("none", "k1", "k2", "k3") as (_, one, two):
        assert names(await one.receive(2, 0)) == ["k1", "k2"]
        assert [(d.body, d.key) for d in await two.receive(2, 0)] == [(b"k3", "k")]


@on_both_loops
async def test_keys_take_turns() -> None:
    """One busy key must not keep the others waiting."""
    for rule in ("followers", "hold", "redelivers"):
        async with opened(rule, "k1", "k2", "k3", "l1", "m1", "m2") as (_, one, _two):
            assert names(await one.receive(10, 0)) == ["k1", "l1", "m1", "k2", "m2", "k3"]


@on_both_loops
async def test_a_fifo_group_gives_nothing_while_one_of_it_is_in_flight() -> None:
    """SQS FIFO: one receive may take several, and then the group is blocked for everybody."""
    async with opened("followers", "k1", "k2", "k3", "l1") as (_, one, two):
        k1, l1, k2 = await one.receive(3, 0)
        assert names([k1, l1, k2]) == ["k1", "l1", "k2"]
        assert names(await two.receive(9, 0)) == []
        await one.ack([k1.receipt])
        assert names(await one.receive(9, 0)) == []
        await one.ack([k2.receipt])
        assert names(await two.receive(9, 0)) == ["k3"]


@on_both_loops
async def test_a_fifo_group_stays_blocked_until_all_of_it_is_released() -> None:
    """Releasing only the head kept the group blocked at moto; the core must release the followers too."""
    async with opened("followers", "k1", "k2", "k3") as (_, one, two):
        k1, k2 = await one.receive(2, 0)
        await one.nack([(k1.receipt, 3.0)])
        assert names(await two.receive(9, 5)) == []
        await one.nack([(k2.receipt, 0.0)])
        assert names(await two.receive(9, 0)) == ["k1", "k2", "k3"]


@on_both_loops
async def test_a_delayed_head_of_a_fifo_group_blocks_it() -> None:
    """The order survives a retry: the followers wait as long as their head."""
    async with opened("followers", "k1", "k2", "k3", "l1") as (_, one, two):
        k1, _l1, k2 = await one.receive(3, 0)
        await one.nack([(k1.receipt, 3.0), (k2.receipt, 0.0)])
        assert names(await two.receive(9, 60)) == ["k1", "k2", "k3"]
        assert anyio.current_time() == pytest.approx(3)


@on_both_loops
async def test_a_held_key_belongs_to_one_source_while_it_holds_any_of_it() -> None:
    """Sessions: the others get other keys."""
    async with opened("hold", "k1", "k2", "k3", "l1") as (broker, one, two):
        [k1] = await one.receive(1, 0)
        assert names(await two.receive(9, 0)) == ["l1"]
        [k2] = await one.receive(1, 0)
        assert names([k2]) == ["k2"]
        await one.ack([k1.receipt])
        assert names(await two.receive(9, 0)) == []
        await one.ack([k2.receipt])
        assert names(await two.receive(9, 0)) == ["k3"]
        broker.publish("q", b"k4", key="k")
        assert names(await one.receive(9, 0)) == []


@on_both_loops
async def test_a_nacked_head_of_a_held_key_blocks_the_later_ones_and_returns_to_its_owner() -> None:
    """The core keeps the followers leased meanwhile."""
    async with opened("hold", "k1", "k2", "k3") as (_, one, two):
        k1, k2 = await one.receive(2, 0)
        await one.nack([(k1.receipt, 3.0)])
        async with anyio.create_task_group() as group:
            got: list[str] = []

            async def receive() -> None:
                got.extend(names(await two.receive(9, 8)))

            group.start_soon(receive)
            again = await one.receive(1, 8)
            assert names(again) == ["k1"]
            assert anyio.current_time() == pytest.approx(3)
        assert got == []
        assert await one.ack([again[0].receipt, k2.receipt]) == [DONE, DONE]
        assert names(await two.receive(9, 0)) == ["k3"]


@on_both_loops
async def test_a_held_key_of_a_dead_worker_is_free_when_its_leases_are_over() -> None:
    """In order, from the first that was not acked, and a waiting source wakes for it."""
    async with opened("hold", "k1", "k2", "k3") as (broker, one, two):
        async with broker.source("q", Demand(lease=10)) as dying:
            assert names(await dying.receive(2, 0)) == ["k1", "k2"]
            assert names(await one.receive(9, 0)) == []
        assert names(await two.receive(9, 60)) == ["k1", "k2", "k3"]
        assert anyio.current_time() == pytest.approx(10)


@on_both_loops
async def test_a_lane_left_in_its_owners_line_is_free_when_the_owner_lets_go() -> None:
    """An owner that stops receiving must not keep what others could take."""
    async with opened("hold", "k1", "k2") as (_, one, two):
        [k1] = await one.receive(1, 0)
        assert names(await two.receive(9, 0)) == []  # meets the lane of k, and leaves it to its owner
        await one.ack([k1.receipt])
        assert names(await two.receive(9, 0)) == ["k2"]
        assert names(await one.receive(9, 0)) == []


@on_both_loops
async def test_a_nack_brings_all_later_ones_of_its_key_again() -> None:
    """Pub/Sub with ordering keys: in order, and under new receipts."""
    async with opened("redelivers", "k1", "k2", "k3", "k4", "l1") as (broker, one, two):
        k1, l1, k2, k3 = await one.receive(4, 0)
        assert names([k1, l1, k2, k3]) == ["k1", "l1", "k2", "k3"]
        assert names(await two.receive(9, 0)) == []
        assert await one.nack([(k2.receipt, 0.0)]) == [DONE]
        assert await one.ack([k3.receipt]) == [LOST]
        assert broker.counts("q").recalled == 1
        assert names(await two.receive(9, 0)) == []
        assert await one.ack([k1.receipt]) == [DONE]
        assert names(await two.receive(9, 0)) == ["k2", "k3", "k4"]


@on_both_loops
async def test_an_expired_event_brings_all_later_ones_of_its_key_again() -> None:
    """Also those whose leases were extended."""
    async with opened("redelivers", "k1", "k2", "k3", "l1") as (_, one, two):
        k1, l1, _k2, k3 = await one.receive(9, 0)
        await one.extend([k1.receipt, k3.receipt, l1.receipt], 30.0)
        again = await one.receive(9, 60)
        assert names(again) == ["k2", "k3"]
        assert anyio.current_time() == pytest.approx(10)
        assert await one.ack([k3.receipt, k1.receipt, l1.receipt]) == [LOST, DONE, DONE]
        assert await one.ack([delivery.receipt for delivery in again]) == [DONE, DONE]
        assert names(await two.receive(9, 0)) == []


@on_both_loops
async def test_a_delayed_head_of_a_redelivering_key_blocks_the_later_ones() -> None:
    """Order holds through the delay, and the key is anybody's meanwhile."""
    async with opened("redelivers", "k1", "k2") as (_, one, two):
        k1, _k2 = await one.receive(9, 0)
        await one.nack([(k1.receipt, 3.0)])
        assert names(await two.receive(9, 60)) == ["k1", "k2"]
        assert anyio.current_time() == pytest.approx(3)


@on_both_loops
async def test_acked_ones_come_again_too_where_the_broker_is_as_strict_as_pubsub() -> None:
    """Pub/Sub redelivers "even acknowledged messages" ("Order messages"): what a bounded memory of acked ids is for."""
    broker = MemoryBroker(traits=Traits(key_release="redelivers"), redelivers_acked=True, history=100)
    for number in range(4):
        broker.publish("q", number, key="k")
    async with broker.source("q", Demand(lease=10)) as source:
        first, second, third, fourth = await source.receive(9, 0)
        assert await source.ack([second.receipt, fourth.receipt]) == [DONE, DONE]
        assert broker.depth("q") == Depth(ready=0, leased=2, oldest_age=0.0)
        await source.nack([(third.receipt, 0.0)])
        again = await source.receive(9, 0)
        assert names(again) == ["2", "3"]
        assert await source.ack([delivery.receipt for delivery in (*again, first)]) == [DONE] * 3
        assert broker.depth("q") == Depth(ready=0)
        assert broker.acked_ids == ["2", "4", "3", "4", "1"]


@on_both_loops
async def test_an_event_published_with_a_delay_takes_its_place_when_it_is_due() -> None:
    """As a scheduled message of Service Bus does; it blocks nobody before."""
    for rule in ("followers", "hold", "redelivers"):
        broker = MemoryBroker(traits=Traits(key_release=rule))
        broker.publish("q", b"k1", key="k", delay=5.0)
        broker.publish("q", b"k2", key="k")
        async with broker.source("q", Demand(lease=10)) as source:
            [k2] = await source.receive(9, 0)
            await source.ack([k2.receipt])
            [k1] = await source.receive(9, 60)
            assert names([k2, k1]) == ["k2", "k1"]


@on_both_loops
async def test_a_dead_lettered_head_lets_its_followers_go() -> None:
    """By the consumer or by the native limit."""
    for rule in ("followers", "hold", "redelivers"):
        broker = MemoryBroker(traits=Traits(key_release=rule, native_receive_limit=1))
        for name in ("k1", "k2", "k3"):
            broker.publish("q", name.encode(), key="k")
        async with broker.source("q", Demand(lease=10)) as source, broker.source("q", Demand(lease=10)) as other:
            [k1] = await source.receive(1, 0)
            await source.dead_letter([Letter(receipt=k1.receipt, reason="r", detail="")])  # type: ignore[attr-defined]
            [k2] = await other.receive(1, 0)
            await other.nack([(k2.receipt, 5.0)])
            assert names(await source.receive(9, 0)) == ["k3"]
            assert [dead.body for dead in broker.dead_letters] == [b"k1", b"k2"]


def test_keys_leave_nothing_behind() -> None:
    """A key is as often as not an id: there are millions of them."""
    for rule in RULES:
        queue = made(Settings(traits=Traits(key_release=rule)))
        for number in range(1000):
            queue.publish(Message(b"", str(number), key=str(number)), 0.0, 0.0)
        receipts = [delivery.receipt for delivery in queue.take(1000, 10.0, 1, 0.0)]
        assert queue.ack(receipts, 0.0) == [DONE] * 1000
        order = queue._flow.order
        assert (len(order._lanes), len(order._line), len(queue._flow.leases)) == (0, 0, 0)


# -- against a model -----------------------------------------------------------------------------


def made(settings: Settings) -> MemoryQueue:
    queue = MemoryQueue("q", settings, itertools.count(1), lambda now: now)
    queue.join(1)
    queue.join(2)
    return queue


@dataclass
class Entry:
    """One event of the model. `place` is its place in its key, 0 before it has one."""

    id: str
    key: str | None
    state: Literal["waiting", "delayed", "out", "acked", "dead"] = "waiting"
    due: float = 0.0
    place: int = 0
    source: int = 0
    receipt: int = 0
    until: float = 0.0
    since: float = 0.0
    count: int = 0
    dues: int = 0


@dataclass
class Model:
    """The rules of the broker in their plainest form: a list of events, searched for every question."""

    settings: Settings
    entries: list[Entry] = field(default_factory=list)
    places: int = 0
    dues: int = 0

    @property
    def rule(self) -> Rule:
        return self.settings.traits.key_release

    def key_of(self, entry: Entry) -> list[Entry]:
        """Everything alive of the key of `entry` that has a place, in order."""
        alive = [e for e in self.entries if e.key == entry.key and e.state in {"waiting", "delayed", "out"} and e.place]
        return sorted(alive, key=lambda e: e.place)

    def placed(self, entry: Entry) -> None:
        if not entry.place:
            self.places += 1
            entry.place = self.places

    def publish(self, id: str, key: str | None, delay: float, now: float) -> None:
        entry = Entry(id, key)
        self.entries.append(entry)
        if delay:
            self.hold_back(entry, now + delay)
        else:
            self.placed(entry)

    def hold_back(self, entry: Entry, due: float) -> None:
        self.dues += 1
        entry.state, entry.due, entry.dues = "delayed", due, self.dues

    def deliverable(self, entry: Entry, source: int, taken: Sequence[Entry]) -> bool:
        if entry.state != "waiting":
            return False
        if entry.key is None or self.rule == "none":
            return True
        others = [e for e in self.key_of(entry) if e is not entry]
        out = [e for e in others if e.state == "out"]
        if any(e.state != "out" and e.place < entry.place for e in others):
            return False
        if self.rule == "followers":
            return all(e in taken for e in out) and all(e.state != "delayed" for e in others)
        return all(e.source == source for e in out)

    def take(self, deliveries: Sequence[Delivery], limit: int, source: int, now: float, length: float) -> None:
        """Check what the queue gave, one by one, and that it had nothing more to give."""
        taken: list[Entry] = []
        assert len(deliveries) <= limit
        for delivery in deliveries:
            entry = next(e for e in self.entries if e.id == delivery.message_id)
            assert self.deliverable(entry, source, taken), f"{entry} cannot be delivered"
            assert all(e.receipt < delivery.receipt for e in self.entries), "a receipt used before"
            total = self.settings.traits.lease_total_max
            entry.state, entry.source, entry.receipt, entry.since = "out", source, delivery.receipt, now
            entry.until = now + min(length, math.inf if total is None else total)
            entry.count += 1
            assert delivery.delivery_count == entry.count
            assert now < delivery.leased_until < entry.until
            taken.append(entry)
        if len(deliveries) < limit:
            left = [e for e in self.entries if self.deliverable(e, source, taken)]
            assert not left, f"{left} could have been delivered"

    def held(self, receipt: int) -> Entry | None:
        return next((e for e in self.entries if e.receipt == receipt and e.state == "out"), None)

    def ack(self, receipt: int) -> Settled:
        entry = self.held(receipt)
        if entry is None:
            return LOST if self.settings.traits.confirms_ack else DONE
        entry.state = "acked"
        return DONE

    def dead_letter(self, receipt: int) -> Settled:
        entry = self.held(receipt)
        if entry is None:
            return LOST
        entry.state = "dead"
        return DONE

    def nack(self, receipt: int, delay: float, now: float) -> SettledKind:
        traits = self.settings.traits
        if traits.max_retry_delay is not None and delay > traits.max_retry_delay:
            return SettledKind.REFUSED
        entry = self.held(receipt)
        if entry is None:
            return SettledKind.LOST
        if delay == 0 and not traits.release_counts:
            entry.count -= 1
        if delay and traits.delay_granularity:
            delay = math.ceil(delay / traits.delay_granularity) * traits.delay_granularity
        self.go_back(entry, now + delay if delay else 0.0)
        return SettledKind.DONE

    def extend(self, receipt: int, length: float, now: float) -> Extended | Settled:
        entry = self.held(receipt)
        if entry is None:
            return LOST
        total = self.settings.traits.lease_total_max
        entry.until = min(now + length, math.inf if total is None else entry.since + total)
        return Extended(entry.until)

    def go_back(self, entry: Entry, due: float) -> None:
        if entry.key is not None and self.rule == "redelivers":
            out = [e for e in self.key_of(entry) if e.state == "out"]
            first = min(e.place for e in out)
            for other in self.entries:
                strict = self.settings.redelivers_acked and other.state == "acked" and other.until == -1.0
                if other.key == entry.key and other.place > entry.place and (other in out or strict):
                    self.waits_again(other, 0.0, spared=other.state == "acked")
            assert first <= entry.place
        self.waits_again(entry, due)

    def waits_again(self, entry: Entry, due: float, *, spared: bool = False) -> None:
        limit = self.settings.traits.native_receive_limit
        if limit is not None and entry.count >= limit and not spared:
            entry.state = "dead"
        elif due:
            self.hold_back(entry, due)
        else:
            entry.state = "waiting"

    def remember_acked(self) -> None:
        """`until` is -1 for what was acked and may yet come again: something before it is out."""
        for entry in self.entries:
            if entry.state == "acked":
                before = [e for e in self.key_of(entry) if e.state == "out" and e.place < entry.place]
                entry.until = -1.0 if before and entry.until != 0.0 and entry.key is not None else 0.0

    def pass_time(self, now: float) -> None:
        """Everything that happens until `now`, the earliest first; of two at a time, the end of a lease."""
        while True:
            ends = [(e.until, 0, e.receipt, e) for e in self.entries if e.state == "out" and e.until <= now]
            dues = [(e.due, 1, e.dues, e) for e in self.entries if e.state == "delayed" and e.due <= now]
            if not ends and not dues:
                return
            _, delayed, _, entry = min(ends + dues, key=lambda happening: happening[:3])
            if delayed:
                entry.state = "waiting"
                self.placed(entry)
            else:
                self.go_back(entry, 0.0)
            self.remember_acked()

    def count(self, state: str) -> int:
        return sum(entry.state == state for entry in self.entries)


KEYS = st.sampled_from([None, "k", "k", "k", "l"])
SOME = st.integers(0, 15)
DELAYS = st.sampled_from([0.0, 0.0, 1.0, 3.5, 8.0])
SOURCES = st.sampled_from([1, 2])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), KEYS, st.sampled_from([0.0, 0.0, 0.0, 2.0])),
        st.tuples(st.just("take"), SOURCES, st.sampled_from([1, 2, 5, 50])),
        st.tuples(st.just("ack"), SOME),
        st.tuples(st.just("nack"), SOME, DELAYS),
        st.tuples(st.just("extend"), SOME, st.sampled_from([0.5, 4.0, 12.0])),
        st.tuples(st.just("dead_letter"), SOME),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 3.0, 11.0])),
        st.tuples(st.just("look")),
    ),
    min_size=20,
    max_size=60,
)
SETTINGS = st.builds(
    lambda rule, strict, **traits: Settings(traits=Traits(key_release=rule, **traits), redelivers_acked=strict),
    rule=st.sampled_from(RULES),
    strict=st.booleans(),
    confirms_ack=st.booleans(),
    release_counts=st.booleans(),
    delay_granularity=st.sampled_from([0.0, 2.0]),
    max_retry_delay=st.sampled_from([None, 5.0]),
    lease_total_max=st.sampled_from([None, 15.0]),
    native_receive_limit=st.sampled_from([None, None, 3]),
)


@given(SETTINGS, st.lists(st.tuples(KEYS), max_size=6), STEPS)
def test_the_queue_does_what_the_model_does(
    settings: Settings, first: Sequence[tuple[str | None]], steps: Sequence[tuple[object, ...]]
) -> None:
    """Whatever is called in whatever order: legal deliveries, nothing withheld, every answer and every count."""
    check(settings, [*(("publish", key, 0.0) for (key,) in first), *steps])


def check(settings: Settings, steps: Sequence[tuple[object, ...]]) -> None:
    queue, model, now = made(settings), Model(settings), 0.0
    receipts: list[int] = [0]

    def pick(number: int) -> int:
        """A receipt: mostly one of the newest, at times one long gone."""
        return receipts[-1 - number % len(receipts)]

    ids = itertools.count(1)
    for step in steps:
        match step:
            case ("publish", None | str() as key, float() as delay):
                id = str(next(ids))
                queue.publish(Message(b"", id, key=key), delay, now)
                model.publish(id, key, delay, now)
            case ("take", int() as source, int() as limit):
                deliveries = queue.take(limit, 10.0, source, now)
                model.take(deliveries, limit, source, now, 10.0)
                receipts.extend(delivery.receipt for delivery in deliveries)
            case ("ack", int() as number):
                assert queue.ack([pick(number)], now) == [model.ack(pick(number))]
            case ("nack", int() as number, float() as delay):
                [result] = queue.nack([(pick(number), delay)], now)
                assert result.kind == model.nack(pick(number), delay, now)
            case ("extend", int() as number, float() as length):
                assert queue.extend([pick(number)], length, now) == [model.extend(pick(number), length, now)]
            case ("dead_letter", int() as number):
                letter = Letter(receipt=pick(number), reason="r", detail="")
                assert queue.dead_letter([letter], now) == [model.dead_letter(letter.receipt)]
            case ("wait", float() as seconds):
                now += seconds
                model.pass_time(now)
            case _:
                depth = queue.depth(now)
                assert (depth.ready, depth.delayed, depth.leased, depth.dead) == tuple(
                    map(model.count, ("waiting", "delayed", "out", "dead"))
                )
        model.remember_acked()
    drain(queue, model, now, receipts)


def drain(queue: MemoryQueue, model: Model, now: float, receipts: list[int]) -> None:
    """With time and acks, everything comes out: nothing is stuck, and nothing is left."""
    for _ in range(200):
        now += 4.0
        model.pass_time(now)
        deliveries = queue.take(50, 10.0, 1, now)
        model.take(deliveries, 50, 1, now, 10.0)
        for delivery in deliveries:
            assert queue.ack([delivery.receipt], now) == [model.ack(delivery.receipt)]
            model.remember_acked()
        if not any(map(model.count, ("waiting", "delayed", "out"))):
            break
    depth = queue.depth(now)
    assert (depth.ready, depth.delayed, depth.leased) == (0, 0, 0)
    assert depth.dead == model.count("dead")
    assert not queue._flow.order._lanes


@given(STEPS, st.sampled_from(RULES))
def test_looking_changes_nothing(steps: Sequence[tuple[object, ...]], rule: Rule) -> None:
    """An observer must not move what it observes: the same run, looked at after every step, is the same."""
    settings = Settings(traits=Traits(key_release=rule))
    assert trace(settings, steps, looking=True) == trace(settings, steps, looking=False)


def trace(settings: Settings, steps: Sequence[tuple[object, ...]], *, looking: bool) -> list[object]:
    queue, now, seen, receipts = made(settings), 0.0, list[object](), [0]
    for number, step in enumerate(steps):
        if looking:
            queue.depth(now)
        match step:
            case ("publish", None | str() as key, float() as delay):
                queue.publish(Message(b"", str(number), key=key), delay, now)
            case ("take", int() as source, int() as limit):
                deliveries = queue.take(limit, 10.0, source, now)
                receipts.extend(delivery.receipt for delivery in deliveries)
                seen.append([(d.receipt, d.message_id, d.delivery_count, d.leased_until) for d in deliveries])
            case ("ack", int() as which):
                seen.append(queue.ack([receipts[-1 - which % len(receipts)]], now))
            case ("nack", int() as which, float() as delay):
                seen.append(queue.nack([(receipts[-1 - which % len(receipts)], delay)], now))
            case ("wait", float() as seconds):
                now += seconds
            case _:
                pass
    return seen
