"""Running a worker as a process: signals in, an exit code out."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

import anyio
from anyio.abc import TaskStatus

from eventkit._worker import Worker, ungrouped

__all__ = ["run"]

SECOND_SIGNAL_GRACE = 2.0
"""Seconds after a second signal in which releases are sent."""


def run(worker: Worker) -> int:
    """Run `worker` until SIGTERM or SIGINT drains it; the exit code: 0, or 1 when something was cut.

    A second signal ends at once: running handlers are cancelled, releases get 2 seconds, and the process exits
    with 128 + the signal's number. So does a handler that survives its cancellation, with 1. Raises what
    `Worker.run` raises.
    """
    return anyio.run(_run_until_signalled, worker)


async def _run_until_signalled(worker: Worker) -> int:
    signals = _Signals(worker)
    with ungrouped():
        async with anyio.create_task_group() as tasks:
            await tasks.start(signals.watch)
            report = await worker.run(abandon=partial(_exit, 1))
            tasks.cancel_scope.cancel()
    return signals.code or (0 if report.clean else 1)


class _Signals:
    """The first SIGTERM or SIGINT drains, the second ends at once."""

    def __init__(self, worker: Worker) -> None:
        self.code = 0
        self._worker = worker

    async def watch(self, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            task_status.started()
            count = 0
            async for number in received:
                count += 1
                if count == 1:
                    self._worker.drain(signal.Signals(number).name)
                    continue
                self.code = 128 + number
                self._worker.stop()
                await anyio.sleep(SECOND_SIGNAL_GRACE)
                _exit(self.code)


def _exit(code: int) -> None:
    """End the process although a thread or a handler still runs: the broker has its events back, or will."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
