"""A server for development and tests that stands in for Azure Service Bus: `eventkit local servicebus`.

    async with serve(["orders", "bills.sessions", "news/audit"]) as place:
        os.environ.update(place.environment)
        ...

It speaks AMQP 1.0 on a loopback port, without TLS, over the in-memory broker of `eventkit.testing`, to the SDK as it
is: tokens, queues, topics and subscriptions, dead letters, sessions and their states, locks by token, confirmed
settlement, deferred and scheduled messages, peeking, batches, time to live, duplicate detection. On the same
port it tells over HTTP, to the SDK's administration client, how an entity is set up and what waits there. It is kinder
than the service in these: every token is believed, quotas have no end, a lock lives as long as it says, nothing is
delivered twice without a reason, the limits of a link's and a session's window are not held against a client, and
connections live until somebody ends them. A subscription takes every message: there are no rules, no forwarding, no
transactions, no partitions, nothing is created over HTTP, and no state outlives the server.
"""

from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._faults import (
    AnswerLost,
    Call,
    ConnectionClosed,
    ConnectionDropped,
    Faults,
    LinkDetached,
)
from eventkit_servicebus._local._server import LocalServiceBus, serve

__all__ = [
    "AmqpError",
    "AnswerLost",
    "Call",
    "ConnectionClosed",
    "ConnectionDropped",
    "Faults",
    "LinkDetached",
    "LocalServiceBus",
    "serve",
]
