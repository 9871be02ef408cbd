"""`Simulation`: a user's own worker under every fault there is, and the user's own invariant."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import anyio
import anyio.to_thread
import pytest

from eventkit import Backoff, Batch, BatchHandler, Event, Handler, Reject, Skip, Worker
from eventkit.errors import ConfigurationError, UnsupportedByAdapter
from eventkit.testing.simulation import Publish, Result, Scenario, Simulation, SimulationFailed

ENGINES: list[Literal["asyncio", "trio"]] = ["asyncio", "trio"]
Data = dict[str, Any]


class Shop:
    """Where orders are shipped to: at times it is slow."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.shipped: list[str] = []
        self.slow = 0.1

    async def ship(self, order: str) -> None:
        await anyio.sleep(self.slow)
        self.shipped.append(order)


class ShipOrder(Handler[Data]):
    """As it should be: the effect first, and safe to repeat."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    async def handle(self, event: Event[Data]) -> None:
        if event.id not in self.shop.seen:
            await self.shop.ship(event.data["id"])
            self.shop.seen.add(event.id)


class ShipOrderTooLate(ShipOrder):
    """Remembers an order before it is shipped: a kill in between loses it."""

    async def handle(self, event: Event[Data]) -> None:
        if event.id in self.shop.seen:
            raise Skip("shipped before")
        self.shop.seen.add(event.id)
        await self.shop.ship(event.data["id"])


class ShipOrderPerhaps(ShipOrder):
    """Gives up quietly: what took too long is acked as if it were done."""

    async def handle(self, event: Event[Data]) -> None:
        with anyio.move_on_after(1.0):
            await self.shop.ship(event.data["id"])


class ShipOrderOftener(ShipOrder):
    """Counts on being called once."""

    async def handle(self, event: Event[Data]) -> None:
        await self.shop.ship(event.data["id"])


class Orders(Scenario):
    handler: type[ShipOrder] = ShipOrder
    address = "sqs://orders"

    def __init__(self) -> None:
        self.shop = Shop()

    def worker(self) -> Worker:
        self.shop.slow = self.rng.choice([0.1, 0.1, 3.0])
        return Worker(self.address, self.handler(self.shop), dead_letter=f"{self.address}-dead")

    def events(self) -> Iterable[object]:
        return [{"id": str(n)} for n in range(20)]

    def check(self, result: Result) -> None:
        missing = set(result.acked) - set(self.shop.shipped)
        assert not missing, f"acked, and never shipped: {sorted(missing)}"
        assert len(result.acked) == 20
        assert result.dead_letters == []


class OrdersOnce(Orders):
    """A stricter shop: nothing may be shipped twice."""

    def check(self, result: Result) -> None:
        assert len(self.shop.shipped) == len(set(self.shop.shipped)), "shipped twice"


def with_handler(handler: type[ShipOrder], scenario: type[Orders] = Orders) -> type[Scenario]:
    return type("Shown", (scenario,), {"handler": handler})


# -- what it finds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_good_handler_passes_under_every_seed(engine: Literal["asyncio", "trio"]) -> None:
    """Who is told of failures that are none will not look at the next one."""
    swept = Simulation(Orders, engine=engine).sweep(seeds=25)

    assert swept.seeds == 25
    assert {"kill", "sigterm", "freeze", "lease_lost", "duplicate", "settle_lost"} <= swept.fired.keys()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("handler", "scenario", "told"),
    [
        (ShipOrderTooLate, Orders, "acked, and never shipped"),
        (ShipOrderPerhaps, Orders, "acked, and never shipped"),
        (ShipOrderOftener, OrdersOnce, "shipped twice"),
    ],
)
def test_a_broken_handler_is_found_within_few_seeds(
    handler: type[ShipOrder], scenario: type[Orders], told: str, engine: Literal["asyncio", "trio"]
) -> None:
    """This is what users come for: the bug that waits for the kill in the wrong place."""
    with pytest.raises(SimulationFailed, match=told):
        Simulation(with_handler(handler, scenario), engine=engine).sweep(seeds=10)


@pytest.mark.parametrize("broker", ["sqlite", "sqs", "fifo", "servicebus", "sessions", "pubsub", "pubsub-ordered"])
def test_the_worker_passes_at_every_broker(broker: str) -> None:
    """A handler moves to another cloud: the same story runs with the behaviour of that one."""

    class Ordered(Orders):
        def worker(self) -> Worker:
            retry, order = Backoff(maximum=60.0), "none" if broker in {"sqs", "servicebus", "pubsub"} else "key"
            options: dict[str, Any] = {"retry": retry, "ordering": order, "dead_letter": "sqs://dead"}
            return Worker(self.address, self.handler(self.shop), **options)

        def events(self) -> Iterable[object]:
            return [Publish({"id": str(n)}, key=f"k{n % 3}") for n in range(20)]

    assert Simulation(Ordered, broker=broker, workers=3).sweep(seeds=5).seeds == 5


class KeepNumbers(BatchHandler[Data]):
    """Three kinds of events in one batch."""

    types = ("number.*",)

    def __init__(self, store: dict[str, int]) -> None:
        self.store = store

    def keep(self, batch: Batch[Data]) -> None:
        for event in batch:
            match event.data["n"] % 10:
                case 3:
                    batch.skip(event, "not wanted")
                case 7:
                    raise ValueError("poison")
                case _:
                    self.store[event.id] = event.data["n"]


class Plain(KeepNumbers):
    def handle(self, batch: Batch[Data]) -> None:
        self.keep(batch)


class InThread(KeepNumbers):
    async def handle(self, batch: Batch[Data]) -> None:
        await anyio.to_thread.run_sync(self.keep, batch)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("handler", [Plain, InThread])
@pytest.mark.parametrize("address", ["sqlite:///numbers.db", "pubsub://project/numbers"])
def test_what_was_acked_and_what_is_dead_is_told_by_message_id(
    address: str, handler: type[KeepNumbers], engine: Literal["asyncio", "trio"]
) -> None:
    """Checks are about the user's events, wherever dead letters go, and where two have the same body too."""

    class Story(Scenario):
        def __init__(self) -> None:
            self.store: dict[str, int] = {}

        def worker(self) -> Worker:
            sink = None if address.startswith("sqlite") else "pubsub://project/dead"
            retry = Backoff(initial=0.5, maximum=5.0, attempts=3)
            return Worker(address, handler(self.store), retry=retry, dead_letter=sink)

        def events(self) -> Iterable[object]:
            for place in range(30):
                yield Publish({"n": place % 10}, id=f"e{place:02}", type="number.made")

        def check(self, result: Result) -> None:
            assert sorted(result.dead) == ["e07", "e17", "e27"]
            assert {(letter.reason, letter.body) for letter in result.dead_letters} == {("attempts", b'{"n":7}')}
            assert sorted(result.acked) == sorted({f"e{n:02}" for n in range(30)} - set(result.dead))
            assert sorted(self.store) == sorted(set(result.acked) - {"e03", "e13", "e23"})

    Simulation(Story, engine=engine).sweep(seeds=4)


