"""What Service Bus tells over HTTP to who has the right to manage: how an entity is set up, and how much waits there.

https://learn.microsoft.com/rest/api/servicebus/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import anyio
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

from eventkit.spi import Depth
from eventkit_servicebus._config import Place
from eventkit_servicebus._secret import Secret

if TYPE_CHECKING:
    from azure.servicebus.aio.management import ServiceBusAdministrationClient

WITHIN: Final = 3.0
"""Seconds that an answer may take, the token and the connection included: a worker starts without it, too."""
_CLOSE_WITHIN: Final = 1.0
_FOREVER: Final = 10_675_199
"""Days of the longest span of time that .NET has: there is no end."""
_DENIED: Final = (401, 403)
_MISREAD: Final = (ValueError, TypeError, AttributeError, KeyError)
_UNREADABLE: Final = (AzureError, OSError, TimeoutError, ImportError, *_MISREAD)
"""What the SDK raises when nobody answers, or says no, or answers with something else than it should."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One queue or subscription as Service Bus describes it; of dead letters, what holds for them.

    Times are in seconds. `duplicates` is the window of duplicate detection, None without it or where it is not told
    (it is the topic's); `ttl` how long a message without a time of its own lives, None for ever; `receive_limit` is
    MaxDeliveryCount, None for dead letters, which are delivered for ever. `forwards_to` is an entity's path.
    """

    lock: float
    receive_limit: int | None = None
    sessions: bool = False
    duplicates: float | None = None
    status: str = "Active"
    forwards_to: str | None = None
    ttl: float | None = None
    dead_letters_expired: bool = True


@dataclass(slots=True, kw_only=True)
class Managed:
    """Asks about one queue or subscription, and never fails: what is not told is None, and `why` says why.

    With a `secret` or else a `credential`, which is an async token credential of the caller, and his to close. Each
    question has a session of its own, closed with it. Methods may run concurrently.
    """

    place: Place
    secret: Secret | None = None
    credential: Any = field(default=None, repr=False)
    within: float = WITHIN
    why: str = ""
    denied: bool = False
    """Whether the last answer that was none was that the right to manage is missing."""

    async def facts(self) -> Facts | None:
        """How it is set up; None without the right to manage, or where nobody answers within `within` seconds."""
        place = self.place
        found = await self._answer(self._settings)
        return None if found is None else self._read(lambda: read_facts(found, place))

    async def depth(self) -> Depth | None:
        """See `Backlog.depth`. What is locked counts as ready; the oldest age is not told, nor what a topic delays."""
        found = await self._answer(self._counts)
        return None if found is None else self._read(lambda: _depth(found, self.place))

    async def _settings(self, client: ServiceBusAdministrationClient) -> Any:
        place = self.place
        if place.subscription is not None:
            return await client.get_subscription(place.name, place.subscription)
        return await client.get_queue(place.name)

    async def _counts(self, client: ServiceBusAdministrationClient) -> Any:
        place = self.place
        if place.subscription is not None:
            return await client.get_subscription_runtime_properties(place.name, place.subscription)
        return await client.get_queue_runtime_properties(place.name)

    async def _answer(self, ask: Callable[[ServiceBusAdministrationClient], Awaitable[T]]) -> T | None:
        self.why, self.denied = "", False
        try:
            client = self._client()
            try:
                with anyio.fail_after(self.within):
                    return await ask(client)
            finally:
                with anyio.move_on_after(_CLOSE_WITHIN, shield=True):
                    await client.close()
        except _UNREADABLE as exc:
            self._untold(exc)
        return None

    def _read(self, read: Callable[[], T]) -> T | None:
        """What an answer says; None for one that is not what was expected, as of a later version."""
        try:
            return read()
        except _UNREADABLE as exc:
            self._untold(exc)
            return None

    def _untold(self, exc: Exception) -> None:
        status = exc.status_code if isinstance(exc, HttpResponseError) else None
        self.denied = status in _DENIED
        if status not in {None, 200}:
            self.why = f"the answer was {status}"
        elif isinstance(exc, ResourceNotFoundError):
            self.why = f"there is no {self.place.shown}"
        elif isinstance(exc, TimeoutError):
            self.why = f"no answer within {self.within:g} s"
        elif status == 200 or isinstance(exc, _MISREAD):
            self.why = f"the answer is of no {'queue' if self.place.subscription is None else 'subscription'}"
        else:
            self.why = f"{type(exc).__name__}: {' '.join(str(exc).split())[:200]}"

    def _client(self) -> ServiceBusAdministrationClient:
        # A fifth of a second of imports, for which who never asks need not wait.
        from azure.servicebus.aio.management import ServiceBusAdministrationClient

        from eventkit_servicebus._managing import transport

        options: dict[str, Any] = {
            "transport": transport(plain=self.secret is not None and self.secret.emulator),
            "retry_total": 0,
            "permit_redirects": False,  # the token is for this host only
            "user_agent": "eventkit",
        }
        if self.secret is not None:
            return ServiceBusAdministrationClient.from_connection_string(self.secret.text, **options)
        return ServiceBusAdministrationClient(self.place.host, self.credential, **options)


def read_facts(found: Any, place: Place) -> Facts:
    """What `found`, the properties of a queue or subscription, says of `place`."""
    lock, status = found.lock_duration.total_seconds(), str(getattr(found.status, "value", found.status))
    if place.dead_letters:
        # They have neither sessions nor an end: https://learn.microsoft.com/azure/service-bus-messaging/service-bus-dead-letter-queues
        return Facts(lock=lock, status=status, forwards_to=_path(found.forward_dead_lettered_messages_to))
    detects = bool(getattr(found, "requires_duplicate_detection", False))
    return Facts(
        lock=lock,
        receive_limit=found.max_delivery_count,
        sessions=bool(found.requires_session),
        duplicates=_seconds(found.duplicate_detection_history_time_window) if detects else None,
        status=status,
        forwards_to=_path(found.forward_to),
        ttl=_seconds(found.default_message_time_to_live),
        dead_letters_expired=bool(found.dead_lettering_on_message_expiration),
    )


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None or span.days >= _FOREVER else span.total_seconds()


def _path(url: str | None) -> str | None:
    """The entity in "https://my-namespace.servicebus.windows.net/bills"."""
    return (urlsplit(url).path if "://" in url else url).strip("/") if url else None


def _depth(found: Any, place: Place) -> Depth:
    if place.dead_letters:
        return Depth(ready=found.dead_letter_message_count or 0)
    return Depth(
        ready=found.active_message_count or 0,
        delayed=getattr(found, "scheduled_message_count", 0) or 0,
        dead=found.dead_letter_message_count or 0,
    )
