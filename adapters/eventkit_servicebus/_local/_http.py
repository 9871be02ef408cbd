"""What comes before a connection is known to be AMQP, and management over HTTP: reading, and nothing else.

Service Bus has it on a port of its own, with TLS; here a client says what it speaks by its first bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from eventkit_servicebus._local._atom import (
    Told,
    counts_of,
    empty_feed,
    error,
    queue_entry,
    subscription_entry,
    topic_entry,
)
from eventkit_servicebus._local._connection import Connection
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._faults import AnswerLost, Call, ConnectionClosed, ConnectionDropped, Faults
from eventkit_servicebus._local._names import Node
from eventkit_servicebus._local._namespace import Topic

if TYPE_CHECKING:
    from eventkit_servicebus._local._server import Server

MOST: Final = 16 * 1024
"""Bytes that a request may have before its body."""
PATIENCE: Final = 10.0
"""Seconds that a client has for its request, or for the first bytes of AMQP."""
_LINGER: Final = 2.0
"""Seconds in which a client hangs up once it is answered. What it still sends is read, or it might lose the answer."""
_METHODS: Final = tuple(
    f"{method} ".encode() for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
)
_STATUS: Final = {
    "amqp:unauthorized-access": HTTPStatus.UNAUTHORIZED,
    "amqp:not-found": HTTPStatus.NOT_FOUND,
    "amqp:not-allowed": HTTPStatus.FORBIDDEN,
    "com.microsoft:server-busy": HTTPStatus.SERVICE_UNAVAILABLE,
}


class Request(NamedTuple):
    """The head of a request. `path` is as in "/news/Subscriptions/audit", with nothing escaped."""

    method: str
    url: str
    path: str
    token: bool


class Malformed(Exception):
    """What came is no request that can be answered."""


class Door(asyncio.Protocol):
    """One connection, of one request; or until it is known to be something else, which is AMQP's to refuse."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._bytes = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asked = False
        self._answered = False
        self._ended = False

    # -- asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._server.stopped:  # it was accepted in the same moment
            transport.abort()
            return
        self._server.doors.add(self)
        self._timer = self._loop.call_later(PATIENCE, self.drop)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._transport = None
        self._leave()

    def eof_received(self) -> bool:
        """It says no more, and may wait for an answer."""
        self._ended = True
        return self._asked and not self._answered

    def data_received(self, data: bytes) -> None:
        """Bytes have come. What comes after the head of a request is not looked at."""
        if self._asked:
            return
        self._bytes += data
        speaks = _is_http(bytes(self._bytes[:8]))
        if speaks is None:
            return
        if not speaks:
            self._hand_over()
            return
        head, end, _ = bytes(self._bytes[: MOST + 4]).partition(b"\r\n\r\n")
        if end or len(self._bytes) > MOST:
            self._asked = True
            self._bytes.clear()
            self._wait(None)
            self._read(head if end else b"")

    def drop(self) -> None:
        """Hang up without a word."""
        if self._transport is not None:
            self._transport.abort()
        self._leave()

    # -- what it speaks ------------------------------------------------------------------------

    def _hand_over(self) -> None:
        transport, self._transport = self._transport, None
        self._leave()
        if transport is not None:
            connection = Connection(self._server)
            transport.set_protocol(connection)
            connection.connection_made(transport)
            connection.data_received(bytes(self._bytes))

    def _leave(self) -> None:
        self._wait(None)
        self._server.doors.discard(self)

    def _wait(self, seconds: float | None) -> None:
        """Hang up after so long, if nothing has happened; None is for ever."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self.drop)

    # -- asking and answering ------------------------------------------------------------------

    def _read(self, head: bytes) -> None:
        try:
            request = read(head)
        except Malformed as exc:
            self._answer(HTTPStatus.BAD_REQUEST, error(HTTPStatus.BAD_REQUEST, f"Bad Request. {exc}"))
            return
        faults = self._server.faults
        if faults is None:
            self._answer(*_refusing(lambda: answer(self._server, request)))
        else:
            self._server.spawn(self._faulty(faults, request))

    async def _faulty(self, faults: Faults, request: Request) -> None:
        call = Call(operation="read-entity", entity=node(request.path).entity)
        try:
            await faults.before(call)
            status, body = answer(self._server, request)
            await faults.after(call)
        except AnswerLost:
            return
        except (ConnectionClosed, ConnectionDropped):
            self.drop()
            return
        except AmqpError as exc:
            status, body = _refused(exc)
        self._answer(status, body)

    def _answer(self, status: HTTPStatus, body: str) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        data = body.encode()
        kind = "application/atom+xml;charset=utf-8" if status == HTTPStatus.OK else "application/xml;charset=utf-8"
        allow = "Allow: GET\r\n" if status == HTTPStatus.METHOD_NOT_ALLOWED else ""
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
            f"{allow}Connection: close\r\n\r\n"
        )
        self._answered = True
        self._transport.write(head.encode() + data)
        if self._ended:
            self._transport.close()
        else:
            self._transport.write_eof()
            self._wait(_LINGER)


def _is_http(begin: bytes) -> bool | None:
    """Whether this is how a request begins; None if there is too little of it."""
    if any(begin.startswith(method) or method.startswith(begin) for method in _METHODS):
        return True if any(begin.startswith(method) for method in _METHODS) else None
    return None if len(begin) < 4 and b"AMQP".startswith(begin) else False


def read(head: bytes) -> Request:
    """Read the head of a request. Raises Malformed."""
    if not head:
        raise Malformed("Request too large.")
    line, *fields = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or words[2] not in {"HTTP/1.0", "HTTP/1.1"}:
        raise Malformed("No request of HTTP/1.1.")
    names = [field.partition(":") for field in fields]
    if any(not colon or not name or name != name.strip() for name, colon, _ in names):
        raise Malformed("A header without a name.")
    headers = {name.lower(): value.strip() for name, _, value in names}
    try:
        path = unquote(urlsplit(words[1]).path)
    except ValueError as exc:
        raise Malformed("Invalid URI.") from exc
    if not path.startswith("/"):
        raise Malformed("Invalid URI.")
    host = headers.get("host", "localhost")
    return Request(words[0], f"http://{host}{words[1]}", path, bool(headers.get("authorization")))


def node(path: str) -> Node:
    """The entity at a path: "news/audit" for /news/Subscriptions/audit; empty for what cannot be one."""
    parts = [part for part in path.lower().split("/") if part]
    if len(parts) == 3 and parts[1] == "subscriptions":
        return Node(f"{parts[0]}/{parts[2]}", dead_letters=False, management=False, cbs=False)
    return Node(parts[0] if len(parts) == 1 else "", dead_letters=False, management=False, cbs=False)


def answer(server: Server, request: Request) -> tuple[HTTPStatus, str]:
    """The answer to a request. Raises AmqpError for one that is refused."""
    if not request.token:
        raise AmqpError("amqp:unauthorized-access", "MissingToken: The authorization header was not found.")
    if request.method != "GET":
        status = HTTPStatus.METHOD_NOT_ALLOWED
        return status, error(status, "The local server is set up when it is started, and only tells how.")
    namespace = server.namespace
    now, told = namespace.now(), Told(_plain(request.url), namespace.wall(), server.since)
    where = node(request.path)
    try:
        found = namespace.target_or_queue(where)
    except AmqpError:
        if "/" in where.entity:
            text = f"Entity '{where.entity.replace('/', '|')}' was not found."
            raise AmqpError("amqp:not-found", text) from None
        return HTTPStatus.OK, empty_feed(told)
    if isinstance(found, Topic):
        scheduled = max((counts_of(each, now).scheduled for each in found.subscriptions), default=0)
        return HTTPStatus.OK, topic_entry(found, scheduled, told)
    entry: Callable[..., str] = subscription_entry if "/" in found.name else queue_entry
    return HTTPStatus.OK, entry(found, counts_of(found, now), told)


def _plain(text: str) -> str:
    """`text` without what XML has no place for."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _refusing(act: Callable[[], tuple[HTTPStatus, str]]) -> tuple[HTTPStatus, str]:
    try:
        return act()
    except AmqpError as exc:
        return _refused(exc)


def _refused(exc: AmqpError) -> tuple[HTTPStatus, str]:
    status = _STATUS.get(exc.condition, HTTPStatus.INTERNAL_SERVER_ERROR)
    return status, error(status, exc.description)
