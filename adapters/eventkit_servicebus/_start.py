"""Opening all that a source needs at the same time: half a second for one link as for ten."""

from __future__ import annotations

import anyio

from eventkit.errors import AccessDenied, AdapterError, ConfigurationError
from eventkit.spi import Demand
from eventkit_servicebus._config import SESSIONS
from eventkit_servicebus._facts import receivers_for, requires_sessions
from eventkit_servicebus._link import Link
from eventkit_servicebus._managed import Facts, Managed
from eventkit_servicebus._outbox import Outbox, outbox
from eventkit_servicebus._receivers import Pool, Receivers
from eventkit_servicebus._sessions import Sessions
from eventkit_servicebus._setup import problems, unavailable
from eventkit_servicebus._wire import Wire


class Start:
    """What was opened, and what was learned on the way. Whatever happens, `close` closes what is open."""

    pool: Pool
    receives: int
    """How many receives the pool can do side by side."""

    def __init__(self, way: Wire) -> None:
        self.managed = Managed(place=way.place, secret=way.secret, credential=way.credential)
        self.facts: Facts | None = None
        self.outbox: Outbox | None = None
        """Where copies of messages are sent for a retry; None where they would go to others too, or to nobody."""
        self.denied: AccessDenied | None = None
        """Why there is no outbox where there might be one."""
        self._way = way
        self._links: list[Link] = []
        self._errors: list[AdapterError] = []

    async def open(self, demand: Demand) -> None:
        """Open it. Raises AdapterError."""
        place = self._way.place
        self.receives = 1 if demand.ordered else receivers_for(demand)
        async with anyio.create_task_group() as opening:
            opening.start_soon(self._ask)
            for _ in range(self.receives):
                opening.start_soon(self._open_receiver)
            if place.subscription is None and not place.dead_letters and not demand.ordered:
                opening.start_soon(self._open_outbox)
        wrong = [] if self.facts is None else list(problems(self.facts, demand, place))
        if wrong:
            raise ConfigurationError(*wrong)
        if self.facts is not None and (error := unavailable(self.facts, place)):
            raise error
        self.pool = self._pool(demand)

    def _pool(self, demand: Demand) -> Pool:
        if demand.ordered and any(requires_sessions(error) for error in self._errors):
            return Sessions(self._way, min(self._way.place.sessions or SESSIONS, demand.events))
        if self._errors:
            raise self._errors[0]
        return Receivers(self._way, self._links)

    async def _ask(self) -> None:
        self.facts = await self.managed.facts()

    async def _open_receiver(self) -> None:
        try:
            self._links.append(Link(await self._way.receiver()))
        except AdapterError as exc:
            self._errors.append(exc)

    async def _open_outbox(self) -> None:
        try:
            self.outbox = await outbox(self._way)
        except AccessDenied as exc:
            self.denied = exc
        except AdapterError as exc:
            self._errors.append(exc)

    async def close(self) -> None:
        """Close everything side by side: each limits itself."""
        links = self.pool.links if hasattr(self, "pool") else self._links
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as closing:
                for link in links:
                    closing.start_soon(link.close)
                if self.outbox is not None:
                    closing.start_soon(self.outbox.close)
