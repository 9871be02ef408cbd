"""Publishing to the local server."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.types import PublishRequest

from bench.cloud.stand import Send, Server

MOST = 500
"""Messages of one call."""

_Request = PublishRequest.pb()


def connect(at: Server) -> Send:
    """A channel to publish by."""
    channel = grpc.insecure_channel(at.environment["PUBSUB_EMULATOR_HOST"])
    client = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
    project = at.environment["GOOGLE_CLOUD_PROJECT"]

    def send(queue: str, bodies: Sequence[str]) -> None:
        messages = [{"data": body.encode()} for body in bodies]
        request = _Request(topic=f"projects/{project}/topics/{queue}", messages=messages)
        client.publish(request=PublishRequest.wrap(request), timeout=60)

    return send
