"""From the stream to whoever receives: opened when asked for, half-closed when not, and nothing left behind."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import anyio
from anyio import current_time
from google.pubsub_v1 import SubscriberAsyncClient
from google.pubsub_v1.types import StreamingPullRequest

from eventkit.errors import AdapterError, ConnectionLost
from eventkit_pubsub._bell import Bell
from eventkit_pubsub._buffer import Buffer, Group, Taken
from eventkit_pubsub._config import Place
from eventkit_pubsub._errors import translated_errors
from eventkit_pubsub._hold import Held
from eventkit_pubsub._keeping import Keeper
from eventkit_pubsub._leases import Leases
from eventkit_pubsub._pulse import Pulse
from eventkit_pubsub._stream import LAST_WORDS, Stream
from eventkit_pubsub._unseen import Unseen

SHORTEST_LEASE: Final = 10
"""Seconds that a stream leases its messages for at least."""
TICK: Final = 0.5
"""Seconds between two looks at leases and stream; fewer where a lease is short."""
TOO_SHORT: Final = 0.5
"""Seconds: a stream that ends sooner, and brought nothing, has failed; any other ends as streams do."""


class Terms(NamedTuple):
    """What is asked of Pub/Sub. `lease` is in whole seconds; `most` and `most_bytes` bound what one stream holds.

    With `receipts` each message is leased once more when it is here, and only then handed over.
    """

    subscription: str
    client_id: str
    lease: int
    most: int
    most_bytes: int
    receipts: bool

    def first_request(self) -> StreamingPullRequest:
        """What opens a stream."""
        return StreamingPullRequest(
            subscription=self.subscription,
            stream_ack_deadline_seconds=max(self.lease, SHORTEST_LEASE),
            client_id=self.client_id,
            max_outstanding_messages=self.most,
            max_outstanding_bytes=self.most_bytes,
            protocol_version=1,  # heartbeats are answered
        )


class Intake:
    """Receives on one stream at a time.

    What was handed over and is parked counts against the limits of the stream it came on. When they leave no room and
    somebody asks for more, another stream takes over: what is held altogether is for whoever asks to bound.
    """

    def __init__(self, client: SubscriberAsyncClient, place: Place, leases: Leases, terms: Terms) -> None:
        self._client = client
        self._place = place
        self._keeper = Keeper(leases, terms.lease)
        self._terms = terms
        self.unseen = Unseen()
        self.held = Held()
        self._buffer = Buffer()
        self._unconfirmed: deque[Group] = deque()
        self._confirming: Group | None = None
        self._stream: Stream | None = None
        self._error: AdapterError | None = None
        self._stopped = False
        self._takers = 0
        self._asked = False
        self._asked_at = current_time()
        self._pulse = Pulse(current_time())
        self._news = Bell()
        self._wanted = Bell()
        self._came = Bell()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within it messages can be taken; at its end what nobody took is given back."""
        raised: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._open_as_asked)
            tasks.start_soon(self._watch)
            tasks.start_soon(self._look_after)
            if self._terms.receipts:
                tasks.start_soon(self._confirm_receipts)
            try:
                yield
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is to be raised as it is, and not in a group
                raised = exc
            finally:
                self.stop()
                with anyio.CancelScope(shield=True, deadline=current_time() + LAST_WORDS + 1.0):
                    await self._empty()
                tasks.cancel_scope.cancel()
        if raised is not None:
            raise raised

    # -- for whoever receives --------------------------------------------------------------------

    async def take(self, limit: int, until: float) -> Sequence[Taken]:
        """Up to `limit` messages, waiting for the first until then. Raises AdapterError."""
        self._takers += 1
        try:
            while not (found := self._taken(limit)) and limit > 0:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                if self._ended:
                    break
                self._ask()
                if current_time() >= until:
                    self._make_way(half=True)
                    break
                await self._news.wait(until)
            return found
        finally:
            self._takers -= 1
            self._asked_at = current_time()

    def _taken(self, limit: int) -> list[Taken]:
        now = current_time()
        self.recalled(self.held.lost(now))
        return self._buffer.take(limit, now)

    def recalled(self, keys: set[str]) -> list[str]:
        """Forget what waits here of these keys: something before it was given back, or lost, and it comes again after.

        The ack ids of what is leased still.
        """
        if not keys:
            return []

        def behind(received: Any) -> bool:
            return received.message.ordering_key in keys

        waiting = [*self._unconfirmed, *([self._confirming] if self._confirming is not None else ())]
        return self._buffer.drop(behind) + [ack_id for group in waiting for ack_id in group.drop(behind)]

    async def give_back(self, keys: set[str]) -> None:
        """Give back what waits here of these keys: something before it was lost. Some may have come again already."""
        await self._keeper.give_back(self.recalled(keys))

    def stop(self) -> None:
        """Receive no more; what is on its way can still be taken. Idempotent."""
        self._stopped = True
        if self._stream is not None:
            self._stream.half_close()
        self._news.ring()

    @property
    def _ended(self) -> bool:
        """Whether nothing comes any more."""
        return self._stopped and self._stream is None and not self._on_their_way

    @property
    def _on_their_way(self) -> bool:
        return bool(self._unconfirmed or self._confirming is not None)

    def _ask(self) -> None:
        """Somebody waits, and there is nothing."""
        if self._stream is None and not self._stopped:
            self._asked = True
            self._wanted.ring()
        else:
            self._make_way()

    def _make_way(self, *, half: bool = False) -> None:
        """Half-close a stream that has no room for more, for another to follow; with `half`, one that is half full.

        It may have no room for the next message, and what is outstanding is counted by Pub/Sub in its own way.
        """
        stream, share = self._stream, 2 if half else 1
        if stream is None or self._on_their_way:
            return
        terms = self._terms
        if stream.outstanding * share >= terms.most or stream.outstanding_bytes * share >= terms.most_bytes:
            stream.half_close()

    # -- what runs beside ------------------------------------------------------------------------

    async def _open_as_asked(self) -> None:
        while not self._stopped:
            if not self._asked:
                await self._wanted.wait()
                continue
            self._asked = False
            stream = self._stream = Stream(self._terms.first_request())
            error: AdapterError | None = None
            try:
                with translated_errors("receive from", self._place):
                    await stream.read(self._client, lambda response: self._arrived(response, stream))  # noqa: B023
            except AdapterError as exc:
                error = exc
            finally:
                self._stream = None
            self._error = self._failure(stream, error)
            self._news.ring()

    def _failure(self, stream: Stream, error: AdapterError | None) -> AdapterError | None:
        """What is to be told of the end of a stream: nothing, as a rule. Pub/Sub ends each now and then.

        If it did so for a reason that lasts, the next one fails at once.
        """
        if stream.asked_to_end or stream.received or current_time() >= stream.opened_at + TOO_SHORT:
            return None
        return error or ConnectionLost(f"cannot receive from {self._place.address}: the stream was ended at once")

    def _arrived(self, response: Any, stream: Stream) -> None:
        messages = list(response.received_messages)
        if not messages:
            return
        now, size = current_time(), response.ByteSize()
        self.recalled(self.held.lost(now))  # before any of it comes again
        leased_until = now + self._terms.lease - self._pulse.waited(now)
        group = Group(messages, size / len(messages), stream, leased_until, self.unseen)
        stream.arrived(len(messages), size)
        if self._terms.receipts:
            self._unconfirmed.append(group)
            self._came.ring()
        else:
            self._keep(group)

    def _keep(self, group: Group) -> None:
        self._buffer.add(group)
        self._news.ring()
        # A server that ignores the limits: until somebody asks for more, it is to send none.
        if len(self._buffer) > self._terms.most or self._buffer.size > self._terms.most_bytes:
            group.stream.half_close()

    async def _confirm_receipts(self) -> None:
        """Lease what has arrived once more; what cannot be is not handed over, and comes again."""
        while True:
            while self._unconfirmed:
                group = self._confirming = self._unconfirmed.popleft()
                while self._unconfirmed and group.absorbs(self._unconfirmed[0]):
                    self._unconfirmed.popleft()
                try:
                    if await self._keeper.extend(group):
                        self._keep(group)
                    else:
                        group.drop_all()
                finally:
                    self._confirming = None
                self._news.ring()
            await self._came.wait()

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(TICK)
            now = current_time()
            stood_still = self._pulse.beat(now)
            if self._stream is not None:
                self._stream.check(now, excused=stood_still)

    async def _look_after(self) -> None:
        while True:
            await anyio.sleep(min(TICK, self._terms.lease / 6))
            now = current_time()
            if not self._takers and (self._stopped or now > self._asked_at + self._terms.lease / 3):
                if self._stream is not None:
                    self._stream.half_close()
                await self._give_back_unasked()
            for group in self._buffer:
                if group.messages and group.leased_until < now + self._terms.lease / 2:
                    await self._keeper.extend(group)

    async def _give_back_unasked(self) -> None:
        """Give back what nobody took.

        But not what follows, in its key, something that is still held: given to another worker it would overtake that.
        Its lease is kept while there is somebody to keep it.
        """
        self.recalled(self.held.lost(current_time()))
        held = self.held.keys()
        await self._keeper.give_back(self._buffer.drop(lambda each: each.message.ordering_key not in held))

    async def _empty(self) -> None:
        """After a stop: wait for the end of the stream, and give back what it brought."""
        while not self._ended:
            await self._news.wait(current_time() + LAST_WORDS)
        await self._give_back_unasked()
