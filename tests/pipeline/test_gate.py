"""The intake gate where it meets order, lost leases and poison: it must neither leak nor get stuck (P5)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import anyio
import pytest

from eventkit import Backoff, Batch, BatchHandler, Batching, Event, FlowLimits, Handler, Retry
from eventkit._telemetry.records import EventRetried, GateClosed, GateOpened, GateProbed, LeaseLost
from eventkit.spi import Settled, Traits
from eventkit.testing import Call, Faults, Kind
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

Release: TypeAlias = Literal["followers", "hold", "redelivers"]
Data: TypeAlias = dict[str, Any]

RELEASES: list[Release] = ["followers", "hold", "redelivers"]
TO_CLOSE = 10
"""Transient outcomes in a row that close the gate."""


class Store:
    """What stands behind the handlers: down until `up_at`, on the loop's clock."""

    def __init__(self) -> None:
        self.up_at = math.inf
        self.calls: list[tuple[float, list[int]]] = []
        self.attempts: dict[int, int] = {}

    def write(self, *events: Event[Data]) -> None:
        now = anyio.current_time()
        self.calls.append((now, [event.data["n"] for event in events]))
        if now < self.up_at:
            raise ConnectionError("down")
        self.attempts |= {event.data["n"]: event.attempt for event in events}

    @property
    def calls_while_down(self) -> int:
        return sum(at < self.up_at for at, _ in self.calls)


class One(Handler[Data]):
    """Writes each event."""

    def __init__(self, store: Store, seconds: float = 0.05) -> None:
        self.store = store
        self.seconds = seconds

    async def handle(self, event: Event[Data]) -> None:
        await anyio.sleep(self.seconds)
        self.store.write(event)


class Many(BatchHandler[Data]):
    """Writes batches."""

    batching = Batching(max_size=20, max_wait=0.2)
    concurrency = 2

    def __init__(self, store: Store) -> None:
        self.store = store

    async def handle(self, batch: Batch[Data]) -> None:
        await anyio.sleep(0.05)
        self.store.write(*batch)


@pytest.mark.parametrize("max_delay", [None, 0.0], ids=["delayed", "parked"])
@pytest.mark.parametrize("policy", ["block", "skip"])
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("handler", [One, Many])
def test_an_outage_calls_few_handlers_and_counts_nothing_whatever_becomes_of_failed_keys(
    handler: type[One | Many], release: Release, policy: Any, max_delay: float | None
) -> None:
    """With many events behind a few keys, each event that fails or is parked makes room for the next of its key."""
    store = Store()
    traits = Traits(key_release=release, max_retry_delay=max_delay)
    rig = Rig(handler(store), traits=traits, ordering="key", on_key_failure=policy)

    async def scenario() -> None:
        store.up_at = anyio.current_time() + 60
        for n in range(300):
            rig.publish({"n": n}, key=f"key {n % 7}")
        async with rig.running():
            await rig.until_settled(150)

    on_virtual_time(scenario)
    assert rig.dead == {}
    assert store.attempts == dict.fromkeys(range(300), 1)
    assert rig.broker.counts().delivered == 300
    assert store.calls_while_down <= TO_CLOSE + handler.concurrency + 6
    assert len(rig.of(GateClosed)) == len(rig.of(GateOpened)) == 1
    if policy == "block":
        done = list(store.attempts)
        assert all((of_key := [n for n in done if n % 7 == k]) == sorted(of_key) for k in range(7))


