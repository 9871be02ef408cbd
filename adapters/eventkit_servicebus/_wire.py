"""The SDK's client, and the senders and receivers it makes: each has a connection of its own.

Made in the running loop, each call made once: whether to repeat one is the core's affair.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final, Generic, TypeAlias, TypeVar

import anyio
from anyio.abc import TaskGroup
from azure.core.exceptions import AzureError
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusReceivedMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import OperationTimeoutError, ServiceBusConnectionError

from eventkit.errors import AdapterNotInstalled, ConfigurationError, ConnectionLost, UnsupportedByAdapter
from eventkit_servicebus._config import DOMAIN, Place
from eventkit_servicebus._errors import translated_errors
from eventkit_servicebus._secret import VARIABLE, Secret, local

ANSWER_WITHIN: Final = 10.0
"""Seconds that Service Bus has for an answer, or to open a link; it takes milliseconds."""
CLOSE_WITHIN: Final = 5.0
_FRAME: Final = 0.003
"""Seconds to wait for another frame where several messages were asked for."""
_LONG: Final = 0.05
"""The same where nobody else wants the connection but the SDK's keepalive, which takes it for as long every 5 s."""
_NO_TIME: Final = 1e-6
"""Seconds in which a receive grants no credit and reads nothing; no wait at all is taken for none given."""
_COMPANY: Final = (0.005, 0.0003)
"""Seconds that a receive of several waits for others after the first, and for each more that it asked for."""
SOCKET_TIMEOUT: Final = 0.02
"""Seconds that a receiver waits for a frame before it lets others write: a settlement beside a waiting receive would
take ten times as long with the SDK's own 0.2 s."""
SESSION_WITHIN: Final = 60.0
"""Seconds to wait for a session that has messages before it is asked again."""
_ONCE: Final[dict[str, Any]] = {"retry_total": 0, "try_timeout": ANSWER_WITHIN, "user_agent": "eventkit"}
_PATIENTLY: Final = {**_ONCE, "try_timeout": SESSION_WITHIN + ANSWER_WITHIN}

_SILENCE: Final = logging.NullHandler()
_BROKEN: Final = (AzureError, OSError, ValueError, RuntimeError, AttributeError)
"""What the SDK raises where a connection is gone, and parts are missing."""

Beside: TypeAlias = Callable[..., None]
"""Starts work beside everything else."""

T = TypeVar("T", bound=ServiceBusReceiver | ServiceBusSender)


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
        entered: AbstractAsyncContextManager[object] = made
        try:
            with translated_errors(doing, self.place), anyio.fail_after(within):
                await entered.__aenter__()
        except BaseException:
            if self.closed:  # it was cut short by the end, which nothing beside outlives
                await Opened(made).close()
            self.beside(Opened(made).close)
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

    async def receive(self, limit: int, wait: float, *, alone: bool) -> list[ServiceBusReceivedMessage]:
        """Up to `limit` messages: the first within `wait` seconds, others soon after it. Raises what the SDK does.

        Nothing is lost when it is cancelled, if nothing was `kept` before; `alone` if it will be when others want to
        write.
        """
        receiver: Any = self.made
        # There are no public names for these. The SDK waits 0.2 s for others, and as long for a frame as it does here.
        receiver._further_pull_receive_timeout = _COMPANY[0] + limit * _COMPANY[1]  # noqa: SLF001
        self._wait_for_frames(_FRAME if limit > 1 else _LONG if alone else SOCKET_TIMEOUT)
        try:
            return await self._receive(limit, wait)
        finally:
            self._wait_for_frames(SOCKET_TIMEOUT)

    def _wait_for_frames(self, seconds: float) -> None:
        inside: Any = self.made
        if inside._handler is not None:  # noqa: SLF001
            inside._handler._socket_timeout = seconds  # noqa: SLF001

    async def kept(self, limit: int) -> list[ServiceBusReceivedMessage]:
        """Up to `limit` messages that have come while nobody received."""
        return await self._receive(limit, _NO_TIME)

    async def _receive(self, limit: int, wait: float) -> list[ServiceBusReceivedMessage]:
        receiver: Any = self.made
        try:
            messages: list[ServiceBusReceivedMessage] = await receiver.receive_messages(limit, max_wait_time=wait)
        finally:
            # What comes from now on is kept for the next call; the SDK would send it back as soon as it is read.
            receiver._receive_context.set()  # noqa: SLF001
        return messages

    async def no_more(self) -> None:
        """Ask a receiver for nothing more: what comes when nobody receives, the SDK would send back."""
        inside: Any = self.made
        with suppress(*_BROKEN):
            await inside._amqp_transport.reset_link_credit_async(inside._handler, 0)  # noqa: SLF001 - as in `close`

    async def drain(self) -> None:
        """The same, and wait until what is on its way to it has come, and goes back."""
        inside: Any = self.made
        with suppress(*_BROKEN):  # it is down, then, and the next call finds out
            await inside._amqp_transport.drain_and_release_messages_async(inside._handler)  # noqa: SLF001 - as in `close`

    async def _end_keepalive(self) -> None:
        """It sleeps for a second at a time, and the SDK would wait for that."""
        inside: Any = self.made
        keepalive, inside._handler._keep_alive_thread = inside._handler._keep_alive_thread, None  # noqa: SLF001 - as in `close`
        if keepalive is not None:
            keepalive.cancel()
            await asyncio.wait([keepalive])

    async def close(self) -> None:
        """Close it, whatever state it is in; what is on its way to a receiver goes back."""
        with anyio.move_on_after(CLOSE_WITHIN, shield=True):
            with suppress(*_BROKEN):
                await self._end_keepalive()
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
    # What the SDK warns of it raises as well; where nobody has set up logs it would print its tracebacks.
    logging.getLogger("azure.servicebus").addHandler(_SILENCE)
    secret = _secret(place)
    async with AsyncExitStack() as stack:
        credential: Any = None
        clients = []
        tls: dict[str, Any] = {"ssl_context": await _tls(plain=secret is not None and secret.emulator)}
        if secret is None:
            credential = await stack.enter_async_context(_credential(place))
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
