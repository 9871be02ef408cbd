"""The receiver of one session, whose lock is that of all that it brought."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
from anyio import current_time
from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver
from azure.servicebus.exceptions import SessionLockLostError

from eventkit_servicebus._errors import LinkDown
from eventkit_servicebus._hold import Hold, lease_of, new_lock
from eventkit_servicebus._link import Link, Verb
from eventkit_servicebus._opened import Opened
from eventkit_servicebus._wire import ANSWER_WITHIN


class SessionLink(Link):
    """The receiver of one session. What it brought is ours as long as the session is; then all of it is lost."""

    def __init__(self, opened: Opened[ServiceBusReceiver], settled: Callable[[], None] = lambda: None) -> None:
        super().__init__(opened)
        self._tell_settled = settled
        self._until = self._end = 0.0
        self._renew_at = 0.0
        self.since = self.heard = current_time()
        """When it was accepted, and when something last came."""
        self._locked(self._session.locked_until_utc, current_time())

    @property
    def _session(self) -> Any:
        return self._opened.made.session

    def _locked(self, until: datetime | None, now: float) -> None:
        """The session is ours until then, by the service's clock; it was `now` when it was asked."""
        wall = time.time()
        lock = new_lock(wall if until is None else until.timestamp(), wall=wall)
        if until is None or until.timestamp() <= wall:
            # The clocks differ; the SDK would settle nothing.
            self._session._locked_until_utc = datetime.fromtimestamp(wall + lock, UTC)  # noqa: SLF001 - no public name
        self._until, self._end = now + lease_of(lock), now + lock
        self._renew_at = now + lock / 2

    @property
    def forsaken(self) -> bool:
        """Whether something that it brought is neither settled nor extended: it comes again after the session only."""
        over = current_time() - (self._end - self._until)
        return any(hold.until <= over for hold in self._held)

    def holds_any(self) -> bool:
        """See `Link.holds_any`. What nobody extended is remembered: the session has to be left for it."""
        now = current_time()
        return any(hold.until > now for hold in self._held)

    async def receive(self, limit: int, wait: float) -> list[Hold]:
        """See `Link.receive`. Keeps the session, as long as nobody holds anything of it who would."""
        if current_time() >= self._renew_at and not self._held:
            await self._renew_session()
        holds = await super().receive(limit, wait)
        if holds:
            self.heard = current_time()
        return holds

    def _taken(self, messages: Sequence[ServiceBusReceivedMessage], now: float, age: float) -> list[Hold]:
        return [Hold(message, self, self._until) for message in messages]

    async def settle(self, holds: Sequence[Hold], verb: Verb) -> list[Exception | None]:
        """See `Link.settle`."""
        if self.down:
            return [SessionLockLostError()] * len(holds)
        try:
            return await super().settle(holds, verb)
        finally:
            self._tell_settled()

    async def renew(self, holds: Sequence[Hold]) -> list[Exception | None]:
        """Renew the lock of the session, once for all of them."""
        held = set() if self.down else self._held.intersection(holds)
        if held:
            try:
                await self._renew_session()
            except (AzureError, OSError, TimeoutError, LinkDown) as exc:
                return [exc] * len(holds)
            for hold in held:
                hold.until = self._until
        return [None if hold in held else SessionLockLostError() for hold in holds]

    async def _renew_session(self) -> None:
        asked_at = current_time()
        self._managed += 1
        try:
            with anyio.fail_after(ANSWER_WITHIN):
                self._locked(await self._session.renew_lock(timeout=ANSWER_WITHIN), asked_at)
        except ValueError as exc:
            raise self._gone(exc) from exc
        except (AzureError, OSError, TimeoutError):
            self.down = True
            raise
