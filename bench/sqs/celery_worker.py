"""Celery, in an environment of its own: `python -m bench.sqs.celery_worker ENDPOINT QUEUE fill COUNT BODY|run`.

Its best known settings for a backlog. By default (a prefetch of 4 a process, a second between empty receives) it
needs half as much CPU again, and handles a tenth as many a second.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any
from urllib.parse import urlsplit

from celery import Celery, signals  # type: ignore[import-not-found]  # not in this project's environment

from bench.cloud.meter import peak, report, used

PROCESSES = 2
ENDPOINT, QUEUE = sys.argv[1:3]

app = Celery("bench", broker=f"sqs://local:local@{urlsplit(ENDPOINT).netloc}//")
app.conf.update(
    task_default_queue=QUEUE,
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=50,
    worker_enable_remote_control=False,
    worker_redirect_stdouts=False,
    broker_transport_options={
        "is_secure": False,
        "region": os.environ["AWS_DEFAULT_REGION"],
        "polling_interval": 0,
        "predefined_queues": {QUEUE: {"url": f"{ENDPOINT}/000000000000/{QUEUE}"}},
    },
)


@app.task(name="nothing")  # type: ignore[untyped-decorator]
def nothing(order: dict[str, Any]) -> None:
    """Do nothing."""


class Meter:
    """The CPU of the main process from when it is ready until it is told to end, and of its children until they end.

    A child tells through a pipe what it had used when it was ready, which is taken off what all have used.
    """

    def __init__(self) -> None:
        self.cpu = self._before = 0.0
        self._read, self._write = os.pipe()
        signals.worker_ready.connect(self.ready)
        signals.worker_process_init.connect(self.child_ready)
        signals.worker_shutting_down.connect(self.ending)

    def ready(self, **_: object) -> None:
        self._before = used()

    def child_ready(self, **_: object) -> None:
        os.write(self._write, f"{used()}\n".encode())

    def ending(self, **_: object) -> None:
        self.cpu = used() - self._before

    def children(self) -> float:
        """Call it when all have ended."""
        os.close(self._write)
        with os.fdopen(self._read) as told:
            return used(resource.RUSAGE_CHILDREN) - sum(map(float, told))


def fill(count: int, body: str) -> None:
    """Send by Celery's own producer, with the message as the task's argument."""
    order = json.loads(body)
    with app.producer_pool.acquire() as producer:
        for _ in range(count):
            nothing.apply_async((order,), producer=producer)


def consume() -> None:
    """Consume until SIGTERM."""
    meter = Meter()
    options = ["--pool=prefork", f"--concurrency={PROCESSES}", "--without-gossip", "--without-mingle"]
    try:
        app.worker_main(["worker", *options, "--without-heartbeat", "--loglevel=WARNING"])
    finally:
        report(meter.cpu + meter.children(), peak() + PROCESSES * peak(resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    if sys.argv[3] == "fill":
        fill(int(sys.argv[4]), sys.argv[5])
    else:
        consume()
