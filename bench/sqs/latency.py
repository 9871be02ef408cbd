"""From before a message is sent until its handler starts, for idle consumers that wait side by side."""

from __future__ import annotations

import random
import statistics
import sys
import time

from bench.sqs.payload import body
from bench.sqs.stand import consumer, server

SHARES = (50, 90, 99)
GAP = (0.05, 0.15)
"""Seconds between two messages of one consumer."""
SETTLE = 2.0
"""Seconds after which they have started."""


def measure(messages: int) -> dict[str, list[float]]:
    """For the worker and the loop by hand, how long each message was on its way, in ms. They take turns."""
    module = [sys.executable, "-m"]
    commands = {
        "worker": [*module, "bench.sqs.worker", "worker", "Note"],
        "raw": [*module, "bench.sqs.raw", "raw", "note"],
    }
    with (
        server(*commands) as at,
        consumer(commands["worker"], at) as worker,
        consumer(commands["raw"], at) as raw,
    ):
        time.sleep(SETTLE)
        rng, turns = random.Random(1), list(commands)
        for _ in range(messages):
            for queue in turns:
                time.sleep(rng.uniform(*GAP) / len(turns))
                at.send(queue, [body(time.time())])
            turns.reverse()
        time.sleep(GAP[1])
        worker.stop()
        raw.stop()
    for name, who in (("worker", worker), ("raw", raw)):
        if len(who.report["late"]) != messages:
            sys.exit(f"{name} handled {len(who.report['late'])} of {messages} messages")
    return {"worker": worker.report["late"], "raw": raw.report["late"]}


def percentiles(values: list[float]) -> dict[int, float]:
    """By share in percent."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {share: cuts[share - 1] for share in SHARES}
