"""A worker whose loop stood still: what waited for it meanwhile was leased meanwhile."""

from __future__ import annotations

import threading
import time

import grpc
from anyio import current_time
from eventkit_pubsub import adapter
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from eventkit.spi import Address, Demand
from tests.adapters.pubsub.adapter_support import PROJECT, received, topic
from tests.process.cli_support import serving

STANDSTILL = 3.0


async def test_the_lease_of_what_waited_began_before_it_was_seen() -> None:
    """Else it would be handed over, or kept, when it is long somebody else's."""
    with serving("pubsub", "orders", "--port", "0") as (_, lines):
        endpoint = lines[0].removeprefix("listening at ")

        def publish() -> None:
            time.sleep(0.5)
            with grpc.insecure_channel(endpoint.removeprefix("http://")) as channel:
                client = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
                client.publish(request={"topic": topic("orders"), "messages": [{"data": b"a"}]})

        address = Address.parse(f"pubsub://{PROJECT}/orders?endpoint={endpoint}")
        async with adapter.open_source(address, Demand(lease=10.0)) as source:
            await source.receive(1, 0.5)
            meanwhile = threading.Thread(target=publish)
            meanwhile.start()
            time.sleep(STANDSTILL)  # noqa: ASYNC251 - that is the point
            [found] = await received(source, 1)
            meanwhile.join()

    assert found.leased_until <= current_time() + 10.0 - (STANDSTILL - 0.6)
