"""Starting and ending a worker: what is refused, what is opened, and in which order it is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from eventkit import Batch, BatchHandler, Batching, ConfigurationError, Event, Handler, Worker
from eventkit._config import FlowLimits
from eventkit._policies.backoff import Backoff
from eventkit._telemetry.records import WorkerStarted, WorkerStopped, WorkerWarning
from eventkit.errors import UnknownScheme, UnsupportedByAdapter
from eventkit.spi import Traits
from tests.pipeline.support import Rig, on_virtual_time


class Everything(Handler[dict[str, int]]):
    """Takes everything."""

    async def handle(self, event: Event[dict[str, int]]) -> None:
        """Do nothing."""


class Quakes(Everything):
    """Takes one type."""

    types = ("quake.recorded",)


class Prefix(Everything):
    """Takes a prefix."""

    types = ("quake.*",)


class Big(BatchHandler[bytes]):
    """Wants more at once than the worker holds."""

    types = ("big",)
    batching = Batching(max_size=500)

    async def handle(self, batch: Batch[bytes]) -> None:
        """Do nothing."""


class Untyped(Handler):  # type: ignore[type-arg]
    """Says nothing of its data."""

    types = ("untyped",)

    async def handle(self, event: Event[bytes]) -> None:
        """Do nothing."""


def test_every_mistake_is_listed_at_once() -> None:
    """One run shows them all, instead of one run a mistake."""
    with pytest.raises(ConfigurationError) as caught:
        Worker("sqlite:/x.db", Untyped(), Big(), lease=0, dead_letter="nowhere", ordering="keys")  # type: ignore[arg-type]

    problems = "\n".join(caught.value.problems)
    for part in (
        "lease=0",
        "ordering='keys'",
        "Big.batching.max_size=500 needs limits.in_flight of at least 1000",
        "Untyped names no data type: write class Untyped(Handler[Order])",
        "address 'sqlite:/x.db' has no scheme",
        "address 'nowhere' has no scheme",
    ):
        assert part in problems, problems


@pytest.mark.parametrize("second", [Quakes(), Quakes])
def test_two_handlers_for_one_type_are_refused(second: object) -> None:
    """One of them would silently never run; a class instead of an instance is a mistake of its own."""
    expected = "two handlers take events of type 'quake.recorded'" if isinstance(second, Quakes) else "is a class"
    with pytest.raises(ConfigurationError, match=expected):
        Worker("memory://x", Quakes(), second)  # type: ignore[arg-type]


def test_an_exact_type_goes_before_a_prefix_and_a_prefix_before_all() -> None:
    """The most precise handler wins, whatever the order they are given in."""
    taken: list[tuple[str, str]] = []

    def noting(cls: type[Everything]) -> Everything:
        class Noting(cls):  # type: ignore[valid-type, misc]
            async def handle(self, event: Event[dict[str, int]]) -> None:
                taken.append((cls.__name__, event.type))

        return Noting()

    rig = Rig(noting(Everything), noting(Prefix), noting(Quakes))

    async def scenario() -> None:
        for type_ in ("quake.recorded", "quake.revised", "volcano", "quake"):
            rig.publish({}, type=type_)
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)

    assert sorted(taken) == [
        ("Everything", "quake"),
        ("Everything", "volcano"),
        ("Prefix", "quake.revised"),
        ("Quakes", "quake.recorded"),
    ]


def test_an_unknown_scheme_names_those_that_are_installed() -> None:
    """The usual cause is a missing extra or a typing mistake."""
    installed = "memory, pubsub, servicebus, sqlite, sqs"
    with pytest.raises(UnknownScheme, match=f'no adapter for scheme "kafka"; installed: {installed}'):
        anyio.run(Worker("kafka://orders", Everything()).run)


@pytest.mark.parametrize(
    ("traits", "options", "expected"),
    [
        (Traits(key_release="none"), {"ordering": "key"}, "does not order events by key"),
        (Traits(delivery_count="none"), {}, "does not count deliveries"),
        (Traits(native_receive_limit=3), {}, "itself dead-letters after 3 deliveries, before attempts=5"),
        (Traits(max_retry_delay=60.0), {}, "can delay a retry by at most 60 s"),
        (Traits(lease_total_max=300.0), {}, "keeps a lease for at most 300 s"),
    ],
)
def test_what_the_source_cannot_keep_is_refused_before_the_first_receive(
    traits: Traits, options: dict[str, Any], expected: str
) -> None:
    """An incompatibility must surface at start, not at the first failure in production."""
    rig = Rig(Everything(), traits=traits, **options)
    rig.publish({})

    with pytest.raises(UnsupportedByAdapter, match=expected):
        on_virtual_time(rig.worker.run)

    assert rig.broker.counts().delivered == 0


def test_a_native_limit_close_to_ours_is_a_warning() -> None:
    """Releases count there too: the broker would dead-letter what has not had its attempts."""
    rig = Rig(Everything(), traits=Traits(native_receive_limit=6, key_release="hold"))
    rig.worker.drain()

    on_virtual_time(rig.worker.run)

    assert "close to attempts=5" in rig.of(WorkerWarning)[0].warning


def test_start_says_what_runs() -> None:
    """The first line of a log answers: which source, which handlers, which policy."""
    rig = Rig(Everything(), Quakes(), retry=Backoff(attempts=7))
    rig.worker.drain()

    on_virtual_time(rig.worker.run)

    (started,) = rig.of(WorkerStarted)
    assert started.source == "memory://events"
    assert started.handlers == ("Everything", "Quakes")
    assert started.retry.startswith("7 attempts")
    assert started.idempotency == "none"
    assert rig.of(WorkerStopped)[0].clean


def test_lifespan_opens_before_the_first_event_and_closes_after_the_last() -> None:
    """A handler's pool must be there for every event, also for those finished during the drain."""
    log: list[str] = []

    class Pooled(Everything):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            log.append("open")
            yield
            log.append("close")

        async def handle(self, event: Event[dict[str, int]]) -> None:
            await anyio.sleep(2)
            log.append("handled")

    rig = Rig(Pooled())

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await anyio.sleep(1)

    on_virtual_time(scenario)

    assert log == ["open", "handled", "close"]


