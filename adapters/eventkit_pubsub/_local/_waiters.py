"""A pull and a stream, as the line of their subscription sees them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Final, Self

from eventkit_pubsub._local._errors import PubsubError, invalid
from eventkit_pubsub._local._line import Line
from eventkit_pubsub._local._raw import PullResponse, Raw, StreamingPullResponse
from eventkit_pubsub._local._settings import MAX_DEADLINE, MIN_DEADLINE
from eventkit_pubsub._local._stored import Stored, Taken
from eventkit_pubsub._local._subscription import LocalSubscription

RESPONSE: Final = 100
"""Messages in a response of a stream, at most."""
RESPONSE_BYTES: Final = 1024 * 1024
PULL_BYTES: Final = 8 * 1024 * 1024
"""Bytes of messages with which a response is full."""

_numbers = count(1)


class Desk:
    """What somebody has been given and has not been sent: a `Waiter` but for its `room`.

    A context: from its start on it stands in line, and at its end it gives back what was not sent.
    """

    def __init__(self, subscription: LocalSubscription, line: Line, lease: float) -> None:
        self.source = next(_numbers)
        self.subscription = subscription
        self.lease = lease
        self.error: PubsubError | None = None
        self.woken = asyncio.Event()
        self.line = line
        self.unsent: list[Taken] = []
        self.unsent_bytes = 0

    def __enter__(self) -> Self:
        self.line.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.line.leave(self, self.unsent)

    def room(self) -> int:
        """See `Waiter`."""
        raise NotImplementedError

    def give(self, taken: Sequence[Taken]) -> None:
        """See `Waiter`."""
        self.unsent += taken
        self.unsent_bytes += sum(len(each.message.body) for each in taken)
        self.woken.set()

    def end(self, error: PubsubError) -> None:
        """See `Waiter`."""
        self.error = self.error or error
        self.woken.set()

    def freed(self, message: Stored) -> None:
        """See `Holder`."""

    def fitting(self, left: int) -> int:
        """How many messages surely fit into `left` bytes; but one, if there is anything left: it may go beyond."""
        return max(1, left // self.subscription.largest) if left > 0 else 0

    def filled(self, response: Raw) -> Raw:
        """`response` with everything that was not sent."""
        add = response.received_messages.add
        for message, _, ack_id, attempt in self.unsent:
            add(ack_id=ack_id, delivery_attempt=attempt).message.MergeFromString(message.body)
        return response

    def sent(self) -> None:
        """It is out of our hands: what happens to it is up to its deadline."""
        self.unsent, self.unsent_bytes = [], 0


class Pulling(Desk):
    """One Pull of up to `limit` messages."""

    def __init__(self, subscription: LocalSubscription, line: Line, limit: int) -> None:
        super().__init__(subscription, line, subscription.config.ack_deadline_seconds)
        self._limit = limit

    def room(self) -> int:
        """See `Waiter`."""
        room = 0 if self.error else self._limit - len(self.unsent)
        return min(room, self.fitting(PULL_BYTES - self.unsent_bytes))

    async def response(self, wait: float) -> Raw:
        """What there is, at most `wait` seconds from now. Raises PubsubError."""
        self.line.serve()
        if not self.unsent and self.error is None and wait > 0:
            try:
                async with asyncio.timeout(wait):
                    await self.woken.wait()
            except TimeoutError:
                pass
        if self.error and not self.unsent:
            raise self.error
        return self.filled(PullResponse())


class Stream(Desk):
    """One StreamingPull, opened with the request `first`, which is checked."""

    def __init__(self, subscription: LocalSubscription, line: Line, first: Raw) -> None:
        super().__init__(subscription, line, first.stream_ack_deadline_seconds)
        self._echoes = first.protocol_version >= 1
        self._most = first.max_outstanding_messages
        self._most_bytes = first.max_outstanding_bytes
        self._held = 0
        self._held_bytes = 0
        self._closed = False
        self._scope: asyncio.Timeout | None = None
        self._sending = False
        self._answering = False
        self._replies: deque[Raw] = deque()

    # -- what it is given ----------------------------------------------------------------------

    def room(self) -> int:
        """See `Waiter`."""
        if self._sending or self._closed or self.error:
            return 0
        room = min(RESPONSE - len(self.unsent), self.fitting(RESPONSE_BYTES - self.unsent_bytes))
        if self._most > 0:
            room = min(room, self._most - self._held)
        if self._most_bytes > 0:
            room = min(room, self.fitting(self._most_bytes - self._held_bytes))
        return room

    def give(self, taken: Sequence[Taken]) -> None:
        """See `Waiter`."""
        super().give(taken)
        self._held += len(taken)
        self._held_bytes += sum(len(each.message.body) for each in taken)

    def end(self, error: PubsubError) -> None:
        """See `Waiter`."""
        if self._scope is not None and self.error is None:
            self._scope.reschedule(0.0)
        super().end(error)

    def freed(self, message: Stored) -> None:
        """See `Holder`."""
        self._held -= 1
        self._held_bytes -= len(message.body)
        self.line.ring()

    @asynccontextmanager
    async def until_end(self) -> AsyncIterator[None]:
        """Whatever is done in this context is broken off by `end`. Raises PubsubError."""
        try:
            async with asyncio.timeout(None) as self._scope:
                yield
        except TimeoutError:
            if self.error is None:
                raise
            raise self.error from None
        finally:
            self._scope = None

    # -- what it sends -------------------------------------------------------------------------

    async def next(self) -> Raw | None:
        """The next response, to be followed by `sent`; None when the client wants no more. Raises PubsubError."""
        self._sending = False
        self.line.ring()
        while True:
            if self.error is not None:
                raise self.error
            if self._closed:
                return None
            if self._replies or self.unsent:
                break
            self.woken.clear()
            await self.woken.wait()
        self._sending = True
        self._answering = bool(self._replies)
        return self._replies.popleft() if self._answering else self.filled(self._empty())

    def sent(self) -> None:
        """See `Desk`: it may have been a response without messages."""
        if not self._answering:
            super().sent()

    def _empty(self) -> Raw:
        config = self.subscription.config
        response = StreamingPullResponse()
        response.subscription_properties.exactly_once_delivery_enabled = config.enable_exactly_once_delivery
        response.subscription_properties.message_ordering_enabled = config.enable_message_ordering
        return response

    def reply(self) -> Raw:
        """A response to fill in, that goes out before all messages."""
        self._replies.append(self._empty())
        self.woken.set()
        return self._replies[-1]

    # -- what it hears -------------------------------------------------------------------------

    def hear(self, request: Raw) -> None:
        """A later request, but for what it settles. Raises PubsubError."""
        for name in ("subscription", "client_id", "max_outstanding_messages", "max_outstanding_bytes"):
            if getattr(request, name):
                raise invalid(f"{name} may only be set in first message.")
        if request.protocol_version:
            raise invalid("protocol_version may only be set in first message.")
        if request.stream_ack_deadline_seconds:
            check_deadline(request.stream_ack_deadline_seconds)
            self.lease = request.stream_ack_deadline_seconds
        if self._echoes and not request.ByteSize():
            self.reply()

    def close(self) -> None:
        """The client has said all, and wants no more."""
        self._closed = True
        self.woken.set()


def check_first(first: Raw) -> None:
    """The request that opens a stream. Raises PubsubError."""
    if not first.subscription:
        raise invalid("first message must set subscription.")
    if not first.stream_ack_deadline_seconds:
        raise invalid("first message must set stream_ack_deadline_seconds.")
    check_deadline(first.stream_ack_deadline_seconds)


def check_deadline(seconds: int) -> None:
    """The deadline of a stream. Raises PubsubError."""
    if not MIN_DEADLINE <= seconds <= MAX_DEADLINE:
        raise invalid("stream_ack_deadline_seconds must be between 10 and 600 seconds.")
