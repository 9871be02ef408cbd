"""One sender or receiver of the SDK, and what is needed of it beneath its public names: see record 0009."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from types import SimpleNamespace
from typing import Any, Final, Generic, TypeVar

import anyio
from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus import __version__ as version
from azure.servicebus.aio import ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import ServiceBusConnectionError

from eventkit.errors import UnsupportedByAdapter
from eventkit_servicebus._pump import Pump

SOCKET_TIMEOUT: Final = 0.02
"""Seconds that the SDK waits for a frame while it opens and closes; with its own 0.2 s both take as much longer."""
_NO_TIME: Final = 1e-6
"""Seconds in which a receive grants no credit and waits for nothing; no wait at all is taken for none given."""
_LONG: Final = 60.0
_ON_ITS_WAY: Final = 0.25
"""Seconds after which nothing is on its way any more that was sent before it was asked for no more."""
_MOST_KEPT: Final = 1_000
_REASON: Final = "decode"
_MOST_TOLD: Final = 200  # characters
_DEAD_LETTER: Final = "dead-letter"  # the SDK's word
_NEEDED: Final = ("_amqp_transport", "_create_handler", "_handler", "_open", "_running")
_NEEDED_TO_RECEIVE: Final = (*_NEEDED, "_further_pull_receive_timeout", "_receive_context")
_NEEDED_OF_HANDLER: Final = ("_connection", "_keep_alive_thread", "_link")
_NEEDED_OF_CONNECTION: Final = ("_can_read", "_error", "_get_remote_timeout", "_transport", "listen")
_NEEDED_OF_LINK: Final = ("_first_frame", "_received_payload", "delivery_count")
_CLOSE_WITHIN: Final = 5.0
_BROKEN: Final = (AzureError, OSError, ValueError, RuntimeError, AttributeError)
"""What the SDK raises where a connection is gone, and parts are missing."""

T = TypeVar("T", bound=ServiceBusReceiver | ServiceBusSender)


class Opened(Generic[T]):
    """A sender or receiver that is opened once. It never opens again what went down: another one takes its place.

    Each of several calls that find the connection lost would open one, and the SDK forgets all but the last.
    """

    def __init__(self, made: T, *, ahead: bool = False, dead_letters: bool = False) -> None:
        self.made = made
        self.ahead = ahead
        """Whether messages are fetched ahead: they may have been locked for long."""
        self.dead_letters = dead_letters
        """Whether it is dead letters that come: there is nowhere to put them then."""
        self._inside: Any = made
        self._handler: Any = None
        self._transport: Any = None
        self._pump: Pump | None = None

    async def open(self) -> None:
        """Raises what the SDK does, UnsupportedByAdapter; `close` closes what was opened by then."""
        receives = isinstance(self.made, ServiceBusReceiver)
        _check(self._inside, _NEEDED_TO_RECEIVE if receives else _NEEDED)
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
        if receives:
            _check(self._handler, _NEEDED_OF_HANDLER)
            _check(self._handler._connection, _NEEDED_OF_CONNECTION)
            _check(self._handler._link, _NEEDED_OF_LINK)
            await self._end_keepalive()  # it reads now and then, for want of somebody who does
            self._pump = Pump(self._handler, self._reject)

        async def stay_down(timeout: float | None = None) -> None:  # noqa: ARG001, ASYNC109 - as the SDK's
            if not self._inside._running:
                raise ServiceBusConnectionError(message="The connection is down.")

        self._inside._open = stay_down

    async def _reject(self, exc: Exception) -> None:
        """A message came that the SDK cannot decode: it is a dead letter. Of dead letters, it is left to its lock."""
        link = self._handler._link
        link._received_payload = bytearray()
        if self.dead_letters:
            return
        message = SimpleNamespace(_delivery_id=link._first_frame[1], _delivery_tag=link._first_frame[2])
        told = f"it cannot be decoded: {type(exc).__name__}: {exc}"[:_MOST_TOLD]
        with suppress(*_BROKEN):
            await self._inside._amqp_transport.settle_message_via_receiver_link_async(
                self._handler, message, _DEAD_LETTER, _REASON, told
            )

    def _note_transport(self) -> None:
        with suppress(AttributeError):  # it was not connected, or is closed
            self._transport = self._handler._connection._transport or self._transport

    async def receive(self, limit: int) -> list[ServiceBusReceivedMessage]:
        """Up to `limit` messages, as soon as there are some. Raises what the SDK does.

        To be cancelled when it has waited for long enough, which loses nothing if nothing was `kept` before.
        """
        # The SDK would wait 0.2 s for others after the first; the pump has read all that there are.
        self._inside._further_pull_receive_timeout = 0.0
        return await self._receive(limit, _LONG)

    async def kept(self, limit: int) -> list[ServiceBusReceivedMessage]:
        """Up to `limit` messages that have come while nobody received."""
        return await self._receive(limit, _NO_TIME)

    async def _receive(self, limit: int, wait: float) -> list[ServiceBusReceivedMessage]:
        try:
            messages: list[ServiceBusReceivedMessage] = await self._inside.receive_messages(limit, max_wait_time=wait)
        finally:
            # What comes from now on is kept for the next call; the SDK would send it back as soon as it is read.
            self._inside._receive_context.set()
        return messages

    async def no_more(self) -> None:
        """Ask a receiver for nothing more: what comes later would lie there locked."""
        with suppress(*_BROKEN):  # it is down, then, and the next call finds out
            await self._inside._amqp_transport.reset_link_credit_async(self._inside._handler, 0)

    async def drain(self) -> None:
        """The same; what is on its way to it, and what is kept, goes back."""
        with suppress(*_BROKEN):
            await self.no_more()
            await asyncio.sleep(_ON_ITS_WAY)
            for message in await self.kept(_MOST_KEPT):
                await self.release(message)

    async def release(self, message: ServiceBusReceivedMessage) -> None:
        """Send a message back as if it had not been delivered: abandoned, it would have been, to the service."""
        sent: Any = message
        with suppress(*_BROKEN):
            await self._inside._handler.settle_messages_async(sent._delivery_id, sent._delivery_tag, "released")

    async def close(self) -> None:
        """Close it, whatever state it is in; what is on its way to a receiver goes back."""
        with anyio.move_on_after(_CLOSE_WITHIN, shield=True):
            self._note_transport()
            if self._pump is not None:
                await self._pump.end()
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


def _check(part: Any, names: Sequence[str]) -> None:
    """See that the SDK is the one that we know. Raises UnsupportedByAdapter."""
    missing = [name for name in names if not hasattr(part, name)]
    if missing:
        raise UnsupportedByAdapter(
            f"azure-servicebus {version} is not built as 7.15 is, with which this was tried (its "
            f"{type(part).__name__} has no {', '.join(missing)}): pip install 'azure-servicebus==7.15.*'"
        )