# -- what it says -------------------------------------------------------------------------------------


def test_a_failure_shows_its_seed_its_faults_its_trace_and_how_to_repeat_it() -> None:
    """A failure in CI that cannot be repeated is a rumour."""
    with pytest.raises(SimulationFailed) as caught:
        Simulation(with_handler(ShipOrderTooLate)).sweep(seeds=10)
    failed, text = caught.value, str(caught.value)

    assert text.startswith(f"seed {failed.seed} fails: AssertionError: acked, and never shipped: [")
    assert isinstance(failed.__cause__, AssertionError)
    for name, rate in failed.result.conditions.faults.items():
        assert f"  fault {name} = {rate:.3f}" in text
    assert failed.result.tail(50) in text
    assert f"again: Simulation(…).run({failed.seed})" in text
    with pytest.raises(SimulationFailed) as again:
        Simulation(with_handler(ShipOrderTooLate)).run(failed.seed)
    assert str(again.value) == text


@pytest.mark.parametrize("engine", ENGINES)
def test_a_seed_gives_one_run(engine: Literal["asyncio", "trio"]) -> None:
    """Line by line, whatever ran before."""
    first, other, again = (Simulation(Orders, engine=engine).run(seed) for seed in (7, 8, 7))

    assert first.digest == again.digest != other.digest
    assert first.fired == again.fired


def test_each_seed_has_a_scenario_of_its_own() -> None:
    """What one seed left behind would be found by the next, and no seed could be repeated."""
    made: list[Orders] = []

    def scenario() -> Orders:
        made.append(Orders())
        return made[-1]

    Simulation(scenario).sweep(seeds=3, first=40)

    assert len({id(one.shop) for one in made}) == len(made) >= 3
    assert made[-1].rng.random() != made[-2].rng.random()


