"""The public signatures, as users write them. mypy reads this file; nothing runs it.

A line that stops checking here stops checking in somebody's project: that is a change of the public API.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict, TypeVar, assert_type

import msgspec

import eventkit
from eventkit import (
    Backoff,
    Batch,
    BatchFailure,
    BatchHandler,
    Batching,
    ConfigurationError,
    Decoding,
    Event,
    EventKitError,
    FlowLimits,
    Handler,
    HandlerTimeout,
    Reject,
    Report,
    Retry,
    Skip,
    Worker,
    cleanup,
)
from eventkit.errors import (
    AccessDenied,
    AdapterError,
    AdapterNotInstalled,
    ConnectionLost,
    DecodeError,
    HandlerSignal,
    PermanentAdapterError,
    SourceNotFound,
    Throttled,
    TransientAdapterError,
    UnknownScheme,
    UnsupportedByAdapter,
)
from eventkit.spi import (
    DONE,
    LOST,
    UNKNOWN,
    Adapter,
    Address,
    Backlog,
    DeadLetter,
    DeadLetterBrowser,
    Delivery,
    Demand,
    Depth,
    Extended,
    Letter,
    Limits,
    LocalCounts,
    LocalPlace,
    LocalServer,
    NativeDeadLetter,
    Outgoing,
    Receipt,
    Settled,
    SettledKind,
    Sink,
    Source,
    SourceInfo,
    Traits,
)
from eventkit.testing import Chaos, FaultProxy, MemoryBroker, ProxyCounts, chaos
from eventkit.testing import conformance as conformance_results  # its Report is not that of a worker
from eventkit.testing.conformance import Place, SinkConformance, SourceConformance


@dataclass
class Quake:
    magnitude: float


class Order(TypedDict):
    id: str


class Payment(msgspec.Struct):
    cents: int


T = TypeVar("T")


# -- handlers of one event ----------------------------------------------------------------------------


class Asynchronous(Handler[Quake]):
    types = ("quake.recorded", "quake.*")
    timeout = 30.0
    concurrency = 50
    transient = (ConnectionError, "httpx.TransportError")
    failures = {ValueError: "reject", "app.Gone": "skip"}  # noqa: RUF012 - as users write it

    async def handle(self, event: Event[Quake]) -> None:
        assert_type(event, Event[Quake])
        assert_type(event.data, Quake)
        assert_type(event.id, str)
        assert_type(event.source, str)
        assert_type(event.type, str)
        assert_type(event.subject, str | None)
        assert_type(event.time, datetime | None)
        assert_type(event.extensions, Mapping[str, str])
        assert_type(event.attempt, int)
        assert_type(event.key, str | None)
        assert_type(event.message_id, str)
        assert_type(event.attributes, Mapping[str, str])
        assert_type(event.enqueued_at, float | None)
        assert_type(event.delivery, Delivery)


class Plain(Handler[Order]):
    def handle(self, event: Event[Order]) -> None:
        assert_type(event.data["id"], str)


class ReturnsSignals(Handler[bytes]):
    async def handle(self, event: Event[bytes]) -> Retry | Reject | Skip | None:
        match event.attempt:
            case 1:
                return Retry("not yet", after=3.0)
            case 2:
                return Retry()
            case 3:
                return Skip("old")
            case 4:
                return Reject("bad")
        return None


class PlainReturnsSignals(Handler[str]):
    def handle(self, event: Event[str]) -> HandlerSignal | None:
        return Skip("not wanted") if not event.data else None


class RaisesSignals(Handler[dict[str, int]]):
    async def handle(self, event: Event[dict[str, int]]) -> None:
        try:
            assert_type(event.data["n"], int)
        finally:
            async with cleanup(seconds=2.0):
                pass
        raise Retry(after=0.5)


class WithClients(Handler[Payment]):
    def __init__(self, client: Callable[[], AbstractAsyncContextManager[str]]) -> None:
        self._client = client
        self.connected = ""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with self._client() as self.connected:
            yield

    async def handle(self, event: Event[Payment]) -> None:
        assert_type(event.data.cents, int)


class Stored(Handler[T]):
    """A generic handler of a team's own."""

    async def handle(self, event: Event[T]) -> None:
        self.store(event.data)

    def store(self, data: T) -> None:
        raise NotImplementedError


class StoredQuake(Stored[Quake]):
    def store(self, data: Quake) -> None:
        assert_type(data.magnitude, float)


# -- handlers of batches ------------------------------------------------------------------------------


