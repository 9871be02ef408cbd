"""One sender or receiver of the SDK, and what is needed of it beneath its public names: see record 0009.

Where a name is gone in another version, what it was for is slower, or sent back and delivered again, and not lost.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, Generic, TypeVar

import anyio
from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import ServiceBusConnectionError

SOCKET_TIMEOUT: Final = 0.02
"""Seconds that a receiver waits for a frame before it lets others write: a settlement beside a waiting receive would
take ten times as long with the SDK's own 0.2 s."""
_FRAME: Final = 0.003
"""The same where several messages were asked for."""
_LONG: Final = 0.05
"""The same where nobody else wants the connection but the SDK's keepalive, which takes it for as long every 5 s."""
_NO_TIME: Final = 1e-6
"""Seconds in which a receive grants no credit and reads nothing; no wait at all is taken for none given."""
_COMPANY: Final = (0.005, 0.0003)
"""Seconds that a receive of several waits for others after the first, and for each more that it asked for."""
_CLOSE_WITHIN: Final = 5.0
_BROKEN: Final = (AzureError, OSError, ValueError, RuntimeError, AttributeError)
"""What the SDK raises where a connection is gone, and parts are missing."""

T = TypeVar("T", bound=ServiceBusReceiver | ServiceBusSender)


class Opened(Generic[T]):
    """A sender or receiver that is opened once. It never opens again what went down: another one takes its place.

    Each of several calls that find the connection lost would open one, and the SDK forgets all but the last.
    """

    def __init__(self, made: T, *, ahead: bool = False) -> None:
        self.made = made
        self.ahead = ahead
        """Whether messages are fetched ahead: they may have been locked for long."""
        self._inside: Any = made
        self._handler: Any = None
        self._transport: Any = None

    async def open(self) -> None:
        """Raises what the SDK does; `close` closes what was opened by then."""
        create = self._inside._create_handler

        def noted(auth: Any) -> None:
            create(auth)
            handler = self._handler = self._inside._handler
            end = handler.close_async

            async def end_noted() -> None:
                self._note_transport()  # it forgets what it was connected by, and that may be open
                await end()

            handler.close_async = end_noted

        self._inside._create_handler = noted
        entered: AbstractAsyncContextManager[object] = self.made
        await entered.__aenter__()
        self._note_transport()

        async def stay_down(timeout: float | None = None) -> None:  # noqa: ARG001, ASYNC109 - as the SDK's
            if not self._inside._running:
                raise ServiceBusConnectionError(message="The connection is down.")

        self._inside._open = stay_down

    def _note_transport(self) -> None:
        with suppress(AttributeError):  # it was not connected, or is closed
            self._transport = self._handler._connection._transport or self._transport

    async def receive(self, limit: int, wait: float, *, alone: bool) -> list[ServiceBusReceivedMessage]:
        """Up to `limit` messages: the first within `wait` seconds, others soon after it. Raises what the SDK does.

        Nothing is lost when it is cancelled, if nothing was `kept` before; `alone` if it will be when others want to
        write.
        """
        # The SDK's own 0.2 s are for whatever is asked for.
        self._inside._further_pull_receive_timeout = _COMPANY[0] + limit * _COMPANY[1]
        self._wait_for_frames(_FRAME if limit > 1 else _LONG if alone else SOCKET_TIMEOUT)
        try:
            return await self._receive(limit, wait)
        finally:
            self._wait_for_frames(SOCKET_TIMEOUT)

    def _wait_for_frames(self, seconds: float) -> None:
        self._handler._socket_timeout = seconds

    async def kept(self, limit: int) -> list[ServiceBusReceivedMessage]:
        """Up to `limit` messages that have come while nobody received."""
        return await self._receive(limit, _NO_TIME)

    async def _receive(self, limit: int, wait: float) -> list[ServiceBusReceivedMessage]:
        try:
            messages: list[ServiceBusReceivedMessage] = await self._inside.receive_messages(limit, max_wait_time=wait)
        finally:
            with suppress(AttributeError):
                # What comes from now on is kept for the next call; the SDK would send it back as soon as it is read.
                self._inside._receive_context.set()
        return messages

    async def no_more(self) -> None:
        """Ask a receiver for nothing more: what comes later would lie there locked."""
        with suppress(*_BROKEN):  # it is down, then, and the next call finds out
            await self._inside._amqp_transport.reset_link_credit_async(self._inside._handler, 0)

    async def drain(self) -> None:
        """The same, and wait until what is on its way to it has come, and goes back."""
        with suppress(*_BROKEN):
            await self._inside._amqp_transport.drain_and_release_messages_async(self._inside._handler)

    async def release(self, message: ServiceBusReceivedMessage) -> None:
        """Send a message back as if it had not been delivered: abandoned, it would have been, to the service."""
        sent: Any = message
        with suppress(*_BROKEN):
            await self._inside._handler.settle_messages_async(sent._delivery_id, sent._delivery_tag, "released")

    async def close(self) -> None:
        """Close it, whatever state it is in; what is on its way to a receiver goes back."""
        with anyio.move_on_after(_CLOSE_WITHIN, shield=True):
            self._note_transport()
            with suppress(*_BROKEN):
                await self._end_keepalive()
                await self.made.close()
            if self._transport is not None:
                # Where the other side hung up first, or an open was cut short, the SDK leaves its socket open.
                await self._transport.close()

    async def _end_keepalive(self) -> None:
        """It sleeps for a second at a time, and the SDK would wait for that."""
        keepalive, self._handler._keep_alive_thread = self._handler._keep_alive_thread, None
        if keepalive is not None:
            keepalive.cancel()
            await asyncio.wait([keepalive])
