"""Which handler takes an event, and the queue in front of that handler."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from eventkit._handler import AnyHandler, BatchHandler
from eventkit._pipeline.batcher import Batcher, Gathering
from eventkit._pipeline.executor import Invoke
from eventkit._pipeline.inflight import HELD, InFlight
from eventkit._pipeline.wakeup import Waiters
from eventkit._policies.bisect import FailureRate
from eventkit._policies.failure import FailurePolicy
from eventkit._policies.history import History
from eventkit.errors import ConfigurationError

if TYPE_CHECKING:
    from eventkit._codec import Envelope

__all__ = ["BatchRoute", "Route", "RouteTable", "SingleRoute"]

REMEMBERED_TYPES = 1000


class Route(Protocol):
    """One handler as the pipeline sees it."""

    name: str
    handler: AnyHandler
    decode: Callable[[Envelope], Any]
    invoke: Invoke
    policy: FailurePolicy
    timeout: float
    context: Context
    successes: int

    def offer(self, entry: InFlight) -> Gathering | None:
        """Take an event whose turn it is; the batch it gathers in, if any."""
        ...

    def joins(self, entry: InFlight, gathering: Gathering | None) -> bool:
        """Whether the event may run in one call with those of its key that gather there."""
        ...

    def halt(self) -> list[InFlight]:
        """Take out everything that has not started."""
        ...

    def close(self) -> None:
        """End the slots once their current call is done."""
        ...


class _Route:
    """What both kinds of route share."""

    def __init__(
        self,
        handler: AnyHandler,
        *,
        name: str,
        decode: Callable[[Envelope], Any],
        invoke: Invoke,
        timeout: float,
        context: Context,
    ) -> None:
        self.handler: AnyHandler = handler
        self.name = name
        self.decode = decode
        self.invoke = invoke
        self.policy = FailurePolicy(handler.failures, handler.transient)
        self.timeout = timeout
        self.context = context
        self.successes = 0
        self.closed = False
        self.idle = Waiters()
        self.called = False
        """A slot has been woken and has not yet looked: offers until then need not wake another."""

    def close(self) -> None:
        """End the slots once their current call is done."""
        self.closed = True
        self.idle.wake_all()


class SingleRoute(_Route):
    """Events of a `Handler`, first come first served."""

    def __init__(self, handler: AnyHandler, **rest: Any) -> None:
        super().__init__(handler, **rest)
        self._ready: deque[InFlight] = deque()

    def offer(self, entry: InFlight) -> None:
        """Queue the event; one slot wakes for all that is offered at once."""
        self._ready.append(entry)
        if not self.called:
            self.called = True
            self.idle.wake()

    def suspended(self) -> None:
        """A handler waits for something: another slot may take the next event meanwhile."""
        if self._ready:
            self.idle.wake()

    def joins(self, entry: InFlight, gathering: Gathering | None) -> bool:
        """Events of one key run one after the other."""
        return False

    def halt(self) -> list[InFlight]:
        """Take out everything that has not started."""
        entries = [entry for entry in self._ready if entry.state is HELD]
        self._ready.clear()
        return entries

    def pop(self) -> InFlight | None:
        """The next event, or None when none waits."""
        self.called = False
        while self._ready:
            entry = self._ready.popleft()
            if entry.state is HELD:
                return entry
        return None


class BatchRoute(_Route):
    """Events of a `BatchHandler`, gathered into batches."""

    def __init__(self, handler: BatchHandler[Any], *, history: History, **rest: Any) -> None:
        super().__init__(handler, **rest)
        self.failure_rate = FailureRate()
        self.on_raise = handler.on_raise
        self._batcher = Batcher(handler.batching)
        self._history = history
        # Calling a method that returns None for every event of every batch costs more than knowing it.
        self._keyed = type(handler).batch_key is not BatchHandler.batch_key
        self._key_of = handler.batch_key

    def offer(self, entry: InFlight) -> Gathering | None:
        """Gather the event; probes and suspects of an earlier batch run alone."""
        if self._alone(entry):
            self._batcher.add_alone(entry)
            self.idle.wake()
            return None
        gathering = self._batcher.add(entry, self._key(entry) if self._keyed else None, entry.received_at)
        if gathering.closed or len(gathering.entries) == 1:
            self.idle.wake()
        return gathering

    def suspended(self) -> None:
        """A handler waits for something: another slot may take, or wait for, the next batch meanwhile."""
        if not self._batcher.empty:
            self.idle.wake()

    def joins(self, entry: InFlight, gathering: Gathering | None) -> bool:
        """Events of one key may share a batch that is still gathering."""
        return (
            gathering is not None
            and self._batcher.fits(entry, gathering)
            and gathering.key == (self._key(entry) if self._keyed else None)
            and not self._alone(entry)
        )

    def halt(self) -> list[InFlight]:
        """Take out everything that has not started."""
        return self._batcher.drain()

    async def take(self) -> list[InFlight]:
        """The next batch; an empty list when the route is closed."""
        while not self.closed:
            if entries := self._batcher.take(anyio.current_time()):
                return entries
            await self.idle.sleep(self._batcher.due)
        return []

    def _alone(self, entry: InFlight) -> bool:
        past = self._history.find(entry.delivery.message_id) if self._history.known else None
        return entry.probe or (past is not None and past.suspect)

    def _key(self, entry: InFlight) -> Any:
        assert entry.event is not None, "an event is decoded before it is gathered"
        return self._key_of(entry.event)


class RouteTable:
    """Finds the route of an event type: exact first, then the longest prefix, then `*`."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact: dict[str, Route] = {}
        self._prefixes: dict[str, Route] = {}
        problems = [
            problem
            for route in routes
            for pattern in route.handler.types
            if (problem := self._add(pattern, route)) is not None
        ]
        if problems:
            raise ConfigurationError(*problems)
        self._longest_first = sorted(self._prefixes.items(), key=lambda item: -len(item[0]))
        self._found: dict[str, Route | None] = {}

    def find(self, event_type: str) -> Route | None:
        """The route that takes events of this type, or None."""
        try:
            return self._found[event_type]
        except KeyError:
            return self._search(event_type)

    def _search(self, event_type: str) -> Route | None:
        """Find by rule, and remember: types are few, but whoever may send could make them many."""
        route = self._exact.get(event_type)
        if route is None:
            route = next((route for prefix, route in self._longest_first if event_type.startswith(prefix)), None)
        if len(self._found) < REMEMBERED_TYPES:
            self._found[event_type] = route
        return route

    def _add(self, pattern: str, route: Route) -> str | None:
        """Enter one pattern; the problem with it, if there is one."""
        if "*" in pattern[:-1] or (pattern.endswith("*") and pattern != "*" and not pattern.endswith(".*")):
            return f'{route.name}: type {pattern!r} is neither exact, nor a prefix such as "quake.*", nor "*"'
        wildcard = pattern.endswith("*")
        table, key = (self._prefixes, pattern[:-1]) if wildcard else (self._exact, pattern)
        if key in table:
            return f"two handlers take events of type {pattern!r}: {table[key].name} and {route.name}"
        table[key] = route
        return None
