"""Sending to the local server, by the SDK's batches."""

from __future__ import annotations

from collections.abc import Sequence

from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusSender

from bench.cloud.stand import Send, Server

VARIABLE = "SERVICEBUS_CONNECTION_STRING"
MOST = 100
"""Messages of one call."""


def connect(at: Server) -> Send:
    """A connection to send by for each queue, opened at the first call for it, which may be to send nothing."""
    client = ServiceBusClient.from_connection_string(at.environment[VARIABLE])
    senders: dict[str, ServiceBusSender] = {}

    def send(queue: str, bodies: Sequence[str]) -> None:
        if queue not in senders:
            senders[queue] = client.get_queue_sender(queue).__enter__()
        if bodies:
            senders[queue].send_messages([ServiceBusMessage(body) for body in bodies])

    return send
