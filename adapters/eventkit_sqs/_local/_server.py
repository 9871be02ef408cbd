"""Starting and stopping the server."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from eventkit.errors import ConfigurationError
from eventkit.spi import LocalCounts
from eventkit_sqs._local._account import Account
from eventkit_sqs._local._errors import SqsError
from eventkit_sqs._local._faults import Faults
from eventkit_sqs._local._front import MAX_REQUEST, Front

HOST: Final = "127.0.0.1"
REGION: Final = "local"
"""No region of AWS: a client that does not find the server must not find a real queue instead. (Version 1 of the AWS
command line overrides the endpoint for the regions that it knows.)"""
ACCOUNT: Final = "000000000000"
MAX_RECEIVES: Final = 100
"""`maxReceiveCount` of the queues it starts with: a worker's own dead-lettering, which has a reason, comes first."""

LONGEST: Final = "1209600"
"""Seconds that dead letters are kept: they keep their age when moved, so it must be more than the source's 4 days."""

STOP: Final = 0.4
"""Seconds for what a fault holds up when the server stops; everything else is answered at once."""


class LocalSqs:
    """A server that runs: a `LocalPlace`. `faults` may be set and taken away at any time."""

    def __init__(self, account: Account, front: Front) -> None:
        self.endpoint = account.endpoint
        self.environment: Mapping[str, str] = {
            "AWS_ENDPOINT_URL_SQS": account.endpoint,
            "AWS_REGION": account.region,
            "AWS_DEFAULT_REGION": account.region,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
        }
        self._account = account
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
        return f"sqs://{queue}"

    def dead_letters(self, queue: str) -> str:
        """See `LocalPlace`."""
        return f"sqs://{_dead_letter_name(queue)}"

    def counts(self) -> LocalCounts:
        """See `LocalPlace`. A visibility timeout set to 0 is a nack; a retry that was delayed is an expiry."""
        return self._account.counts()


@asynccontextmanager
async def serve(
    queues: Sequence[str],
    *,
    port: int = 0,
    region: str = REGION,
    account: str = ACCOUNT,
    max_receives: int = MAX_RECEIVES,
    faults: Faults | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[LocalSqs]:
    """Serve `queues` and a dead-letter queue for each. See `LocalServer.local`.

    A queue whose name ends in `.fifo` is a FIFO queue, with content-based deduplication; `orders` comes with
    `orders-dlq`, `orders.fifo` with `orders-dlq.fifo`, and messages go there after `max_receives` receives
    and stay for 14 days.
    A test may give a `clock` of its own, in seconds from anywhere, to make twelve hours pass, and a `wall`, in Unix
    seconds; waiting on the wire takes real time all the same. asyncio only.
    """
    state = Account("", region=region, id=account, clock=clock, wall=wall)
    front = Front(state)
    front.faults = faults
    server = web.Server(front.answer, handler_cancellation=True, request_factory=_request, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=STOP)
    await runner.setup()
    try:
        await _listen(runner, port)
        state.endpoint = f"http://{HOST}:{runner.addresses[0][1]}"
        _create(state, queues, max_receives)
        yield LocalSqs(state, front)
    finally:
        state.end()
        await runner.cleanup()


async def _listen(runner: web.ServerRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, HOST, port).start()
    except (OSError, OverflowError) as exc:
        taken = isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE
        problem = "is taken: stop what listens there, or choose" if taken else f"cannot be used ({exc}): choose"
        raise ConfigurationError(
            f"port {port} of {HOST} {problem} another one with --port (0 is any free one)"
        ) from exc


def _create(account: Account, queues: Sequence[str], max_receives: int) -> None:
    problems = []
    for name in queues:
        kind = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if name.endswith(".fifo") else {}
        try:
            dead = account.create(_dead_letter_name(name), {**kind, "MessageRetentionPeriod": LONGEST}, {})
            policy = msgspec.json.encode({"deadLetterTargetArn": dead.arn, "maxReceiveCount": max_receives}).decode()
            account.create(name, {**kind, "RedrivePolicy": policy}, {})
        except SqsError as exc:
            problems.append(f"queue {name!r} with its dead-letter queue: {exc.message}")
    if problems:
        raise ConfigurationError(*problems)


def _dead_letter_name(queue: str) -> str:
    stem = queue.removesuffix(".fifo")
    return queue.replace(stem, f"{stem}-dlq", 1)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_REQUEST)
