"""A server for development and tests that stands in for Azure Service Bus: `eventkit local servicebus`.

    async with serve(["orders", "bills.sessions", "news/audit"]) as place:
        os.environ.update(place.environment)
        ...

It speaks AMQP 1.0 on a loopback port, without TLS, over the in-memory broker of `eventkit.testing`.
"""

from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._faults import AnswerLost, Call, ConnectionDropped, Faults
from eventkit_servicebus._local._server import LocalServiceBus, serve

__all__ = ["AmqpError", "AnswerLost", "Call", "ConnectionDropped", "Faults", "LocalServiceBus", "serve"]
