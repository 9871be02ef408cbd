"""The SDK's client, and the senders and receivers it makes: each has a connection of its own.

Made in the running loop, each call made once: whether to repeat one is the core's affair.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, Generic, TypeVar

import anyio
from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import ServiceBusConnectionError

from eventkit.errors import AdapterNotInstalled, ConfigurationError, ConnectionLost, UnsupportedByAdapter
from eventkit_servicebus._config import DOMAIN, Place
from eventkit_servicebus._errors import translated_errors
from eventkit_servicebus._secret import VARIABLE, Secret, local

ANSWER_WITHIN: Final = 10.0
"""Seconds that Service Bus has for an answer, or to open a link; it takes milliseconds."""
CLOSE_WITHIN: Final = 5.0
_SOCKET_TIMEOUT: Final = 0.02
"""Seconds that a receiver waits for a frame before it lets others write: a settlement beside a waiting receive would
take ten times as long with the SDK's own 0.2 s."""
_ONCE: Final[dict[str, Any]] = {"retry_total": 0, "try_timeout": ANSWER_WITHIN, "user_agent": "eventkit"}

T = TypeVar("T", bound=ServiceBusReceiver | ServiceBusSender)


class Wire:
    """What opens links to one queue, subscription or topic."""

    def __init__(self, client: ServiceBusClient, place: Place) -> None:
        self.place = place
        self._client = client

    async def receiver(self) -> Opened[ServiceBusReceiver]:
        """An open receiver. Raises AdapterError."""
        place = self.place
        options: dict[str, Any] = {"socket_timeout": _SOCKET_TIMEOUT, "prefetch_count": place.prefetch}
        if place.dead_letters:
            options["sub_queue"] = ServiceBusSubQueue.DEAD_LETTER
        if place.subscription is not None:
            made = self._client.get_subscription_receiver(place.name, place.subscription, **options)
        else:
            made = self._client.get_queue_receiver(place.name, **options)
        return await self._opened(made, "receive from")

    async def sender(self) -> Opened[ServiceBusSender]:
        """An open sender. Raises AdapterError. To a topic as to a queue: the address on the wire is the same."""
        return await self._opened(self._client.get_queue_sender(self.place.name), "publish to")

    async def _opened(self, made: T, doing: str) -> Opened[T]:
        entered: AbstractAsyncContextManager[object] = made
        try:
            with translated_errors(doing, self.place), anyio.fail_after(ANSWER_WITHIN + 1.0):
                await entered.__aenter__()
        except BaseException:
            await Opened(made).close()
            raise
        return Opened(made)


class Opened(Generic[T]):
    """An open sender or receiver of the SDK. It never opens again what went down: another one takes its place.

    Each of several calls that find the connection lost would open one, and the SDK forgets all but the last.
    """

    def __init__(self, made: T) -> None:
        self.made = made
        inside: Any = made
        self._transport: Any = None
        with suppress(AttributeError):  # of one that could not be opened, parts are missing
            self._transport = inside._handler._connection._transport  # noqa: SLF001 - see `close`

        async def stay_down(timeout: float | None = None) -> None:  # noqa: ARG001, ASYNC109 - as the SDK's
            if not inside._running:  # noqa: SLF001 - there is no public name for it
                raise ServiceBusConnectionError(message="The connection is down.")

        inside._open = stay_down  # noqa: SLF001 - nor a way to tell it

    async def close(self) -> None:
        """Close it, whatever state it is in; what is on its way to a receiver goes back."""
        with anyio.move_on_after(CLOSE_WITHIN, shield=True):
            # Of a connection that is gone, parts are missing.
            with suppress(AzureError, OSError, ValueError, RuntimeError, AttributeError):
                await self.made.close()
            if self._transport is not None:
                # Where the other side hung up first, the SDK leaves its socket to the garbage collector.
                await self._transport.close()


@asynccontextmanager
async def wire(place: Place) -> AsyncIterator[Wire]:
    """The way to `place`. Raises ConfigurationError, UnsupportedByAdapter."""
    try:
        asyncio.get_running_loop()
    except RuntimeError as exc:
        raise UnsupportedByAdapter(
            f"{place.address}: the SDK of Service Bus runs on asyncio only, not on trio"
        ) from exc
    secret = _secret(place)
    if secret is not None:
        async with ServiceBusClient.from_connection_string(secret.text, **_ONCE) as client:
            yield Wire(client, place)
        return
    credential = _credential(place)
    async with credential, ServiceBusClient(place.host, credential, **_ONCE) as client:
        yield Wire(client, place)


def _secret(place: Place) -> Secret | None:
    """What to connect with; None for the credentials that the SDK finds. Raises ConfigurationError."""
    if place.endpoint is not None:
        return local(place.endpoint)
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    secret = Secret.parse(text)
    if not secret.emulator and secret.host.partition(":")[0] != place.host:
        raise ConfigurationError(
            f"{place.address} is in {place.host}, and {VARIABLE} is for {secret.host}: correct one, or unset "
            f"{VARIABLE} to use the credentials of this machine"
        )
    if secret.entity is not None and secret.entity.lower() != place.name.lower():
        raise ConfigurationError(
            f"{place.address}: {VARIABLE} is for {secret.entity} only (EntityPath), not for {place.name}; take a "
            "connection string of the namespace"
        )
    return secret


def _credential(place: Place) -> Any:
    try:
        from azure.identity.aio import DefaultAzureCredential
    except ImportError as exc:
        raise AdapterNotInstalled(
            f"{place.address}: azure-identity is not installed; pip install 'eventkit[servicebus]', or set {VARIABLE}"
        ) from exc
    return DefaultAzureCredential()


def unreachable(place: Place, exc: ConnectionLost) -> ConnectionLost:
    """What to say when nobody answers at start."""
    why = str(exc).removeprefix("cannot ").partition(": ")[2]
    local_one = place.endpoint
    if local_one is None and (text := os.environ.get(VARIABLE)) and (secret := Secret.parse(text)).emulator:
        local_one = secret.host
    if local_one is not None:
        mend = f"start the local server (eventkit local servicebus), or correct ?endpoint=… or {VARIABLE}"
    else:
        mend = f"check network, proxy and the name of the namespace (….{DOMAIN}); AMQP needs port 5671"
    return ConnectionLost(f"cannot reach {place.address}: nobody answers at {local_one or place.host} ({why}); {mend}")
