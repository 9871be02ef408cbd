"""Watches from a thread whether the event loop still runs, and says where it is kept when it does not."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import PurePath
from types import FrameType, TracebackType
from typing import NamedTuple, Self

import anyio

from eventkit._telemetry.records import LoopBlocked

__all__ = ["LoopWatch"]

BEAT = 0.1
"""Seconds between two beats of a loop that runs."""

FRAMES = 3

IDLE_SHARE = 0.05
"""Processor time, as a share of the time passed, below which a process did not run. On a crowded machine one that runs
as fast as it can may get a third."""

STANDARD_LIBRARY = f"{PurePath(os.__file__).parent}{os.sep}"
EVENTKIT = f"{PurePath(__file__).parents[1]}{os.sep}"


class LoopWatch:
    """Reports a `LoopBlocked` once the loop has not run for `threshold` seconds, and another when it runs again.

    Enter it on the loop's thread, and keep `run` going on the loop until it is left. The second report holds the
    whole duration. `report` is called on the watching thread.

    A process that was suspended was not blocked: then this thread slept as well, and no processor time passed.
    (A C call that holds the interpreter's lock keeps this thread too, but uses the processor.)
    """

    def __init__(self, report: Callable[[LoopBlocked], object], threshold: float = 0.5) -> None:
        self._report = report
        self._threshold = threshold
        self._every = min(BEAT, threshold / 4)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="eventkit loop watch", daemon=True)
        self._loop_thread = 0
        self._beaten = 0.0
        self._longest = 0.0
        """Longest delay of a beat since the watching thread last looked."""
        self._blocked_at = ""

    def __enter__(self) -> Self:
        self._loop_thread = threading.get_ident()
        self._beaten = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        # Not for ever: `report` may hang on a terminal nobody reads.
        self._thread.join(timeout=1.0)

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self.beat()
            await anyio.sleep(BEAT)

    def beat(self) -> None:
        """The loop runs."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._beaten - BEAT)
        self._beaten = now

    def _watch(self) -> None:
        looked, used = time.monotonic(), time.process_time()
        while not self._stop.wait(self._every):
            now, using = time.monotonic(), time.process_time()
            slept, worked = now - looked - self._every, using - used - self._every
            if slept > self._threshold / 2 and worked < slept * IDLE_SHARE:
                self._beaten, self._longest = now, 0.0
            else:
                self._look(now)
            looked, used = now, using

    def _look(self, now: float) -> None:
        late = now - self._beaten - BEAT
        longest, self._longest = self._longest, 0.0
        if late >= self._threshold:
            self._longest = longest
            if not self._blocked_at:
                self._blocked_at = blocking_frames(stack_of(self._loop_thread))
                self._report(LoopBlocked(seconds=round(late, 3), frame=self._blocked_at))
        elif self._blocked_at or longest >= self._threshold:
            # Without a frame: it moved on before this thread got to look.
            self._report(LoopBlocked(seconds=round(longest, 3), frame=self._blocked_at))
            self._blocked_at = ""


class Frame(NamedTuple):
    """One level of a call stack."""

    file: str
    line: int
    function: str

    @property
    def users(self) -> bool:
        """Code of the application: neither ours nor of the standard library or an installed package."""
        return not (
            self.file.startswith(("<frozen ", STANDARD_LIBRARY, EVENTKIT))
            or "site-packages" in self.file
            or "dist-packages" in self.file
        )

    def __str__(self) -> str:
        path = PurePath(self.file)
        name = "/".join(path.parts[-2:]) if path.name == "__init__.py" else path.name
        return f"{name}:{self.line} in {self.function}"


def stack_of(thread: int) -> list[Frame]:
    """What the thread runs now, innermost first. Holds on to no frame: that would keep its variables alive."""
    stack: list[Frame] = []
    frame: FrameType | None = sys._current_frames().get(thread)  # noqa: SLF001 - the documented way
    while frame is not None:
        stack.append(Frame(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return stack


def blocking_frames(stack: Sequence[Frame]) -> str:
    """The innermost of the user's frames with what it called, or who called it: at most three, outermost first."""
    users = [place for place, frame in enumerate(stack) if frame.users]
    if not users or users[0] < FRAMES:
        inner = users[0] + 1 if users else FRAMES
        around = [place for place in users if inner <= place < FRAMES]
        chosen = [*range(min(inner, len(stack))), *around]
    else:
        chosen = [*range(FRAMES - 1), users[0]]
    return " > ".join(str(stack[place]) for place in reversed(chosen))
