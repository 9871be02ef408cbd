"""Where a case plays: workers at one place, what their handlers saw, and how that is judged."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import anyio
import msgspec
from anyio import current_time

from eventkit import Backoff, Event, Worker
from eventkit._handler import AnyHandler
from eventkit._telemetry.records import Level, LoopBlocked, Record
from eventkit.spi import DONE, Address, DeadLetterBrowser, Delivery, Demand, Outgoing, Sink, SourceInfo
from tests.adapters.contract.results import ContractBroken, NotApplicable
from tests.adapters.contract.variant import Place, Variant

LETTER_ATTRIBUTE = "eventkit-dead-letter"
DRAIN = 5.0
PAUSE = 0.01


@dataclass(slots=True, kw_only=True)
class Call:
    """One event in one call of a handler, on the loop's clock; `result` is "ok", the class of an exception, or ""."""

    name: str
    key: str | None
    message_id: str
    attempt: int
    worker: str
    company: int
    began: float
    ended: float = math.inf
    result: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """One dead letter as it was read back; `detail` is what stands beside it."""

    name: str
    reason: str
    detail: dict[str, Any]


class Stage:
    """One case at one place. Its doors are many: everything a case does goes through here, into the timeline."""

    def __init__(self, variant: Variant, case: str, place: Place, info: SourceInfo, sink: Sink) -> None:
        self.variant = variant
        self.place = place
        self.info = info
        self.traits = info.traits
        self.lease = variant.lease
        self.calls: list[Call] = []
        self.records: list[Record] = []
        self.level = Level.INFO
        self._case = case
        self._sink = sink
        self._began = current_time()
        self._timeline: list[tuple[float, str]] = []

    @classmethod
    @asynccontextmanager
    async def set_up(cls, variant: Variant, case: str, place: Place) -> AsyncIterator[Stage]:
        """A stage at `place`, whose source is opened once to see what it is."""
        demand = Demand(lease=variant.lease, ordered=variant.ordered)
        async with place.adapter.open_source(Address.parse(place.source), demand) as source:
            info = source.info
            source.stop()
        async with place.adapter.open_sink(Address.parse(place.sink)) as sink:
            yield cls(variant, case, place, info, sink)

    # -- acting ------------------------------------------------------------------------------------

    async def publish(self, *names: str, key: str | None = None, body: bytes | None = None) -> None:
        """Publish an event for each name; in order they need a key, which is the name where none is given."""
        messages = [
            Outgoing(
                body=body or msgspec.json.encode({"name": name}),
                content_type="application/json",
                key=key or (name if self.variant.ordered else None),
                event_id=f"{name}-{key}",
            )
            for name in names
        ]
        size = self._sink.limits.publish
        for start in range(0, len(messages), size):
            answers = await self._sink.publish(messages[start : start + size])
            self.expect(all(answer == DONE for answer in answers), f"publish answered {answers}")
        self.note(f"published {', '.join(names)}")

    @asynccontextmanager
    async def working(self, handler: AnyHandler, **options: Any) -> AsyncIterator[Worker]:
        """A worker runs inside, and is drained at the end; after a failure it is stopped."""
        settings: dict[str, Any] = {
            "lease": self.lease,
            "wait": 1.0,
            "drain": DRAIN,
            "seed": 1,
            "retry": self.backoff(),
        } | options
        worker = Worker(
            self.place.source,
            handler,
            adapter=self.place.adapter,
            observers=[self],
            dead_letter=self.place.dead_letter,
            ordering="key" if self.variant.ordered else "none",
            **settings,
        )
        if self.variant.virtual:
            worker._watch_loop = False  # no thread may touch a clock that jumps
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            try:
                yield worker
            except BaseException:
                with anyio.move_on_after(DRAIN, shield=True):
                    await self.place.line.heal()
                worker.stop()
                raise
            worker.drain()
        self.note("a worker has ended")

    def backoff(self, initial: float = 0.2, *, maximum: float = 60.0, attempts: int = 5) -> Backoff:
        """A backoff with which this source lets a worker start."""
        counted = self.traits.delivery_count != "none"
        return Backoff(initial=initial, maximum=maximum, attempts=attempts if counted else "age")

    # -- what handlers tell ----------------------------------------------------------------------------

    def begins(self, worker: str, *events: Event[Any]) -> list[Call]:
        """A handler is called with these events."""
        now = current_time()
        calls = [
            Call(
                name=event.data["name"],
                key=event.key,
                message_id=event.message_id,
                attempt=event.attempt,
                worker=worker,
                company=len(events),
                began=now,
            )
            for event in events
        ]
        self.calls += calls
        self.note(f"{worker}: " + ", ".join(f"{call.name} (attempt {call.attempt})" for call in calls))
        return calls

    def ends(self, calls: Sequence[Call], result: str) -> None:
        """The call is over."""
        now = current_time()
        for call in calls:
            call.ended, call.result = now, result
        self.note(f"{calls[0].worker}: {', '.join(call.name for call in calls)}: {result}")

    def observe(self, record: Record) -> None:
        """Take a telemetry record of a worker."""
        self.records.append(record)
        if isinstance(record, LoopBlocked):  # on a thread of its own, without the loop's clock
            self._timeline.append((self._timeline[-1][0] if self._timeline else self._began, str(record)))
        else:
            self.note(str(record))

    def note(self, told: str) -> None:
        """Put it down in the timeline."""
        self._timeline.append((current_time(), told))

    # -- looking -----------------------------------------------------------------------------------------

    def of(self, name: str) -> list[Call]:
        """The calls with one event, in order."""
        return [call for call in self.calls if call.name == name]

    def done(self, *names: str) -> bool:
        """Whether a handler has returned for each."""
        return {*names} <= {call.name for call in self.calls if call.result == "ok"}

    async def dead_letters(self, expected: int) -> list[Dead]:
        """All dead letters, read where they went; as many as expected must be there within five seconds."""
        letters: list[Dead] = []
        end = current_time() + 5.0
        while len(letters) < expected and current_time() < end:
            letters += await self._dead_letters(expected)
            if self.place.dead_letters is None and len(letters) < expected:
                letters = []
                await anyio.sleep(0.1)
        self.note(f"dead letters: {letters}")
        return letters

    async def _dead_letters(self, expected: int) -> list[Dead]:
        if self.place.dead_letters is None:
            async with self._source(self.place.beside or self.place.source) as source:
                assert isinstance(source, DeadLetterBrowser), "a place names where dead letters go, or has a browser"
                return [_dead(found.body, found.reason, found.detail) for found in await source.peek(100)]
        arrived = await self._arrivals(self.place.dead_letters, current_time() + 1.0, enough=expected)
        texts = [delivery.attributes.get(LETTER_ATTRIBUTE, "{}") for delivery in arrived]
        return [
            _dead(delivery.body, str(msgspec.json.decode(text).get("reason", "")), text)
            for delivery, text in zip(arrived, texts, strict=True)
        ]

    async def expect_nothing_left(self) -> None:
        """Whatever was not settled comes again when its lease ends: wait for it, in vain."""
        end = current_time() + self.lease + 1.0
        left = await self._arrivals(self.place.beside or self.place.source, end)
        self.expect(not left, f"{[_name(delivery.body) for delivery in left]} came again after all was settled")

    async def _arrivals(self, address: str, end: float, enough: int = 1) -> list[Delivery]:
        arrived: list[Delivery] = []
        async with self._source(address) as source:
            while len(arrived) < enough and (left := end - current_time()) > 0:
                most = min(10, source.info.limits.receive)
                came = list(await source.receive(most, min(left, 1.0)))
                if came:
                    await source.ack([delivery.receipt for delivery in came])
                arrived += came
                await anyio.sleep(PAUSE)
        return arrived

    @asynccontextmanager
    async def _source(self, address: str) -> AsyncIterator[Any]:
        demand = Demand(lease=self.lease, ordered=self.variant.ordered)
        async with self.place.adapter.open_source(Address.parse(address), demand) as source:
            yield source

    # -- judging -----------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], bool], within: float, told: str) -> None:
        """Wait until it holds. Raises ContractBroken with `told` when it does not within so many seconds."""
        end = current_time() + within
        while not holds():
            self.expect(current_time() < end, f"not within {within:g} s: {told}")
            await anyio.sleep(PAUSE)

    async def until_done(self, *names: str, within: float = 10.0) -> None:
        """Wait until a handler has returned for each."""
        await self.until(lambda: self.done(*names), within, f"{', '.join(names)} handled")

    def expect(self, holds: bool, told: str) -> None:
        """Raise ContractBroken unless it holds."""
        if not holds:
            self.fail(told)

    def expect_once(self, *names: str) -> None:
        """Each was in one call, and that returned; where the server may repeat itself, in at least one."""
        for name in names:
            results = [call.result for call in self.of(name)]
            allowed = len(results) >= 1 if self.variant.repeats else len(results) == 1
            self.expect(allowed and {*results} == {"ok"}, f"{name} was called {len(results)} times: {results}")

    def fail(self, told: str) -> NoReturn:
        """Raise ContractBroken."""
        raise ContractBroken(f"{self.variant}, {self._case}: {told}\n{self.timeline}")

    @property
    def blocked(self) -> bool:
        """Whether the loop stood still for half a second or more: then no time that was measured says anything."""
        return any(isinstance(record, LoopBlocked) for record in self.records)

    @property
    def timeline(self) -> str:
        """What has happened, a line each, in seconds since the case began."""
        return "\n".join(f"{at - self._began:9.3f} s  {told}" for at, told in self._timeline)

    def skip_if(self, ruled_out: bool, why: str) -> None:
        """Raise NotApplicable with `why`, which names the trait that rules the case out."""
        if ruled_out:
            raise NotApplicable(why)


def _dead(body: bytes, reason: str, detail: str) -> Dead:
    return Dead(name=_name(body), reason=reason, detail=msgspec.json.decode(detail or "{}"))


def _name(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["name"])
    except msgspec.DecodeError:
        return body.decode()
