"""Publishing to a queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

from eventkit.errors import AdapterError
from eventkit.spi import UNKNOWN, Limits, Outgoing, Settled
from eventkit_sqs._config import Place
from eventkit_sqs._content import Entry, Refused, entry_of
from eventkit_sqs._errors import answers, refusals, translated_errors
from eventkit_sqs._facts import MOST_BYTES

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient


class SqsSink:
    """A queue to publish to. See `eventkit.spi.Sink`."""

    def __init__(self, limits: Limits, place: Place, *, url: str, client: SQSClient) -> None:
        self.limits = limits
        self._place = place
        self._url = url
        self._client = client

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        """See `Sink.publish`. What is too large for one call together goes in several."""
        results: list[Settled] = [UNKNOWN] * len(messages)
        entries: list[tuple[int, Entry]] = []
        for position, message in enumerate(messages):
            made = entry_of(message, position, fifo=self._place.fifo, most=self.limits.body, token=uuid4().hex)
            if isinstance(made, Refused):
                results[position] = Settled.refused(made.cause)
            else:
                entries.append((position, made))
        sent = False
        for group in _calls(entries):
            try:
                answered = await self._send([entry for _, entry in group])
            except AdapterError:
                if not sent:
                    raise  # of none is anything known
                break
            sent = True
            for (position, _), result in zip(group, answered, strict=True):
                results[position] = result
        return results

    async def _send(self, entries: Sequence[Entry]) -> list[Settled]:
        fields = [{**entry.fields, "Id": str(place)} for place, entry in enumerate(entries)]
        try:
            with translated_errors("publish to", self._place.address):
                reply = await self._client.send_message_batch(QueueUrl=self._url, Entries=fields)  # type: ignore[arg-type]
        except AdapterError as exc:
            return refusals(exc, len(entries))
        return answers(reply, len(entries))


def _calls(entries: Sequence[tuple[int, Entry]]) -> Iterator[list[tuple[int, Entry]]]:
    """Groups of entries, in order, each small enough for one call."""
    group: list[tuple[int, Entry]] = []
    size = 0
    for position, entry in entries:
        if group and size + entry.size > MOST_BYTES:
            yield group
            group, size = [], 0
        group.append((position, entry))
        size += entry.size
    if group:
        yield group
