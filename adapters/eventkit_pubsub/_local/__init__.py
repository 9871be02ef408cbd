"""A server for development and tests that stands in for Google Pub/Sub: `eventkit local pubsub`.

    async with serve(["orders", "bills.ordered"]) as place:
        os.environ.update(place.environment)
        ...

It speaks gRPC on a loopback port, with the message types of Google's SDK, over the in-memory broker of
`eventkit.testing`: ack ids, deadlines, ordering keys, exactly-once delivery, dead-letter and retry policies and limits
are as strict as the service documents them, or stricter. It is kinder in these: nothing is delivered twice without a
reason, the limits of a stream hold to the message, counts and attempts are exact, a name can be used again at once
after it was deleted, streams live until somebody ends them, a message is delivered at once after it was published,
with exactly-once delivery acks of one key may come in any order, quotas have no end, and nobody's permissions are
looked at. It has no snapshots, schemas, message transforms, push, and no state that outlives it; `client_id`, labels,
expiry of what is not used and the retention of a topic are stored, and mean nothing.
"""

from eventkit_pubsub._local._errors import PubsubError
from eventkit_pubsub._local._faults import Call, Faults
from eventkit_pubsub._local._server import LocalPubsub, serve

__all__ = ["Call", "Faults", "LocalPubsub", "PubsubError", "serve"]
