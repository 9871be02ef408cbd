"""Plain sockets on whatever loop runs.

A stream of anyio says goodbye when it closes; a fault must be able to send an RST without a word, at once.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

import anyio

PIECE = 256 * 1024
_LINGER_NOT = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OSError when the port is taken."""
    server = socket.create_server((host, port), backlog=128)
    server.settimeout(0)
    return server


async def accept(server: socket.socket) -> socket.socket:
    """The next connection. Raises ClosedResourceError or OSError when `server` was closed."""
    while True:
        await _readable(server)
        try:
            client, _ = server.accept()
        except (BlockingIOError, ConnectionAbortedError):
            continue
        return _prepared(client)


async def connect(host: str, port: int) -> socket.socket:
    """A connection to `host`. Raises OSError when it cannot be made."""
    error: OSError = ConnectionRefusedError(f"{host} has no address")
    for family, kind, protocol, _, address in await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        made = _prepared(socket.socket(family, kind, protocol))
        try:
            await _connect(made, address)
        except OSError as exc:
            error = exc
            made.close()
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise error


async def _connect(made: socket.socket, address: object) -> None:
    code = made.connect_ex(address)  # type: ignore[arg-type]  # what getaddrinfo gives is what it takes
    if code:
        await anyio.wait_writable(made)
        code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


async def receive(source: socket.socket) -> bytes:
    """What has come, b"" at the end. Raises OSError or ClosedResourceError."""
    while True:
        await _readable(source)
        try:
            return source.recv(PIECE)
        except BlockingIOError:
            continue


async def send(target: socket.socket, data: bytes) -> None:
    """Send all of `data`. Raises OSError or ClosedResourceError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[target.send(rest) :]
        except BlockingIOError:
            await _writable(target)


def close(sock: socket.socket, *, reset: bool = False) -> None:
    """Close and wake who waits for it; with `reset`, what is under way is dropped and the peer gets an RST."""
    if sock.fileno() < 0:
        return
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    anyio.notify_closing(sock)
    sock.close()


async def _readable(sock: socket.socket) -> None:
    _require_open(sock)
    await anyio.wait_readable(sock)


async def _writable(sock: socket.socket) -> None:
    _require_open(sock)
    await anyio.wait_writable(sock)


def _require_open(sock: socket.socket) -> None:
    """To wait for a closed socket is an error of another class on each loop."""
    if sock.fileno() < 0:
        raise anyio.ClosedResourceError


def _prepared(sock: socket.socket) -> socket.socket:
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
