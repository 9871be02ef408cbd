"""The sources and sinks of the in-memory broker: what waits, and what can go wrong on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint

from eventkit.errors import PermanentAdapterError
from eventkit.spi import (
    DONE,
    DeadLetter,
    Delivery,
    Demand,
    Depth,
    Extended,
    Letter,
    Outgoing,
    Receipt,
    Settled,
    SourceInfo,
)
from eventkit.testing.memory._queue import MemoryQueue
from eventkit.testing.memory._values import Call, Faults, Message, Verb

Item = TypeVar("Item")
Result = TypeVar("Result")


class Bell:
    """Wakes everybody who waits for something new in a queue. Rung without anybody waiting, it is forgotten."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        """Wake whoever waits now."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self, until: float) -> None:
        """Wait for the next ring, at most until `until` on the loop's clock."""
        event = self._event = self._event or anyio.Event()
        with anyio.CancelScope(deadline=until):
            await event.wait()


class Wire:
    """The way from sources and sinks to one queue: every call passes here, and `faults` meet it here."""

    def __init__(self, queue: MemoryQueue, address: str, faults: Callable[[], Faults | None]) -> None:
        self.queue = queue
        self.address = address
        self.bell = Bell()
        self.faults = faults

    async def call(
        self, verb: Verb, source: int, items: Sequence[Item], act: Callable[[Sequence[Item], float], list[Result]]
    ) -> Sequence[Result | Settled]:
        """Do `act` for `items`: between the two checkpoints of a fault, or after one of our own."""
        faults = self.faults()
        if faults is None:
            await checkpoint()
            return act(items, anyio.current_time())
        call = Call(verb=verb, queue=self.queue.name, source=source, items=items)
        answers = await faults.before(call)
        asked = [item for position, item in enumerate(items) if position not in answers]
        results = iter(act(asked, anyio.current_time()))
        reply = [answers[position] if position in answers else next(results) for position in range(len(items))]
        return await faults.after(call, reply)

    def require(self, verb: Verb, number: int, most: int) -> None:
        """Refuse what the limits forbid, as a provider would. Raises PermanentAdapterError."""
        if number > most:
            raise PermanentAdapterError(f"{verb} of {number} items at {self.address}: the limit is {most}")


class MemorySource:
    """A `Source` at one queue; also a `Backlog` and a `DeadLetterBrowser`. Made by `MemoryBroker.source`.

    Nothing is fetched ahead: what is handed over was leased at that moment, and after `stop` nothing is left.
    What is held when the context ends stays leased until its time is up, as with any broker. `number` counts
    the sources of a broker from 1.
    """

    def __init__(self, wire: Wire, number: int, demand: Demand) -> None:
        settings = wire.queue.settings
        self.number = number
        self.info = SourceInfo(name=wire.address, limits=settings.limits, traits=settings.traits)
        self._wire = wire
        self._queue = wire.queue
        self._lease = settings.length(demand.lease)
        self._stopped = False
        self._closed = False
        self._queue.join(number)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """See `Source`. Safe to cancel: nothing is leased before it returns."""
        self._require("receive", limit, self.info.limits.receive)
        faults = self._wire.faults()
        if faults is None:
            await checkpoint()
            return await self._take(limit, wait)
        call = Call(verb="receive", queue=self._queue.name, source=self.number, items=(None,) * limit)
        await faults.before(call)
        return await faults.after(call, await self._take(limit, wait))

    async def _take(self, limit: int, wait: float) -> list[Delivery]:
        now = anyio.current_time()
        end = now + wait
        while not self._stopped:
            taken = self._queue.take(limit, self._lease, self.number, now)
            if taken or now >= end or limit <= 0:
                return taken
            await self._wire.bell.wait(min(end, self._queue.next_due))
            now = anyio.current_time()
        return []

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        """See `Source` and `MemoryQueue.ack`."""
        self._require("ack", len(receipts), self.info.limits.settle)
        return await self._wire.call("ack", self.number, receipts, self._queue.ack)

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        """See `Source` and `MemoryQueue.nack`."""
        self._require("nack", len(items), self.info.limits.settle)
        return await self._wire.call("nack", self.number, items, self._queue.nack)

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        """See `Source` and `MemoryQueue.extend`."""
        self._require("extend", len(receipts), self.info.limits.extend)
        asked_at = anyio.current_time()

        def extend(asked: Sequence[Receipt], now: float) -> list[Extended | Settled]:
            results = self._queue.extend(asked, lease, now)
            on_the_way = now - asked_at
            if not on_the_way:
                return results
            return [
                Extended(result.until - on_the_way) if isinstance(result, Extended) else result for result in results
            ]

        return await self._wire.call("extend", self.number, receipts, extend)

    def stop(self) -> None:
        """See `Source`. A receive that waits returns at once."""
        self._stopped = True
        self._wire.bell.ring()

    def close(self) -> None:
        """The context ends. Idempotent; the broker calls it."""
        self.stop()
        self._closed = True
        self._queue.leave(self.number)

    async def depth(self) -> Depth | None:
        """See `Backlog`. It takes a look at every event that is neither done nor dead."""
        await self._reach()
        return self._queue.depth(anyio.current_time())

    async def peek(self, limit: int, after: str | None = None) -> Sequence[DeadLetter]:
        """See `DeadLetterBrowser`."""
        await self._reach()
        return self._queue.peek(limit, after)

    async def take(self, ids: Sequence[str]) -> Sequence[Settled]:
        """See `DeadLetterBrowser`."""
        await self._reach()
        return self._queue.remove_dead(ids, anyio.current_time())

    async def put_back(self, ids: Sequence[str]) -> Sequence[Settled]:
        """See `DeadLetterBrowser`; the event stands at the end of its key, and of the queue."""
        await self._reach()
        return self._queue.put_back(ids, anyio.current_time())

    async def _reach(self) -> None:
        self._require("receive", 0, 0)
        await checkpoint()

    def _require(self, verb: Verb, number: int, most: int) -> None:
        if self._closed:
            raise PermanentAdapterError(f"{verb} at {self.info.name}: the source is closed")
        self._wire.require(verb, number, most)


