"""Acknowledging messages, and changing when their leases end: the unary calls, with an answer for each message."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Any, Final

import anyio
from google.api_core.exceptions import GoogleAPICallError
from google.pubsub_v1 import SubscriberAsyncClient
from google.pubsub_v1.types import AcknowledgeRequest, ModifyAckDeadlineRequest

from eventkit.errors import AdapterError
from eventkit.spi import DONE, Settled
from eventkit_pubsub._config import Place
from eventkit_pubsub._errors import answers, partly, refusals, translated_errors
from eventkit_pubsub._wire import ONCE, answered

MOST_IDS: Final = 500
"""Messages of one call: a request may have 512 KiB, and the id of one a few hundred bytes."""
LONGEST_LEASE: Final = 600
"""Seconds from a call to the end of the lease it asks for."""

# The classes under those of the SDK, which take ten times as long to fill a list.
_Acknowledge: Any = AcknowledgeRequest.pb()
_Modify: Any = ModifyAckDeadlineRequest.pb()


class Leases:
    """The leases of one subscription's messages, by their ack ids."""

    def __init__(self, client: SubscriberAsyncClient, place: Place, subscription: str) -> None:
        self._client = client
        self._place = place
        self._subscription = subscription

    async def end(self, ack_ids: Sequence[str]) -> list[Settled]:
        """Acknowledge. Raises AdapterError when it is not known whether that was done."""
        request = AcknowledgeRequest.wrap(_Acknowledge(subscription=self._subscription, ack_ids=ack_ids))
        return await self._settled("ack in", self._client.acknowledge, request, ack_ids)

    async def set(self, doing: str, ack_ids: Sequence[str], seconds: int) -> list[Settled]:
        """Let these leases end so many seconds from now; 0 gives them back. Raises AdapterError as `end` does."""
        request = ModifyAckDeadlineRequest.wrap(
            _Modify(subscription=self._subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds)
        )
        return await self._settled(doing, self._client.modify_ack_deadline, request, ack_ids)

    async def give_back(self, items: Sequence[tuple[str, float]]) -> list[Settled]:
        """Let these be delivered again, each after its delay: one call for each second. Raises AdapterError as `end`.

        A delay is a lease that nobody holds.
        """
        calls: dict[int, list[int]] = {}
        for position, (_, delay) in enumerate(items):
            calls.setdefault(math.ceil(delay), []).append(position)
        answered: list[list[Settled] | AdapterError] = [[]] * len(calls)

        async def call(number: int, seconds: int, positions: Sequence[int]) -> None:
            try:
                answered[number] = await self.set("nack in", [items[at][0] for at in positions], seconds)
            except AdapterError as exc:
                answered[number] = exc

        async with anyio.create_task_group() as tasks:
            for number, (seconds, positions) in enumerate(calls.items()):
                tasks.start_soon(call, number, seconds, positions)
        order = [position for positions in calls.values() for position in positions]
        results = partly(answered, [*map(len, calls.values())])
        return [result for _, result in sorted(zip(order, results, strict=True), key=itemgetter(0))]

    async def _settled(
        self, doing: str, call: Callable[..., Awaitable[None]], request: object, ack_ids: Sequence[str]
    ) -> list[Settled]:
        try:
            with translated_errors(doing, self._place):
                try:
                    await answered(call(request=request, **ONCE))
                except GoogleAPICallError as exc:
                    found = answers(exc, ack_ids)
                    if found is None:
                        raise
                    return found
        except AdapterError as exc:
            return refusals(exc, len(ack_ids))
        return [DONE] * len(ack_ids)
