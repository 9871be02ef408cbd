"""Sending to the local server, without an SDK."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from http.client import HTTPConnection
from urllib.parse import urlsplit

from bench.cloud.stand import Send, Server

MOST = 10
"""Messages of one call."""


def connect(at: Server) -> Send:
    """A connection to send by."""
    door = HTTPConnection(urlsplit(at.endpoint).netloc)

    def send(queue: str, bodies: Sequence[str]) -> None:
        entries = [{"Id": str(position), "MessageBody": body} for position, body in enumerate(bodies)]
        request = {"QueueUrl": f"{at.endpoint}/000000000000/{queue}", "Entries": entries}
        headers = {"Content-Type": "application/x-amz-json-1.0", "Authorization": "anybody"}
        headers["X-Amz-Target"] = "AmazonSQS.SendMessageBatch"
        door.request("POST", "/", json.dumps(request), headers)
        reply = door.getresponse()
        text = reply.read()
        if reply.status != 200 or "Failed" in json.loads(text):
            sys.exit(f"the server took no messages: {text.decode()}")

    return send
