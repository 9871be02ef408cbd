"""The adapter at a local server that does what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio import current_time
from anyio.lowlevel import checkpoint
from eventkit_servicebus import adapter
from eventkit_servicebus._local import AmqpError, Call, Faults, LocalServiceBus, serve
from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._types import Described, Ulong

from eventkit.errors import AdapterError, TransientAdapterError
from eventkit.spi import DONE, Address, Delivery, Demand, Extended, Outgoing, Settled, SettledKind, Sink, Source
from tests.adapters.servicebus.local_support import Clock, data, peer_of

DEMAND = Demand(events=50, lease=30.0, wait=1.0)
ORDERED = Demand(events=50, ordered=True, lease=30.0, wait=1.0)
BILLS = "bills.sessions"
_FRAME = 50_000
QUEUES = ("orders", "bills.sessions", "news/audit", "news/mail")


def error(condition: str, description: str = "no") -> AmqpError:
    """A refusal with this condition."""
    return AmqpError(condition, description)


class Trouble(Faults):
    """Does to calls what a test says, by the name of the operation; and notes them all."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.errors: dict[str, Exception] = {}
        """Raised before a call of this name has been done."""
        self.lost: dict[str, Exception] = {}
        """Raised after the next call of this name was done."""
        self.rule: Callable[[Call], None] = lambda call: None

    async def before(self, call: Call) -> None:
        self.calls.append(call)
        self.rule(call)
        if call.operation in self.errors:
            raise self.errors[call.operation]

    async def after(self, call: Call) -> None:
        if call.operation in self.lost:
            raise self.lost.pop(call.operation)

    def of(self, operation: str) -> list[Any]:
        """The details of the calls of this name."""
        return [call.detail for call in self.calls if call.operation == operation]


class Rig:
    """A server, and what can be opened at it."""

    def __init__(self, server: LocalServiceBus, clock: Clock, trouble: Trouble) -> None:
        self.server = server
        self.clock = clock
        self.trouble = trouble
        self.endpoint = server.endpoint.removeprefix("sb://")

    def address(self, name: str, more: str = "") -> Address:
        return Address.parse(f"servicebus://local/{name}?endpoint={self.endpoint}{more}")

    def skip(self, seconds: float) -> None:
        """Let time pass at the server."""
        self.clock.skip(seconds)
        self.server.counts()

    @asynccontextmanager
    async def source(self, name: str = "orders", demand: Demand = DEMAND, more: str = "") -> AsyncIterator[Any]:
        ended = False
        async with adapter.open_source(self.address(name, more), demand) as source:
            yield source
            ended, since = True, current_time()
        assert ended, "the test was cut short, and nobody told"
        assert current_time() - since < 1.5, "it took long to close"

    @asynccontextmanager
    async def sink(self, name: str = "orders", more: str = "") -> AsyncIterator[Sink]:
        async with adapter.open_sink(self.address(name, more)) as sink:
            yield sink

    @asynccontextmanager
    async def both(self, name: str = "orders", demand: Demand = DEMAND) -> AsyncIterator[tuple[Any, Sink]]:
        async with self.source(name, demand) as source, self.sink(name.partition("/")[0]) as sink:
            yield source, sink


@asynccontextmanager
async def rigged(*queues: str, **options: Any) -> AsyncIterator[Rig]:
    """A rig with these queues, or some of every kind."""
    clock, trouble, before = Clock(), Trouble(), asyncio.all_tasks()
    async with serve(queues or QUEUES, faults=trouble, clock=clock.now, wall=clock.wall, **options) as server:
        yield Rig(server, clock, trouble)
        with anyio.fail_after(1.0):  # what hangs up does not wait for the server to hear of it
            while server._server.connections:
                await anyio.sleep(0.01)
    await checkpoint()
    left = {task.get_coro() for task in asyncio.all_tasks() - before}
    assert not left, f"after the end there is {left}"


def written(body: bytes, *, session: str | None = None, properties: Any = None) -> bytes:
    """A message as a sender without any SDK writes it: `properties` are its application properties."""
    fields = [None] * 10 + [session]
    parts = [Described(Ulong(0x73), fields)] if session is not None else []
    parts += [Described(Ulong(0x74), properties)] if properties is not None else []
    return b"".join(map(encode, parts)) + data(body)


async def foreign(rig: Rig | LocalServiceBus, *messages: bytes, queue: str = "orders") -> None:
    """Have these stored, as they are: opening such a sender takes no time."""
    async with peer_of(rig.server if isinstance(rig, Rig) else rig) as peer:
        await peer.open()
        await peer.attach(queue, 9, receiver=False)
        for number, message in enumerate(messages):
            for start in range(0, len(message), _FRAME):
                more = start + _FRAME < len(message)
                peer.say(p.Transfer(9, number, bytes((number,)), 0, more=more), message[start : start + _FRAME])
            answer, _ = await peer.hear(p.Disposition)
            assert answer.state == p.ACCEPTED


async def stored(rig: Rig, *texts: str) -> None:
    """Have messages of these texts stored, each of the session that its first letter names."""
    await foreign(rig, *[written(text.encode(), session=text[0]) for text in texts], queue=BILLS)


async def publish(sink: Sink, *messages: Outgoing | bytes) -> None:
    """Publish these; all are stored."""
    made = [Outgoing(body=each) if isinstance(each, bytes) else each for each in messages]
    assert await sink.publish(made) == [DONE] * len(made)


async def received(source: Source, number: int, within: float = 5.0) -> list[Delivery]:
    """So many deliveries, in one receive or several."""
    found: list[Delivery] = []
    until = current_time() + within
    while len(found) < number:
        found += await source.receive(number - len(found), 1.0)
        assert current_time() < until, f"{len(found)} of {number} came"
    return found


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


def receipts(deliveries: list[Delivery]) -> list[Any]:
    return [delivery.receipt for delivery in deliveries]


def kinds(results: Any) -> list[SettledKind | None]:
    """What was said of each; None for an extension."""
    assert all(isinstance(result, Settled | Extended) for result in results)
    return [result.kind if isinstance(result, Settled) else None for result in results]


async def one(source: Source, within: float = 5.0) -> Delivery:
    """The next delivery, whatever the receives before it raise."""
    with anyio.fail_after(within):
        while True:
            try:
                if found := await source.receive(1, 1.0):
                    return found[0]
            except AdapterError:
                await anyio.sleep(0.02)


async def told(call: Callable[[], Awaitable[Sequence[Any]]], within: float = 5.0) -> list[Any]:
    """What a call answers at last, repeated as the core does."""
    unsure = {SettledKind.RETRY, SettledKind.UNKNOWN}
    with anyio.fail_after(within):
        while True:
            try:
                answers = list(await call())
            except TransientAdapterError:
                answers = []
            if answers and unsure.isdisjoint(kinds(answers)):
                return answers
            await anyio.sleep(0.05)


async def acked(source: Source, *held: Delivery) -> list[Any]:
    """What becomes of these at last, acked."""
    return await told(lambda: source.ack(receipts([*held])))


async def until(condition: Callable[[], bool], within: float = 5.0) -> None:
    """Wait for this."""
    with anyio.fail_after(within):
        while not condition():
            await anyio.sleep(0.02)
