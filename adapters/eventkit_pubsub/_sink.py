"""Publishing to a topic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import anyio
from google.pubsub_v1 import PublisherAsyncClient
from google.pubsub_v1.types import PublishRequest

from eventkit.errors import AdapterError
from eventkit.spi import DONE, UNKNOWN, Outgoing, Settled
from eventkit_pubsub._config import Place
from eventkit_pubsub._content import MOST_BYTES, Refused, message_of
from eventkit_pubsub._errors import partly, refusals, translated_errors
from eventkit_pubsub._facts import LIMITS
from eventkit_pubsub._wire import ONCE, answered

_MOST_BYTES: Final = MOST_BYTES - 1_000
"""Of the messages of one call: the name of the topic stands beside them."""
SIDE_BY_SIDE: Final = 16
"""Calls at a time: those of one key go one after another."""

_NOT_SENT: Final = Settled.retry(cause="a message before it, of the same key, was not published")

# The class under that of the SDK, which takes ten times as long to fill a list.
_Publish: Any = PublishRequest.pb()


class PubsubSink:
    """A topic to publish to. See `eventkit.spi.Sink`."""

    limits = LIMITS

    def __init__(self, client: PublisherAsyncClient, place: Place, topic: str) -> None:
        self._client = client
        self._place = place
        self._topic = topic

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        """See `Sink.publish`. One call holds messages of one key; what is too large together goes in several.

        After a call that failed, nothing of its key is sent any more: it could overtake what may be sent again.
        """
        results: list[Settled] = [UNKNOWN] * len(messages)
        keys: dict[str, list[tuple[int, Any]]] = {}
        for position, message in enumerate(messages):
            made = message_of(message)
            if isinstance(made, Refused):
                results[position] = Settled.refused(made.cause)
            else:
                keys.setdefault(made.ordering_key, []).append((position, made))
        order = [position for entries in keys.values() for position, _ in entries]
        for position, result in zip(order, await self._publish_keys([*keys.values()]), strict=True):
            results[position] = result
        return results

    async def _publish_keys(self, keys: Sequence[list[tuple[int, Any]]]) -> list[Settled]:
        answered: list[list[Settled] | AdapterError] = [[]] * len(keys)
        limiter = anyio.Semaphore(SIDE_BY_SIDE)

        async def publish(number: int) -> None:
            async with limiter:
                try:
                    answered[number] = await self._publish_key([message for _, message in keys[number]])
                except AdapterError as exc:
                    answered[number] = exc

        async with anyio.create_task_group() as tasks:
            for number in range(len(keys)):
                tasks.start_soon(publish, number)
        return partly(answered, [*map(len, keys)])

    async def _publish_key(self, messages: Sequence[Any]) -> list[Settled]:
        """Messages of one key, in order. Raises AdapterError when nothing is known of any of them."""
        results: list[Settled] = []
        for group in _calls(messages):
            try:
                answered = await self._send(group)
            except AdapterError:
                if not results:
                    raise
                answered = [UNKNOWN] * len(group)
            results += answered
            if answered[-1] is not DONE:
                break
        return results + [_NOT_SENT] * (len(messages) - len(results))

    async def _send(self, messages: Sequence[Any]) -> list[Settled]:
        request = PublishRequest.wrap(_Publish(topic=self._topic, messages=messages))
        try:
            with translated_errors("publish to", self._place):
                await answered(self._client.publish(request=request, **ONCE))
        except AdapterError as exc:
            return refusals(exc, len(messages))
        return [DONE] * len(messages)


def _calls(messages: Sequence[Any]) -> Iterator[list[Any]]:
    """Groups of messages, in order, each small enough for one call."""
    group: list[Any] = []
    size = 0
    for message in messages:
        own = message.ByteSize() + 5  # and what stands before it
        if group and size + own > _MOST_BYTES:
            yield group
            group, size = [], 0
        group.append(message)
        size += own
    if group:
        yield group
