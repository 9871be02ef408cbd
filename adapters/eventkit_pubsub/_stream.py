"""One streaming pull, from its first request to its last response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import anyio
from anyio import current_time
from google.pubsub_v1 import SubscriberAsyncClient
from google.pubsub_v1.types import StreamingPullRequest, StreamingPullResponse

HEARTBEAT: Final = 15.0
"""Seconds between two requests on a stream that say nothing: Pub/Sub ends one that is silent for a minute."""
SILENCE: Final = 45.0
"""Seconds without a response, not even to a heartbeat, after which a stream is taken for dead."""
LAST_WORDS: Final = 3.0
"""Seconds that a half-closed stream has for what is on its way."""

_raw: Final = StreamingPullResponse.pb


class Stream:
    """What was sent on it and is not settled counts against its limits, at Pub/Sub and here.

    `outstanding` and `outstanding_bytes` say how much that is, `received` how many messages came at all.
    """

    def __init__(self, first: StreamingPullRequest) -> None:
        self.opened_at = self._heard_at = current_time()
        self.received = 0
        self.outstanding = 0
        self.outstanding_bytes = 0.0
        self._first = first
        self._closing = anyio.Event()
        self._closed_at: float | None = None
        self._reading: anyio.CancelScope | None = None
        self._raised: Exception | None = None

    @property
    def asked_to_end(self) -> bool:
        """Whether it was half-closed."""
        return self._closed_at is not None

    async def read(self, client: SubscriberAsyncClient, arrived: Callable[[Any], None]) -> None:
        """Hand each response, as a raw protobuf message, to `arrived`, until the stream ends. Raises what the SDK does.

        In a task of its own: gRPC answers a cancellation with one that no cancel scope knows for its own, and whoever
        waits for the stream would be taken for cancelled, too.
        """
        async with anyio.create_task_group() as tasks:
            self._reading = tasks.cancel_scope
            tasks.start_soon(self._read, client, arrived)
        if self._raised is not None:
            raise self._raised

    async def _read(self, client: SubscriberAsyncClient, arrived: Callable[[Any], None]) -> None:
        """Without the SDK's retry, which cannot repeat requests, and its time limit of half an hour."""
        try:
            call = await client.streaming_pull(requests=self._requests(), retry=None, timeout=None)
            async for response in call:
                self._heard_at = current_time()
                arrived(_raw(response))
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is raised above, and not in a group
            self._raised = exc
        finally:
            self._closing.set()

    async def _requests(self) -> AsyncIterator[StreamingPullRequest]:
        yield self._first
        while not self._closing.is_set():
            with anyio.move_on_after(HEARTBEAT):
                await self._closing.wait()
            if not self._closing.is_set():
                yield StreamingPullRequest()

    def half_close(self) -> None:
        """Ask for no more; what is on its way still comes. Idempotent."""
        if self._closed_at is None:
            self._closed_at = current_time()
            self._closing.set()

    def check(self, now: float, *, excused: bool = False) -> None:
        """End it if it is dead, or takes too long to end. Idempotent.

        Its silence is `excused` if nobody could listen.
        """
        if excused:
            self._heard_at = now
        overdue = self._closed_at is not None and now > self._closed_at + LAST_WORDS
        if self._reading is not None and (overdue or now > self._heard_at + SILENCE):
            self._reading.cancel()

    def arrived(self, number: int, size: float) -> None:
        """So many messages of so many bytes came."""
        self.received += number
        self.outstanding += number
        self.outstanding_bytes += size

    def settled(self, number: int, size: float) -> None:
        """So many messages of so many bytes are not outstanding any more."""
        self.outstanding -= number
        self.outstanding_bytes -= size
