"""The intake gate (P5): an outage burns no attempts, dead-letters nothing, and ends by itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

from eventkit import Backoff, Batch, BatchHandler, Batching, Event, Handler
from eventkit._telemetry.records import GateClosed, GateOpened, GateProbed
from eventkit.spi import Traits
from eventkit.testing import Kind
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

OUTAGE = 60.0


class Store:
    """What stands behind the handlers: down until `up_at`, on the loop's clock."""

    def __init__(self) -> None:
        self.up_at = 0.0
        self.calls: list[tuple[float, tuple[int, ...]]] = []
        self.attempts: dict[int, int] = {}
        self.done: list[int] = []

    def call(self, events: list[Event[dict]]) -> None:
        now = anyio.current_time()
        self.calls.append((now, tuple(event.data["n"] for event in events)))
        if now < self.up_at:
            raise ConnectionError("down")
        for event in events:
            self.attempts[event.data["n"]] = event.attempt
            self.done.append(event.data["n"])


class Single(Handler[dict]):
    def __init__(self, store: Store) -> None:
        self.store = store

    async def handle(self, event: Event[dict]) -> None:
        self.store.call([event])


class Slow(Single):
    async def handle(self, event: Event[dict]) -> None:
        await anyio.sleep(0.05)
        self.store.call([event])


class Batched(BatchHandler[dict]):
    batching = Batching(max_size=20, max_wait=0.2)
    concurrency = 2

    def __init__(self, store: Store) -> None:
        self.store = store

    async def handle(self, batch: Batch[dict]) -> None:
        await anyio.sleep(0.01)
        self.store.call(list(batch))


@pytest.mark.parametrize("policy", ["none", "block", "skip"])
@pytest.mark.parametrize("release", ["followers", "hold", "redelivers"])
@pytest.mark.parametrize("max_delay", [None, 0.0])
@pytest.mark.parametrize("handler", [Single, Slow, Batched])
def test_outage(handler, max_delay, release, policy):
    store = Store()
    rig = Rig(handler(store), traits=Traits(key_release=release, max_retry_delay=max_delay),
              ordering="none" if policy == "none" else "key", on_key_failure="block" if policy == "none" else policy)
    N = 300

    async def scenario() -> None:
        began = anyio.current_time()
        store.up_at = began + OUTAGE
        async with rig.running():
            rig.publish(*({"n": n} for n in range(0)))
            for n in range(N):
                rig.publish({"n": n}, key=None if policy == "none" else f"k{n % 7}")
            await rig.until_settled()

    on_virtual_time(scenario)
    assert not rig.dead
    assert len(store.done) == N
    assert set(store.attempts.values()) == {1}
    down = [call for call in store.calls if call[0] < store.up_at]
    if policy != "skip" or release != "redelivers":
        assert max(c.count for c in rig.broker.history) == 1
    print(len(down), [c[0]-store.up_at for c in down])
    assert len(down) <= 10 + 10 + 6
    if policy == "block":
        for k in range(7):
            ns = [n for n in store.done if n % 7 == k]
            assert ns == sorted(ns), ns
    print([ (type(r).__name__, r) for r in rig.records if isinstance(r, GateClosed|GateProbed|GateOpened)])
    assert len(rig.of(GateOpened)) == 1 
