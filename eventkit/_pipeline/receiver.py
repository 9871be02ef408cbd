"""Receiving: permits first, then the wire, then each delivery on its way to its handler."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.lowlevel

from eventkit._codec import Codec
from eventkit._config import FlowLimits
from eventkit._event import Event
from eventkit._pipeline.counters import Counters
from eventkit._pipeline.executor import BUSY_SECONDS
from eventkit._pipeline.flow import ALREADY_HANDLED
from eventkit._pipeline.inflight import InFlight, Table
from eventkit._pipeline.wakeup import Waiters
from eventkit._policies.backoff import Backoff
from eventkit._policies.history import History
from eventkit._policies.letter import describe_error
from eventkit._telemetry.observer import Fanout
from eventkit._telemetry.records import ReceiveFailed
from eventkit.errors import DecodeError, TransientAdapterError
from eventkit.spi import Delivery, Source

if TYPE_CHECKING:
    from eventkit._pipeline.flow import Flow
    from eventkit._pipeline.judge import Judge
    from eventkit._pipeline.lanes import Lanes
    from eventkit._pipeline.leases import Keeper
    from eventkit._pipeline.routes import Route, RouteTable

__all__ = ["Admission", "Receiver"]
RECEIVE_BACKOFF = Backoff(initial=0.2, maximum=30.0)
IDLE_FIRST = 0.01
IDLE_LONGEST = 0.5
CLOCK_EVERY = 8
"""Deliveries admitted between two looks at the clock, which costs as much as decoding a small event."""


class Admission:
    """Registers, decodes and routes one delivery; a bad one ends here, with a reason."""

    def __init__(
        self,
        *,
        table: Table,
        history: History,
        codec: Codec,
        routes: RouteTable,
        lanes: Lanes,
        judge: Judge,
        flow: Flow,
        keeper: Keeper,
        max_processing: float,
        unroutable: Literal["reject", "skip"],
    ) -> None:
        self._table = table
        self._history = history
        self._codec = codec
        self._routes = routes
        self._lanes = lanes
        self._judge = judge
        self._flow = flow
        self._keeper = keeper
        self._max_processing = max_processing
        self._unroutable = unroutable

    def admit(self, delivery: Delivery, now: float, asked_at: float) -> None:
        """Take one delivery in, of a receive that began at `asked_at`."""
        entry = self._table.register(delivery, now, self._max_processing, asked_at)
        if entry.extend_at < self._keeper.wake_at:
            self._keeper.wake(entry.extend_at)
        if self._history.known or not entry.attempt:
            entry.attempt = self._judge.attempt(entry)
        lanes = self._lanes
        if self._judge.draining or delivery.leased_until <= now or (lanes.acked and lanes.already_acked(entry)):
            self._turn_back(entry, now)
        elif (route := self._decode(entry)) is None:
            return
        elif self._flow.gate.closed:
            self._flow.admit(entry)
        elif lanes.ordered:
            lanes.enter(entry)
        else:
            route.offer(entry)

    def _turn_back(self, entry: InFlight, now: float) -> None:
        """What need not even be decoded."""
        if self._judge.draining:
            self._judge.released(entry, "drain")
        elif entry.leased_until <= now:
            # It will come again, and what follows in its key has to wait for it.
            self._lanes.line_up(entry)
            self._judge.lost(entry)
        else:
            self._judge.skipped(entry, ALREADY_HANDLED)

    def _decode(self, entry: InFlight) -> Route | None:
        """Give the entry its route and event; None when it ended here."""
        delivery = entry.delivery
        try:
            envelope = self._codec.read(delivery)
            type_ = envelope.type
            event = entry.event = Event(
                delivery,
                envelope.id,
                envelope.source,
                type_,
                None,
                entry.attempt,
                envelope.subject,
                envelope.time,
                envelope.extensions,
            )
            if (route := self._routes.find(type_)) is not None:
                entry.route = route
                event.data = route.decode(envelope)
                return route
        except DecodeError as exc:
            self._lanes.pass_by(entry)
            self._judge.rejected(entry, "decode", exc)
            return None
        if self._unroutable == "skip":
            self._judge.skipped(entry, "unroutable")
        else:
            self._lanes.pass_by(entry)
            self._judge.rejected(entry, "unroutable")
        return None


class Receiver:
    """Receives only what there is room for; a receive on the wire is never cancelled."""

    def __init__(
        self,
        *,
        source: Source,
        admission: Admission,
        table: Table,
        flow: Flow,
        room: Waiters,
        counters: Counters,
        emit: Fanout,
        rng: Random,
        limits: FlowLimits,
        wait: float,
    ) -> None:
        self.receiving = 0
        self._source = source
        self._admission = admission
        self._table = table
        self._flow = flow
        self._room = room
        self._counters = counters
        self._emit = emit
        self._rng = rng
        self._limits = limits
        self._wait = wait
        self._reserved = 0
        self._stopped = False
        self._pause = Waiters()
        self._company = Waiters()

    def stop(self) -> None:
        """Receive no more; what is on the wire still comes in."""
        self._stopped = True
        self._source.stop()
        self._room.wake_all()
        self._pause.wake_all()
        self._company.wake_all()

    async def run(self) -> None:
        """Receive until stopped; several of these may run side by side, one while nothing comes.

        Raises PermanentAdapterError.
        """
        failures = idle = 0
        while not self._stopped:
            permits = self._permits()
            if permits <= 0:
                await self._room.sleep()
                continue
            started = anyio.current_time()
            try:
                deliveries = await self._receive(permits)
            except TransientAdapterError as exc:
                failures += 1
                await self._pause_after(exc, failures)
                if self.receiving and not self._stopped:
                    # It may be us who are too many for it: one of us sees when it answers again.
                    await self._company.sleep()
                continue
            failures = 0
            await self._admit(deliveries, started)
            if len(deliveries) < permits:
                self._flow.lanes.heard(started)
            hasty = not deliveries and (not self._wait or anyio.current_time() - started < IDLE_FIRST)
            idle = idle + 1 if hasty else 0
            if deliveries:
                self._company.wake()
            elif self.receiving and not self._stopped:
                # Every poll of an empty queue costs: one of us is enough to see that there is something again.
                await self._company.sleep()
            elif idle:
                # The source did not wait, or was not to: do not turn that into a hot loop.
                await self._pause.sleep(anyio.current_time() + min(IDLE_FIRST * 2.0 ** min(idle, 10), IDLE_LONGEST))

    def _permits(self) -> int:
        closed, parked = self._flow.gate.closed, self._table.parked
        if (closed and (not self._flow.wants_probe or self._reserved)) or 0 < self._limits.parked <= parked:
            return 0
        free = self._limits.in_flight - self._table.held - self._reserved
        if free <= 0 or self._table.bytes >= self._limits.in_flight_bytes:
            # What waits for the head of its key makes no room before that comes again: one more, or all stands still.
            in_hand, most = len(self._table.entries), self._limits.in_flight + self._limits.parked
            return int(not self._reserved and in_hand < most and self._flow.lanes.starve(in_hand))
        return min(free, 1 if closed else self._source.info.limits.receive)

    async def _receive(self, permits: int) -> Sequence[Delivery]:
        self._reserved += permits
        self.receiving += 1
        try:
            return await self._source.receive(permits, self._wait)
        finally:
            self._reserved -= permits
            self.receiving -= 1

    async def _admit(self, deliveries: Sequence[Delivery], asked_at: float) -> None:
        now = rested = anyio.current_time()
        self._counters.received += len(deliveries)
        admit = self._admission.admit
        for number, delivery in enumerate(deliveries, 1):
            admit(delivery, now, asked_at)
            if number % CLOCK_EVERY == 0 and (now := anyio.current_time()) - rested > BUSY_SECONDS:
                await anyio.lowlevel.checkpoint()
                rested = now

    async def _pause_after(self, error: TransientAdapterError, failures: int) -> None:
        delay = max(error.retry_after or 0.0, RECEIVE_BACKOFF.delay(failures, self._rng), 0.05)
        name, message = describe_error(error)
        self._emit(ReceiveFailed(delay=delay, error=name, message=message))
        await self._pause.sleep(anyio.current_time() + delay)
