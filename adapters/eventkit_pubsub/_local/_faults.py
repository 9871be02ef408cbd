"""What goes wrong between a client and the subscriptions, for tests."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from eventkit_pubsub._local._raw import Raw


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a client, as a fault sees it: `operation` as in "Acknowledge", `request` a protobuf message.

    That of a StreamingPull is the first one.
    """

    operation: str
    request: Raw

    @property
    def subscription(self) -> str:
        """The short name of the subscription it is about, or an empty string."""
        return self._named("subscription")

    @property
    def topic(self) -> str:
        """The short name of the topic it is about, or an empty string."""
        return self._named("topic")

    def _named(self, kind: str) -> str:
        """A name stands in the field `topic`, in `topic.name`, in `name`, or in `resource`."""
        value = getattr(self.request, kind, "")
        for name in (getattr(value, "name", value), getattr(self.request, "name", ""), _resource(self.request)):
            if f"/{kind}s/" in name:
                return str(name).rpartition("/")[2]
        return ""


def _resource(request: Raw) -> str:
    return getattr(request, "resource", "")


class Faults:
    """Subclass it; here, nothing goes wrong.

    All methods may wait, and may raise PubsubError, which is answered. A client that goes away while they wait
    cancels them.
    """

    async def before(self, call: Call) -> Mapping[str, str]:
        """The call has not reached the subscriptions. Raise, and it never does.

        Acknowledge and ModifyAckDeadline, with exactly-once delivery: the ack ids that are returned fail for the
        reason that stands with each, as in "TRANSIENT_FAILURE_INTERNAL", and are not done. Other calls ignore it.
        """
        return {}

    async def after(self, call: Call, reply: Raw) -> Raw:
        """The call is done; what is returned is the reply. Raise, and the reply is lost. Not for a StreamingPull."""
        return reply

    async def streaming(self, call: Call, response: Raw) -> Raw | None:
        """A response is about to go out on the stream that `call` opened; what is returned goes in its place.

        None, and nothing does, but what it holds stays leased: a stream that goes silent. Raise, and the stream ends
        so, before it is sent.
        """
        return response