def test_faults_are_chosen_by_name() -> None:
    """To make a failure small is to take faults away."""
    alone = Simulation(Orders, only=["kill"], workers=1).sweep(seeds=10)
    named = Simulation(Orders, only=(), rates={"attributes_lost": 0.5}).run(1)
    some = Simulation(Orders, without=["kill", "sigterm", "second_signal"]).sweep(seeds=10)

    assert set(alone.fired) == {"kill"}
    assert set(named.conditions.faults) == {"attributes_lost"}
    assert not {"kill", "sigterm", "second_signal"} & set(some.fired)


# -- what it refuses ----------------------------------------------------------------------------------


class Sleeper(Handler[Data]):
    async def handle(self, event: Event[Data]) -> None:
        time.sleep(1)  # noqa: ASYNC251


class Stubborn(Handler[Data]):
    async def handle(self, event: Event[Data]) -> None:
        raise ConnectionError("down, and never up again")


class Broken(Handler[Data]):
    async def handle(self, event: Event[Data]) -> None:
        raise Reject("no good")


def story(handler: Callable[[], Handler[Data]], *events: object) -> type[Scenario]:
    class Story(Scenario):
        def worker(self) -> Worker:
            return Worker("sqlite:///x.db", handler())

        def events(self) -> Iterable[object]:
            return events

    return Story


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (Sleeper, r"Escaped: time\.sleep in a simulation: .*\n  \(I15"),
        (Stubborn, "1 events are open 2100 s after the end of faults"),
    ],
)
def test_what_leaves_the_simulation_or_never_ends_is_a_failure(handler: type[Handler[Data]], told: str) -> None:
    """A real sleep would pass as a failure of the event, an endless outage as a test that hangs."""
    patience = 2100.0
    with pytest.raises(SimulationFailed, match=told):
        Simulation(story(handler, {}), patience=patience).run(1)


def test_a_worker_that_cannot_start_is_a_failure() -> None:
    """What a lifespan raises ends a worker in production too."""

    class Unready(Stubborn):
        def lifespan(self) -> Any:
            raise RuntimeError("no database")

    with pytest.raises(SimulationFailed, match="fell over: RuntimeError: no database"):
        Simulation(story(Unready, {})).run(1)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Simulation(Orders, only=["kil"]), 'no fault is called "kil"; did you mean "kill"?'),
        (lambda: Simulation(Orders, broker="fifo", only=["duplicate"]), '"duplicate" does not happen at broker "fifo"'),
        (lambda: Simulation(Orders, broker="kafka"), 'no broker is called "kafka": set broker to "sqlite", "sqs"'),
        (lambda: Simulation(Orders, workers=0), "workers=0: must be at least 1"),
        (lambda: Simulation(Orders()), "Orders: give the class"),  # type: ignore[arg-type]
        (lambda: Simulation(lambda: 7), "int is no Scenario"),  # type: ignore[arg-type,return-value]
        (
            lambda: Simulation(story(Broken, Publish({}, id="a"), Publish({}, id="a"))).run(1),
            "events with the same id: a",
        ),
        (lambda: Simulation(story(lambda: Broken)), "Broken is a class: give the worker an instance"),  # type: ignore[arg-type,return-value]
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(make: Callable[[], object], told: str) -> None:
    """A test that was not what its author meant passes for ever."""
    with pytest.raises(ConfigurationError) as caught:
        make()

    assert told in str(caught.value)


def test_a_worker_that_the_broker_would_refuse_is_refused() -> None:
    """As at its start in production, and once, not by every worker of every seed."""
    with pytest.raises(UnsupportedByAdapter, match="no dead letters of its own"):
        Simulation(story(Broken, {}), broker="sqs")


def test_an_address_nothing_stands_for_asks_for_a_broker() -> None:
    """Adapters of others can be simulated too, if one says what they behave like."""

    class Elsewhere(Orders):
        address = "kafka://orders"

    with pytest.raises(ConfigurationError, match='nothing stands for "kafka" in a simulation: set broker to'):
        Simulation(Elsewhere)
    assert len(Simulation(Elsewhere, broker="sqs").run(1).acked) == 20