class Grouped(BatchHandler[Quake]):
    batching = Batching(max_size=50, max_wait=0.5, max_bytes=1_000_000)
    on_raise = "one_by_one"
    concurrency = 2

    def batch_key(self, event: Event[Quake]) -> Hashable:
        return event.subject

    async def handle(self, batch: Batch[Quake]) -> None:
        assert_type(len(batch), int)
        assert_type(batch[0], Event[Quake])
        assert_type(batch[1:], tuple[Event[Quake], ...])
        assert_type([event.data for event in batch], list[Quake])
        as_sequence: Sequence[Event[Quake]] = batch
        for event in as_sequence:
            batch.done(event)
            batch.skip(event, "old")
            batch.fail(event, ValueError("bad"))
            batch.fail(event, Retry(after=3))
        raise BatchFailure({batch[0]: ValueError("bad"), batch[1]: Reject("worse")})


class PlainGrouped(BatchHandler[Order]):
    def handle(self, batch: Batch[Order]) -> HandlerSignal | None:
        return BatchFailure({event: ValueError() for event in batch if not event.data["id"]})


# -- what must not check ------------------------------------------------------------------------------


class WrongEvent(Handler[Quake]):
    async def handle(self, event: Event[Order]) -> None: ...  # type: ignore[override]


class WrongReturn(Handler[Quake]):
    async def handle(self, event: Event[Quake]) -> str:  # type: ignore[override]
        return "done"


class EventForBatch(BatchHandler[Quake]):
    async def handle(self, event: Event[Quake]) -> None: ...  # type: ignore[override]


class MisspeltMode(BatchHandler[Quake]):
    on_raise = "never"  # type: ignore[assignment]

    async def handle(self, batch: Batch[Quake]) -> None:
        batch.done(Order(id="1"))  # type: ignore[arg-type]
        batch.skip(batch[0])  # type: ignore[call-arg]
        batch.fail(batch[0], "bad")  # type: ignore[arg-type]


class NoHandle(Handler[Quake]):
    pass


NoHandle()  # type: ignore[abstract]
Batching(50)  # type: ignore[call-arg]
Backoff(1.0)  # type: ignore[call-arg]
Backoff(attempts="often")  # type: ignore[arg-type]
FlowLimits(200)  # type: ignore[call-arg]
Worker("memory://orders", object())  # type: ignore[arg-type]
Worker("memory://orders", Asynchronous)  # type: ignore[arg-type]
Worker("memory://orders", Asynchronous(), ordering="strict")  # type: ignore[arg-type]
Worker("memory://orders", Asynchronous(), on_key_failure="stop")  # type: ignore[arg-type]
Worker("memory://orders", Asynchronous(), unroutable="drop")  # type: ignore[arg-type]
Worker("memory://orders", Asynchronous(), retries=3)  # type: ignore[call-arg]
Retry(after="3")  # type: ignore[arg-type]
Retry("later", 3)  # type: ignore[call-arg]
Reject()  # type: ignore[call-arg]
Skip()  # type: ignore[call-arg]


# -- the worker ---------------------------------------------------------------------------------------


async def worker(adapter: Adapter, seed: int | None) -> None:
    """Every option of a worker, by keyword and with its type."""
    assert_type(Worker("memory://orders", Asynchronous()), Worker)
    one = Worker(
        "sqs://orders?region=eu-north-1",
        Asynchronous(),
        Plain(),
        Grouped(),
        StoredQuake(),
        retry=Backoff(initial=1, factor=2, maximum=60, attempts="age", max_age=3600),
        limits=FlowLimits(in_flight=200, in_flight_bytes=1024, parked=10),
        lease=30,
        max_processing=600.0,
        wait=5,
        drain=20,
        ordering="key",
        on_key_failure="skip",
        dead_letter="discard",
        unroutable="skip",
        decoding=Decoding(max_bytes=1024),
        observers=None,
        adapter=adapter,
        seed=seed,
    )
    one.drain()
    one.drain("deploy")
    one.stop()
    report = await one.run()
    assert_type(report, Report)
    assert_type(report.handled + report.skipped + report.dead_lettered, int)
    assert_type(report.retried + report.released + report.cut, int)
    assert_type(report.clean, bool)


assert_type(eventkit.__version__, str)
assert_type(eventkit.run(Worker("memory://orders", Plain())), int)
assert_type(Backoff().attempts, int | Literal["age"])


# -- errors -------------------------------------------------------------------------------------------


def errors(error: EventKitError) -> None:
    """The tree of errors, and what each one carries."""
    configuration: tuple[type[ConfigurationError], ...] = (UnknownScheme, AdapterNotInstalled, UnsupportedByAdapter)
    transient: tuple[type[TransientAdapterError], ...] = (Throttled, ConnectionLost)
    permanent: tuple[type[PermanentAdapterError], ...] = (SourceNotFound, AccessDenied)
    adapter: tuple[type[AdapterError], ...] = (*transient, *permanent)
    every: tuple[type[EventKitError], ...] = (*configuration, *adapter, DecodeError, HandlerTimeout, HandlerSignal)
    signals: tuple[type[HandlerSignal], ...] = (Retry, Reject, Skip, BatchFailure)
    if isinstance(error, (*every, *signals)):
        pass
    match error:
        case ConfigurationError():
            assert_type(error.problems, Sequence[str])
        case TransientAdapterError():
            assert_type(error.retry_after, float | None)
        case Retry():
            assert_type(error.after, float | None)
            assert_type(error.reason, str)
        case Reject() | Skip():
            assert_type(error.reason, str)
        case BatchFailure():
            assert_type(error.failures, dict[Event[Any], BaseException])


