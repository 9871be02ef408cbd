"""What goes wrong between a worker and its broker, drawn from one generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from eventkit.errors import AccessDenied, ConnectionLost, SourceNotFound, Throttled
from eventkit.spi import UNKNOWN, Delivery, Settled
from eventkit.testing.memory import Call, Faults

if TYPE_CHECKING:
    from eventkit.testing.memory import MemoryBroker

__all__ = ["BrokerFaults"]

SETTLES = frozenset({"ack", "nack"})
LETTERS = frozenset({"dead_letter", "publish"})


class BrokerFaults(Faults):
    """Injects the faults of `rates`, by their names in `SWITCHES`, until `heal`.

    `lease` is the length of a lease in seconds, by which slow calls are slow; `latency` the longest wait of any
    call. `fired` counts what has happened. A fault of dead letters strikes at every publish to a sink too.
    """

    def __init__(self, rng: Random, rates: Mapping[str, float], *, lease: float, latency: float = 0.0) -> None:
        self.fired: Counter[str] = Counter()
        self.broker: MemoryBroker | None = None
        """Needed by the faults of a broker itself: duplicates, and leases that are lost."""
        self._rng = rng
        self._rates = dict(rates)
        self._lease = lease
        self._latency = latency
        self._again: list[Any] = []

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        self._rates.clear()

    def strikes(self, name: str) -> bool:
        """Whether this fault happens now; counted if so."""
        rate = self._rates.get(name)
        if rate is None or self._rng.random() >= rate:
            return False
        self.fired[name] += 1
        return True

    def says_empty(self) -> bool:
        """Whether a receive comes back empty at once, whatever waits."""
        return self.strikes("receive_empty")

    async def before(self, call: Call) -> Mapping[int, Settled]:
        """See `Faults`."""
        await self._dawdle()
        verb = call.verb
        if not self._rates:
            return {}
        if self.strikes("throttled"):
            raise Throttled("the broker asks to slow down", retry_after=self._rng.choice([None, 0.1, 2.0]))
        if verb == "receive":
            await self._before_receive()
            return {}
        if verb in SETTLES:
            return await self._before_settle(call)
        if verb in LETTERS:
            return self._before_letter(call)
        self._lose_leases(call)
        if self.strikes("extend_error"):
            raise ConnectionLost("the extension did not arrive")
        return self._some(call, "extend_refused", Settled.refused("the broker will not"))

    async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
        """See `Faults`."""
        if not self._rates:
            await self._dawdle()
            return results
        verb = call.verb
        if verb == "receive":
            results = await self._after_receive(call, list(results))
        elif verb in SETTLES:
            results = self._reply_lost("settle_lost", results)
            if self.strikes("settle_slow"):
                await self.pause(self._rng.uniform(0.0, 8.0))
        elif verb in LETTERS:
            results = self._reply_lost("letter_lost", results)
        elif self.strikes("extend_lost"):
            raise ConnectionLost("the answer to an extension was lost")
        await self._dawdle()
        return results

    async def pause(self, seconds: float) -> None:
        """Wait, as a slow network does."""
        await anyio.sleep(seconds)

    async def _dawdle(self) -> None:
        """Let others in: sometimes for a turn of the loop, sometimes for a moment."""
        toss = self._rng.random()
        if toss < 0.7 or not self._latency:
            await checkpoint()
        else:
            await self.pause(self._rng.uniform(0.0, self._latency))

    # -- receiving -----------------------------------------------------------------------------------

    async def _before_receive(self) -> None:
        if self.strikes("access_denied"):
            raise AccessDenied("the credentials have expired")
        if self.strikes("source_missing"):
            raise SourceNotFound("the queue was deleted")
        if self.strikes("receive_error"):
            raise ConnectionLost("nothing was received")

    async def _after_receive(self, call: Call, deliveries: list[Delivery]) -> list[Delivery]:
        if self._again and len(deliveries) < len(call.items):
            deliveries += self._duplicates(call)
        if not deliveries:
            return deliveries
        self._remember(call, deliveries)
        if self.strikes("reorder"):
            deliveries = self._shuffled(deliveries)
        deliveries = [self._maimed(delivery) for delivery in deliveries]
        if self.strikes("receive_lost"):
            raise ConnectionLost("the deliveries were lost on their way")
        if self.strikes("receive_slow"):
            await self.pause(self._rng.uniform(0.0, 1.5 * self._lease))
        return deliveries

    def _remember(self, call: Call, deliveries: Sequence[Delivery]) -> None:
        """Keep some of these, to be delivered once more to whoever receives next."""
        if "duplicate" in self._rates:
            self._again += [(call.queue, d.receipt) for d in deliveries if self.strikes("duplicate")]

    def _duplicates(self, call: Call) -> list[Delivery]:
        assert self.broker is not None, "duplicates come from a broker"
        again, self._again = self._again, []
        queue, now = self.broker.queue(call.queue), anyio.current_time()
        made = [queue.duplicate(receipt, call.source, now) for name, receipt in again[:1] if name == call.queue]
        self._again = again[1:]
        return [delivery for delivery in made if delivery is not None]

    def _shuffled(self, deliveries: list[Delivery]) -> list[Delivery]:
        """In another order, but for those of one key."""
        order = deliveries.copy()
        self._rng.shuffle(order)
        by_key: dict[str | None, list[Delivery]] = {}
        for delivery in reversed(deliveries):
            by_key.setdefault(delivery.key, []).append(delivery)
        return [delivery if delivery.key is None else by_key[delivery.key].pop() for delivery in order]

    def _maimed(self, delivery: Delivery) -> Delivery:
        if delivery.delivery_count is not None and self.strikes("count_inflated"):
            delivery = replace(delivery, delivery_count=delivery.delivery_count + 1)
        if self.strikes("attributes_lost"):
            delivery = replace(delivery, attributes={})
            self.maimed(delivery)
        return delivery

    def maimed(self, delivery: Delivery) -> None:
        """A delivery has lost its attributes."""

    # -- settling ------------------------------------------------------------------------------------

    async def _before_settle(self, call: Call) -> Mapping[int, Settled]:
        self._lose_leases(call)
        if self.strikes("settle_slow"):
            await self.pause(self._rng.uniform(0.0, 8.0))
        if self.strikes("settle_error"):
            raise self._rng.choice([ConnectionLost, AccessDenied])("the settlement did not arrive")
        again = Settled.retry(self._rng.choice([0.0, 0.5]), "busy")
        return {
            **self._some(call, "settle_partial", again),
            **self._some(call, "settle_refused", Settled.refused("the broker will not")),
        }

    def _before_letter(self, call: Call) -> Mapping[int, Settled]:
        if self.strikes("letter_throttled"):
            raise Throttled("dead letters are throttled", retry_after=1.0)
        if self.strikes("letter_missing"):
            raise SourceNotFound("there is no queue for dead letters")
        if self.strikes("letter_error"):
            raise ConnectionLost("the dead letter did not arrive")
        return self._some(call, "letter_refused", Settled.refused("too large"))

    def _some(self, call: Call, name: str, answer: Settled) -> dict[int, Settled]:
        """This answer for some of the items."""
        if not self.strikes(name):
            return {}
        number = len(call.items)
        chosen = [position for position in range(number) if self._rng.random() < 0.5]
        return dict.fromkeys(chosen or [self._rng.randrange(number)], answer)

    def _reply_lost(self, name: str, results: Sequence[Any]) -> Sequence[Any]:
        if not self.strikes(name):
            return results
        if self._rng.random() < 0.5:
            raise ConnectionLost("the answer was lost")
        return [UNKNOWN if self._rng.random() < 0.5 else result for result in results]

    def _lose_leases(self, call: Call) -> None:
        """The broker has forgotten some of the leases it is asked about."""
        if "lease_lost" not in self._rates or self.broker is None:
            return
        queue, now = self.broker.queue(call.queue), anyio.current_time()
        for item in call.items:
            if self.strikes("lease_lost"):
                queue.expire(item[0] if isinstance(item, tuple) else item, now)
