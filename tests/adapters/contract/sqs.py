"""SQS, as its local server has it: real HTTP, with a proxy that breaks connections in front of every worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from eventkit_sqs import adapter

from eventkit.spi import LocalServer
from eventkit.testing import FaultProxy
from tests.adapters.contract.lines import ProxyLine
from tests.adapters.contract.variant import Counts, Place, Variant, Verb

REGION: Final = "eu-north-1"
ENVIRONMENT: Final = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": REGION}

ACTIONS: Final[Mapping[Verb, bytes]] = {
    "receive": b"AmazonSQS.ReceiveMessage",
    "ack": b"AmazonSQS.DeleteMessage",
    "nack": b"AmazonSQS.ChangeMessageVisibility",
    "dead_letter": b"AmazonSQS.SendMessage",
}


def sqs_place(suffix: str) -> Callable[[Path], AbstractAsyncContextManager[Place]]:
    """Places at a server each, so that counts and connections are those of one case."""

    @asynccontextmanager
    async def place(_: Path) -> AsyncIterator[Place]:
        queue, dead = f"orders{suffix}", f"orders-dlq{suffix}"
        assert isinstance(adapter, LocalServer), "it brings one"
        async with adapter.local([queue]) as server:
            upstream = urlsplit(server.endpoint)
            assert upstream.hostname is not None, "an endpoint is a URL"
            assert upstream.port is not None, "on a port of its own"
            async with FaultProxy(upstream.hostname, upstream.port) as proxy:

                def address(name: str, endpoint: str) -> str:
                    return f"sqs://{name}?endpoint={endpoint}&region={REGION}"

                def counts() -> Counts:
                    found = server.counts()
                    return Counts(delivered=found.delivered, acked=found.acked)

                yield Place(
                    adapter=adapter,
                    source=address(queue, f"http://{proxy.host}:{proxy.port}"),
                    sink=address(queue, server.endpoint),
                    beside=address(queue, server.endpoint),
                    dead_letters=address(dead, server.endpoint),
                    line=ProxyLine(proxy, lambda verb: proxy.lose_reply(when=ACTIONS[verb])),
                    counts=counts,
                )

    return place


VARIANTS = (
    Variant(name="sqs", place=sqs_place(""), lease=2.0, environment=ENVIRONMENT),
    Variant(name="sqs fifo", place=sqs_place(".fifo"), lease=2.0, ordered=True, environment=ENVIRONMENT),
)
