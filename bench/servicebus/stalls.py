"""How long events wait: from send to handler, and from there until they are settled. What waits too long is a stall.

The SDK has waits of 0.2 s: for more messages than there are, and for an answer that another call has read.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from bench.cloud.latency import percentiles
from bench.cloud.payload import body
from bench.cloud.sides import NAME, QUEUE, Command, Goals, filled, program
from bench.cloud.stand import Send, consumer, drained, server
from bench.servicebus.send import MOST, connect

STALL: Final = 150.0
"""Milliseconds."""
CONNECTED: Final = 3.0
"""Seconds after which a consumer waits for messages."""
CONFIRMED: Final = 0.5
"""Seconds after which it knows what is settled."""
TRICKLE: Final = 40.0
"""Messages a second, one by one."""
LOAD: Final = 1_000.0
"""Messages a second, up to `BURST` in a call."""
BURST: Final = 50

Sending: TypeAlias = Callable[[Send, int], None]


class Consumer(NamedTuple):
    name: str
    command: Command
    ours: bool = False


class Waits(NamedTuple):
    """In ms, message by message; and how many deliveries there were that brought no event."""

    late: list[float]
    settled: list[float]
    again: int

    @property
    def stalls(self) -> int:
        """How many took too long."""
        return stalls(self.late) + stalls(self.settled)


def timed(name: str) -> Command:
    return lambda at, queue: [sys.executable, "-m", "bench.servicebus.timed", at.addresses[queue], name]


HANDLER = Consumer("worker, Handler", timed("Single"), ours=True)
BATCHES = Consumer("worker, BatchHandler", timed("Batches"), ours=True)
GATHERED = Consumer("SDK by hand, gathered", program("bench.servicebus.raw", "note", "gathered"))
AHEAD = Consumer("SDK by hand, ahead", program("bench.servicebus.raw", "note", "ahead"))
DOCUMENTED = Consumer("SDK by hand, as documented", program("bench.servicebus.raw", "note", "documented"))


def goals(*, few: int, many: int) -> Goals:
    """Measure, print the table, and say what came of the goal, which is the workers'."""
    heads = "".join(f"{head:>8}" for head in ("p50", "p99", "max", f">={STALL:g}"))
    print(f"\n{'waits, ms':<{NAME}}{'from send to handler':>32}{'from handler to settled':>34}{'given':>8}")
    print(f"{'':<{NAME}}{heads}  {heads}{'back':>8}")
    yield stage(f"{few:,} one by one, {TRICKLE:g} a second", (HANDLER, AHEAD, GATHERED, DOCUMENTED), trickle, few)
    yield stage(f"{many:,} in bursts, {LOAD:,.0f} a second", (HANDLER, AHEAD, GATHERED), bursts, many)
    yield stage(f"a backlog of {many:,}", (HANDLER, BATCHES, AHEAD, GATHERED), None, many)


def stage(what: str, consumers: tuple[Consumer, ...], sending: Sending | None, messages: int) -> tuple[str, bool]:
    """Each on a server of its own, one after the other."""
    print(what)
    measured = {each: waited(each, sending, messages) for each in consumers}
    for each, waits in measured.items():
        late = told(waits.late) if sending else ""
        print(f"  {each.name:<{NAME - 2}}{late:>32}  {told(waits.settled)}{waits.again:>8,}")
    found = sum(waits.stalls for each, waits in measured.items() if each.ours)
    return f"{what}: {found} waits of {STALL:g} ms or longer for the worker, at most 0", not found


def waited(who: Consumer, sending: Sending | None, messages: int) -> Waits:
    """What `messages` waited for `who`; those of a backlog, sent before it starts, were late by intention."""
    with server("servicebus", QUEUE) as at:
        if sending is None:
            filled(connect, MOST)(at, messages)
        with consumer(who.command(at, QUEUE), at) as process:
            if sending is not None:
                send = connect(at)
                send(QUEUE, [])
                time.sleep(CONNECTED)
                sending(send, messages)
            drained(at, process, messages)
            again = at.counts()["delivered"] - messages
            time.sleep(CONFIRMED)
            process.stop()
    late, settled = process.report["late"], process.report["settled"]
    if len(late) != messages or len(settled) != messages:
        sys.exit(f"{who.name} handled {len(late)} and settled {len(settled)} of {messages} messages")
    return Waits(late if sending else [], settled, again)


def trickle(send: Send, messages: int) -> None:
    """One by one, whenever one happens to come."""
    rng = random.Random(1)
    for _ in range(messages):
        time.sleep(rng.expovariate(TRICKLE))
        send(QUEUE, [body(time.time())])


def bursts(send: Send, messages: int) -> None:
    """Several in a call, at a pace that is kept."""
    rng, due = random.Random(1), time.monotonic()
    while messages:
        some = min(rng.randint(1, BURST), messages)
        send(QUEUE, [body(time.time())] * some)
        messages -= some
        due += some / LOAD
        time.sleep(max(due - time.monotonic(), 0))


def stalls(waits: list[float]) -> int:
    return sum(wait >= STALL for wait in waits)


def told(waits: list[float]) -> str:
    shares = percentiles(waits)
    values = "".join(f"{value:>8.1f}" for value in (shares[50], shares[99], max(waits)))
    return f"{values}{stalls(waits):>8,}"


if __name__ == "__main__":
    list(goals(few=400, many=4_000))
