"""The SDK's client, and the senders and receivers it makes: each has a connection of its own.

Made in the running loop, each call made once: whether to repeat one is the core's affair.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender

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


class Wire:
    """What opens links to one queue, subscription or topic."""

    def __init__(self, client: ServiceBusClient, place: Place) -> None:
        self.place = place
        self._client = client

    async def receiver(self) -> ServiceBusReceiver:
        """An open receiver. Raises AdapterError."""
        place = self.place
        options: dict[str, Any] = {"socket_timeout": _SOCKET_TIMEOUT, "prefetch_count": place.prefetch}
        if place.dead_letters:
            options["sub_queue"] = ServiceBusSubQueue.DEAD_LETTER
        if place.subscription is not None:
            made = self._client.get_subscription_receiver(place.name, place.subscription, **options)
        else:
            made = self._client.get_queue_receiver(place.name, **options)
        await self._open(made, "receive from")
        return made

    async def sender(self) -> ServiceBusSender:
        """An open sender. Raises AdapterError. To a topic as to a queue: the address on the wire is the same."""
        made = self._client.get_queue_sender(self.place.name)
        await self._open(made, "publish to")
        return made

    async def _open(self, made: ServiceBusReceiver | ServiceBusSender, doing: str) -> None:
        try:
            with translated_errors(doing, self.place), anyio.fail_after(ANSWER_WITHIN + 1.0):
                await made.__aenter__()
        except BaseException:
            await close(made)
            raise


async def close(made: ServiceBusReceiver | ServiceBusSender) -> None:
    """Close a link, whatever state it is in; what is on its way to a receiver goes back."""
    with anyio.move_on_after(CLOSE_WITHIN, shield=True):
        try:
            await made.close()
        except (AzureError, OSError, ValueError, RuntimeError, AttributeError):
            return  # of a connection that is gone, parts are missing


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
