"""Receiving from a subscription and settling what came."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

from anyio import current_time
from anyio.lowlevel import checkpoint

from eventkit.spi import DONE, LOST, Delivery, Extended, Receipt, Settled, SourceInfo
from eventkit_pubsub._buffer import Taken
from eventkit_pubsub._content import delivery_of
from eventkit_pubsub._hold import Hold
from eventkit_pubsub._intake import Intake
from eventkit_pubsub._leases import LONGEST_LEASE, Leases


class PubsubSource:
    """A subscription to receive from. See `eventkit.spi.Source`."""

    def __init__(self, info: SourceInfo, intake: Intake, leases: Leases) -> None:
        self.info = info
        self._intake = intake
        self._leases = leases
        self._counted = info.traits.delivery_count != "none"
        self._ordered = info.traits.key_release != "none"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[PubsubSource]:
        """The source, until its context ends."""
        async with self._intake.running():
            yield self

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """See `Source.receive`. The first one, and one after a pause, opens the stream."""
        await checkpoint()
        taken = await self._intake.take(limit, current_time() + wait)
        return [delivery for some in taken for delivery in self._deliveries(some)]

    def _deliveries(self, taken: Taken) -> Iterator[Delivery]:
        messages, leased_until, stream, share = taken
        counted, unseen, held = self._counted, self._intake.unseen, self._intake.held
        for message in messages:
            hold = Hold(message.ack_id, share, stream)
            if self._ordered and message.message.ordering_key:
                hold.mark = held.mark(message.message.ordering_key, leased_until)
            times = unseen.times(message.message.message_id) if unseen else 0
            yield delivery_of(message, hold, leased_until, counted=counted, unseen=times)

    async def ack(self, receipts: Sequence[Receipt]) -> Sequence[Settled]:
        """See `Source.ack`. Without exactly-once delivery Pub/Sub says DONE to an old receipt too."""
        results = await self._leases.end([hold.ack_id for hold in receipts])
        self._intake.held.settle(receipts, results)
        return results

    async def nack(self, items: Sequence[tuple[Receipt, float]]) -> Sequence[Settled]:
        """See `Source.nack`. What waits here of the same keys goes back with them: it comes again after them."""
        longest = self.info.traits.nack_delay_max
        fit = [(hold, delay) for hold, delay in items if 0 <= delay <= longest]
        behind = self._intake.recalled({hold.mark.key for hold, _ in fit if hold.mark is not None})
        asked = [(hold.ack_id, delay) for hold, delay in fit] + [(ack_id, 0.0) for ack_id in behind]
        answered = iter(await self._leases.give_back(asked))
        too_long = Settled.refused(f"{self.info.name} delays a retry by {longest:g} s at most")
        results = [next(answered) if 0 <= delay <= longest else too_long for _, delay in items]
        self._intake.held.settle([receipt for receipt, _ in items], results)
        return results

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Extended | Settled]:
        """See `Source.extend`. A lease of more than ten minutes is one of ten minutes."""
        asked_at, seconds = current_time(), min(math.ceil(lease), LONGEST_LEASE)
        if seconds <= 0:
            return [Settled.refused(f"lease of {lease:g} s: must be above 0 s")] * len(receipts)
        results = await self._leases.set("extend leases in", [hold.ack_id for hold in receipts], seconds)
        extended = Extended(asked_at + seconds)
        lost: set[str] = set()
        for hold, result in zip(receipts, results, strict=True):
            if hold.mark is not None and result is DONE:
                hold.mark.leased_until = extended.until
            elif hold.mark is not None and result is LOST:
                self._intake.held.forget(hold.mark)
                lost.add(hold.mark.key)
        await self._intake.give_back(lost)
        return [extended if result is DONE else result for result in results]

    def stop(self) -> None:
        """See `Source.stop`. The stream is half-closed; what nobody receives of its last messages is given back."""
        self._intake.stop()
