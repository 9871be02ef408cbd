"""The embedded queue as a source and a sink: the asynchronous shell over what one thread does with the file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio
from anyio import current_time

from eventkit.spi import (
    Adapter,
    Address,
    DeadLetter,
    Delivery,
    Demand,
    Depth,
    Extended,
    Letter,
    Outgoing,
    Settled,
    Sink,
    Source,
    SourceInfo,
)
from eventkit_sqlite._bell import Bell, listening, ring_all
from eventkit_sqlite._config import LIMITS, TRAITS, Place
from eventkit_sqlite._ends import Ends
from eventkit_sqlite._leases import Found, Leases, Receipt, keys
from eventkit_sqlite._letters import Letters
from eventkit_sqlite._publish import Publisher
from eventkit_sqlite._session import Session
from eventkit_sqlite._thread import WorkThread

_FIRST_POLL: Final = 0.02
_LAST_POLL: Final = 0.1


class SqliteSource:
    """A queue to receive from: also its backlog and its dead letters. See `eventkit.spi.Source`."""

    def __init__(self, info: SourceInfo, thread: WorkThread, bell: Bell, *, leases: Leases, session: Session) -> None:
        self.info = info
        self._place = session.place
        self._run = thread.run
        self._bell = bell
        self._stopped = False
        self._leases = leases
        self._ends = Ends(session)
        self._letters = Letters(session)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """See `Source.receive`. Finds what other processes published within a tenth of a second."""
        until = current_time() + wait
        while not self._stopped:
            ring = self._bell.next_ring()
            asked_at = current_time()
            found = await self._run("receive from", self._leases.receive, limit, asked_at)
            if found.deliveries or self._stopped or current_time() >= until:
                return found.deliveries
            await self._change(found, ring, min(until, current_time() + found.due_in))
        return ()

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        """See `Source.ack`."""
        settled = await self._run("ack in", self._ends.ack, receipts)
        self._ring_for_lanes(receipts)
        return settled

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        """See `Source.nack`."""
        settled = await self._run("nack in", self._leases.nack, items)
        ring_all(self._place)
        return settled

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        """See `Source.extend`."""
        return await self._run("extend leases in", self._leases.extend, receipts, lease, current_time())

    async def dead_letter(self, letters: Sequence[Letter]) -> Sequence[Settled]:
        """See `NativeDeadLetter.dead_letter`."""
        settled = await self._run("dead-letter in", self._ends.bury, letters)
        self._ring_for_lanes([letter.receipt for letter in letters])
        return settled

    def stop(self) -> None:
        """See `Source.stop`."""
        self._stopped = True
        self._bell.ring()

    async def depth(self) -> Depth:
        """See `Backlog.depth`."""
        return await self._run("count", self._leases.depth)

    async def peek(self, limit: int, after: str | None = None) -> Sequence[DeadLetter]:
        """See `DeadLetterBrowser.peek`."""
        return await self._run("read the dead letters of", self._letters.peek, limit, after)

    async def take(self, ids: Sequence[str]) -> Sequence[Settled]:
        """See `DeadLetterBrowser.take`."""
        return await self._run("take dead letters from", self._letters.take, ids)

    async def put_back(self, ids: Sequence[str]) -> Sequence[Settled]:
        """See `DeadLetterBrowser.put_back`."""
        settled = await self._run("put dead letters back in", self._letters.put_back, ids)
        ring_all(self._place)
        return settled

    async def _change(self, found: Found, ring: anyio.Event, until: float) -> None:
        """Wait until this process or another one has changed the queue, at most to `until` on the loop's clock."""
        pause = _FIRST_POLL
        while (left := until - current_time()) > 0:
            with anyio.move_on_after(min(pause, left)):
                await ring.wait()
            if ring.is_set() or await self._run("look into", self._leases.version) != found.version:
                return
            pause = min(pause * 1.3, _LAST_POLL)

    def _ring_for_lanes(self, receipts: Sequence[Receipt]) -> None:
        if keys(receipts):  # its key may be open to another source now
            ring_all(self._place)


class SqliteSink:
    """A queue to publish to. See `eventkit.spi.Sink`."""

    def __init__(self, thread: WorkThread, session: Session) -> None:
        self.limits = LIMITS
        self._place = session.place
        self._run = thread.run
        self._publisher = Publisher(session)

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        """See `Sink.publish`: one transaction, in the file when it returns."""
        results = await self._run("publish to", self._publisher.publish, messages)
        ring_all(self._place)
        return results


class SqliteAdapter:
    """Opens queues in SQLite files."""

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[Source]:
        """See `Adapter.open_source`."""
        return _open_source(address, demand)

    def open_sink(self, address: Address) -> AbstractAsyncContextManager[Sink]:
        """See `Adapter.open_sink`."""
        return _open_sink(address)


@asynccontextmanager
async def _open_source(address: Address, demand: Demand) -> AsyncIterator[Source]:
    place = Place.from_address(address)
    info = SourceInfo(name=str(address), limits=LIMITS, traits=TRAITS)
    async with (
        WorkThread.running(place) as thread,
        thread.session() as session,
        thread.session(relaxed=True) as relaxed,
    ):
        leases = await thread.run(
            "open", Leases, relaxed, ordered=demand.ordered, lease=demand.lease, limit_bytes=demand.bytes
        )
        with listening(place) as bell:
            yield SqliteSource(info, thread, bell, leases=leases, session=session)


@asynccontextmanager
async def _open_sink(address: Address) -> AsyncIterator[Sink]:
    place = Place.from_address(address)
    async with WorkThread.running(place) as thread, thread.session() as session:
        yield SqliteSink(thread, session)


adapter: Final[Adapter] = SqliteAdapter()
