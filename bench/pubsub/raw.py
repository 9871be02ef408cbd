"""By hand, as little as does the work: `python -m bench.pubsub.raw SUBSCRIPTION nothing|note [documented]`.

It reads the protobuf messages that the SDK's own objects wrap; *documented* is the same loop with those objects.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc.aio
from google.pubsub_v1 import SubscriberAsyncClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport
from google.pubsub_v1.types import AcknowledgeRequest, StreamingPullRequest, StreamingPullResponse

from bench.cloud.meter import peak, report, used
from bench.cloud.payload import HANDLERS, decode, late

HANDLE = HANDLERS[sys.argv[2]]
LEASE = 60
OUTSTANDING = 1_000
"""Messages that may be out at once, as many as the threaded client takes by default."""
MOST_IDS = 500
HEARTBEAT = 30.0

_Acknowledge = AcknowledgeRequest.pb()


class Loop:
    """Reads from the stream, and acknowledges meanwhile."""

    def __init__(self, client: SubscriberAsyncClient, subscription: str) -> None:
        self.client = client
        self.subscription = subscription
        self._handled: list[str] = []
        self._more = asyncio.Event()

    async def read(self) -> None:
        """Handle what comes."""
        async for response in await self.client.streaming_pull(requests=self._requests(), retry=None, timeout=None):
            for received in self.messages(response):
                await HANDLE(decode(received.message.data))
                self._handled.append(received.ack_id)
            self._more.set()

    async def _requests(self) -> AsyncIterator[StreamingPullRequest]:
        yield StreamingPullRequest(
            subscription=self.subscription, stream_ack_deadline_seconds=LEASE, max_outstanding_messages=OUTSTANDING
        )
        while True:
            await asyncio.sleep(HEARTBEAT)
            yield StreamingPullRequest()

    async def ack(self) -> None:
        """Acknowledge what was handled, all there is in one call."""
        while True:
            await self._more.wait()
            self._more.clear()
            while some := self._handled[:MOST_IDS]:
                del self._handled[:MOST_IDS]
                await self.acknowledge(some)

    def messages(self, response: StreamingPullResponse) -> Iterable[Any]:
        """Those of a response."""
        messages: Iterable[Any] = StreamingPullResponse.pb(response).received_messages
        return messages

    async def acknowledge(self, ack_ids: list[str]) -> None:
        """In one call."""
        request = _Acknowledge(subscription=self.subscription, ack_ids=ack_ids)
        await self.client.acknowledge(AcknowledgeRequest.wrap(request))


class Documented(Loop):
    """Uses the SDK as its documentation does."""

    def messages(self, response: StreamingPullResponse) -> Iterable[Any]:
        return response.received_messages

    async def acknowledge(self, ack_ids: list[str]) -> None:
        await self.client.acknowledge(subscription=self.subscription, ack_ids=ack_ids)


async def main(name: str, kind: type[Loop]) -> None:
    """Consume until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with grpc.aio.insecure_channel(os.environ["PUBSUB_EMULATOR_HOST"]) as channel:
        client = SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel))
        loop = kind(client, f"projects/{os.environ['GOOGLE_CLOUD_PROJECT']}/subscriptions/{name}")
        before = used()
        tasks = [asyncio.create_task(loop.read()), asyncio.create_task(loop.ack())]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    report(used() - before, peak(), late=late)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Documented if sys.argv[3:] == ["documented"] else Loop))
