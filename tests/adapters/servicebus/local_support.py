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
from eventkit_servicebus._local._content import DATA
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._frames import AMQP_HEADER, SASL_HEADER, Stream, frame
from eventkit_servicebus._local._types import Described, Symbol, Ulong

QUEUES = ("orders", "bills.sessions", "news/audit", "news/mail")

P = TypeVar("P", bound=p.Performative)


class Clock:
    """Real time, and as much more as the test skips. `skew` is how far the server's idea of the date is ahead."""

    def __init__(self) -> None:
        self.skipped = 0.0
        self.skew = 0.0

    def now(self) -> float:
        return time.monotonic() + self.skipped

    def wall(self) -> float:
        return time.time() + self.skipped + self.skew

    def skip(self, seconds: float) -> None:
        self.skipped += seconds


class Bus:
    """A server, its clock, and the SDK's client, all of whose links end with it."""

    def __init__(self, place: LocalServiceBus, clock: Clock, client: ServiceBusClient) -> None:
        self.place = place
        self.clock = clock
        self.client = client
        self.links: list[ServiceBusSender | ServiceBusReceiver] = []

    def skip(self, seconds: float) -> None:
        """Let time pass, and the server see it."""
        self.clock.skip(seconds)
        self.place.counts()

    async def sender(self, queue: str = "orders", **options: Any) -> ServiceBusSender:
        make = self.client.get_topic_sender if queue == "news" else self.client.get_queue_sender
        sender = make(queue, **options)
        self.links.append(sender)
        await sender.__aenter__()
        await _hush(sender)
        return sender

    async def receiver(self, queue: str = "orders", **options: Any) -> ServiceBusReceiver:
        topic, slash, subscription = queue.partition("/")
        if slash:
            receiver = self.client.get_subscription_receiver(topic, subscription, **options)
        else:
            receiver = self.client.get_queue_receiver(queue, **options)
        self.links.append(receiver)
        await receiver.__aenter__()
        await _hush(receiver)
        return receiver

    async def both(self, queue: str = "orders", **options: Any) -> tuple[ServiceBusSender, ServiceBusReceiver]:
        sender, receiver = await asyncio.gather(self.sender(queue), self.receiver(queue, **options))
        return sender, receiver

    async def three(self, **options: Any) -> tuple[ServiceBusSender, ServiceBusReceiver, ServiceBusReceiver]:
        """At the queue of orders, and at its dead letters."""
        both, letters = await asyncio.gather(self.both(**options), self.receiver(sub_queue="deadletter"))
        return *both, letters

    async def close(self) -> None:
        """Close every link, all at once."""
        await asyncio.gather(*map(shut, self.links))


async def shut(link: ServiceBusSender | ServiceBusReceiver) -> None:
    """Close it, and do not wait for its keepalive."""
    await _hush(link)
    await link.close()


async def _hush(link: ServiceBusSender | ServiceBusReceiver) -> None:
    """End its keepalive: it sleeps for a second at a time, and whoever closes the link has to wait for that."""
    handler: Any = link._handler
    keepalive = getattr(handler, "_keep_alive_thread", None)
    if keepalive is not None:
        handler._keep_alive_thread = None
        keepalive.cancel()
        await asyncio.wait([keepalive])


def data(body: bytes) -> bytes:
    """The section of a message that holds bytes."""
    return encode(Described(Ulong(DATA), body))


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
    if bus.links:
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
        self._managed = False
        self.tag: bytes | None = None
        """The lock token of the delivery that came last."""

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
                if isinstance(performative, p.Transfer) and len(performative.delivery_tag or b"") == 16:
                    self.tag = performative.delivery_tag
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

    def say_attach(
        self,
        address: str = "orders",
        handle: int = 0,
        *,
        receiver: bool = True,
        session: str | None = None,
        **more: Any,
    ) -> None:
        """Ask for a link; at a session, if one is named, or at the next one that is free, if its name is empty."""
        wanted = {Symbol("com.microsoft:session-filter"): session or None}
        asked = [] if session is None else [*[None] * 6, wanted]
        self.say(
            p.Attach(
                name=f"link-{handle}",
                handle=handle,
                receiver=receiver,
                source=Described(Ulong(0x28), [address, *asked]),
                target=Described(Ulong(0x29), [address]),
                initial_delivery_count=None if receiver else 0,
                **more,
            )
        )

    async def attach(self, address: str = "orders", handle: int = 0, *, receiver: bool = True, **more: Any) -> p.Attach:
        """Attach a link, whatever is answered."""
        self.say_attach(address, handle, receiver=receiver, **more)
        answer, _ = await self.hear(p.Attach)
        assert (answer.name, answer.handle, answer.receiver) == (f"link-{handle}", handle, not receiver)
        if not receiver and answer.target is not None:
            await self.hear(p.Flow)
        return answer

    async def send(self, *bodies: bytes, handle: int = 9) -> None:
        """Attach a sender, and have these accepted."""
        await self.attach(handle=handle, receiver=False)
        for number, body in enumerate(bodies):
            self.say(p.Transfer(handle, number, bytes((number,)), 0), data(body))
            answer, _ = await self.hear(p.Disposition)
            assert (answer.receiver, answer.first, answer.settled, answer.state) == (True, number, True, p.ACCEPTED)

    def grant(self, credit: int, *, count: int = 0, handle: int = 0, drain: bool | None = None) -> None:
        """Let so much come on a link, of which it has seen `count`."""
        self.say(p.Flow(0, 100, 0, 100, handle=handle, delivery_count=count, link_credit=credit, drain=drain))

    def settle(self, id: int, state: Described, *, settled: bool | None = None) -> None:
        """Say what has become of a delivery."""
        self.say(p.Disposition(receiver=True, first=id, settled=settled, state=state))

    async def manage(self, name: str, body: Any, entity: str = "orders") -> None:
        """Attach to a management node if need be, and ask it."""
        if not self._managed:
            self._managed = True
            await self.attach(f"{entity}/$management", 20)
            await self.attach(f"{entity}/$management", 21, receiver=False)
            self.grant(1_000, handle=20)
        request = [
            Described(Ulong(0x73), [name]),
            Described(Ulong(0x74), {"operation": f"com.microsoft:{name}"}),
            Described(Ulong(0x77), body),
        ]
        self.say(p.Transfer(21, 0, b"0", 0, settled=True), b"".join(map(encode, request)))


@asynccontextmanager
async def peer_of(place: LocalServiceBus) -> AsyncIterator[Peer]:
    """A connection of bytes to this server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(place.endpoint.rpartition(":")[2]))
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
