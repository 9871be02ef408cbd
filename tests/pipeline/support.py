"""A rig for the pipeline's tests: the real worker on the in-memory broker, mostly on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import trio.testing

from eventkit import Worker
from eventkit._handler import AnyHandler
from eventkit._telemetry.records import Level, Record
from eventkit.spi import Limits, Traits
from eventkit.testing import Faults, Kind, MemoryAdapter, MemoryBroker

R = TypeVar("R", bound=Record)
T = TypeVar("T")

QUEUE = "events"


def on_virtual_time(scenario: Callable[[], Awaitable[T]]) -> T:
    """Run `scenario` on trio with a clock that jumps whenever every task waits: hours pass in milliseconds."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(scenario, backend="trio", backend_options={"clock": clock})


class Rig:
    """One worker, its broker, and everything both told."""

    def __init__(
        self,
        *handlers: AnyHandler,
        traits: Traits | None = None,
        limits: Limits | None = None,
        native_dead_letter: bool = True,
        faults: Faults | None = None,
        lease: float = 30.0,
        **options: Any,
    ) -> None:
        self.broker = MemoryBroker(
            traits=traits or Traits(key_release="hold"),
            limits=limits or Limits(),
            native_dead_letter=native_dead_letter,
            faults=faults,
            history=100_000,
        )
        self.level = Level.DEBUG
        self.records: list[Record] = []
        adapter = MemoryAdapter()
        adapter.use(self.broker)
        options.setdefault("seed", 1)
        self.worker = Worker(f"memory://{QUEUE}", *handlers, adapter=adapter, observers=[self], lease=lease, **options)
        # No thread may touch the virtual clock.
        self.worker._watch_loop = False

    def observe(self, record: Record) -> None:
        """Keep a telemetry record."""
        self.records.append(record)

    def publish(self, *bodies: object, key: str | None = None, type: str = "test") -> list[str]:
        """Publish events; their message ids."""
        return [self.broker.publish(QUEUE, body, key=key, type=type) for body in bodies]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The worker runs inside, and is drained at the end."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.worker.run)
            yield
            self.worker.drain()

    async def until(self, condition: Callable[[], bool], limit: float = 3600.0) -> None:
        """Wait until `condition` holds. Raises TimeoutError after `limit` seconds."""
        with anyio.fail_after(limit):
            while not condition():
                await anyio.sleep(0.01)

    async def until_settled(self, limit: float = 3600.0) -> None:
        """Wait until the broker holds nothing any more, dead letters aside."""
        await self.until(lambda: (d := self.broker.depth(QUEUE)).ready + d.delayed + d.leased == 0, limit)

    def of(self, kind: type[R]) -> list[R]:
        """The records of one kind."""
        return [record for record in self.records if isinstance(record, kind)]

    def changes(self, kind: Kind) -> list[str]:
        """Message ids the broker saw this happen to, in order."""
        return [change.message_id for change in self.broker.history if change.kind is kind]

    @property
    def dead(self) -> dict[str, str]:
        """Message id -> reason of every dead letter."""
        return {letter.message_id: letter.reason for letter in self.broker.dead_letters}
