"""The local Service Bus server with a clock of the test's own, the SDK at it, and a client without any."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from eventkit_servicebus._local import LocalServiceBus, serve
from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._frames import AMQP_HEADER, SASL_HEADER, Stream, frame
from eventkit_servicebus._local._types import Described, Symbol, Ulong

QUEUES = ("orders", "bills.sessions", "news/audit", "news/mail")

P = TypeVar("P", bound=p.Performative)


class Clock:
    """Real time, and as much more as the test skips."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def now(self) -> float:
        return time.monotonic() + self.skipped

    def wall(self) -> float:
        return time.time() + self.skipped

    def skip(self, seconds: float) -> None:
        self.skipped += seconds


class Bus:
    """A server, its clock, and the SDK's client, all of whose links end with it."""

    def __init__(self, place: LocalServiceBus, clock: Clock, client: ServiceBusClient) -> None:
        self.place = place
        self.clock = clock
        self.client = client
        self._links: list[ServiceBusSender | ServiceBusReceiver] = []

    def skip(self, seconds: float) -> None:
        """Let time pass, and the server see it."""
        self.clock.skip(seconds)
        self.place.counts()

    async def sender(self, queue: str = "orders", **options: Any) -> ServiceBusSender:
        make = self.client.get_topic_sender if queue == "news" else self.client.get_queue_sender
        sender = make(queue, **options)
        self._links.append(sender)
        return await sender.__aenter__()

    async def receiver(self, queue: str = "orders", **options: Any) -> ServiceBusReceiver:
        topic, slash, subscription = queue.partition("/")
        if slash:
            receiver = self.client.get_subscription_receiver(topic, subscription, **options)
        else:
            receiver = self.client.get_queue_receiver(queue, **options)
        self._links.append(receiver)
        return await receiver.__aenter__()

    async def both(self, queue: str = "orders", **options: Any) -> tuple[ServiceBusSender, ServiceBusReceiver]:
        sender, receiver = await asyncio.gather(self.sender(queue), self.receiver(queue, **options))
        return sender, receiver

    async def close(self) -> None:
        """Close every link, all at once: each takes its time."""
        await asyncio.gather(*(link.close() for link in self._links))


def text(message: Any) -> str:
    return b"".join(message.body).decode()


def messages(*bodies: str, **options: Any) -> list[ServiceBusMessage]:
    return [ServiceBusMessage(body, **options) for body in bodies]


async def take(receiver: ServiceBusReceiver, number: int, wait: float = 2.0) -> list[ServiceBusReceivedMessage]:
    """Exactly so many messages."""
    found: list[ServiceBusReceivedMessage] = []
    while len(found) < number:
        more = await receiver.receive_messages(number - len(found), max_wait_time=wait)
        assert more, f"{len(found)} of {number} messages came"
        found += more
    return found


async def nothing(receiver: ServiceBusReceiver) -> bool:
    """Whether there is nothing to receive now."""
    return await receiver.receive_messages(1, max_wait_time=0.3) == []


@asynccontextmanager
async def local_bus(queues: Sequence[str] = QUEUES, **options: Any) -> AsyncIterator[Bus]:
    """A server with these queues, and a client that does not try again."""
    clock = Clock()
    async with (
        serve(queues, clock=clock.now, wall=clock.wall, **options) as place,
        ServiceBusClient.from_connection_string(place.connection_string, retry_total=0) as client,
    ):
        bus = Bus(place, clock, client)
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        try:
            yield bus
        finally:
            await bus.close()
    _collect()
    assert not failures  # a protocol that fails ends its connection, and is easily taken for one that refuses


def _collect() -> None:
    """The SDK leaves the socket of a connection that the server ends to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Peer:
    """A client without an SDK: it says what it is told to, and waits for nothing else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._stream = Stream()

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def say(self, performative: p.Performative, payload: bytes = b"", *, channel: int = 0, sasl: bool = False) -> None:
        self.write(frame(channel, p.written(performative) + payload, sasl=sasl))

    async def hear(self, kind: type[P], seconds: float = 5.0) -> tuple[P, bytes]:
        """The next performative, which is of this kind, and what comes with it."""
        while True:
            got = self._stream.frame()
            if got is None:
                data = await asyncio.wait_for(self.reader.read(65_536), seconds)
                if not data:
                    raise EOFError
                self._stream.add(data)
            elif got.body:
                performative, end = p.read(got.body)
                assert isinstance(performative, kind), performative
                return performative, got.body[end:]

    async def silent(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes for so long."""
        try:
            await self.hear(p.Performative, seconds)
        except TimeoutError:
            return True
        return False

    async def ended(self) -> bool:
        """Whether the server hangs up, whatever it says before."""
        try:
            while await asyncio.wait_for(self.reader.read(65_536), 5.0):
                pass
        except ConnectionError:
            pass
        return True

    async def open(self, **options: Any) -> p.Open:
        """Open a connection and a session."""
        self.write(SASL_HEADER)
        self.say(p.SaslInit(Symbol("ANONYMOUS"), b""), sasl=True)
        self.write(AMQP_HEADER)
        self.say(p.Open("peer", **options))
        self.say(p.Begin(next_outgoing_id=0, incoming_window=100, outgoing_window=100))
        assert await self.reader.readexactly(8) == SASL_HEADER
        await self.hear(p.SaslMechanisms)
        await self.hear(p.SaslOutcome)
        header = self._stream.header() or await self.reader.readexactly(8)
        assert header == AMQP_HEADER
        opened, _ = await self.hear(p.Open)
        await self.hear(p.Begin)
        return opened

    async def attach(self, address: str = "orders", handle: int = 0, *, receiver: bool = True, **more: Any) -> p.Attach:
        """Attach a link, whatever is answered."""
        self.say(
            p.Attach(
                name=f"link-{handle}",
                handle=handle,
                receiver=receiver,
                source=Described(Ulong(0x28), [address]),
                target=Described(Ulong(0x29), [address]),
                initial_delivery_count=None if receiver else 0,
                **more,
            )
        )
        answer, _ = await self.hear(p.Attach)
        assert (answer.name, answer.handle, answer.receiver) == (f"link-{handle}", handle, not receiver)
        if not receiver and answer.target is not None:
            await self.hear(p.Flow)
        return answer


@asynccontextmanager
async def peer_of(place: LocalServiceBus) -> AsyncIterator[Peer]:
    """A connection of bytes to this server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(place.endpoint.rpartition(":")[2]))
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
