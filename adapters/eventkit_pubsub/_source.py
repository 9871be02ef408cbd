"""Receiving from a subscription and settling what came."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio import current_time
from anyio.lowlevel import checkpoint

from eventkit.errors import AdapterError
from eventkit.spi import DONE, Delivery, Extended, Receipt, Settled, SourceInfo
from eventkit_pubsub._content import delivery_of
from eventkit_pubsub._errors import partly
from eventkit_pubsub._intake import Intake
from eventkit_pubsub._leases import LONGEST_LEASE, Leases

_TOO_LONG: Final = Settled.refused(f"Pub/Sub delays a retry by {LONGEST_LEASE} s at most")


class PubsubSource:
    """A subscription to receive from. See `eventkit.spi.Source`."""

    def __init__(self, info: SourceInfo, intake: Intake, leases: Leases) -> None:
        self.info = info
        self._intake = intake
        self._leases = leases
        self._counted = info.traits.delivery_count != "none"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[PubsubSource]:
        """The source, until its context ends."""
        async with self._intake.running():
            yield self

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """See `Source.receive`. The first one, and one after a pause, opens the stream."""
        await checkpoint()
        taken = await self._intake.take(limit, current_time() + wait)
        counted, unseen = self._counted, self._intake.unseen
        return [
            delivery_of(message, hold, until, counted=counted, unseen=unseen.times(message.message.message_id))
            for message, hold, until in taken
        ]

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        """See `Source.ack`. Without exactly-once delivery Pub/Sub says DONE to an old receipt too."""
        results = await self._leases.end([hold.ack_id for hold in receipts])
        _count(receipts, results)
        return results

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        """See `Source.nack`. A delay is a lease that nobody holds: rounded up to seconds, one call for each length."""
        calls: dict[int, list[int]] = {}
        for position, (_, delay) in enumerate(items):
            if 0 <= delay <= LONGEST_LEASE:
                calls.setdefault(math.ceil(delay), []).append(position)
        results = [_TOO_LONG] * len(items)
        answered: list[list[Settled] | AdapterError] = [[]] * len(calls)

        async def call(number: int, seconds: int, positions: Sequence[int]) -> None:
            try:
                answered[number] = await self._leases.set("nack in", [items[at][0].ack_id for at in positions], seconds)
            except AdapterError as exc:
                answered[number] = exc

        async with anyio.create_task_group() as tasks:
            for number, (seconds, positions) in enumerate(calls.items()):
                tasks.start_soon(call, number, seconds, positions)
        order = [position for positions in calls.values() for position in positions]
        for position, result in zip(order, partly(answered, [*map(len, calls.values())]), strict=True):
            results[position] = result
        _count([receipt for receipt, _ in items], results)
        return results

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        """See `Source.extend`. A lease of more than ten minutes is one of ten minutes."""
        asked_at, seconds = current_time(), min(math.ceil(lease), LONGEST_LEASE)
        if seconds <= 0:
            return [Settled.refused(f"lease of {lease:g} s: must be above 0 s")] * len(receipts)
        results = await self._leases.set("extend leases in", [hold.ack_id for hold in receipts], seconds)
        extended = Extended(asked_at + seconds)
        return [extended if result is DONE else result for result in results]

    def stop(self) -> None:
        """See `Source.stop`. The stream is half-closed; what nobody receives of its last messages is given back."""
        self._intake.stop()


def _count(receipts: Sequence[Receipt], results: Sequence[Settled]) -> None:
    """What is settled counts against no stream any more."""
    for hold, result in zip(receipts, results, strict=True):
        if result is DONE:
            hold.settle()
