"""The in-memory broker: named queues, their sources and sinks, and the doors for tests."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count

import anyio
import msgspec

from eventkit.spi import DeadLetter, Demand, Depth, Limits, Outgoing, Traits
from eventkit.testing.memory._queue import MemoryQueue
from eventkit.testing.memory._source import MemorySink, MemorySource, NativeMemorySource, Wire, as_message
from eventkit.testing.memory._values import Change, Counts, Faults, Kind, Message, Settings

_DEFAULTS = Settings()
_DEMAND = Demand()


class MemoryBroker:
    """A broker in this process, with leases as honest as those of a real one. Nothing survives it.

    A queue exists once it is named. Leases, delays and waits run on the loop's clock (`anyio.current_time`):
    asyncio's, trio's or a simulated one; there is no thread, task, timer or chance in it. A broker belongs to
    one event loop. What is published before the loop runs counts as published at the first use within it.

    The options are those of `Settings`, for every queue that is not declared with others. `wall` gives the
    time in Unix seconds for `enqueued_at` (by default the loop's clock stands in for it). `history` is how
    many changes to remember, for tests. `faults` may be set and taken away at any time.

    It has a door for everything a test asks, so more than seven.
    """

    def __init__(
        self,
        name: str = "memory",
        *,
        traits: Traits = _DEFAULTS.traits,
        limits: Limits = _DEFAULTS.limits,
        lease: float = _DEFAULTS.lease,
        lease_max: float = _DEFAULTS.lease_max,
        native_dead_letter: bool = _DEFAULTS.native_dead_letter,
        redelivers_acked: bool = _DEFAULTS.redelivers_acked,
        wall: Callable[[], float] | None = None,
        history: int = 0,
        faults: Faults | None = None,
    ) -> None:
        self.name = name
        self.settings = Settings(
            traits=traits,
            limits=limits,
            lease=lease,
            lease_max=lease_max,
            native_dead_letter=native_dead_letter,
            redelivers_acked=redelivers_acked,
        )
        self.faults = faults
        self._wall = wall
        self._wires: dict[str, Wire] = {}
        self._receipts = count(1)
        self._message_ids = count(1)
        self._source_numbers = count(1)
        self._observers: list[Callable[[Change], None]] = []
        self._history: deque[Change] = deque(maxlen=history)
        self._clock_known = False
        self._last_now = 0.0
        if history:
            self.observe(self._history.append)

    # -- queues, sources and sinks -------------------------------------------------------------

    def declare(self, queue: str, settings: Settings) -> MemoryQueue:
        """Make `queue` with settings of its own. Raises ValueError when it exists."""
        if queue in self._wires:
            raise ValueError(f"queue {queue!r} of broker {self.name!r} exists: declare it before its first use")
        wall = self._wall
        made = MemoryQueue(queue, settings, self._receipts, (lambda now: now) if wall is None else (lambda _: wall()))
        self._wires[queue] = Wire(made, f"{self.name}://{queue}", lambda: self.faults)
        self._watch()
        return made

    def queue(self, queue: str) -> MemoryQueue:
        """The queue of this name, made if need be: the state machine below sources and sinks."""
        return self._wire(queue).queue

    def source(self, queue: str, demand: Demand = _DEMAND) -> AbstractAsyncContextManager[MemorySource]:
        """Open a source at `queue`; `demand.lease` is the length of its leases, where it has the choice."""
        return self._source(queue, demand)

    @asynccontextmanager
    async def _source(self, queue: str, demand: Demand) -> AsyncIterator[MemorySource]:
        wire = self._wire(queue)
        self.now()
        made = NativeMemorySource if wire.queue.settings.native_dead_letter else MemorySource
        source = made(wire, next(self._source_numbers), demand)
        try:
            yield source
        finally:
            source.close()

    def sink(self, queue: str) -> AbstractAsyncContextManager[MemorySink]:
        """Open a sink at `queue`."""
        return self._sink(queue)

    @asynccontextmanager
    async def _sink(self, queue: str) -> AsyncIterator[MemorySink]:
        self.now()
        sink = MemorySink(self._wire(queue), self._message_ids)
        try:
            yield sink
        finally:
            sink.close()

    def _wire(self, queue: str) -> Wire:
        if queue not in self._wires:
            self.declare(queue, self.settings)
        return self._wires[queue]

    def now(self) -> float:
        """The loop's clock; outside a loop, where it stood last."""
        try:
            now = anyio.current_time()
        except RuntimeError:
            return self._last_now
        self._last_now = now
        if not self._clock_known:
            self._clock_known = True
            for wire in self._wires.values():
                wire.queue.start(now)
        return now

    # -- publishing without a sink -------------------------------------------------------------

    def publish(
        self,
        queue: str,
        body: object,
        *,
        key: str | None = None,
        attributes: Mapping[str, str] | None = None,
        content_type: str | None = None,
        type: str | None = None,
        delay: float = 0.0,
        message_id: str | None = None,
    ) -> str:
        """Publish one event at once, also outside a loop; return its message id.

        `body` is bytes, or anything that JSON can say. With `type`, it is a CloudEvent of that type (binary
        mode, as `ce-` attributes). `delay` is in seconds.
        """
        id = message_id or str(next(self._message_ids))
        outgoing = _outgoing(body, key, content_type)
        message = as_message(outgoing, id)
        message.attributes = {**_cloud_event(self.name, queue, type, id), **(attributes or {})} or None
        self.queue(queue).publish(message, delay, self.now())
        return id

    def feed(self, queue: str, events: Iterable[object]) -> None:
        """Publish `events` one by one as receives ask for them, so that a million need no memory.

        Each is bytes, an `Outgoing` (its delay is not looked at) or anything that JSON can say. Until its end, a
        feed counts as one waiting event. What its keys keep waiting is held in memory.
        """
        self.queue(queue).feed(self._fed(events))

    def _fed(self, events: Iterable[object]) -> Iterator[Message]:
        ids = self._message_ids
        for event in events:
            if isinstance(event, bytes):
                yield Message(event, str(next(ids)))
            else:
                outgoing = event if isinstance(event, Outgoing) else _outgoing(event, None, None)
                yield as_message(outgoing, str(next(ids)))

    # -- what has happened, and how things stand -----------------------------------------------

    def observe(self, observer: Callable[[Change], None]) -> None:
        """Call `observer` with each change from now on. It may raise, to fail the test, but not call the broker."""
        self._observers.append(observer)
        self._watch()

    def _watch(self) -> None:
        tell = self._observers[0] if len(self._observers) == 1 else self._tell_all
        for wire in self._wires.values():
            wire.queue.watch(wire.bell.ring, tell if self._observers else None)

    def _tell_all(self, change: Change) -> None:
        for observer in self._observers:
            observer(change)

    def counts(self, queue: str | None = None) -> Counts:
        """How often each thing has happened, in `queue` or in all."""
        now = self.now()
        return sum((each.counts(now) for each in self._queues(queue)), Counts())

    def depth(self, queue: str | None = None) -> Depth:
        """How much there is now, in `queue` or in all."""
        now = self.now()
        depths = [each.depth(now) for each in self._queues(queue)]
        ages = [depth.oldest_age for depth in depths if depth.oldest_age is not None]
        return Depth(
            ready=sum(depth.ready for depth in depths),
            delayed=sum(depth.delayed for depth in depths),
            leased=sum(depth.leased for depth in depths),
            dead=sum(depth.dead for depth in depths),
            oldest_age=max(ages, default=None),
        )

    def _queues(self, queue: str | None) -> list[MemoryQueue]:
        return [wire.queue for wire in self._wires.values()] if queue is None else [self.queue(queue)]

    @property
    def acked(self) -> int:
        """How many deliveries have been acked."""
        return self.counts().acked

    @property
    def ready(self) -> int:
        """How many events wait and are not held back."""
        return self.depth().ready

    @property
    def leased(self) -> int:
        """How many events are leased."""
        return self.depth().leased

    @property
    def delayed(self) -> int:
        """How many events are held back."""
        return self.depth().delayed

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The dead letters of all queues, oldest first within each."""
        self.counts()
        return [letter for wire in self._wires.values() for letter in wire.queue.dead_letters]

    @property
    def history(self) -> list[Change]:
        """The last changes. Raises RuntimeError when the broker was made without `history`."""
        if not self._history.maxlen:
            raise RuntimeError(f"broker {self.name!r} remembers nothing: make it with MemoryBroker(history=10_000)")
        return list(self._history)

    @property
    def acked_ids(self) -> list[str]:
        """The message ids of the acked deliveries, in order, as far as `history` reaches."""
        return [change.message_id for change in self.history if change.kind is Kind.ACKED]


def _outgoing(body: object, key: str | None, content_type: str | None) -> Outgoing:
    if isinstance(body, bytes):
        return Outgoing(body=body, key=key, content_type=content_type)
    return Outgoing(body=msgspec.json.encode(body), key=key, content_type=content_type or "application/json")


def _cloud_event(broker: str, queue: str, type: str | None, id: str) -> dict[str, str]:
    if type is None:
        return {}
    return {"ce-specversion": "1.0", "ce-id": id, "ce-source": f"{broker}://{queue}", "ce-type": type}