def test_an_exception_in_lifespan_ends_the_start_and_takes_no_event() -> None:
    """A worker that cannot reach its database must not lease events it cannot handle."""

    class Broken(Everything):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            if self.types:
                raise OSError("no database")
            yield

    rig = Rig(Broken())
    rig.publish({})

    with pytest.raises(OSError, match="no database"):
        on_virtual_time(rig.worker.run)

    assert rig.broker.counts().delivered == 0


def test_attempts_by_age_serve_a_source_that_does_not_count() -> None:
    """Some subscriptions have no delivery count: then the age of the event ends its retries."""
    runs: list[float] = []

    class Failing(Everything):
        async def handle(self, event: Event[dict[str, int]]) -> None:
            runs.append(anyio.current_time())
            raise ValueError("bad")

    rig = Rig(
        Failing(),
        traits=Traits(delivery_count="none", key_release="hold"),
        retry=Backoff(attempts="age", max_age=60.0, maximum=10.0),
    )
    # The broker stamps events with the loop's clock here, so the worker's wall clock must be the same one.
    rig.worker._wall = anyio.current_time

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)

    assert rig.dead == {"1": "attempts"}
    assert 60 <= runs[-1] - runs[0] <= 75
    assert len(runs) > 5


def test_the_limits_are_those_given() -> None:
    """`Demand` is how a source sizes its pools and streams before the first receive."""
    worker = Worker(
        "memory://x", Everything(), limits=FlowLimits(in_flight=7, parked=3), lease=12.0, wait=9.0, drain=8.0
    )

    demand = worker.options.demand()

    assert (demand.events, demand.parked, demand.lease, demand.wait) == (7, 3, 12.0, 2.0)
