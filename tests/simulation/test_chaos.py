"""`chaos`: faults by a seed for a broker in memory, chosen by name, bounded in time, ended at will."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import anyio
import pytest

from eventkit import Event, Handler, Worker
from eventkit._worker import ungrouped
from eventkit.errors import ConfigurationError, ConnectionLost
from eventkit.spi import Demand
from eventkit.testing import Chaos, MemoryAdapter, MemoryBroker, chaos
from eventkit.testing.simulation import run_simulated

LIST = "import json, sys; import eventkit.testing; print(json.dumps([*sys.modules]))"


class Count(Handler[dict[str, Any]]):
    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()

    async def handle(self, event: Event[dict[str, Any]]) -> None:
        self.seen[event.data["n"]] += 1


def played(faults: Chaos, *, attach: bool = True) -> tuple[Counter[int], MemoryBroker]:
    """A worker that handles twenty events under these faults, in simulated time."""
    handler, adapter, broker = Count(), MemoryAdapter(), MemoryBroker()
    adapter.use(broker)
    broker.faults = faults
    if attach:
        faults.attach(broker)

    async def main() -> None:
        # Run to its end on the simulated clock: leases that chaos loses come back by themselves.
        worker = Worker("memory://events", handler, adapter=adapter, observers=(), seed=0)
        worker._watch_loop = False
        for n in range(20):
            broker.publish("events", {"n": n})
        with ungrouped():
            await run(worker)

    async def run(worker: Worker) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            with anyio.fail_after(600):
                while broker.acked < 20:
                    await anyio.sleep(1)
            worker.drain()

    run_simulated(main)
    return handler.seen, broker


@pytest.mark.parametrize("seed", range(10))
def test_under_any_seed_every_event_is_handled(seed: int) -> None:
    """The promise users build on: whatever the broker does, nothing is lost, and what is good is never given up."""
    seen, broker = played(faults := chaos(seed))

    assert set(seen) == set(range(20)), faults
    assert broker.dead_letters == [], faults


def test_seeds_differ_in_what_is_on_and_between_them_have_everything() -> None:
    """A fault that no seed turns on is a promise that no test looks at; those that end a test are asked for by name."""
    seen = {name for seed in range(50) for name in chaos(seed).rates}

    assert chaos(1).rates == chaos(1).rates != chaos(2).rates
    assert {"duplicate", "lease_lost", "receive_lost", "settle_lost", "letter_lost", "throttled"} <= seen
    assert not {"access_denied", "attributes_lost", "source_missing", "kill", "late"} & seen
    assert all(chaos(seed).rates for seed in range(200))


def test_faults_are_chosen_by_name() -> None:
    """A test of one weakness wants that fault in every seed, and at a rate that shows it."""
    assert set(chaos(3, only=["duplicate", "attributes_lost"]).rates) == {"duplicate", "attributes_lost"}
    assert chaos(3, only=(), rates={"settle_lost": 1.0}).rates == {"settle_lost": 1.0}
    assert "settle_error" not in {name for seed in range(50) for name in chaos(seed, without=["settle_error"]).rates}
    both = chaos(3, only=["duplicate"]).rates["duplicate"], chaos(3, only=["duplicate", "reorder"]).rates["duplicate"]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"only": ["lease_lots"]}, 'no fault is called "lease_lots"; did you mean "lease_lost"?'),
        ({"without": ["kill"]}, 'fault "kill" does not happen in chaos'),
        ({"rates": {"duplicate": 0}}, "rate of duplicate, 0: must be above 0"),
        ({"only": "duplicate"}, r'must be a collection of names, such as \["duplicate"\]'),
        ({"longest": -1}, "longest=-1: must be zero or more seconds"),
    ],
)
def test_what_cannot_be_is_said_at_once(options: dict[str, Any], told: str) -> None:
    """A misspelt fault would be a test that tests nothing."""
    with pytest.raises(ConfigurationError, match=told):
        chaos(7, **options)


def test_every_problem_is_named() -> None:
    """One run shows all mistakes."""
    with pytest.raises(ConfigurationError) as caught:
        chaos(7, only=["a"], without=["b"], rates={"throttled": -1})

    assert len(caught.value.problems) == 3


def test_faults_that_need_the_broker_are_left_out_without_it_unless_they_were_named() -> None:
    """`broker.faults = chaos(7)` works; a test that asks for duplicates must not run without them and pass."""
    everything = dict.fromkeys(chaos(0, only=["duplicate", "lease_lost"]).rates, 0.9)
    seen, _ = played(faults := chaos(6), attach=False)

    assert set(seen) == set(range(20))
    assert not {"duplicate", "lease_lost"} & set(faults.fired)
    with pytest.raises(ConfigurationError, match=r"duplicate and lease_lost: needs the broker; write chaos\(7"):
        played(chaos(7, only=(), rates=everything), attach=False)


def test_duplicates_and_lost_leases_happen_at_the_broker_it_is_attached_to() -> None:
    """They are the faults that find handlers whose effect is not safe to repeat."""
    seen, _ = played(faults := chaos(7, only=(), rates={"duplicate": 0.8, "lease_lost": 0.5}))

    assert faults.fired.keys() == {"duplicate", "lease_lost"}
    assert max(seen.values()) > 1


def test_one_chaos_belongs_to_one_broker() -> None:
    """It would look for the leases of one broker at the other."""
    faults = chaos(7).attach(MemoryBroker())

    with pytest.raises(ConfigurationError, match=r"chaos\(7, .* is attached to another broker"):
        faults.attach(MemoryBroker())


def test_no_call_waits_for_longer_than_it_may() -> None:
    """In real time, a slow call is a test that is slow; a worker with a long lease must not make it a minute."""

    async def slowest(longest: float) -> float:
        broker = MemoryBroker()
        chaos(1, only=(), rates={"receive_slow": 1.0, "settle_slow": 1.0}, longest=longest).attach(broker)
        took = 0.0
        async with broker.source("events", Demand(lease=60.0)) as source:
            for _ in range(50):
                broker.publish("events", b"1")
                began = anyio.current_time()
                [delivery] = await source.receive(1, 0.0)
                received = anyio.current_time()
                await source.ack([delivery.receipt])
                # It may be slow on its way there, and on its way back.
                took = max(took, received - began, (anyio.current_time() - received) / 2)
        return took

    assert 0.8 < run_simulated(lambda: slowest(1.0)) <= 1.0
    assert 1.6 < run_simulated(lambda: slowest(2.0)) <= 2.0
    assert run_simulated(lambda: slowest(0.0)) == 0.0


def test_healing_ends_everything_and_the_rates_stay_to_be_read() -> None:
    """A test may let trouble end before it asks whether all is well; its failure still shows the seed."""

    async def main() -> tuple[str, str]:
        broker = MemoryBroker()
        faults = chaos(7, only=(), rates={"receive_error": 1.0}).attach(broker)
        async with broker.source("events") as source:
            with pytest.raises(ConnectionLost):
                await source.receive(1, 0.0)
            before = repr(faults)
            faults.heal()
            assert await source.receive(1, 0.0) == []
        assert faults.fired == {"receive_error": 1}
        return before, repr(faults)

    before, after = run_simulated(main)

    assert before == after == "chaos(7, only=(), rates={'receive_error': 1})"


def test_the_door_for_tests_is_light_to_import() -> None:
    """Every unit test of a handler imports it; an event loop and processes are for those who simulate."""
    done = subprocess.run([sys.executable, "-c", LIST], check=True, capture_output=True, text=True)

    assert not {"asyncio", "multiprocessing", "pytest", "trio"} & set(json.loads(done.stdout))
