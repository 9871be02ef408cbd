"""The options of a worker, and what start-up makes of them and the source's traits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from eventkit._codec import Decoding
from eventkit._handler import AnyHandler, BatchHandler, FailureClass, Handler
from eventkit._policies.backoff import Backoff
from eventkit.errors import ConfigurationError
from eventkit.spi import Demand, SourceInfo

__all__ = ["FlowLimits", "KeyFailure", "Options", "Order", "Unroutable"]

Order: TypeAlias = Literal["none", "key"]
KeyFailure: TypeAlias = Literal["block", "skip"]
Unroutable: TypeAlias = Literal["reject", "skip"]

ON_RAISE = ("bisect", "one_by_one", "whole")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLimits:
    """How much a worker holds at once: events in flight, the bytes of their bodies, and events parked beside them."""

    in_flight: int = 200
    in_flight_bytes: int = 64 * 1024 * 1024
    parked: int = 1000

    def __post_init__(self) -> None:
        problems = [
            f"FlowLimits({name}={value!r}): must be at least {least}"
            for name, value, least in (
                ("in_flight", self.in_flight, 1),
                ("in_flight_bytes", self.in_flight_bytes, 1),
                ("parked", self.parked, 0),
            )
            if value < least
        ]
        if problems:
            raise ConfigurationError(*problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything a worker can be told beside its source and its handlers; `Worker` documents each."""

    retry: Backoff
    limits: FlowLimits
    decoding: Decoding
    lease: float
    max_processing: float
    wait: float
    drain: float
    ordering: Order
    on_key_failure: KeyFailure
    dead_letter: str | None
    unroutable: Unroutable

    def demand(self) -> Demand:
        """What the source is told before the first receive."""
        return Demand(
            events=self.limits.in_flight,
            bytes=self.limits.in_flight_bytes,
            parked=self.limits.parked,
            ordered=self.ordering == "key",
            lease=self.lease,
            wait=self.receive_wait,
        )

    @property
    def receive_wait(self) -> float:
        """Seconds a receive may wait: at most a quarter of the drain budget, so that a drain is not kept."""
        return min(self.wait, self.drain / 4)

    def problems(self, handlers: tuple[AnyHandler, ...]) -> Iterator[str]:
        """What cannot work, before anything is opened."""
        for name, value in (("lease", self.lease), ("max_processing", self.max_processing), ("drain", self.drain)):
            if not 0 < value < math.inf:
                yield f"{name}={value!r}: must be more than zero seconds"
        if self.wait < 0:
            yield f"wait={self.wait!r}: must be zero or more seconds"
        for name, choice, allowed in (
            ("ordering", self.ordering, ("none", "key")),
            ("on_key_failure", self.on_key_failure, ("block", "skip")),
            ("unroutable", self.unroutable, ("reject", "skip")),
        ):
            if choice not in allowed:
                yield f"{name}={choice!r}: must be one of {_choices(allowed)}"
        if not handlers:
            yield "no handler: give the worker at least one"
        for handler in handlers:
            if isinstance(handler, Handler | BatchHandler):
                yield from self._handler_problems(handler)

    def _handler_problems(self, handler: AnyHandler) -> Iterator[str]:
        name = type(handler).__name__
        if isinstance(handler.types, str):
            yield f'{name}.types={handler.types!r}: must be a sequence, such as ("{handler.types}",)'
        for meaning in handler.failures.values():
            if meaning not in get_args(FailureClass):
                yield f"{name}.failures: {meaning!r} must be one of {_choices(get_args(FailureClass))}"
        if handler.concurrency < 1:
            yield f"{name}.concurrency={handler.concurrency!r}: must be at least 1"
        if handler.timeout is not None and not 0 < handler.timeout <= self.max_processing:
            most = f"{self.max_processing:g} s"
            yield f"{name}.timeout={handler.timeout!r}: must be more than 0, at most max_processing ({most})"
        if not isinstance(handler, BatchHandler):
            return
        if handler.on_raise not in ON_RAISE:
            yield f"{name}.on_raise={handler.on_raise!r}: must be one of {_choices(ON_RAISE)}"
        if self.limits.in_flight < 2 * handler.batching.max_size:
            yield (
                f"{name}.batching.max_size={handler.batching.max_size} needs limits.in_flight of at least "
                f"{2 * handler.batching.max_size}, found {self.limits.in_flight}"
            )

    def source_problems(self, info: SourceInfo, *, native_dead_letter: bool) -> Iterator[str]:
        """What cannot work with this source."""
        traits, retry = info.traits, self.retry
        if self.dead_letter is None and not native_dead_letter and info.dead_letters is None:
            yield (
                f"{info.name} has no dead letters of its own: set dead_letter to the address of a sink, "
                'or to "discard" to lose failed events'
            )
        if self.ordering == "key" and traits.key_release == "none":
            yield f'{info.name} does not order events by key: ordering="key" cannot be kept'
        if traits.delivery_count == "none" and retry.attempts != "age":
            yield f'{info.name} does not count deliveries: set attempts="age" (with max_age), or configure a store'
        cap = traits.lease_total_max
        if cap is not None and self.max_processing > cap:
            yield f"max_processing={self.max_processing:g}: {info.name} keeps a lease for at most {cap:g} s"
        longest = self.longest_delay(info)
        if longest is not None and retry.maximum > longest:
            yield (
                f"retry.maximum={retry.maximum:g}: {info.name} can delay a retry by at most {longest:g} s; "
                "lower it, or raise max_processing"
            )
        limit = traits.native_receive_limit
        if limit is not None and isinstance(retry.attempts, int) and limit < retry.attempts:
            yield (
                f"{info.name} itself dead-letters after {limit} deliveries, before attempts={retry.attempts}: "
                f"write attempts = {max(1, limit - 3)}, or raise the source's limit to {retry.attempts + 3}"
            )

    def source_warnings(self, info: SourceInfo) -> Iterator[str]:
        """What works with this source, and will surprise."""
        limit, attempts = info.traits.native_receive_limit, self.retry.attempts
        if self.dead_letter == "discard":
            yield 'dead_letter = "discard": events that fail for good are lost'
        if limit is None or not isinstance(attempts, int):
            return
        margin = 10 * attempts if info.traits.key_release == "followers" else attempts + 3
        if attempts <= limit < margin:
            yield (
                f"{info.name} itself dead-letters after {limit} deliveries, close to attempts={attempts}: "
                f"releases count there too; raise it to {margin}"
            )

    def longest_delay(self, info: SourceInfo) -> float | None:
        """Longest delay of a retry in seconds, None for any; what the source cannot delay waits parked."""
        longest = info.traits.max_retry_delay
        return self.max_processing * PARKED_SHARE if longest == 0 else longest


def _choices(allowed: Sequence[str]) -> str:
    return ", ".join(map(repr, allowed))


PARKED_SHARE = 0.9
"""The share of `max_processing` an event may spend parked before a counted retry."""
