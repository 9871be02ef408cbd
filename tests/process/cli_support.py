"""Running `eventkit` as its users do: as a process, in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

EVENTKIT = Path(sys.executable).with_name("eventkit")
PATIENCE = 15.0

QUEUE = "sqlite:///queue.db?queue=orders"
CONFIG = f'source = "{QUEUE}"\nhandlers = ["orders:Ship"]\n'

HANDLER = """
from eventkit import Event, Handler

class Ship(Handler[dict]):
    async def handle(self, event: Event[dict]) -> None:
        print("shipped", event.data["n"], flush=True)
"""


@dataclass(frozen=True)
class Shell:
    """A folder with an `eventkit.toml`, and the command in it."""

    folder: Path

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def eventkit(self, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            [EVENTKIT, *arguments],
            cwd=self.folder,
            env=environment(),
            input=input,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def errors(self, *arguments: str, code: int, input: str = "") -> str:
        """What a command that must fail with `code` says on standard error."""
        done = self.eventkit(*arguments, input=input)
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stderr

    @contextmanager
    def worker(self, *arguments: str, stderr: IO[str] | None = None) -> Iterator[Running]:
        """`eventkit run`; it does not outlive the block."""
        out, log = self.folder / "worker.out", self.folder / "worker.log"
        with out.open("w") as stdout, log.open("w") as file:
            process = subprocess.Popen(
                [EVENTKIT, "run", *arguments],
                cwd=self.folder,
                env=environment(),
                stdout=stdout,
                stderr=stderr or file,
            )
        try:
            yield Running(process, out, log)
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Running:
    """A worker that runs."""

    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def printed(self, lines: int = 1) -> list[str]:
        """Wait for so many lines on standard output."""
        until = time.monotonic() + PATIENCE
        # Up to the last line end: a line may be there in part.
        while len(found := self.out.read_text().rpartition("\n")[0].splitlines()) < lines:
            assert time.monotonic() < until, f"{found} on standard output; the log:\n{self.log.read_text()}"
            time.sleep(0.02)
        return found

    def lines(self) -> list[dict[str, Any]]:
        """What is in the log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def logged(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait until there are so many lines of this name."""
        until = time.monotonic() + PATIENCE
        while len(found := [line for line in self.lines() if line["event"] == event]) < times:
            assert time.monotonic() < until, f"no {event}; the log:\n{self.log.read_text()}"
            time.sleep(0.02)
        return found

    def ended(self, *signals: signal.Signals) -> int:
        """Send signals; the exit code."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.2)
        return self.process.wait(PATIENCE)


def environment() -> dict[str, str]:
    """Ours, without what changes the output."""
    return {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "FORCE_COLOR"}}


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`eventkit local …`, and what it says until it is ready; it does not outlive the block."""
    process = subprocess.Popen(
        [EVENTKIT, "local", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if "Ctrl-C" in line:
                break
        yield process, lines
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
