"""The worker, as a user runs it: `python -m bench.cloud.worker ADDRESS HANDLER [IN_FLIGHT]`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.cloud.meter import peak, report, used
from bench.cloud.payload import Order, late, note
from eventkit import Batch, BatchHandler, Event, FlowLimits, Handler, Worker, run


class Metered:
    """Knows what was used between opening the source and the end of the drain."""

    cpu = 0.0

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """See `Handler.lifespan`."""
        before = used()
        yield
        self.cpu = used() - before


class Single(Metered, Handler[Order]):
    async def handle(self, event: Event[Order]) -> None:
        """Do nothing."""


class Batches(Metered, BatchHandler[Order]):
    async def handle(self, batch: Batch[Order]) -> None:
        """Do nothing."""


class Note(Metered, Handler[Order]):
    async def handle(self, event: Event[Order]) -> None:
        """How long it was on its way."""
        await note(event.data)


def main(address: str, name: str, in_flight: str = "") -> None:
    """Consume until SIGTERM."""
    kinds: dict[str, type[Single | Batches | Note]] = {"Single": Single, "Batches": Batches, "Note": Note}
    handler = kinds[name]()
    limits = FlowLimits(in_flight=int(in_flight)) if in_flight else None
    code = run(Worker(address, handler, limits=limits))
    report(handler.cpu, peak(), late=late)
    sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
