"""Bounds (P7): what a worker holds at once, and that it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any, TypeAlias

import anyio
import pytest
import trio

from eventkit import Backoff, Batch, BatchHandler, Batching, Event, FlowLimits, Handler
from eventkit.spi import Limits, Settled, Traits
from eventkit.testing import Call, Change, Faults, Kind
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

Data: TypeAlias = dict[str, Any]

ENDS = {Kind.ACKED, Kind.NACKED, Kind.DEAD, Kind.EXPIRED, Kind.RECALLED}


class Held:
    """What the broker has leased to the worker: its own view, change by change."""

    def __init__(self, rig: Rig) -> None:
        self.leased: set[int] = set()
        self.most = 0
        rig.broker.observe(self.change)

    def change(self, change: Change) -> None:
        if change.kind is Kind.DELIVERED:
            self.leased.add(change.receipt)
            self.most = max(self.most, len(self.leased))
        elif change.kind in ENDS:
            self.leased.discard(change.receipt)


class Table:
    """What the worker holds, looked at whenever a handler starts or ends."""

    def __init__(self) -> None:
        self.rig: Rig | None = None
        self.most_bytes = self.most_held = self.most_parked = self.most = 0

    def look(self) -> None:
        assert self.rig is not None
        assert self.rig.worker._pipeline is not None
        table = self.rig.worker._pipeline._table
        self.most_bytes = max(self.most_bytes, table.bytes)
        self.most_held = max(self.most_held, table.held)
        self.most_parked = max(self.most_parked, table.parked)
        self.most = max(self.most, len(table.entries))


class One(Handler[Data]):
    types = ("one",)
    concurrency = 7

    def __init__(self, table: Table, rng: Random, share: float) -> None:
        self.table = table
        self.rng = rng
        self.share = share

    async def handle(self, event: Event[Data]) -> None:
        self.table.look()
        await anyio.sleep(self.rng.choice([0.0, 0.01, 0.5, 3.0]))
        self.table.look()
        if self.rng.random() < self.share:
            raise self.rng.choice([ValueError, ConnectionError])("not yet")


class Many(BatchHandler[Data]):
    types = ("many",)
    batching = Batching(max_size=8, max_wait=0.3)

    def __init__(self, table: Table, rng: Random, share: float) -> None:
        self.table = table
        self.rng = rng
        self.share = share

    async def handle(self, batch: Batch[Data]) -> None:
        self.table.look()
        await anyio.sleep(0.1)
        if self.rng.random() < self.share:
            raise self.rng.choice([ValueError, ConnectionError])("not yet")


def run_traffic(seed: int, share: float, limits: Limits, flow: FlowLimits) -> tuple[Table, Held]:
    """Two hundred events of random sizes and keys; what was held at most. Every event is settled at the end."""
    rng, table = Random(seed), Table()
    rig = Rig(
        One(table, rng, share),
        Many(table, rng, share),
        traits=Traits(key_release="hold", max_retry_delay=rng.choice([0.0, None])),
        limits=limits,
        ordering=rng.choice(["none", "key"]),
        retry=Backoff(attempts=50, maximum=20.0),
        seed=seed,
    )
    rig.worker.options = replace(rig.worker.options, limits=flow)
    table.rig, held = rig, Held(rig)

    async def scenario() -> None:
        async with rig.running():
            for _ in range(200):
                body = {"text": "x" * rng.choice([0, 10, 1000, 9000])}
                rig.publish(body, type=rng.choice(["one", "many"]), key=rng.choice(["a", "b", None]))
                await anyio.sleep(rng.choice([0.0, 0.0, 0.0, 0.2]))
            await rig.until_settled()

    on_virtual_time(scenario)
    assert held.leased == set()
    return table, held


FLOW = FlowLimits(in_flight=20, in_flight_bytes=30_000, parked=15)
RECEIVE_BYTES = 6 * 9100


@pytest.mark.parametrize("receives", [1, 3])
def test_what_is_held_stays_within_the_limits_when_nothing_fails(receives: int) -> None:
    """In-flight events never exceed their limit; bytes exceed it by what one receive brings, and no more."""
    for seed in range(8):
        table, held = run_traffic(seed, 0.0, Limits(receive=6, concurrent_receives=receives), FLOW)
        assert held.most <= 20, f"seed {seed}"
        assert table.most_parked == 0
        assert table.most_bytes <= 30_000 + receives * RECEIVE_BYTES, f"seed {seed}"


@pytest.mark.parametrize("receives", [1, 3])
def test_what_is_held_stays_within_the_limits_whatever_fails(receives: int) -> None:
    """Parked events come on top of those in flight, and have a limit of their own."""
    parked = 0
    for seed in range(8):
        table, held = run_traffic(seed, 0.3, Limits(receive=6, concurrent_receives=receives), FLOW)
        assert held.most <= 20 + 15, f"seed {seed}"
        assert table.most <= 20 + 15, f"seed {seed}"
        assert table.most_parked <= 15, f"seed {seed}"
        assert table.most_bytes <= 30_000 + receives * RECEIVE_BYTES, f"seed {seed}"
        parked = max(parked, table.most_parked)
    assert parked > 5, "the traffic did not try the limit"


@pytest.mark.parametrize("bytes", [100, 64 * 1024 * 1024], ids=["bytes", "events"])
@pytest.mark.parametrize("max_delay", [None, 0.0], ids=["delayed", "parked"])
def test_followers_that_fill_the_limits_do_not_keep_their_head_from_coming_again(
    max_delay: float | None, bytes: int
) -> None:
    """A key with a long backlog takes all room while its head is away: without the head, none of them can go on."""

    class Head(Handler[Data]):
        async def handle(self, event: Event[Data]) -> None:
            if event.data["n"] == 0 and event.attempt < 4:
                raise ValueError("not yet")

    rig = Rig(Head(), ordering="key", traits=Traits(key_release="hold", max_retry_delay=max_delay))
    rig.worker.options = replace(rig.worker.options, limits=FlowLimits(in_flight=10, in_flight_bytes=bytes))

    async def scenario() -> None:
        for n in range(30):
            rig.publish({"n": n}, key="a")
        async with rig.running():
            await rig.until_settled(30)

    on_virtual_time(scenario)
    assert rig.dead == {}


def test_an_event_larger_than_the_byte_limit_is_handled_all_the_same() -> None:
    """The limit is on what is taken in beside it, not on the event."""
    table = Table()
    rig = Rig(One(table, Random(0), 0.0))
    rig.worker.options = replace(rig.worker.options, limits=FlowLimits(in_flight_bytes=100))
    table.rig = rig

    async def scenario() -> None:
        rig.publish({"text": "x" * 5000}, {"text": "x" * 5000}, type="one")
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)
    assert rig.broker.acked == 2


def test_a_receive_asks_for_no_more_than_there_is_room_for() -> None:
    """Backpressure comes before a lease is taken."""
    asked: list[int] = []
    table = Table()

    class Asked(Faults):
        async def before(self, call: Call) -> Mapping[int, Settled]:
            if call.verb == "receive":
                assert table.rig is not None
                assert table.rig.worker._pipeline is not None
                asked.append(len(call.items) + table.rig.worker._pipeline._table.held)
            return {}

    rig = Rig(One(table, Random(0), 0.0), faults=Asked(), limits=Limits(receive=8))
    rig.worker.options = replace(rig.worker.options, limits=FlowLimits(in_flight=12))
    table.rig = rig

    async def scenario() -> None:
        rig.publish(*[{}] * 100, type="one")
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)
    assert max(asked) == 12


def test_several_receives_run_side_by_side_where_the_source_allows_it() -> None:
    """A source with a slow wire needs them; no event may be handled twice for it."""
    at_once = most = 0

    class SlowWire(Faults):
        async def before(self, call: Call) -> Mapping[int, Settled]:
            nonlocal at_once, most
            if call.verb == "receive":
                at_once += 1
                most = max(most, at_once)
                await anyio.sleep(0.2)
                at_once -= 1
            return {}

    table = Table()
    limits = Limits(receive=5, concurrent_receives=4)
    rig = Rig(One(table, Random(0), 0.0), faults=SlowWire(), limits=limits)
    table.rig = rig

    async def scenario() -> None:
        rig.publish(*[{}] * 100, type="one")
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)
    assert most == 4
    assert len(rig.broker.acked_ids) == len(set(rig.broker.acked_ids)) == 100


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_worker_leaves_no_task_and_no_event_behind(share: float) -> None:
    """Tasks that outlive `run` would settle on a closed source, and leak in every test suite."""
    table = Table()
    rig = Rig(One(table, Random(0), share), Many(table, Random(1), share))
    table.rig = rig
    living: list[int] = []

    async def scenario() -> None:
        rig.publish(*[{}] * 100, type="one")
        rig.publish(*[{}] * 100, type="many")
        living.append(trio.lowlevel.current_statistics().tasks_living)
        async with rig.running():
            await anyio.sleep(2)
            living.append(trio.lowlevel.current_statistics().tasks_living)
        living.append(trio.lowlevel.current_statistics().tasks_living)

    on_virtual_time(scenario)
    before, during, after = living
    assert during > before == after
    assert rig.worker._pipeline is not None
    assert rig.worker._pipeline._table.entries == {}
    assert rig.worker._pipeline._table.bytes == rig.worker._pipeline._table.parked == 0
    assert rig.broker.depth(QUEUE).leased == 0
