"""Real workers on a real file: signals at any instant, death without warning, and handlers that will not end."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.process.cli_support import Shell

EVENTS = 300

CONFIG = """
source = "sqlite:///queue.db?queue=orders"
handlers = ["orders:Ship"]
drain = 2.0
lease = 1.5
"""

# Appends one line an effect: what a line says has happened, whatever becomes of the process.
SHIP = """
import os
import anyio
from eventkit import {base}, Event

out = os.open("effects.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

class Ship({base}[dict]):
    {options}

    async def handle(self, events):
        for event in {each}:
            await anyio.sleep(0.002)
            os.write(out, b"%d\\n" % event.data["n"])
"""

SINGLE = SHIP.format(base="Handler", options="concurrency = 5", each="[events]")
BATCH = SHIP.format(
    base="BatchHandler",
    options="from eventkit import Batching; batching = Batching(max_size=20, max_wait=0.05)",
    each="events",
)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.write("eventkit.toml", CONFIG)
    shell.write("orders.py", SINGLE)
    return shell


def effects(shell: Shell) -> Counter[int]:
    """How often each event took effect."""
    path = shell.folder / "effects.txt"
    return Counter(int(line) for line in path.read_text().splitlines()) if path.exists() else Counter()


def publish(shell: Shell) -> None:
    lines = "".join(f'{{"n": {n}}}\n' for n in range(EVENTS))
    assert shell.eventkit("send", "--type", "order", input=lines).stdout == f"sent {EVENTS} of {EVENTS}\n"


def backlog(shell: Shell) -> dict[str, int]:
    """State -> number of events in the queue."""
    rows = (line.split() for line in shell.eventkit("backlog").stdout.splitlines())
    return {row[0]: int(row[1]) for row in rows if row[0] in ("ready", "delayed", "leased", "dead")}


def until_empty(shell: Shell) -> None:
    until = time.monotonic() + 15
    while (left := backlog(shell))["ready"] + left["leased"]:
        assert time.monotonic() < until, left
        time.sleep(0.3)


@pytest.mark.parametrize("handler", [SINGLE, BATCH], ids=["single", "batch"])
@pytest.mark.parametrize("seed", range(3))
def test_sigterm_at_any_instant_loses_nothing_and_leaves_nothing_leased(shell: Shell, handler: str, seed: int) -> None:
    """P8: every deployment does this. What was not handled is ready at once for the next worker, exactly once."""
    shell.write("orders.py", handler)
    publish(shell)

    with shell.worker() as worker:
        worker.logged("worker_started")
        time.sleep(Random(seed).uniform(0, 0.4))
        started = time.monotonic()
        code = worker.ended(signal.SIGTERM)

    assert code == 0
    assert time.monotonic() - started < 2.0 + 5.0
    left = backlog(shell)
    done = effects(shell)
    assert left["leased"] == left["delayed"] == left["dead"] == 0
    assert len(done) + left["ready"] == EVENTS
    assert set(done.values()) <= {1}


def test_a_worker_killed_without_warning_loses_nothing(shell: Shell) -> None:
    """P1, P3: SIGKILL leaves no time for anything; the leases end and the events come again."""
    publish(shell)

    for seed in range(3):
        with shell.worker() as worker:
            worker.logged("worker_started")
            time.sleep(Random(seed).uniform(0.05, 0.2))
            assert worker.ended(signal.SIGKILL) == -signal.SIGKILL
    with shell.worker() as worker:
        worker.logged("worker_started")
        until_empty(shell)
        assert worker.ended(signal.SIGTERM) == 0

    done = effects(shell)
    assert backlog(shell) == {"ready": 0, "delayed": 0, "leased": 0, "dead": 0}
    assert set(done) == set(range(EVENTS))
    # At most what was in flight at each of the three deaths took effect once more.
    assert sum(done.values()) - EVENTS <= 3 * 200


def test_two_workers_share_a_queue_without_running_an_event_twice(shell: Shell) -> None:
    """Leases are what keeps two processes on one file from doing the same work."""
    publish(shell)

    with shell.worker() as first:
        with shell.worker() as second:
            first.logged("worker_started")
            second.logged("worker_started")
            until_empty(shell)
            assert second.ended(signal.SIGTERM) == 0
        assert first.ended(signal.SIGTERM) == 0

    assert effects(shell) == Counter(range(EVENTS))


IN_A_THREAD = """def handle(self, event):
        time.sleep(60)"""

SWALLOWS = """async def handle(self, event):
        while True:
            try:
                await anyio.sleep(60)
            except BaseException:
                pass"""


@pytest.mark.parametrize("body", [IN_A_THREAD, SWALLOWS], ids=["thread", "swallow"])
def test_a_handler_that_will_not_end_does_not_keep_the_process(shell: Shell, body: str) -> None:
    """An orchestrator would kill it, with the log unflushed and the exit code saying nothing."""
    shell.write("eventkit.toml", CONFIG.replace("drain = 2.0", "drain = 0.5"))
    shell.write(
        "orders.py",
        f"import time, anyio\nfrom eventkit import Handler\nclass Ship(Handler[dict]):\n    {body}\n",
    )
    shell.eventkit("send", "--type", "order", input='{"n": 1}')

    with shell.worker() as worker:
        worker.logged("worker_started")
        time.sleep(0.3)
        started = time.monotonic()
        code = worker.ended(signal.SIGTERM)

    assert code == 1
    assert time.monotonic() - started < 0.5 + 5.0 + 1.0
    assert worker.logged("handler_stuck")[0]["handler"] == "Ship"
    assert "Traceback" not in worker.log.read_text()


def test_a_stopped_worker_that_goes_on_does_not_count_stale_settles(shell: Shell) -> None:
    """SIGSTOP beyond the lease: another worker has the events by then, and a stale ack must be worth nothing."""
    publish(shell)

    with shell.worker() as first:
        first.logged("worker_started")
        time.sleep(0.1)
        first.process.send_signal(signal.SIGSTOP)
        with shell.worker() as second:
            second.logged("worker_started")
            # Stopped inside a transaction it keeps the file locked, so the other may only go on after it does.
            time.sleep(2.5)
            first.process.send_signal(signal.SIGCONT)
            until_empty(shell)
            assert first.ended(signal.SIGTERM) == 0
            assert second.ended(signal.SIGTERM) == 0

    assert set(effects(shell)) == set(range(EVENTS))
    assert backlog(shell) == {"ready": 0, "delayed": 0, "leased": 0, "dead": 0}
