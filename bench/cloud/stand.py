"""The processes of a run: a server with its door, and whoever consumes from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 300.0
POLL = 0.02
"""Seconds between two looks at what has been done, which is how exact wall time is."""


class Server:
    """A server that runs. `addresses` are those of its queues, for a worker."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        said = self._said()
        self.endpoint: str = said["endpoint"]
        self.environment: dict[str, str] = said["environment"]
        self.addresses: dict[str, str] = said["addresses"]

    def _said(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "it is a pipe"
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def counts(self) -> dict[str, int]:
        """What has been done: `published`, `delivered`, `acked` and so on."""
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._said()


Send: TypeAlias = Callable[[str, Sequence[str]], None]
"""Puts these messages into that queue, in one call."""
Connect: TypeAlias = Callable[[Server], Send]


@contextmanager
def server(scheme: str, *queues: str) -> Iterator[Server]:
    """A new server of the adapter for `scheme`, with these queues."""
    command = [sys.executable, "-m", "bench.cloud.server", scheme, *queues]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Server(process)


class Consumer:
    """A process that consumes until it is told to stop, and what it said then."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.report: dict[str, Any] = {}

    def stop(self) -> None:
        """Let it end, and read what it says."""
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=PATIENCE)
        if lines := said.splitlines():
            self.report = json.loads(lines[-1])

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None


@contextmanager
def consumer(command: Sequence[str], at: Server) -> Iterator[Consumer]:
    """Run `command` with the environment of the server. What it wrote to standard error is shown if it fails."""
    environment = os.environ | at.environment
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        made = Consumer(process)
        try:
            yield made
        finally:
            if not made.report:
                process.kill()
                process.wait()
                errors.seek(0)
                print(f"{' '.join(command)} failed:\n{errors.read()}", file=sys.stderr)


def drained(at: Server, by: Consumer, events: int) -> float:
    """Seconds from the first delivery until all events are acked, each delivered once. Exits if that takes too long."""
    started = gone = time.monotonic()
    while (counts := at.counts())["acked"] < events:
        gone = time.monotonic()
        if not counts["delivered"]:
            started = gone
        if by.ended or gone - started > PATIENCE:
            sys.exit(f"{events} events were not handled: {counts}")
        time.sleep(POLL)
    if counts["delivered"] != events:
        print(f"{counts['delivered']} deliveries of {events} events", file=sys.stderr)
    return time.monotonic() - started
