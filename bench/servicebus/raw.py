"""By hand, as little as does the work: `python -m bench.servicebus.raw QUEUE nothing|note gathered|ahead|documented`.

*documented* is the loop of the SDK's documentation. *gathered* asks for a hundred messages, and completes them side by
side before the next call. No other loop of the SDK's public names took less CPU: completing one after the other takes a
third more, gathers of 20 or 50, calls of 200 or 500, and completing beside the next receive (with a prefetch of 1,000
and a `socket_timeout` of 0.01) as much or a little more. *ahead* takes as much, too, and has no waits of 0.2 s: with a
prefetch, a call that waits no time brings what is there. *note* times what is done.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver

from bench.cloud.meter import peak, report, used
from bench.cloud.payload import HANDLERS, decode, late
from bench.servicebus.send import VARIABLE

Complete: TypeAlias = Callable[[ServiceBusReceivedMessage], Awaitable[None]]

Loop: TypeAlias = Callable[[ServiceBusReceiver, Complete], Coroutine[Any, Any, None]]

HANDLE = HANDLERS[sys.argv[2]]
MOST = 100
"""Messages of one call."""

AT_ONCE = 1e-6

settled: list[float] = []
"""How long each completion took, ms."""


async def handle(message: ServiceBusReceivedMessage) -> None:
    await HANDLE(decode(b"".join(message.body)))


async def gathered(receiver: ServiceBusReceiver, complete: Complete) -> None:
    """Receive a hundred, handle each, complete all at once."""
    while True:
        messages = await receiver.receive_messages(MOST, max_wait_time=5)
        for message in messages:
            await handle(message)
        await asyncio.gather(*map(complete, messages))


async def documented(receiver: ServiceBusReceiver, complete: Complete) -> None:
    """One at a time."""
    async for message in receiver:
        await handle(message)
        await complete(message)


async def ahead(receiver: ServiceBusReceiver, complete: Complete) -> None:
    """Receive one, then all that came with it; handle each, complete all at once."""
    while True:
        messages = await receiver.receive_messages(1, max_wait_time=5)
        if messages:
            messages += await receiver.receive_messages(MOST - 1, max_wait_time=AT_ONCE)
        for message in messages:
            await handle(message)
        await asyncio.gather(*map(complete, messages))


LOOPS: dict[str, tuple[Loop, dict[str, Any]]] = {
    "gathered": (gathered, {}),
    "ahead": (ahead, {"prefetch_count": MOST, "socket_timeout": 0.02}),
    "documented": (documented, {}),
}
"""With the options of the receiver."""


async def noted(receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage) -> None:
    """Complete it, and add to `settled`."""
    handled = time.time()
    await receiver.complete_message(message)
    settled.append((time.time() - handled) * 1000)


async def main(queue: str, timed: str, name: str) -> None:
    """Consume until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = ServiceBusClient.from_connection_string(os.environ[VARIABLE])
    loop, options = LOOPS[name]
    async with client, client.get_queue_receiver(queue, **options) as receiver:
        complete = partial(noted, receiver) if timed == "note" else receiver.complete_message
        before = used()
        consuming = asyncio.create_task(loop(receiver, complete))
        await stop.wait()
        consuming.cancel()
        await asyncio.wait([consuming])
        cpu = used() - before
    report(cpu, peak(), late=late, settled=settled)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
