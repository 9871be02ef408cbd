"""By hand, as little as does the work: `python -m bench.servicebus.raw QUEUE nothing|note gathered|documented`.

*gathered* is the cheapest of what was tried with the SDK's public names: a hundred messages a call, and all of them
completed side by side before the next call. Completing one after the other costs a third more, gathers of 20 or 50
and calls of 200 or 500 the same; so do a prefetch of 1,000, and completing beside the next receive, both of which need
a `socket_timeout` of 0.01 besides. *documented* is the loop of the SDK's documentation. *note* times what is done.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver

from bench.cloud.meter import peak, report, used
from bench.cloud.payload import HANDLERS, decode, late
from bench.servicebus.send import VARIABLE

Complete: TypeAlias = Callable[[ServiceBusReceivedMessage], Awaitable[None]]

HANDLE = HANDLERS[sys.argv[2]]
MOST = 100
"""Messages of one call."""

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


LOOPS = {"gathered": gathered, "documented": documented}


async def noted(receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage) -> None:
    """Complete it, and add to `settled`."""
    handled = time.time()
    await receiver.complete_message(message)
    settled.append((time.time() - handled) * 1000)


async def main(queue: str, timed: str, loop: str) -> None:
    """Consume until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = ServiceBusClient.from_connection_string(os.environ[VARIABLE])
    async with client, client.get_queue_receiver(queue) as receiver:
        complete = partial(noted, receiver) if timed == "note" else receiver.complete_message
        before = used()
        consuming = asyncio.create_task(LOOPS[loop](receiver, complete))
        await stop.wait()
        consuming.cancel()
        await asyncio.wait([consuming])
        cpu = used() - before
    report(cpu, peak(), late=late, settled=settled)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
