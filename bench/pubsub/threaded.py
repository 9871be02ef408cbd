"""Google's client of threads, by its default settings: `python -m bench.pubsub.threaded SUBSCRIPTION`."""

from __future__ import annotations

import os
import signal
import sys

from google.cloud.pubsub_v1 import SubscriberClient  # type: ignore[import-untyped]  # it has no types
from google.cloud.pubsub_v1.subscriber.message import Message  # type: ignore[import-untyped]

from bench.cloud.meter import peak, report, used
from bench.cloud.payload import decode


def handle(message: Message) -> None:
    """Decode, do nothing, acknowledge."""
    decode(message.data)
    message.ack()


def main() -> None:
    """Consume until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with SubscriberClient() as client:
        before = used()
        subscription = client.subscription_path(os.environ["GOOGLE_CLOUD_PROJECT"], sys.argv[1])
        receiving = client.subscribe(subscription, handle)
        signal.sigwait({signal.SIGTERM})
        receiving.cancel()
        receiving.result()
    report(used() - before, peak())


if __name__ == "__main__":
    main()
