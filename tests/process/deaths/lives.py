"""Processes forked from one that has imported everything: born in milliseconds, and never outliving it."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

ERRORS = "errors.txt"
FAILED = 70
"""Exit code of a worker that raised; the traceback is in `ERRORS`."""

# What the first event loop and the first worker import, half of the time they need to start.
for _module in ("anyio._backends._asyncio", "eventkit._telemetry.loop_watch"):
    importlib.import_module(_module)

_TOLD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_prctl: Final = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


@dataclass(eq=False, kw_only=True)
class Life:
    """One worker process. `code` is its exit code, negative for the signal that ended it, None while it lives."""

    number: int
    pid: int
    code: int | None = None
    stopped: bool = field(default=False)
    """It was stopped for longer than its leases."""

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it is known to have ended."""
        if self.code is None:
            os.kill(self.pid, number)

    def ended(self, patience: float) -> int | None:
        """Wait for the end; the exit code, None when it still runs after `patience` seconds."""
        until = time.monotonic() + patience
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= until:
                break
            else:
                time.sleep(0.001)
        return self.code

    def freeze(self) -> None:
        """Stop it, and wait until it stands still."""
        self.send(signal.SIGSTOP)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.code = os.waitstatus_to_exitcode(status)


class Lives:
    """The workers of one round, numbered from 0."""

    def __init__(self, folder: Path) -> None:
        self.all: list[Life] = []
        self._folder = folder
        self._parent = os.getpid()
        # Nobody writes to this pipe: its end tells a child, where the system does not, that its parent is no more.
        self._orphaned, self._held = os.pipe()

    @property
    def alive(self) -> list[Life]:
        """Those that have not been seen to end."""
        return [life for life in self.all if life.code is None]

    def born(self, live: Callable[[int], int]) -> Life:
        """Fork; the child calls `live` with its number and exits with what it returns."""
        number = len(self.all)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)
        try:
            pid = os.fork()
            if not pid:
                self._be(number, live)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.all.append(Life(number=number, pid=pid))
        return self.all[-1]

    def _be(self, number: int, live: Callable[[int], int]) -> NoReturn:
        """The child: never returns, and runs nothing of the parent's on its way out."""
        code = FAILED
        try:
            self._break_with_parent()
            code = live(number)
        except BaseException:  # noqa: BLE001 - there is nobody to raise it to
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _break_with_parent(self) -> None:
        # A group of its own: Ctrl-C is for the parent, which ends us; and a group whose shell goes away while one of
        # it is stopped gets SIGHUP, all of it.
        os.setpgid(0, 0)
        errors = os.open(self._folder / ERRORS, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        self._die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)

    def _die_with_parent(self) -> None:
        os.close(self._held)
        if _prctl is not None and _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0:
            if os.getppid() != self._parent:
                os._exit(FAILED)  # it died before we asked
            return
        threading.Thread(target=self._die_when_orphaned, daemon=True).start()

    def _die_when_orphaned(self) -> None:
        os.read(self._orphaned, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    def end(self) -> None:
        """Kill what lives."""
        for life in self.alive:
            life.send(signal.SIGKILL)
            life.ended(10.0)
        os.close(self._orphaned)
        os.close(self._held)


@contextmanager
def lives(folder: Path) -> Iterator[Lives]:
    """The workers of a round; none of them outlives the block, or this process."""
    gc.freeze()  # what is here now is never collected in a child: its memory stays shared
    here = Lives(folder)
    try:
        yield here
    finally:
        here.end()


def raise_when_told_to_end() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, by an exception: children are ended on the way out."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        print(f"ended by {signal.Signals(number).name}", file=sys.stderr)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
