"""Starting and stopping the server."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio

from eventkit.errors import ConfigurationError
from eventkit.spi import LocalCounts
from eventkit_pubsub._local._errors import PubsubError
from eventkit_pubsub._local._faults import Faults
from eventkit_pubsub._local._front import Front
from eventkit_pubsub._local._names import kind_of
from eventkit_pubsub._local._project import Project
from eventkit_pubsub._local._raw import Raw, Subscription, Topic

HOST: Final = "127.0.0.1"
PROJECT: Final = "eventkit-local"
MAX_DELIVERIES: Final = 100
"""`max_delivery_attempts` of the subscriptions it starts with: a worker's own dead-lettering, which has a reason,
comes first."""
LONGEST: Final = 31 * 86_400
"""Seconds that dead letters are kept."""
STOP: Final = 0.2
"""Seconds for what a fault holds up when the server stops; everything else is answered at once."""

_LONGEST_MESSAGE: Final = 32 * 1024 * 1024
"""Bytes of a request that is read: one above Pub/Sub's own limit is refused with a reason."""
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # with it, a second server would share the port unnoticed
    ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)


class LocalPubsub:
    """A server that runs: a `LocalPlace`. `faults` may be set and taken away at any time."""

    def __init__(self, endpoint: str, name: str, project: Project, front: Front) -> None:
        self.endpoint = endpoint
        self.environment: Mapping[str, str] = {
            "PUBSUB_EMULATOR_HOST": endpoint.removeprefix("http://"),
            "GOOGLE_CLOUD_PROJECT": name,
        }
        self._name = name
        self._project = project
        self._front = front

    @property
    def faults(self) -> Faults | None:
        """What goes wrong from now on."""
        return self._front.faults

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        self._front.faults = faults

    def address(self, queue: str) -> str:
        """See `LocalPlace`."""
        return f"pubsub://{self._name}/{queue}"

    def dead_letters(self, queue: str) -> str:
        """See `LocalPlace`."""
        return self.address(f"{queue}-dlq")

    def counts(self) -> LocalCounts:
        """See `LocalPlace`. A message counts once for each subscription; a deadline set to 0 is a nack."""
        return self._project.counts()

    def end_streams(
        self,
        code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        message: str = "The StreamingPull stream closed for an expected reason and should be recreated.",
    ) -> None:
        """End all open streams now, and pulls that wait, with this status. The service does so about twice an hour."""
        self._project.end_waiting(PubsubError(code, message))


@asynccontextmanager
async def serve(
    queues: Sequence[str],
    *,
    port: int = 0,
    project: str = PROJECT,
    max_deliveries: int = MAX_DELIVERIES,
    faults: Faults | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[LocalPubsub]:
    """Serve `queues`, each a topic and a subscription of that name, and a dead-letter topic and subscription for each.

    A name that ends in `.ordered` or `.exactly-once`, or in both, says so of its subscription; `orders` comes with
    `orders-dlq`, where messages go after `max_deliveries` deliveries, and stay for 31 days.
    A test may give a `clock` of its own, in seconds from anywhere, to make ten minutes pass, and a `wall`, in Unix
    seconds; `counts` sees to what has become due since. Waiting on the wire takes real time all the same. asyncio only.
    """
    state = Project(clock=clock, wall=wall)
    _create(state, queues, project, max_deliveries)
    front = Front(state)
    front.faults = faults
    server = grpc.aio.server(handlers=[front], options=_OPTIONS)
    port = _listen(server, port)
    await server.start()
    try:
        yield LocalPubsub(f"http://{HOST}:{port}", project, state, front)
    finally:
        state.end()
        await server.stop(STOP)


def _listen(server: Any, port: int) -> int:
    """The port it listens at; what is wrong with a port is found out without gRPC, which would log it."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            free = probe.getsockname()[1]
        return int(server.add_insecure_port(f"{HOST}:{free}"))
    except (OSError, OverflowError, RuntimeError) as exc:
        taken = isinstance(exc, RuntimeError) or getattr(exc, "errno", None) == errno.EADDRINUSE
        problem = "is taken: stop what listens there, or choose" if taken else f"cannot be used ({exc}): choose"
        raise ConfigurationError(
            f"port {port} of {HOST} {problem} another one with --port (0 is any free one)"
        ) from exc


def _create(state: Project, queues: Sequence[str], project: str, max_deliveries: int) -> None:
    problems = []
    for queue in queues:
        try:
            dead = _create_one(state, project, f"{queue}-dlq", _kept_long(ordered=kind_of(queue).ordered))
            _create_one(state, project, queue, _of_kind(queue, dead, max_deliveries))
        except PubsubError as exc:
            problems.append(f"queue {queue!r} with its dead-letter topic: {exc.message}")
    if problems:
        raise ConfigurationError(*problems)


def _create_one(state: Project, project: str, name: str, config: Raw) -> str:
    """Make a topic and its subscription, and return the topic's full name."""
    topic = f"projects/{project}/topics/{name}"
    state.create_topic(Topic(name=topic))
    config.name, config.topic = f"projects/{project}/subscriptions/{name}", topic
    config.expiration_policy.SetInParent()  # without a time to live, it never expires
    state.create_subscription(config)
    return topic


def _kept_long(*, ordered: bool) -> Raw:
    config = Subscription(enable_message_ordering=ordered)
    config.message_retention_duration.seconds = LONGEST
    return config


def _of_kind(queue: str, dead_letter_topic: str, max_deliveries: int) -> Raw:
    kind = kind_of(queue)
    config = Subscription(enable_message_ordering=kind.ordered, enable_exactly_once_delivery=kind.exactly_once)
    config.dead_letter_policy.dead_letter_topic = dead_letter_topic
    config.dead_letter_policy.max_delivery_attempts = max_deliveries
    return config
