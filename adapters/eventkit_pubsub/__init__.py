"""Google Cloud Pub/Sub. Needs the extra `pubsub`, and its local server nothing more.

Address: `pubsub://PROJECT/NAME`: a source reads NAME as a subscription, a sink as a topic; `pubsub:///NAME` takes the
project of the credentials, and `pubsub://projects/PROJECT/subscriptions/NAME` (or `topics/NAME`) says it in full.
Options: `region` for a regional endpoint, `endpoint` for any other. A subscription with message ordering keeps order
per key.
"""

from eventkit_pubsub._adapter import adapter

__all__ = ["adapter"]
