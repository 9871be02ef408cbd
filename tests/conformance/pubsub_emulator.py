"""Google's own emulator of Pub/Sub, where it is on this machine: a Java archive that comes with the gcloud command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from tests.process.ports import free_port

_PACKAGE = "google-cloud-cli-pubsub-emulator"
_VARIABLE = "PUBSUB_EMULATOR_JAR"
_START = 40.0  # seconds
_NOT_HERE = "Google's Pub/Sub emulator is not on this machine ({}): its suite did not run"


def command() -> list[str]:
    """What starts the emulator, but for its options; empty where `why_not` says why."""
    java, jar = shutil.which("java"), _jar()
    return [java, "-jar", str(jar)] if java and jar else []


def why_not() -> str:
    """Why there is no emulator; empty where there is one."""
    if _jar() is None:
        named = os.environ.get(_VARIABLE)
        where = f"{_VARIABLE} names {named}, which is no file" if named else f"no package {_PACKAGE}, no {_VARIABLE}"
        return _NOT_HERE.format(where)
    return "" if command() else _NOT_HERE.format("no java on PATH")


@cache
def _jar() -> Path | None:
    if named := os.environ.get(_VARIABLE):
        return path if (path := Path(named)).is_file() else None
    dpkg = shutil.which("dpkg")
    if dpkg is None:
        return None
    files = subprocess.run([dpkg, "-L", _PACKAGE], capture_output=True, text=True, check=False).stdout.splitlines()
    return next((path for name in files if name.endswith("-all.jar") and (path := Path(name)).is_file()), None)


@contextmanager
def emulator() -> Iterator[str]:
    """The emulator as a process of its own, until the end of the context. Gives its endpoint.

    Raises RuntimeError, with what it printed, when it does not answer in time.
    """
    port = free_port()
    start = [*command(), "--host=127.0.0.1", f"--port={port}"]
    with (
        TemporaryFile("w+") as output,
        # In a group of its own: whatever it starts ends with it.
        subprocess.Popen(
            start, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            _wait_for_an_answer(process, port, output)
            yield f"http://127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait_for_an_answer(process: subprocess.Popen[bytes], port: int, output: IO[str]) -> None:
    until = time.monotonic() + _START
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        while process.poll() is None and time.monotonic() < until:
            try:
                client.list_topics(project="projects/eventkit", retry=None, timeout=1.0)
            except GoogleAPICallError:
                time.sleep(0.1)
            else:
                return
    output.seek(0)
    ended = "is not ready" if process.poll() is None else f"ended with {process.poll()}"
    raise RuntimeError(f"the emulator {ended} after {_START:g} s at most; it printed:\n{output.read()}")
