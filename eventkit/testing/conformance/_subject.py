"""What a check works with: sources and sinks at its own place, and the words to say what is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import anyio
import msgspec
from anyio import current_time

from eventkit.spi import DONE, Delivery, Extended, Outgoing, Sink, Source, Traits
from eventkit.testing.conformance._results import Check, NonConformance, NotApplicable, TooSlow
from eventkit.testing.conformance._terms import Place, Terms

T = TypeVar("T")

_PAUSE = 0.01  # after a receive that took no time: it must pass, also where it jumps


@dataclass(frozen=True, slots=True)
class Arrival:
    """A delivery, and when its receive began and answered, on the loop's clock."""

    delivery: Delivery
    asked: float
    at: float


@dataclass(frozen=True, slots=True)
class Subject:
    """The adapter under test at one place, for one check. A tool box, so more than seven methods."""

    check: Check
    terms: Terms
    place: Place

    # -- opening ---------------------------------------------------------------------------------

    def source(self, *, lease: float | None = None, events: int | None = None) -> AbstractAsyncContextManager[Source]:
        """A source at the place; its lease is `long_lease` unless told."""
        demand = msgspec.structs.replace(
            self.terms.demand,
            lease=lease or self.long_lease,
            events=events or self.terms.demand.events,
            ordered=self.terms.ordered,
        )
        return self._whole(self.terms.adapter.open_source(self.place.source, demand))

    def sink(self) -> AbstractAsyncContextManager[Sink]:
        """A sink at the place."""
        return self._whole(self.terms.adapter.open_sink(self.place.sink))

    @asynccontextmanager
    async def _whole(self, opening: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """What is done in the context is done to its end, or an error says why not.

        A task group of the adapter may take for its own what cancels somebody else: its user would be cut off, untold.
        """
        ended = False
        async with opening as opened:
            yield opened
            ended = True
        self.expect(ended, "the context of a source or sink cut off what was done in it, and raised nothing")

    @property
    def long_lease(self) -> float:
        """A lease that does not end within the patience, for sources that have the choice."""
        return max(self.terms.demand.lease, 4 * self.terms.patience)

    def lease_of(self, source: Source, asked: float) -> float:
        """How long a lease lasts at `source` when `asked` is asked for."""
        traits = source.info.traits
        lease = self.terms.lease if traits.lease_fixed else asked
        return lease if traits.lease_total_max is None else min(lease, traits.lease_total_max)

    def over(self, lease: float) -> float:
        """When a lease of what was just received has ended for sure, on the loop's clock."""
        return current_time() + lease + 2 * self.terms.slack

    @asynccontextmanager
    async def holding(
        self, *bodies: bytes, lease: float | None = None, key: str | None = None
    ) -> AsyncIterator[tuple[Source, list[Delivery]]]:
        """A source that holds one new event for each of `bodies`, which are in ascending order."""
        await self.publish(*bodies, key=key)
        async with self.source(lease=lease) as source:
            held = await self.collect(source, len(bodies))
            yield source, sorted(held, key=lambda delivery: delivery.body)

    # -- publishing and receiving ----------------------------------------------------------------

    async def publish(self, *messages: bytes | Outgoing, key: str | None = None) -> None:
        """Publish, and see it confirmed."""
        async with self.sink() as sink:
            size = max(1, sink.limits.publish)
            for start in range(0, len(messages), size):
                chunk = [
                    message if isinstance(message, Outgoing) else Outgoing(body=message, key=key)
                    for message in messages[start : start + size]
                ]
                answers = await sink.publish(chunk)
                self.expect(
                    list(answers) == [DONE] * len(chunk), f"publish of {len(chunk)} plain messages answered {answers}"
                )

    async def arrivals(
        self,
        source: Source,
        *,
        until: float,
        enough: Callable[[list[Arrival]], bool],
        limit: int = 10,
        wait: float | None = None,
    ) -> list[Arrival]:
        """What `source` delivers until it is `enough`, or until `until` on the loop's clock.

        A receive waits as long as the demand says, or `wait`; one that brings nothing before is normal.
        """
        seen: list[Arrival] = []
        while not enough(seen) and (left := until - current_time()) > 0:
            asked = current_time()
            most = min(limit, source.info.limits.receive)
            deliveries = await source.receive(most, min(left, wait or self.terms.demand.wait))
            seen += [Arrival(delivery, asked, current_time()) for delivery in deliveries]
            if not deliveries or current_time() == asked:
                await anyio.sleep(_PAUSE)
        return seen

    async def collect(self, source: Source, number: int, *, within: float | None = None) -> list[Delivery]:
        """The next `number` deliveries; they must come within the patience, or `within`."""
        within = within or self.terms.patience
        seen: list[Delivery] = []
        until = current_time() + within
        while len(seen) < number and current_time() < until:
            one_more = await self.arrivals(source, until=until, enough=bool, limit=number - len(seen))
            seen += [arrival.delivery for arrival in one_more]
        self.expect(
            len(seen) >= number, f"{len(seen)} of {number} deliveries came within {within:g} s: {bodies(seen)}; {_LATE}"
        )
        return seen

    async def collect_bodies(self, source: Source, *wanted: bytes, within: float | None = None) -> list[Arrival]:
        """What comes until each of `wanted` has; they must come within the patience, or `within`."""
        within = within or self.terms.patience
        seen = await self.arrivals(
            source,
            until=current_time() + within,
            enough=lambda seen: {*wanted} <= {arrival.delivery.body for arrival in seen},
        )
        missing = sorted({*wanted} - {arrival.delivery.body for arrival in seen})
        self.expect(not missing, f"{missing} did not come within {within:g} s; {_LATE}")
        return seen

    async def collect_acking(self, source: Source, number: int, *, within: float | None = None) -> list[bytes]:
        """The bodies of the next `number` deliveries, in order, each acked before the next receive."""
        seen: list[bytes] = []
        until = current_time() + (within or self.terms.patience)
        while len(seen) < number and current_time() < until:
            new = [a.delivery for a in await self.arrivals(source, until=until, enough=bool, limit=number - len(seen))]
            if new:
                await source.ack(receipts(new))
            seen += bodies(new)
        return seen

    async def expect_nothing(self, source: Source, until: float, why: str) -> None:
        """Nothing may be delivered until `until` on the loop's clock."""
        seen = await self.arrivals(source, until=until, enough=bool)
        early = [arrival for arrival in seen if arrival.at < until]
        self.expect(not early, f"{bodies([a.delivery for a in early])} came; {why}")

    # -- judging ---------------------------------------------------------------------------------

    def expect(self, holds: bool, told: str) -> None:  # noqa: FBT001  # an assertion
        """Raise NonConformance with `told` unless it `holds`."""
        if not holds:
            self.fail(told)

    def fail(self, told: str) -> NoReturn:
        """Raise NonConformance."""
        raise NonConformance(self.check, str(self.place.source), told)

    def expect_answers(self, call: str, answers: Sequence[Any], *expected: str) -> None:
        """Expect these kinds of answers, in order; `DONE|LOST` means either."""
        found = [kind(answer) for answer in answers]
        holds = len(found) == len(expected) and all(
            one in allowed.split("|") for one, allowed in zip(found, expected, strict=True)
        )
        self.expect(
            holds,
            f"{call} answered {', '.join(found) or 'nothing'}; expected {', '.join(expected) or 'nothing'}: "
            "one answer an item, in the order of the items",
        )

    def in_time(self, *deliveries: Delivery) -> None:
        """Raise TooSlow when a lease that a check needs may be over: that is the machine's fault."""
        self.before(min(delivery.leased_until for delivery in deliveries))

    def before(self, until: float) -> None:
        """Raise TooSlow when it is later than `until` on the loop's clock."""
        if current_time() >= until:
            raise TooSlow(self.check, str(self.place.source), f"no time left to look, three times; {_SLOW}")

    def skip_if(self, ruled_out: bool, why: str) -> None:  # noqa: FBT001  # an assertion
        """Raise NotApplicable with `why`, which names what rules the check out."""
        if ruled_out:
            raise NotApplicable(why)


_LATE = "nothing is lost, so they must come; if the provider is slower than that, raise `patience`"
_SLOW = "give the check a longer `lease`, or the machine less to do"


def stale(traits: Traits, otherwise: str = "DONE") -> str:
    """The answers allowed for a receipt whose lease is gone: LOST, and `otherwise` where acks are not confirmed."""
    return "LOST" if traits.confirms_ack else f"{otherwise}|LOST"


def kind(answer: object) -> str:
    """The name of an answer, for comparison and for messages."""
    if isinstance(answer, Extended):
        return "EXTENDED"
    return str(getattr(getattr(answer, "kind", None), "name", type(answer).__name__))


def receipts(deliveries: Sequence[Delivery]) -> list[Any]:
    """What settles `deliveries`."""
    return [delivery.receipt for delivery in deliveries]


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    """What `deliveries` carry."""
    return [delivery.body for delivery in deliveries]
