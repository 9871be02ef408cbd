"""The thread that says where the event loop is kept."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from eventkit._telemetry.loop_watch import BEAT, EVENTKIT, STANDARD_LIBRARY, Frame, LoopWatch, blocking_frames
from eventkit._telemetry.records import LoopBlocked

USERS = [Frame("/app/orders.py", line, name) for line, name in ((12, "price"), (30, "handle"), (50, "outer"))]
LIBRARY = [
    Frame(f"{STANDARD_LIBRARY}socket.py", 705, "readinto"),
    Frame(f"{STANDARD_LIBRARY}ssl.py", 1100, "read"),
    Frame(f"{STANDARD_LIBRARY}site-packages/urllib3/response.py", 440, "stream"),
]
OURS = [
    Frame(f"{EVENTKIT}_pipeline/executor.py", 120, "_drive"),
    Frame(f"{STANDARD_LIBRARY}asyncio/events.py", 84, "_run"),
]


@pytest.mark.parametrize(
    ("stack", "shown"),
    [
        ([*USERS, *OURS], "orders.py:50 in outer > orders.py:30 in handle > orders.py:12 in price"),
        ([USERS[0], *OURS], "orders.py:12 in price"),
        ([*LIBRARY[1:], *USERS, *OURS], "orders.py:12 in price > response.py:440 in stream > ssl.py:1100 in read"),
        ([*LIBRARY, *USERS, *OURS], "orders.py:12 in price > ssl.py:1100 in read > socket.py:705 in readinto"),
        ([LIBRARY[0], *USERS[:1], *OURS], "orders.py:12 in price > socket.py:705 in readinto"),
        ([*LIBRARY, *OURS], "response.py:440 in stream > ssl.py:1100 in read > socket.py:705 in readinto"),
        (OURS[:1], "executor.py:120 in _drive"),
        ([Frame("/app/shop/__init__.py", 3, "<module>")], "shop/__init__.py:3 in <module>"),
        ([], ""),
    ],
)
def test_the_users_innermost_frame_is_shown_with_what_it_called(stack: list[Frame], shown: str) -> None:
    """The reader must find their own line, and see what it waits for: three frames say both."""
    assert blocking_frames(stack) == shown


def block(seconds: float) -> None:
    time.sleep(seconds)


async def watched(call: Callable[[], None], *, threshold: float = 0.3, times: int = 1) -> list[LoopBlocked]:
    """What is reported about `block` while `call` runs on the loop, and shortly after."""
    reports: list[LoopBlocked] = []
    with LoopWatch(reports.append, threshold) as watch:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run)
            for _ in range(times):
                await anyio.sleep(2 * BEAT)
                call()
            await anyio.sleep(3 * BEAT)
            tasks.cancel_scope.cancel()
    # A busy machine may keep the loop waiting somewhere else, too.
    return [report for report in reports if "in block" in report.frame]


async def test_a_blocked_loop_is_reported_with_its_frame_and_again_when_it_moves() -> None:
    """The first line says where while it lasts, the second how long it was."""
    first, last = await watched(lambda: block(0.9))

    assert first.frame == last.frame
    assert re.fullmatch(r".*test_loop_watch\.py:\d+ in <lambda> > test_loop_watch\.py:\d+ in block", first.frame)
    assert 0.3 <= first.seconds < last.seconds
    assert last.seconds >= 0.75


async def test_a_loop_that_moves_is_not_reported() -> None:
    """A warning that comes without reason is read by nobody."""
    assert await watched(lambda: block(0.02)) == []


async def test_each_block_is_reported() -> None:
    """The watch goes on after the first."""
    assert len(await watched(lambda: block(0.7), times=2)) == 4


async def test_the_thread_ends_with_the_watch() -> None:
    """A worker in a user's process must leave nothing behind."""
    before = threading.active_count()

    await watched(lambda: None)

    assert threading.active_count() == before


async def test_a_report_that_hangs_does_not_keep_the_worker() -> None:
    """The report is a line on a terminal that somebody may have stopped with Ctrl-S."""
    hang = threading.Event()
    with LoopWatch(lambda _: hang.wait(10), 0.1) as watch:
        watch.beat()
        block(0.4)
        began = time.monotonic()
    took = time.monotonic() - began
    hang.set()

    assert took < 3


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_suspended_process_was_not_blocked(tmp_path: Path) -> None:
    """Nobody is to look for a slow line in the code that happened to run when the machine was suspended."""
    script = tmp_path / "suspended.py"
    script.write_text(
        textwrap.dedent("""
        import anyio
        from eventkit._telemetry.loop_watch import LoopWatch

        async def main():
            with LoopWatch(lambda report: print(report, flush=True), 0.2) as watch:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(watch.run)
                    await anyio.sleep(0.3)
                    print("ready", flush=True)
                    await anyio.sleep(1.5)
                    tasks.cancel_scope.cancel()

        anyio.run(main)
        """)
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1.2)
    os.kill(process.pid, signal.SIGCONT)
    said = process.communicate(timeout=10)[0]

    assert said == ""