# -- the door for adapters ----------------------------------------------------------------------------


class EverySource:
    """A source with all there is to be; a sink has no more than `publish`."""

    def __init__(self) -> None:
        self.info = SourceInfo(
            name="x",
            limits=Limits(receive=1, concurrent_receives=1, settle=1, extend=1, publish=1, body=1),
            traits=Traits(
                delivery_count="none",
                key_release="hold",
                max_retry_delay=0.0,
                nack_delay_max=600.0,
                native_receive_limit=3,
            ),
            dead_letters="x://dead",
            warnings=("it will surprise",),
        )
        self.limits = Limits()

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        return [Delivery(receipt=object(), body=b"", message_id="m", leased_until=0.0)]

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        return [DONE, LOST, UNKNOWN, Settled.retry(after=1.0), Settled.refused("why")]

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        return [Settled(SettledKind.RETRY, after) for _, after in items]

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        return [Extended(until=lease), LOST]

    def stop(self) -> None: ...

    async def dead_letter(self, letters: Sequence[Letter]) -> Sequence[Settled]:
        return [DONE for letter in letters if letter.reason and letter.detail]

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        assert_type(messages[0].spare, tuple[str, ...])
        return [DONE for message in messages if message.body and message.delay >= 0]

    async def depth(self) -> Depth | None:
        return Depth(ready=1)

    async def peek(self, limit: int, after: str | None = None) -> Sequence[DeadLetter]:
        return []

    async def take(self, ids: Sequence[str]) -> Sequence[Settled]:
        return [DONE for _ in ids]

    async def put_back(self, ids: Sequence[str]) -> Sequence[Settled]:
        return [LOST for _ in ids]


class EveryPlace:
    def __init__(self) -> None:
        self.endpoint = "http://127.0.0.1:1"
        self.environment: Mapping[str, str] = {}

    def address(self, queue: str) -> str:
        return f"x://{queue}"

    def dead_letters(self, queue: str) -> str:
        return f"x://{queue}-dead"

    def counts(self) -> LocalCounts:
        return LocalCounts(published=1, delivered=1, acked=1, nacked=0, expired=0, dead=0)


class EveryAdapter:
    @asynccontextmanager
    async def open_source(self, address: Address, demand: Demand) -> AsyncIterator[Source]:
        assert_type(address.options({"region"}), dict[str, str])
        assert_type(demand.lease, float)
        yield EverySource()

    @asynccontextmanager
    async def open_sink(self, address: Address) -> AsyncIterator[Sink]:
        assert_type(Address.parse(str(address)), Address)
        yield EverySource()

    @asynccontextmanager
    async def local(self, queues: Sequence[str], *, port: int = 0) -> AsyncIterator[LocalPlace]:
        yield EveryPlace()


source: Source = EverySource()
sink: Sink = EverySource()
native: NativeDeadLetter = EverySource()
backlog: Backlog = EverySource()
browser: DeadLetterBrowser = EverySource()
an_adapter: Adapter = EveryAdapter()
a_local_server: LocalServer = EveryAdapter()


# -- testing ------------------------------------------------------------------------------------------


async def faults() -> None:
    broker = MemoryBroker()
    assert_type(chaos(7, only={"duplicate"}, rates={"settle_lost": 0.5}).attach(broker), Chaos)
    async with FaultProxy("127.0.0.1", 4100) as proxy:
        assert_type(proxy.host, str)
        assert_type(proxy.port, int)
        assert_type(proxy.counts, ProxyCounts)
        proxy.delay(0.1)
        proxy.slow(1000.0)
        proxy.blackhole(seconds=1.0)
        proxy.reset(new=True)
        proxy.half_close("client")
        proxy.refuse()
        proxy.lose_reply(when=b"x", linger=0.1)
        proxy.truncate(10, when=b"x")
        proxy.heal()


@asynccontextmanager
async def places() -> AsyncIterator[Place]:
    address = Address.parse("x://events")
    yield Place(source=address, sink=address, dead_letters=None, missing=None, missing_sink=None, unreachable=None)


async def conformance() -> None:
    suite = SourceConformance(an_adapter, places, lease=1.0, patience=5.0, wire=0.0, slack=0.1, ordered=False, raw=dict)
    report = await suite.run_all(side_by_side=10)
    assert_type(report, conformance_results.Report)
    report.require()
    for check in SinkConformance.checks:
        (await SinkConformance(an_adapter, places).run(check)).require()
