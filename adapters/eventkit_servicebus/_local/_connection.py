"""One connection: its bytes, its opening, its sessions, and its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._doing import Asked, do, do_with
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._frames import AMQP_HEADER, EMPTY, MAX_FRAME, SASL_HEADER, Frame, Stream, frame
from eventkit_servicebus._local._link import Link
from eventkit_servicebus._local._session import Session

if TYPE_CHECKING:
    from eventkit_servicebus._local._server import Server

CHANNELS: Final = 255
_HEAD: Final = 64
"""Bytes of a transfer frame before its payload, at most."""

_ROOM: Final = 256 * 1024
"""Bytes that may wait to be written before messages wait instead."""


class Connection(asyncio.Protocol):
    """What a client says is answered before the next bytes are read, but for what a fault holds up.

    `open` is the client's; until it has come, there is none.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.largest_payload = 512 - _HEAD
        self._stream = Stream()
        self._expects_header = True
        self._sasl = False
        self._open: p.Open | None = None
        self._sessions: dict[int, Session] = {}
        self._out: list[bytes] = []
        self._size = 0
        self._paused = False
        self._reading = False
        self._flushing: asyncio.Handle | None = None
        self._transport: asyncio.Transport | None = None
        self._alive: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._loop = asyncio.get_running_loop()

    # -- asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: what it holds stays locked, but for sessions."""
        self._transport = None
        self.server.connections.discard(self)
        if self._alive is not None:
            self._alive.cancel()
        self._end_sessions()

    def pause_writing(self) -> None:
        """The client reads too slowly: nothing is taken for it."""
        self._paused = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._paused = False
        self._restart()

    def data_received(self, data: bytes) -> None:
        """Bytes have come: do what they say, and answer all of it at once."""
        self._heard = self._loop.time()
        self._stream.add(data)
        self._reading = True
        try:
            while self._step():
                pass
        except AmqpError as exc:
            self.close(exc)
        finally:
            self._reading = False
            self._flush()

    # -- reading -------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Do one thing that the bytes say; False if there is nothing more. Raises AmqpError."""
        if self._transport is None:
            return False
        if self._expects_header:
            return self._header()
        frame = self._stream.frame()
        if frame is None:
            return False
        if frame.body:
            self._frame(frame)
        return True

    def _header(self) -> bool:
        header = self._stream.header()
        if header is None:
            return False
        if header not in {SASL_HEADER, AMQP_HEADER}:
            self._out.append(AMQP_HEADER)
            self.abandon()
            return False
        self._out.append(header)
        self._expects_header = False
        self._sasl = header == SASL_HEADER
        if self._sasl:
            mechanisms = p.SaslMechanisms(p.symbols("ANONYMOUS", "PLAIN", "EXTERNAL", "MSSBCBS"))
            self._out.append(frame(0, p.written(mechanisms), sasl=True))
        return True

    def _frame(self, got: Frame) -> None:
        performative, end = p.read(got.body)
        if got.sasl != self._sasl:
            raise AmqpError("amqp:not-allowed", "a frame that does not belong here")
        if self._sasl:
            if isinstance(performative, p.SaslInit):
                self._out.append(frame(0, p.written(p.SaslOutcome(0)), sasl=True))
                self._expects_header, self._sasl = True, False
            return
        session = self._sessions.get(got.channel)
        if isinstance(performative, p.Open) and self._open is None:
            self._opened(performative)
        elif self._open is None:
            raise AmqpError("amqp:not-allowed", "a connection begins with open")
        elif isinstance(performative, p.Close):
            self._end_sessions()
            self.send(0, p.written(p.Close()))
            self.abandon()
        elif isinstance(performative, p.Begin) and session is None and got.channel <= CHANNELS:
            self._sessions[got.channel] = session = Session(self, got.channel, performative)
            session.opened()
        elif session is None:
            raise AmqpError("amqp:not-allowed", f"channel {got.channel} has no session")
        elif isinstance(performative, p.End):
            del self._sessions[got.channel]
            session.end()
            self.send(got.channel, p.written(p.End()))
        else:
            session.received(performative, got.body[end:])

    def _opened(self, asked: p.Open) -> None:
        self._open = asked
        most = MAX_FRAME if asked.max_frame_size is None else max(512, asked.max_frame_size)
        self.largest_payload = min(most, MAX_FRAME) - _HEAD
        idle = self.server.idle
        answer = p.Open(
            container="eventkit-local",
            max_frame_size=MAX_FRAME,
            channel_max=CHANNELS,
            idle_time_out=None if idle is None else int(idle * 1000),
        )
        self.send(0, p.written(answer))
        theirs = asked.idle_time_out
        if idle is not None or theirs:
            self._keep_alive(theirs / 2000 if theirs else None, idle)

    def _keep_alive(self, ours: float | None, theirs: float | None) -> None:
        """Send something every `ours` seconds, and give up a client that is silent for `theirs`."""
        now = self._loop.time()
        if theirs is not None and now - self._heard >= theirs:
            self.close(AmqpError("amqp:resource-limit-exceeded", f"nothing was heard for {theirs:g} s"))
            return
        if ours is not None:
            self._out.append(EMPTY)
            if not self._reading:
                self._flush()
        left = [] if theirs is None else [self._heard + theirs - now]
        wait = min(left if ours is None else [ours, *left])
        self._alive = self._loop.call_later(max(wait, 0.01), self._keep_alive, ours, theirs)

    # -- writing -------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether somebody is there to answer to."""
        return self._transport is not None

    @property
    def writable(self) -> bool:
        """Whether there is room for more messages."""
        return not self._paused and self._size < _ROOM

    def _restart(self) -> None:
        """There is room again."""
        for session in self._sessions.values():
            session.restart()

    def send(self, channel: int, body: bytes) -> None:
        """Send a frame: with what else there is to send before the loop turns."""
        self._out.append(frame(channel, body))
        self._size += len(body)
        if not self._reading and self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._out:
            out, self._out, was_full, self._size = self._out, [], not self.writable, 0
            self._write(b"".join(out))
            if was_full and not self._paused:
                self._restart()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # -- doing what is asked -------------------------------------------------------------------

    def perform(self, asked: Asked) -> None:
        """Do what a client asks for, and answer. Faults come between."""
        faults = self.server.faults
        if faults is None:
            do(asked)
        else:
            self.server.spawn(do_with(faults, asked))

    # -- its end -------------------------------------------------------------------------------

    def links(self) -> list[Link]:
        """All that are attached."""
        return [link for session in self._sessions.values() for link in session.links.values()]

    def close(self, refusal: AmqpError) -> None:
        """End the connection, and say why."""
        self._end_sessions()
        if self._open is not None:
            self.send(0, p.written(p.Close(p.error(refusal))))
        self.abandon()

    def abandon(self) -> None:
        """Write what there is, and hang up."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def drop(self) -> None:
        """Hang up without a word."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._end_sessions()

    def _end_sessions(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.end()
