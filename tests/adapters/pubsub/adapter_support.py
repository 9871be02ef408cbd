"""The adapter at a local server that does what a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import grpc
from anyio import current_time
from eventkit_pubsub import adapter
from eventkit_pubsub._local import Call, Faults, LocalPubsub, PubsubError, serve
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

from eventkit.spi import DONE, Address, Delivery, Demand, Outgoing, Sink, Source

DEMAND = Demand(lease=10.0, wait=1.0)
PROJECT = "eventkit-local"


def error(code: str, message: str = "no") -> PubsubError:
    """An answer with this status."""
    return PubsubError(grpc.StatusCode[code], message)


class Trouble(Faults):
    """Does to calls what a test says, by the name of the operation; and notes them all."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.errors: dict[str, PubsubError] = {}
        self.lost: dict[str, PubsubError] = {}
        self.ids: dict[str, Callable[[str], str | None]] = {}
        self.replies: dict[str, Callable[[Any], None]] = {}
        self.responses: Callable[[Any], Any] = lambda response: response

    async def before(self, call: Call) -> Mapping[str, str]:
        self.calls.append(call)
        if call.operation in self.errors:
            raise self.errors[call.operation]
        reason = self.ids.get(call.operation)
        named = {id: reason(id) for id in call.request.ack_ids} if reason else {}
        return {id: why for id, why in named.items() if why}

    async def after(self, call: Call, reply: Any) -> Any:
        if call.operation in self.lost:
            raise self.lost.pop(call.operation)
        if call.operation in self.replies:
            self.replies[call.operation](reply)
        return reply

    async def streaming(self, call: Call, response: Any) -> Any:
        return self.responses(response)

    def of(self, operation: str) -> list[Any]:
        """The requests of an operation."""
        return [call.request for call in self.calls if call.operation == operation]


class Rig:
    """A server, and what can be opened at it."""

    def __init__(
        self,
        server: LocalPubsub,
        trouble: Trouble,
        publisher: PublisherAsyncClient,
        subscriber: SubscriberAsyncClient,
    ) -> None:
        self.server = server
        self.trouble = trouble
        self.publisher = publisher
        self.subscriber = subscriber

    def address(self, name: str) -> Address:
        return Address.parse(f"pubsub://{PROJECT}/{name}?endpoint={self.server.endpoint}")

    @asynccontextmanager
    async def source(self, name: str = "orders", demand: Demand = DEMAND) -> AsyncIterator[Source]:
        ended = False
        async with adapter.open_source(self.address(name), demand) as source:
            yield source
            ended = True
        assert ended, "the test was cut short, and nobody told"

    @asynccontextmanager
    async def sink(self, name: str = "orders") -> AsyncIterator[Sink]:
        async with adapter.open_sink(self.address(name)) as sink:
            yield sink

    async def publish(self, *messages: Outgoing | bytes, to: str = "orders") -> None:
        made = [Outgoing(body=each) if isinstance(each, bytes) else each for each in messages]
        async with self.sink(to) as sink:
            assert await sink.publish(made) == [DONE] * len(made)

    async def pulled(self, number: int, name: str = "orders") -> list[bytes]:
        """So many bodies, received by somebody else at once."""
        request = {"subscription": subscription(name), "max_messages": number}
        found: list[bytes] = []
        with anyio.fail_after(5):
            while len(found) < number:
                reply = await self.subscriber.pull(request=request)
                found += [each.message.data for each in reply.received_messages]
        return found

    async def change(self, name: str = "orders", **settings: Any) -> None:
        """Change the settings of a subscription."""
        changed = {"name": subscription(name), **settings}
        await self.subscriber.update_subscription(
            request={"subscription": changed, "update_mask": {"paths": [*settings]}}
        )


def subscription(name: str) -> str:
    return f"projects/{PROJECT}/subscriptions/{name}"


def topic(name: str) -> str:
    return f"projects/{PROJECT}/topics/{name}"


async def received(source: Source, number: int, within: float = 5.0) -> list[Delivery]:
    """So many deliveries, in one receive or several."""
    found: list[Delivery] = []
    until = current_time() + within
    while len(found) < number:
        found += await source.receive(number - len(found), 0.5)
        assert current_time() < until, f"{len(found)} of {number} came"
    return found


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


@asynccontextmanager
async def rigged(*queues: str, **options: Any) -> AsyncIterator[Rig]:
    """A rig, with clients of the SDK beside it."""
    trouble = Trouble()
    async with (
        serve(queues or ("orders", "bills.ordered", "sums.exactly-once"), faults=trouble, **options) as server,
        grpc.aio.insecure_channel(server.endpoint.removeprefix("http://")) as channel,
    ):
        publisher = PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=channel))
        subscriber = SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel))
        yield Rig(server, trouble, publisher, subscriber)
