"""Order per key (P6): one running event of a key, in the source's order, whatever fails."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import anyio
import pytest

from eventkit import Backoff, Batch, BatchHandler, Batching, Event, Handler, Reject, Retry
from eventkit.spi import Settled, Traits
from eventkit.testing import Call, Faults
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

RELEASES = ["followers", "hold", "redelivers"]


class Ledger:
    """What handlers did, and whether two events of a key ever ran at once."""

    def __init__(self, fails: Mapping[int, Sequence[str]] | None = None) -> None:
        self.fails = {n: list(plan) for n, plan in (fails or {}).items()}
        self.effects: dict[str, list[int]] = defaultdict(list)
        self.order: list[int] = []
        self.running: dict[str, int] = {}
        self.overlaps: list[tuple[str, int]] = []
        self.starts: list[tuple[int, float, int]] = []

    def start(self, event: Event[Any]) -> None:
        key = str(event.key)
        self.starts.append((event.data["n"], anyio.current_time(), event.attempt))
        if key in self.running:
            self.overlaps.append((key, event.data["n"]))
        self.running[key] = self.running.get(key, 0) + 1

    def end(self, event: Event[Any]) -> None:
        key = str(event.key)
        self.running[key] -= 1
        if not self.running[key]:
            del self.running[key]

    def effect(self, event: Event[Any]) -> None:
        self.effects[str(event.key)].append(event.data["n"])
        self.order.append(event.data["n"])

    def next_failure(self, event: Event[Any]) -> str | None:
        plan = self.fails.get(event.data["n"])
        return plan.pop(0) if plan else None


ERRORS = {
    "item": lambda: ValueError("bad event"),
    "retry": lambda: Retry(after=3.0),
    "reject": lambda: Reject("unwanted"),
    "transient": lambda: ConnectionError("down"),
}


class Single(Handler[dict]):
    concurrency = 5
    timeout = 20.0

    def __init__(self, ledger: Ledger, seconds: float = 0.1) -> None:
        self.ledger = ledger
        self.seconds = seconds

    async def handle(self, event: Event[dict]) -> None:
        self.ledger.start(event)
        try:
            failure = self.ledger.next_failure(event)
            await anyio.sleep(30.0 if failure == "timeout" else self.seconds)
            if failure is not None:
                raise ERRORS[failure]()
            self.ledger.effect(event)
        finally:
            self.ledger.end(event)


class Raising(BatchHandler[dict]):
    """Raises without an effect when one of its events is to fail."""

    concurrency = 3
    timeout = 20.0
    batching = Batching(max_size=4, max_wait=0.2)

    def __init__(self, ledger: Ledger, seconds: float = 0.1) -> None:
        self.ledger = ledger
        self.seconds = seconds

    async def handle(self, batch: Batch[dict]) -> None:
        keys = {event.key: event for event in batch}.values()
        for event in keys:
            self.ledger.start(event)
        try:
            failure = None
            for event in batch:
                plan = self.ledger.fails.get(event.data["n"])
                if plan and failure is None:
                    failure = plan[0]
                    if len(batch) == 1:
                        plan.pop(0)
                    elif failure == "transient":
                        plan.pop(0)
            await anyio.sleep(30.0 if failure == "timeout" else self.seconds)
            if failure is not None:
                raise ERRORS[failure]()
            for event in batch:
                self.ledger.effect(event)
        finally:
            for event in keys:
                self.ledger.end(event)


class Marking(Raising):
    """Marks each failed event, and those of its key behind it; the others have their effect."""

    async def handle(self, batch: Batch[dict]) -> None:
        keys = {event.key: event for event in batch}.values()
        for event in keys:
            self.ledger.start(event)
        try:
            await anyio.sleep(self.seconds)
            stopped = set()
            for event in batch:
                failure = self.ledger.next_failure(event)
                if failure == "timeout":
                    failure = "item"
                if failure is not None:
                    batch.fail(event, ERRORS[failure]())
                    if failure != "reject":
                        stopped.add(event.key)
                elif event.key in stopped:
                    batch.fail(event, Retry("behind a failed event", after=1.0))
                else:
                    self.ledger.effect(event)
                    batch.done(event)
        finally:
            for event in keys:
                self.ledger.end(event)


HANDLERS = [Single, Raising, Marking]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("policy", ["block", "skip"])
@pytest.mark.parametrize("max_delay", [None, 0.0])
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("handler", HANDLERS)
def test_sweep(handler, release, max_delay, policy, seed) -> None:
    rng = Random(seed)
    events = [(n, rng.choice("abcde")) for n in range(60)]
    fails = {
        n: [rng.choice(["item", "retry", "reject", "transient", "transient", "timeout"]) for _ in range(rng.choice([1, 1, 2, 3]))]
        for n, _ in events if rng.random() < 0.25
    }
    ledger = Ledger(fails)
    rig = Rig(handler(ledger), traits=Traits(key_release=release, max_retry_delay=max_delay), ordering="key", on_key_failure=policy,
              retry=Backoff(attempts=30, maximum=20.0), seed=seed)

    async def scenario() -> None:
        async with rig.running():
            for n, key in events:
                rig.publish({"n": n}, key=key)
                if rng.random() < 0.3:
                    await anyio.sleep(rng.uniform(0, 1))
            await rig.until_settled(limit=550)

    on_virtual_time(scenario)
    assert not ledger.overlaps
    dead = {int(letter.body.decode().split(":")[1].strip("} ")) for letter in rig.broker.dead_letters}
    done = sorted(n for ns in ledger.effects.values() for n in ns)
    assert sorted({*done, *dead}) == list(range(60))
    assert len(done) + len(dead) == 60
    if policy == "block":
        assert all(ns == sorted(ns) for ns in ledger.effects.values()), ledger.effects