class NativeMemorySource(MemorySource):
    """A `MemorySource` at a queue that dead-letters by itself: a `NativeDeadLetter` too."""

    async def dead_letter(self, letters: Sequence[Letter]) -> Sequence[Settled]:
        """See `NativeDeadLetter`."""
        self._require("dead_letter", len(letters), self.info.limits.settle)
        return await self._wire.call("dead_letter", self.number, letters, self._queue.dead_letter)


class MemorySink:
    """A `Sink` at one queue. Made by `MemoryBroker.sink`."""

    def __init__(self, wire: Wire, message_ids: count[int]) -> None:
        self.limits = wire.queue.settings.limits
        self._wire = wire
        self._message_ids = message_ids
        self._closed = False

    def close(self) -> None:
        """The context ends. Idempotent; the broker calls it."""
        self._closed = True

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        """See `Sink`. A body above the limit, or what is not bytes and text, is refused."""
        if self._closed:
            raise PermanentAdapterError(f"publish at {self._wire.address}: the sink is closed")
        self._wire.require("publish", len(messages), self.limits.publish)
        return await self._wire.call("publish", 0, messages, self._publish)

    def _publish(self, messages: Sequence[Outgoing], now: float) -> list[Settled]:
        return [self._publish_one(message, now) for message in messages]

    def _publish_one(self, message: Outgoing, now: float) -> Settled:
        fault = unfit(message, self.limits.body)
        if fault:
            return Settled.refused(fault)
        self._wire.queue.publish(as_message(message, str(next(self._message_ids))), message.delay, now)
        return DONE


def as_message(outgoing: Outgoing, message_id: str) -> Message:
    """`outgoing` as a queue keeps it; the mapping of attributes is the queue's own from here on."""
    attributes = dict(outgoing.attributes) if outgoing.attributes else None
    return Message(outgoing.body, message_id, attributes, outgoing.content_type, outgoing.key)


def unfit(message: Outgoing, most: int) -> str:
    """Why `message` would not survive byte for byte, or ""; `most` is the bytes a body may have."""
    body: object = message.body
    if not isinstance(body, bytes):
        return f"body: {type(body).__name__}, not bytes"
    if len(body) > most:
        return f"body: {len(body)} bytes, the limit is {most}"
    if not 0 <= message.delay < math.inf:
        return f"delay of {message.delay:g} s: must be zero or more seconds"
    items: Iterable[tuple[object, object]] = message.attributes.items()
    for name, value in items:
        if not isinstance(name, str) or not isinstance(value, str):
            return f"attribute {name!r}: {type(value).__name__}, not text"
    return ""
