"""Outages (P5), probes, and what waits parked."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anyio
import pytest

from eventkit import Backoff, Batch, BatchHandler, Batching, Event, FlowLimits, Handler, Skip
from eventkit._handler import AnyHandler
from eventkit._telemetry.records import (
    EventDeadLettered,
    EventParked,
    EventReleased,
    EventRetried,
    GateClosed,
    GateOpened,
    GateProbed,
)
from eventkit.spi import Traits
from eventkit.testing import Kind
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

OUTAGE = 60.0
Data = dict[str, Any]


class Store:
    """What stands behind the handlers: down until `up_at`, on the loop's clock."""

    def __init__(self) -> None:
        self.up_at = float("inf")
        self.calls: list[tuple[float, list[str]]] = []
        self.attempts: dict[str, int] = {}

    def write(self, *events: Event[Data]) -> None:
        now = anyio.current_time()
        self.calls.append((now, [event.message_id for event in events]))
        if now < self.up_at:
            raise ConnectionError("the database is down")
        for event in events:
            self.attempts[event.message_id] = event.attempt

    @property
    def calls_while_down(self) -> int:
        return sum(at < self.up_at for at, _ in self.calls)


class One(Handler[Data]):
    """Writes each event."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def handle(self, event: Event[Data]) -> None:
        await anyio.sleep(0.01)
        self.store.write(event)


class Many(BatchHandler[Data]):
    """Writes batches."""

    batching = Batching(max_size=20, max_wait=0.2)
    concurrency = 2

    def __init__(self, store: Store) -> None:
        self.store = store

    async def handle(self, batch: Batch[Data]) -> None:
        await anyio.sleep(0.01)
        self.store.write(*batch)


@pytest.mark.parametrize("max_delay", [None, 0.0], ids=["native delay", "parking"])
@pytest.mark.parametrize("ordering", ["none", "key"])
@pytest.mark.parametrize("handler", [One, Many])
def test_an_outage_burns_no_attempts_and_ends_by_itself(
    handler: type[One | Many], ordering: Any, max_delay: float | None
) -> None:
    """P5: a database that is down for a minute must not empty the queue into the dead letters."""
    store = Store()
    rig = Rig(handler(store), traits=Traits(key_release="hold", max_retry_delay=max_delay), ordering=ordering)
    ids = [rig.publish({}, key=f"key {n % 7}")[0] for n in range(300)]

    async def scenario() -> float:
        store.up_at = anyio.current_time() + OUTAGE
        async with rig.running():
            await rig.until_settled()
        return anyio.current_time()

    ended = on_virtual_time(scenario)

    assert rig.dead == {}
    assert store.attempts == dict.fromkeys(ids, 1)
    assert rig.broker.counts().delivered == 300, "everything in hand waited under its lease"
    assert store.calls_while_down <= 10 + 10 + 6, "ten to see it, those that ran then, and the probes"
    assert ended <= store.up_at + 60 * 1.2 + 10
    assert [record.reason for record in rig.of(GateClosed)] == ["transient"]
    assert len(rig.of(GateOpened)) == 1
    if ordering == "key":
        done = list(store.attempts)
        assert all((of_key := [id for id in done if int(id) % 7 == k]) == sorted(of_key, key=int) for k in range(7))


def test_probes_come_ever_more_slowly_and_each_takes_another_event() -> None:
    """One event at a time spares what is struggling; another each time, as one of them may be special."""
    store = Store()
    rig = Rig(One(store))

    async def scenario() -> None:
        rig.publish(*[{}] * 50)
        async with rig.running():
            await anyio.sleep(400)

    on_virtual_time(scenario)

    probes = [call for call in store.calls if call[0] > store.calls[0][0] + 1]
    gaps = [later[0] - sooner[0] for sooner, later in pairwise(probes)]
    assert all(len(ids) == 1 for _, ids in probes)
    assert len({ids[0] for _, ids in probes}) == len(probes)
    assert [round(gap / 10) * 10 for gap in gaps[:2]] == [10, 20]
    assert all(40 <= gap <= 75 for gap in gaps[3:])
    assert {record.result for record in rig.of(GateProbed)} == {"transient"}


def test_with_nothing_in_hand_the_probe_is_a_receive_of_one() -> None:
    """A worker that has given everything back must still find out that the outage is over."""
    store = Store()
    rig = Rig(One(store), max_processing=30.0, retry=Backoff(maximum=20.0))

    async def scenario() -> None:
        store.up_at = anyio.current_time() + 200
        rig.publish(*[{}] * 30)
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)

    assert rig.dead == {}
    assert set(store.attempts.values()) == {1}
    assert {record.reason for record in rig.of(EventReleased)} == {"end of max_processing"}


def test_an_undecodable_event_is_no_probe() -> None:
    """It says nothing of the handler: the gate neither opens for it nor waits for it."""
    store = Store()
    rig = Rig(One(store), max_processing=30.0, retry=Backoff(maximum=20.0))

    async def scenario() -> None:
        rig.publish(*[{}] * 12)
        async with rig.running():
            await rig.until(lambda: bool(rig.of(GateClosed)))
            for _ in range(5):
                rig.broker.publish(QUEUE, b"{", type="test")
            await anyio.sleep(100)
            assert not rig.of(GateOpened)
            store.up_at = 0.0
            await rig.until_settled()

    on_virtual_time(scenario)

    assert set(rig.dead.values()) == {"decode"}
    assert len(rig.of(GateOpened)) == 1


@pytest.mark.parametrize("says", ["skip", "raise"])
def test_a_probe_that_is_answered_opens_a_gate_closed_by_transient_outcomes(says: str) -> None:
    """The store answers again, even if it is a no: a bad event is no outage, and its attempt counts."""
    down = True

    class Odd(Handler[Data]):
        async def handle(self, event: Event[Data]) -> None:
            if down:
                raise ConnectionError("down")
            if says == "skip":
                raise Skip("not wanted")
            if event.attempt == 1:
                raise ValueError("bad")

    rig = Rig(Odd(), retry=Backoff(initial=0.1, maximum=0.1))

    async def scenario() -> None:
        nonlocal down
        rig.publish(*[{}] * 20)
        async with rig.running():
            await rig.until(lambda: bool(rig.of(GateClosed)))
            down = False
            await rig.until_settled()

    on_virtual_time(scenario)

    assert len(rig.of(GateOpened)) == 1
    assert rig.dead == {}
    assert bool(rig.of(EventRetried)) is (says == "raise")


def test_a_queue_of_nothing_but_poison_drains_into_the_dead_letters() -> None:
    """A batch handler that fails on every event looks like an outage: it must be slow, not stuck, and never guess."""
    alone: list[str] = []

    class Broken(BatchHandler[Data]):
        batching = Batching(max_size=16, max_wait=0.05)

        async def handle(self, batch: Batch[Data]) -> None:
            if len(batch) == 1:
                alone.append(batch[0].message_id)
            raise ValueError("a bug in the handler")

    rig = Rig(Broken(), retry=Backoff(attempts=1))

    async def scenario() -> None:
        rig.publish(*[{}] * 60)
        async with rig.running():
            await rig.until_settled(limit=100_000)

    on_virtual_time(scenario)

    assert len(rig.dead) == 60
    assert set(rig.dead) == set(alone), "each by a direct call on it alone"
    closed = rig.of(GateClosed)[0]
    assert closed.reason == "bisector"
    assert "ValueError" in closed.detail
    assert "transient" in closed.detail


def test_an_event_that_always_looks_like_an_outage_is_found_out() -> None:
    """A bug that raises ConnectionError for one event must not keep it for ever, nor count against the others."""

    class Special(Handler[Data]):
        async def handle(self, event: Event[Data]) -> None:
            await anyio.sleep(0.01)
            if event.data.get("special"):
                raise ConnectionError("only for this one")

    rig = Rig(Special(), retry=Backoff(initial=0.1, maximum=0.2, attempts=2))

    async def scenario() -> None:
        rig.publish({"special": True})
        async with rig.running():
            while not rig.dead:
                rig.publish({})
                await anyio.sleep(0.05)

    on_virtual_time(scenario)

    assert rig.dead == {"1": "attempts"}
    assert len(rig.of(EventParked)) >= 19
    assert [record.message_id for record in rig.of(EventDeadLettered)] == ["1"]


def test_one_special_event_does_not_dead_letter_the_company_it_keeps() -> None:
    """In a batch it makes all look transient: after twenty times it runs alone, and fails alone."""

    class Special(BatchHandler[Data]):
        batching = Batching(max_size=4, max_wait=0.05)
        concurrency = 4

        async def handle(self, batch: Batch[Data]) -> None:
            await anyio.sleep(0.01)
            if any(event.data.get("special") for event in batch):
                raise ConnectionError("only for this one")

    rig = Rig(Special(), retry=Backoff(initial=0.1, maximum=0.2, attempts=2))

    async def scenario() -> None:
        rig.publish({"special": True}, *[{}] * 7)
        async with rig.running():
            while not rig.dead:
                rig.publish(*[{}] * 4)
                await anyio.sleep(0.05)
            await rig.until_settled()

    on_virtual_time(scenario)

    assert rig.dead == {"1": "attempts"}


def test_a_retry_the_source_cannot_delay_waits_parked_under_its_lease() -> None:
    """Pub/Sub and Service Bus have no delay of their own: same contract, kept by us, not early and not much late."""
    starts: list[float] = []

    class Failing(Handler[Data]):
        async def handle(self, event: Event[Data]) -> None:
            starts.append(anyio.current_time())
            raise ValueError("bad")

    rig = Rig(Failing(), lease=5.0, traits=Traits(max_retry_delay=0, key_release="hold"), retry=Backoff(attempts=5))

    async def scenario() -> None:
        rig.publish({"body": "x" * 100})
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)

    delays = [record.delay for record in rig.of(EventRetried)]
    waited = [later - sooner for sooner, later in pairwise(starts)]
    assert rig.dead == {"1": "attempts"}
    assert all(delay <= wait <= delay + 0.1 for delay, wait in zip(delays, waited, strict=True))
    assert rig.broker.counts().expired == 0


def test_parking_gives_back_the_slot_and_holds_no_body() -> None:
    """A thousand waiting retries must cost neither concurrency nor memory."""

    class Failing(Handler[Data]):
        concurrency = 1

        async def handle(self, event: Event[Data]) -> None:
            if event.data.get("bad"):
                raise ValueError("bad")

    rig = Rig(
        Failing(),
        traits=Traits(max_retry_delay=0, key_release="hold"),
        retry=Backoff(initial=200.0, maximum=200.0),
        limits=None,
    )

    async def scenario() -> None:
        rig.publish(*[{"bad": "x" * 1000}] * 40, {})
        async with rig.running():
            await anyio.sleep(5)
            pipeline = rig.worker._pipeline
            assert pipeline is not None
            table = pipeline._table
            parked = table.parked
            assert parked > 30
            assert table.held == 0
            assert table.bytes == 0
            assert rig.broker.acked == 1

    on_virtual_time(scenario)


def test_what_finds_no_place_in_parking_is_released_and_the_intake_waits() -> None:
    """P7: parking is bounded, and a slot never waits for a place in it."""
    rig = Rig(One(Store()), traits=Traits(max_retry_delay=0, key_release="hold"))
    rig.worker = type(rig.worker)(
        f"memory://{QUEUE}",
        *rig.worker.handlers,
        adapter=rig.worker._adapter,
        observers=[rig],
        limits=FlowLimits(in_flight=20, parked=15),
        seed=1,
    )
    rig.worker._watch_loop = False
    most = 0

    async def scenario() -> None:
        nonlocal most
        rig.publish(*[{}] * 100)
        async with rig.running():
            for _ in range(300):
                await anyio.sleep(0.1)
                pipeline = rig.worker._pipeline
                assert pipeline is not None
                most = max(most, pipeline._table.parked)

    on_virtual_time(scenario)

    assert most == 15
    assert {record.reason for record in rig.of(EventReleased)} <= {"parking is full", "drain"}
    assert rig.changes(Kind.DEAD) == []


class Sick(One):
    """Writes to a store that stays down."""

    types = ("sick",)


class Healthy(One):
    """Writes to a store that is up."""

    types = ("healthy",)


def test_a_healthy_handler_does_not_hide_that_another_is_down() -> None:
    """Two handlers share one intake; the sick one's events must wait, uncounted, and lose nothing."""
    sick, healthy = Store(), Store()
    healthy.up_at = 0.0
    handlers: list[AnyHandler] = [Sick(sick), Healthy(healthy)]
    rig = Rig(*handlers)

    async def scenario() -> None:
        sick.up_at = anyio.current_time() + 30
        for _ in range(40):
            rig.publish({}, type="sick")
            rig.publish({}, type="healthy")
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)

    assert rig.dead == {}
    assert set(sick.attempts.values()) == {1}
    assert len(sick.attempts) == len(healthy.attempts) == 40