@pytest.mark.parametrize("ordering", ["none", "key"])
@pytest.mark.parametrize("handler", [One, Many])
def test_an_outage_costs_one_delivery_per_max_processing_at_most(handler: type[One | Many], ordering: Any) -> None:
    """A native receive limit sees every delivery: an outage of an hour must not use it up."""
    store = Store()
    rig = Rig(handler(store), ordering=ordering, max_processing=300.0, retry=Backoff(maximum=100.0))

    async def scenario() -> None:
        store.up_at = anyio.current_time() + 3600
        for n in range(50):
            rig.publish({"n": n}, key=f"key {n % 7}")
        async with rig.running():
            await anyio.sleep(3600)
            await rig.until_settled(75 + 100)

    on_virtual_time(scenario)
    assert rig.dead == {}
    assert store.attempts == dict.fromkeys(range(50), 1)
    assert max(change.count for change in rig.broker.history) <= 1 + 3600 / (0.9 * 300)
    assert store.calls_while_down <= TO_CLOSE + handler.concurrency + 6 + 3600 / 48


class LosesLeases(Faults):
    """While armed, the broker takes back what is to be extended, all but one event."""

    def __init__(self, *, all_but: str = "") -> None:
        self.all_but = all_but
        self.rig: Rig | None = None
        self.armed = False

    async def before(self, call: Call) -> Mapping[int, Settled]:
        if call.verb == "extend" and self.armed and self.rig is not None:
            delivered = {c.receipt: c.message_id for c in self.rig.broker.history if c.kind is Kind.DELIVERED}
            taken = [(item, 0.0) for item in call.items if delivered[item] != self.all_but]
            self.rig.broker.queue(QUEUE).nack(taken, anyio.current_time())
        return {}


@pytest.mark.parametrize("handler", [One, Many])
def test_a_probe_whose_lease_is_lost_does_not_keep_the_gate_closed(handler: type[One | Many]) -> None:
    """Its outcome is worth nothing, and another probe must take its place."""
    store, faults = Store(), LosesLeases()
    down = True

    class Probed(handler):  # type: ignore[valid-type, misc]
        async def handle(self, events: Any) -> None:
            if faults.armed:
                await anyio.sleep(10)
            elif down:
                raise ConnectionError("down")

    rig = Rig(Probed(store), lease=3.0, faults=faults, retry=Backoff(maximum=5.0))
    faults.rig = rig

    async def scenario() -> None:
        nonlocal down
        for n in range(40):
            rig.publish({"n": n})
        async with rig.running():
            await rig.until(lambda: bool(rig.of(GateClosed)))
            faults.armed = True
            await rig.until(lambda: any(record.state == "running" for record in rig.of(LeaseLost)))
            faults.armed = down = False
            await rig.until(lambda: bool(rig.of(GateOpened)), limit=20)
            await rig.until_settled()

    on_virtual_time(scenario)
    assert rig.dead == {}


def test_an_event_that_has_to_wait_for_its_key_is_no_probe() -> None:
    """A probe that waits for a parked head would keep the gate closed for as long as that."""
    store, faults = Store(), LosesLeases(all_but="1")

    class Mixed(One):
        async def handle(self, event: Event[Data]) -> None:
            if event.data["n"] == 0 and event.attempt == 1:
                raise Retry(after=80.0)
            await super().handle(event)

    rig = Rig(
        Mixed(store),
        traits=Traits(key_release="hold", max_retry_delay=0),
        ordering="key",
        lease=3.0,
        faults=faults,
        max_processing=100.0,
        retry=Backoff(maximum=60.0),
    )
    rig.worker.options = replace(rig.worker.options, limits=FlowLimits(in_flight=13))
    faults.rig = rig

    async def scenario() -> None:
        rig.publish({"n": 0}, key="blocked")
        for n in range(1, 13):
            rig.publish({"n": n}, key=f"free {n}")
        for n in range(13, 20):
            rig.publish({"n": n}, key="blocked")
        async with rig.running():
            await rig.until(lambda: bool(rig.of(GateClosed)))
            # Somebody else gets what is parked for the outage: nothing is in hand but the event that waits.
            faults.armed = True
            await rig.until(lambda: rig.broker.depth(QUEUE).leased == 1)
            faults.armed, store.up_at = False, 0.0
            await rig.until(lambda: bool(rig.of(GateOpened)), limit=30)
            await rig.until_settled()

    on_virtual_time(scenario)
    assert rig.dead == {}
    assert [n for n in store.attempts if n == 0 or n >= 13] == [0, *range(13, 20)]


