"""What the processes of `test_sqlite_processes.py` run: `python processes.py ROLE ADDRESS …`, one JSON a line."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Awaitable, Callable

import anyio
from eventkit_sqlite import adapter

from eventkit.spi import DONE, Address, Demand, Outgoing


def say(**fields: object) -> None:
    """Tell the test, at once."""
    print(json.dumps(fields), flush=True)


async def publish(address: Address, name: str, amount: str) -> None:
    """Publish `amount` events in batches of up to 20 and tell each that was confirmed."""
    rng, start = random.Random(name), 0
    async with adapter.open_sink(address) as sink:
        while start < int(amount):
            stop = min(int(amount), start + rng.randint(1, 20))
            messages = [Outgoing(body=f"{name}-{n}".encode(), key=f"{name}-{n % 7}") for n in range(start, stop)]
            assert await sink.publish(messages) == [DONE] * len(messages)
            say(published=[message.body.decode() for message in messages])
            start = stop


async def consume(address: Address, name: str, order: str) -> None:
    """Receive and ack until nothing has come for a second; give some back first when order is asked for."""
    rng = random.Random(name)
    async with adapter.open_source(address, Demand(ordered=order == "ordered", lease=30.0)) as source:
        say(ready=True)
        wait = 5.0  # the publishers have yet to start
        while deliveries := await source.receive(rng.randint(1, 50), wait):
            wait = 1.0
            keys_back = {d.key for d in deliveries if rng.random() < 0.05} if order == "ordered" else set()
            back = [d for d in deliveries if d.key in keys_back]
            done = [d for d in deliveries if d.key not in keys_back]
            at = time.monotonic()  # one clock for all processes
            for delivery in done:
                say(body=delivery.body.decode(), key=delivery.key, count=delivery.delivery_count, at=at)
            if back:
                assert await source.nack([(d.receipt, 0.0) for d in back]) == [DONE] * len(back)
            assert await source.ack([d.receipt for d in done]) == [DONE] * len(done)


async def hold(address: Address) -> None:
    """Lease an event for a second, and hang."""
    async with adapter.open_source(address, Demand(lease=1.0)) as source:
        deliveries = await source.receive(1, 5.0)
        say(body=deliveries[0].body.decode())
        await anyio.sleep(60)


if __name__ == "__main__":
    role, target, *rest = sys.argv[1:]
    work: dict[str, Callable[..., Awaitable[None]]] = {"publish": publish, "consume": consume, "hold": hold}
    anyio.run(work[role], Address.parse(target), *rest)
