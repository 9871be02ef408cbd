"""The SDK's client, and the senders and receivers it makes: each has a connection of its own.

Made in the running loop, each call made once: whether to repeat one is the core's affair.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from azure.core.exceptions import AzureError
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import OperationTimeoutError

from eventkit.errors import AccessDenied, AdapterNotInstalled, ConfigurationError, ConnectionLost, UnsupportedByAdapter
from eventkit_servicebus._config import DOMAIN, Place
from eventkit_servicebus._errors import translated_errors
from eventkit_servicebus._opened import SOCKET_TIMEOUT, Opened, T
from eventkit_servicebus._secret import VARIABLE, Secret, local

ANSWER_WITHIN: Final = 10.0
"""Seconds that Service Bus has for an answer, or to open a link; it takes milliseconds."""
SESSION_WITHIN: Final = 20.0
"""Seconds to wait for a session that has messages before it is asked again."""
_TOKEN_WITHIN: Final = 30.0
_SCOPE: Final = "https://servicebus.azure.net/.default"
_ONCE: Final[dict[str, Any]] = {"retry_total": 0, "try_timeout": ANSWER_WITHIN, "user_agent": "eventkit"}
_PATIENTLY: Final = {**_ONCE, "try_timeout": SESSION_WITHIN + ANSWER_WITHIN}
_SILENCE: Final = logging.NullHandler()


class NoSession(Exception):
    """No session has messages that nobody else has locked."""


class Wire:
    """What opens links to one queue, subscription or topic. `patient` waits longer for a link: for a session.

    It connects with `secret`, or for want of one with `credential`, which whoever made it closes.
    """

    def __init__(
        self,
        client: ServiceBusClient,
        patient: ServiceBusClient,
        place: Place,
        tasks: TaskGroup,
        *,
        secret: Secret | None = None,
        credential: Any = None,
    ) -> None:
        self.place = place
        self._tasks = tasks
        self.secret = secret
        self.credential = credential
        self.closed = False
        self._client = client
        self._patient = patient

    async def receiver(self) -> Opened[ServiceBusReceiver]:
        """An open receiver. Raises AdapterError."""
        return await self._opened(self._receiver(self._client, prefetch_count=self.place.prefetch), "receive from")

    async def session(self) -> Opened[ServiceBusReceiver]:
        """An open receiver of a session that nobody has. Raises AdapterError, NoSession."""
        made = self._receiver(self._patient, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=SESSION_WITHIN)
        try:
            return await self._opened(made, "receive from", within=SESSION_WITHIN + ANSWER_WITHIN)
        except ConnectionLost as exc:
            if isinstance(exc.__cause__, OperationTimeoutError):
                raise NoSession from exc
            raise

    def beside(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Do this beside everything else, at most until the end; after it, not at all."""
        if not self.closed:
            self._tasks.start_soon(work, *args)

    def _receiver(self, client: ServiceBusClient, **options: Any) -> ServiceBusReceiver:
        place = self.place
        options["socket_timeout"] = SOCKET_TIMEOUT
        if place.dead_letters:
            options["sub_queue"] = ServiceBusSubQueue.DEAD_LETTER
        if place.subscription is not None:
            made = client.get_subscription_receiver(place.name, place.subscription, **options)
        else:
            made = client.get_queue_receiver(place.name, **options)
        return made

    async def sender(self) -> Opened[ServiceBusSender]:
        """An open sender. Raises AdapterError. To a topic as to a queue: the address on the wire is the same."""
        return await self._opened(self._client.get_queue_sender(self.place.name), "publish to")

    async def _opened(self, made: T, doing: str, within: float = ANSWER_WITHIN + 1.0) -> Opened[T]:
        if self.closed:
            raise ConnectionLost(f"cannot {doing} {self.place.address}: it is closed")
        opened = Opened(made, ahead=self.place.prefetch > 0, dead_letters=self.place.dead_letters)
        try:
            with translated_errors(doing, self.place), anyio.fail_after(within):
                await opened.open()
        except BaseException:
            await self._put_away(opened)
            raise
        return opened

    async def _put_away(self, opened: Opened[T]) -> None:
        if self.closed:  # it was cut short by the end, which nothing beside outlives
            await opened.close()
        self.beside(opened.close)


@asynccontextmanager
async def wire(place: Place) -> AsyncIterator[Wire]:
    """The way to `place`. Raises ConfigurationError, UnsupportedByAdapter."""
    try:
        asyncio.get_running_loop()
    except RuntimeError as exc:
        raise UnsupportedByAdapter(
            f"{place.address}: the SDK of Service Bus runs on asyncio only, not on trio"
        ) from exc
    # What the SDK warns of it raises as well; where nobody has set up logs it would print its tracebacks.
    logging.getLogger("azure.servicebus").addHandler(_SILENCE)
    secret = _secret(place)
    async with AsyncExitStack() as stack:
        credential: Any = None
        clients = []
        tls: dict[str, Any] = {"ssl_context": await _tls(plain=secret is not None and secret.emulator)}
        if secret is None:
            credential = await stack.enter_async_context(_credential(place))
            await _prove(credential, place)
        for options in (_ONCE, _PATIENTLY):
            if secret is not None:
                made = ServiceBusClient.from_connection_string(secret.text, **options, **tls)
            else:
                made = ServiceBusClient(place.host, credential, **options, **tls)
            clients.append(await stack.enter_async_context(made))
        client, patient = clients
        tasks = await stack.enter_async_context(own_tasks())
        way = Wire(client, patient, place, tasks, secret=secret, credential=credential)
        try:
            yield way
        finally:
            way.closed = True


async def _tls(*, plain: bool) -> ssl.SSLContext:
    """One for all links. For want of one, the SDK reads all certificates for each, and nothing else runs meanwhile.

    It does so even where it uses none (`plain`).
    """
    if plain:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return await anyio.to_thread.run_sync(lambda: ssl.create_default_context(cafile=_certificates()))


def _certificates() -> str | None:
    """What the SDK itself goes by; None for those of this machine, where SSL_CERT_FILE names others."""
    if any(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")):
        return None
    import certifi

    return certifi.where()


@asynccontextmanager
async def own_tasks() -> AsyncIterator[TaskGroup]:
    """A task group that is cancelled at the end, and from which an error of the body comes as it is."""
    raised: Exception | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is to be raised as it is, and not in a group
            raised = exc
        tasks.cancel_scope.cancel()
    if raised is not None:
        raise raised


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
            f'{place.address}: azure-identity is not installed: pip install "eventkit-worker[servicebus]", '
            f"or set {VARIABLE}"
        ) from exc
    return DefaultAzureCredential()


async def _prove(credential: Any, place: Place) -> None:
    """See that there is a token to be had, which a link would tell as nobody answering. Raises AccessDenied."""
    try:
        with anyio.fail_after(_TOKEN_WITHIN):
            await credential.get_token(_SCOPE)
    except (AzureError, OSError, TimeoutError) as exc:
        why = " ".join(str(exc).splitlines()[:1]) or f"none within {_TOKEN_WITHIN:g} s"
        raise AccessDenied(
            f"{place.address}: no credentials to be had ({why}); set {VARIABLE}, log in with the Azure CLI (az login), "
            "or give this machine an identity"
        ) from exc


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
