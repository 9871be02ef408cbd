"""The worker, and how long its events take: `python -m bench.servicebus.timed ADDRESS Single|Batches`."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from eventkit_servicebus import adapter

from bench.cloud.meter import peak, report, used
from bench.cloud.payload import Order, late
from eventkit import Batch, BatchHandler, Event, Handler, Worker, run
from eventkit.spi import DONE, Address, Demand, Receipt, Settled, Sink, Source

handled: dict[Receipt, float] = {}
settled: list[float] = []
"""How long each ack took, from when the handler was done, ms."""


def note(events: Iterable[Event[Order]]) -> None:
    """How long they were on their way, and when they were handled."""
    now = time.time()
    for event in events:
        late.append((now - event.data.sent) * 1000)
        handled[event.delivery.receipt] = now


class Single(Handler[Order]):
    async def handle(self, event: Event[Order]) -> None:
        note([event])


class Batches(BatchHandler[Order]):
    async def handle(self, batch: Batch[Order]) -> None:
        note(batch)


class Timed:
    """The adapter, but that acks are timed."""

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[Source]:
        """See `Adapter.open_source`."""
        return _timed(adapter.open_source(address, demand))

    def open_sink(self, address: Address) -> AbstractAsyncContextManager[Sink]:
        """See `Adapter.open_sink`."""
        return adapter.open_sink(address)


@asynccontextmanager
async def _timed(opening: AbstractAsyncContextManager[Source]) -> AsyncIterator[Source]:
    async with opening as source:
        ack = source.ack

        async def timed(receipts: Sequence[Receipt]) -> Sequence[Settled]:
            results = await ack(receipts)
            now = time.time()
            done = [receipt for receipt, result in zip(receipts, results, strict=True) if result is DONE]
            settled.extend((now - handled.pop(receipt)) * 1000 for receipt in done)
            return results

        source.ack = timed  # type: ignore[method-assign]  # all else of it is as it was
        yield source


KINDS: dict[str, type[Single | Batches]] = {"Single": Single, "Batches": Batches}


def main(address: str, name: str) -> None:
    """Consume until SIGTERM."""
    before = used()
    code = run(Worker(address, KINDS[name](), adapter=Timed()))
    report(used() - before, peak(), late=late, settled=settled)
    sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
