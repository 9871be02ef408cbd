"""Starting and stopping the server."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from eventkit.errors import ConfigurationError
from eventkit.spi import LocalCounts
from eventkit_servicebus._local._connection import Connection
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._faults import Faults
from eventkit_servicebus._local._http import Door
from eventkit_servicebus._local._names import problem
from eventkit_servicebus._local._namespace import Namespace
from eventkit_servicebus._local._settings import Settings

HOST: Final = "127.0.0.1"
NAMESPACE: Final = "eventkit-local"
LOCK: Final = 60.0
MAX_DELIVERIES: Final = 100
"""Of the queues it starts with: a worker's own dead-lettering, which has a reason, comes first."""


class Server:
    """What all connections share. `faults` may be set and taken away at any time."""

    def __init__(self, namespace: Namespace, *, idle: float | None, faults: Faults | None) -> None:
        self.namespace = namespace
        self.idle = idle
        self.faults = faults
        self.connections: set[Connection] = set()
        self.doors: set[Door] = set()
        self.since = namespace.wall()
        self.stopped = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._tag = os.urandom(8)

    def tag(self, receipt: int) -> bytes:
        """The lock token for a receipt, as a delivery tag."""
        return self._tag + receipt.to_bytes(8)

    def receipt(self, tag: bytes) -> int:
        """The receipt in a lock token; 0 if it is none of this server's."""
        return int.from_bytes(tag[8:]) if tag[:8] == self._tag else 0

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this beside everything else; it is cancelled when the server stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Hang up, and end what faults hold up."""
        self.stopped = True
        self.namespace.end()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        self.drop_connections()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drop_connections(self) -> None:
        """Hang up on everybody, without a word."""
        everybody: list[Connection | Door] = [*self.connections, *self.doors]
        for each in everybody:
            each.drop()


class LocalServiceBus:
    """A server that runs: a `LocalPlace`. `faults` may be set and taken away at any time."""

    def __init__(self, port: int, server: Server) -> None:
        self.endpoint = f"sb://{HOST}:{port}"
        self.connection_string = (
            f"Endpoint={self.endpoint};SharedAccessKeyName=local;SharedAccessKey=local;UseDevelopmentEmulator=true"
        )
        self.environment: Mapping[str, str] = {"SERVICEBUS_CONNECTION_STRING": self.connection_string}
        self._server = server

    @property
    def faults(self) -> Faults | None:
        """What goes wrong from now on."""
        return self._server.faults

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        self._server.faults = faults

    def address(self, queue: str) -> str:
        """See `LocalPlace`."""
        return f"servicebus://{NAMESPACE}/{queue}"

    def dead_letters(self, queue: str) -> str:
        """See `LocalPlace`."""
        return f"{self.address(queue)}/$DeadLetterQueue"

    def counts(self) -> LocalCounts:
        """See `LocalPlace`. A message counts once for each subscription; what is released is a nack."""
        return self._server.namespace.counts()

    def drop_connections(self) -> None:
        """Hang up on everybody, without a word, as when the network fails."""
        self._server.drop_connections()

    def close_connections(self, condition: str = "amqp:connection:forced", description: str = "on purpose") -> None:
        """Close every connection, and say why. The service does so when it is updated."""
        for connection in list(self._server.connections):
            connection.close(AmqpError(condition, description))

    def detach_links(self, condition: str, description: str = "on purpose", *, entity: str | None = None) -> int:
        """Detach the links at queues, topics and subscriptions, or at `entity`, and say why; how many there were."""
        links = [link for connection in self._server.connections for link in connection.links()]
        found = [link for link in links if link.entity is not None and entity in {None, link.entity}]
        for link in found:
            link.detach(AmqpError(condition, description))
        return len(found)


@asynccontextmanager
async def serve(
    queues: Sequence[str],
    *,
    port: int = 0,
    lock: float = LOCK,
    max_deliveries: int = MAX_DELIVERIES,
    duplicates: float = 0.0,
    idle: float | None = 240.0,
    faults: Faults | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[LocalServiceBus]:
    """Serve `queues`, each with its dead-letter queue. See `LocalServer.local`.

    `bills.sessions` requires sessions; `orders/audit` is the subscription `audit` of the topic `orders`, to which
    messages are sent as `orders`. A lock lasts `lock` seconds, and after `max_deliveries` deliveries that failed a
    message is dead. `duplicates` is the window of duplicate detection, 0 for none; a connection on which nothing
    comes for `idle` seconds is closed.
    A test may give a `clock` of its own, in seconds from anywhere, to make ten minutes pass, and a `wall`, in Unix
    seconds, which may be wrong: it is what the server says of locks and ages, and what it takes a scheduled time by.
    `counts` sees to what has become due since. Waiting on the wire takes real time all the same. asyncio only.
    """
    namespace = Namespace(clock=clock, wall=wall)
    _create(namespace, queues, Settings(lock=lock, max_deliveries=max_deliveries, duplicates=duplicates))
    server = Server(namespace, idle=idle, faults=faults)
    listener = await _listen(server, port)
    try:
        yield LocalServiceBus(listener.sockets[0].getsockname()[1], server)
    finally:
        listener.close()
        await server.stop()
        await listener.wait_closed()


async def _listen(server: Server, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(
            lambda: Door(server), HOST, port, family=socket.AF_INET, reuse_address=True, reuse_port=False
        )
    except (OSError, OverflowError) as exc:
        taken = isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE
        problem = "is taken: stop what listens there, or choose" if taken else f"cannot be used ({exc}): choose"
        raise ConfigurationError(
            f"port {port} of {HOST} {problem} another one with --port (0 is any free one)"
        ) from exc


def _create(namespace: Namespace, queues: Sequence[str], settings: Settings) -> None:
    problems = [f"queue {name!r}: {wrong}" for name in queues if (wrong := problem(name)) is not None]
    lower = [name.lower() for name in dict.fromkeys(queues)]
    topics = {name.partition("/")[0] for name in lower if "/" in name}
    problems += [f"queue {name!r}: there is a topic of that name" for name in lower if name in topics]
    problems += [f"queue {name!r}: twice, but for upper and lower case" for name in lower if lower.count(name) > 1]
    if problems:
        raise ConfigurationError(*dict.fromkeys(problems))
    for name in dict.fromkeys(queues):
        namespace.create(name, settings)