def test_a_probe_that_fails_by_itself_opens_the_gate_and_counts_its_attempt() -> None:
    """The store answered; the event is bad, and must not hide behind the outage."""
    store = Store()

    class Bad(One):
        async def handle(self, event: Event[Data]) -> None:
            await super().handle(event)
            raise ValueError("bad event")

    rig = Rig(Bad(store), retry=Backoff(attempts=2, maximum=10.0))

    async def scenario() -> None:
        for n in range(12):
            rig.publish({"n": n})
        async with rig.running():
            await rig.until(lambda: bool(rig.of(GateClosed)))
            store.up_at = 0.0
            await rig.until_settled(60)

    on_virtual_time(scenario)
    assert [record.attempt for record in rig.of(EventRetried)] == [1] * 12
    assert set(rig.dead.values()) == {"attempts"}
    assert len(rig.of(GateOpened)) == 1


def test_what_is_received_while_the_gate_is_closed_waits_too() -> None:
    """A receive on the wire when the gate closes brings events that must not run into the outage."""
    store = Store()

    class SlowReceive(Faults):
        async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
            await anyio.sleep(1.0 if call.verb == "receive" and len(results) > 1 else 0.0)
            return results

    rig = Rig(One(store, seconds=0.5), faults=SlowReceive())
    rig.worker.options = replace(rig.worker.options, limits=FlowLimits(in_flight=40))

    async def scenario() -> None:
        store.up_at = anyio.current_time() + 30
        async with rig.running():
            for n in range(60):
                rig.publish({"n": n})
                await anyio.sleep(0.05)
            await rig.until_settled()

    on_virtual_time(scenario)
    assert store.attempts == dict.fromkeys(range(60), 1)
    assert store.calls_while_down <= TO_CLOSE + One.concurrency + 6


@pytest.mark.parametrize("ordering", ["none", "key"])
def test_five_hundred_poison_events_are_each_dead_lettered_by_a_direct_call(ordering: Any) -> None:
    """The search stops for what looks like an outage; what is left then drains at the rate of the probes."""
    alone: Counter[int] = Counter()

    class Broken(BatchHandler[Data]):
        async def handle(self, batch: Batch[Data]) -> None:
            if len(batch) == 1:
                alone[batch[0].data["n"]] += 1
            raise ValueError("a bug in the handler")

    rig = Rig(Broken(), ordering=ordering, retry=Backoff(attempts=2, maximum=10.0))

    async def scenario() -> None:
        for n in range(500):
            rig.publish({"n": n}, key=f"key {n % 50}")
        async with rig.running():
            while rig.broker.depth(QUEUE).dead < 500:
                await anyio.sleep(60)

    on_virtual_time(scenario)
    assert set(rig.dead.values()) == {"attempts"}
    assert alone == dict.fromkeys(range(500), 2), "counted by direct failures, and by nothing else"
    assert {record.reason for record in rig.of(GateClosed)} == {"bisector"}
    assert {record.result for record in rig.of(GateProbed)} == {"item failed"}
    assert rig.of(GateOpened) == []


def test_a_gate_closed_by_the_bisector_opens_when_an_event_is_handled() -> None:
    """Once the bug behind it is gone, the queue must not go on at the rate of probes."""
    broken = True

    class Healing(BatchHandler[Data]):
        async def handle(self, batch: Batch[Data]) -> None:
            if broken:
                raise RuntimeError("no connection, said in an unknown way")

    rig = Rig(Healing())

    async def scenario() -> None:
        nonlocal broken
        for n in range(300):
            rig.publish({"n": n})
        async with rig.running():
            await rig.until(lambda: bool(rig.of(GateClosed)))
            broken = False
            await rig.until_settled(30)

    on_virtual_time(scenario)
    assert rig.dead == {}
    assert [record.reason for record in rig.of(GateOpened)] == ["bisector"]
    assert len(rig.of(EventRetried)) <= 16
