"""Pub/Sub, as its local server has it: real gRPC, with a proxy that breaks connections in front of every worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from eventkit_pubsub import adapter
from eventkit_pubsub._local import Call, Faults, PubsubError, serve

from eventkit.testing import FaultProxy
from tests.adapters.contract.lines import ProxyLine
from tests.adapters.contract.variant import Counts, Place, Variant, Verb


class LostAnswers(Faults):
    """Loses the answer of the next call of a verb. On HTTP/2 a proxy cannot tell one from another."""

    def __init__(self) -> None:
        self._verbs: set[Verb] = set()

    def lose(self, verb: Verb) -> None:
        """Of the next call of `verb`."""
        self._verbs.add(verb)

    async def after(self, call: Call, reply: Any) -> Any:
        """See `Faults`."""
        verb = _verb(call)
        if verb in self._verbs:
            self._verbs.discard(verb)
            raise PubsubError(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        return reply

    async def streaming(self, call: Call, response: Any) -> Any:
        """See `Faults`."""
        if "receive" in self._verbs and response.received_messages:
            self._verbs.discard("receive")
            raise PubsubError(grpc.StatusCode.UNAVAILABLE, "what was on the stream was lost")
        return response


def _verb(call: Call) -> Verb | None:
    match call.operation:
        case "Acknowledge":
            return "ack"
        case "ModifyAckDeadline" if not call.request.ack_deadline_seconds:
            return "nack"
        case "Publish" if "-dlq" in call.topic:
            return "dead_letter"
    return None


def pubsub_place(suffix: str) -> Callable[[Path], AbstractAsyncContextManager[Place]]:
    """Places at a server each, so that counts and connections are those of one case."""

    @asynccontextmanager
    async def place(_: Path) -> AsyncIterator[Place]:
        queue, answers = f"orders{suffix}", LostAnswers()
        async with serve([queue], faults=answers) as server:
            upstream = urlsplit(server.endpoint)
            assert upstream.hostname is not None, "an endpoint is a URL"
            assert upstream.port is not None, "on a port of its own"
            async with FaultProxy(upstream.hostname, upstream.port) as proxy:

                def counts() -> Counts:
                    found = server.counts()
                    return Counts(delivered=found.delivered, acked=found.acked)

                beside = f"{server.address(queue)}?endpoint={server.endpoint}"
                yield Place(
                    adapter=adapter,
                    source=f"{server.address(queue)}?endpoint=http://{proxy.host}:{proxy.port}",
                    sink=beside,
                    beside=beside,
                    dead_letters=f"{server.dead_letters(queue)}?endpoint={server.endpoint}",
                    line=ProxyLine(proxy, answers.lose),
                    counts=counts,
                )

    return place


_KINDS: Mapping[str, str] = {"pubsub": "", "pubsub exactly-once": ".exactly-once", "pubsub ordered": ".ordered"}

VARIANTS = tuple(
    Variant(name=name, place=pubsub_place(suffix), lease=2.0, ordered="ordered" in suffix)
    for name, suffix in _KINDS.items()
)
