"""The SDK's clients, made in the running loop: one for a subscription, one for a topic, on a channel each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeVar

import anyio.to_thread
import google.auth
import grpc
from anyio.lowlevel import checkpoint_if_cancelled
from google.api_core.client_options import ClientOptions
from google.api_core.gapic_v1.client_info import ClientInfo
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient
from google.pubsub_v1.gapic_version import __version__ as sdk_version
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

from eventkit.errors import AccessDenied, ConfigurationError, UnsupportedByAdapter
from eventkit_pubsub._config import Place

ANSWER_TIMEOUT: Final = 10.0
"""Seconds that Pub/Sub has for an answer: it takes milliseconds. The core gives a settlement less."""

ONCE: Final[dict[str, Any]] = {"retry": None, "timeout": ANSWER_TIMEOUT}
"""How a call is made: whether to repeat it is the core's affair."""

_OPTIONS: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's own wait before it connects again grows to two minutes: a worker would be that late after an outage.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Of its own: that another client could not connect says nothing about this one.
    ("grpc.use_local_subchannel_pool", 1),
]
_EMULATOR: Final = "PUBSUB_EMULATOR_HOST"
_CLIENT: Final = ClientInfo(client_library_version=sdk_version, user_agent="eventkit")  # type: ignore[no-untyped-call]


T = TypeVar("T")


async def answered(call: Awaitable[T]) -> T:
    """The answer to a unary call.

    When a cancel scope cuts it short, gRPC raises a cancellation of its own, which no scope takes for its own: it
    would end the whole task. The scope's own follows at the next checkpoint.
    """
    try:
        return await call
    except asyncio.CancelledError:
        await checkpoint_if_cancelled()
        raise


class Way(NamedTuple):
    """Where to connect, and as whom; without credentials to a server that wants none, unencrypted."""

    endpoint: str | None
    credentials: Any
    project: str

    @property
    def target(self) -> str:
        """Where it leads, to be shown."""
        return self.endpoint or "pubsub.googleapis.com"

    @property
    def shown(self) -> str:
        """Where that is, if it is not Google's."""
        return "" if self.credentials is not None else f" at {self.target}"

    @property
    def is_global(self) -> bool:
        """Whether it leads to whatever region is near."""
        return self.target.partition(":")[0] == "pubsub.googleapis.com"


async def way_to(place: Place) -> Way:
    """Find endpoint, credentials and project. Raises ConfigurationError, AccessDenied, UnsupportedByAdapter."""
    try:
        asyncio.get_running_loop()
    except RuntimeError as exc:
        raise UnsupportedByAdapter(f"{place.address}: the SDK of Pub/Sub runs on asyncio only, not on trio") from exc
    endpoint, plain = place.endpoint, place.plain
    emulator = os.environ.get(_EMULATOR)
    if endpoint is None and emulator:
        endpoint, plain = emulator, True
    if plain:
        return Way(endpoint, None, _require_project(place, os.environ.get("GOOGLE_CLOUD_PROJECT")))
    if emulator:
        raise ConfigurationError(
            f"{place.address} names {endpoint}, and {_EMULATOR}={emulator} a local server: unset one of the two"
        )
    try:
        # It may ask the metadata server of the machine, and wait for it.
        credentials, project = await anyio.to_thread.run_sync(_credentials)
    except DefaultCredentialsError as exc:
        raise AccessDenied(
            f"cannot open {place.address}: no credentials; run `gcloud auth application-default login`, set "
            "GOOGLE_APPLICATION_CREDENTIALS to a key file, or give this machine a service account"
        ) from exc
    except GoogleAuthError as exc:
        raise AccessDenied(f"cannot open {place.address}: the credentials are of no use ({exc})") from exc
    return Way(endpoint, credentials, _require_project(place, project))


def _credentials() -> tuple[Any, str | None]:
    return google.auth.default(scopes=SubscriberGrpcAsyncIOTransport.AUTH_SCOPES)


def _require_project(place: Place, found: str | None) -> str:
    project = place.project or found
    if not project:
        raise ConfigurationError(
            f"{place.address} is in which project? Write pubsub://PROJECT/{place.name}, or set GOOGLE_CLOUD_PROJECT"
        )
    return project


@asynccontextmanager
async def subscriber(way: Way) -> AsyncIterator[SubscriberAsyncClient]:
    """A client for subscriptions."""
    made = _made(SubscriberAsyncClient, SubscriberGrpcAsyncIOTransport, way)
    try:
        yield made
    finally:
        await made.transport.close()


@asynccontextmanager
async def publisher(way: Way) -> AsyncIterator[PublisherAsyncClient]:
    """A client for topics."""
    made = _made(PublisherAsyncClient, PublisherGrpcAsyncIOTransport, way)
    try:
        yield made
    finally:
        await made.transport.close()


def _made(client: Callable[..., Any], transport: Any, way: Way) -> Any:
    if way.credentials is None:
        channel = grpc.aio.insecure_channel(way.target, options=_OPTIONS)
        return client(transport=transport(channel=channel, client_info=_CLIENT), client_info=_CLIENT)

    def channel_to(host: str, **more: Any) -> Any:
        return transport.create_channel(host, **{**more, "options": _OPTIONS})

    def transport_to(**more: Any) -> Any:
        return transport(channel=channel_to, **more)

    options = ClientOptions(api_endpoint=way.endpoint)
    return client(credentials=way.credentials, client_options=options, transport=transport_to, client_info=_CLIENT)
