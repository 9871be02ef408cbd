"""Several real processes on one file, and processes that are killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.sqlite.support import SOON, Queue, bodies

PROGRAM = Path(__file__).with_name("processes.py")


def _start(queue: Queue, role: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), role, str(queue.address), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _lines(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What a process told until it ended, which must be well."""
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("order", ["unordered", "ordered"])
def test_two_publishers_and_four_consumers_share_a_file(queue: Queue, order: str) -> None:
    """Each event is acked exactly once, none is lost; in order of its key where that was asked for."""
    consumers = [_start(queue, "consume", f"c{number}", order) for number in range(4)]
    for consumer in consumers:
        assert consumer.stdout is not None
        assert json.loads(consumer.stdout.readline()) == {"ready": True}
    publishers = [_start(queue, "publish", f"p{number}", "600") for number in range(2)]
    published = [body for process in publishers for line in _lines(process) for body in line["published"]]
    acked = [line for process in consumers for line in _lines(process)]
    assert len(published) == 1200
    assert sorted(line["body"] for line in acked) == sorted(published)
    if order == "unordered":
        assert {line["count"] for line in acked} == {1}  # while leases live, nothing is delivered twice
    else:
        _assert_in_order(acked)
    assert queue.sql("SELECT count(*) FROM event UNION ALL SELECT count(*) FROM content") == [(0,), (0,)]
    assert queue.sql("SELECT count(*) FROM lane") == [(0,)]


def _assert_in_order(acked: list[dict[str, Any]]) -> None:
    for key in {line["key"] for line in acked}:
        handled = sorted((line["at"], int(line["body"].split("-")[1])) for line in acked if line["key"] == key)
        assert [number for _, number in handled] == sorted(number for _, number in handled)


def test_every_confirmed_publish_survives_kill_9(queue: Queue) -> None:
    """At most the batch in the air is there without having been confirmed."""
    confirmed: list[str] = []
    for number in range(4):
        process = _start(queue, "publish", f"p{number}", "1000000")
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(0.1 + 0.07 * number)
        process.kill()
        for line in [first, *process.communicate()[0].splitlines()]:
            if line.rstrip().endswith("}"):  # the last may be cut
                confirmed += json.loads(line)["published"]
    stored = {body.decode() for (body,) in queue.sql("SELECT body FROM content JOIN event USING (id)")}
    assert len(confirmed) > 100
    assert set(confirmed) <= stored
    assert len(stored) <= len(confirmed) + 4 * 40  # one batch unconfirmed, one confirmed but not read from the pipe
    assert queue.sql("PRAGMA integrity_check") == [("ok",)]


async def test_what_a_killed_worker_held_comes_again_and_is_found_by_polling(queue: Queue) -> None:
    """Its lease ends; this process hears of the other's publish and death only from the file."""
    worker = _start(queue, "hold")
    async with queue.source() as source:
        publisher = _start(queue, "publish", "p", "1")
        assert worker.stdout is not None
        assert json.loads(worker.stdout.readline()) == {"body": "p-0"}
        worker.kill()
        worker.communicate()
        _lines(publisher)
        assert await source.receive(1, 0.0) == ()
        (delivery,) = await source.receive(1, 5.0)
        assert (delivery.body, delivery.delivery_count) == (b"p-0", 2)


async def test_a_publish_by_another_process_is_noticed_within_about_a_tenth_of_a_second(queue: Queue) -> None:
    """Polling slows down to 0.1 s, no further."""
    async with queue.source() as source:
        publisher = _start(queue, "publish", "p", "1")
        (delivery,) = await source.receive(1, 10.0)
        assert bodies([delivery]) == [b"p-0"]
        assert time.time() - (delivery.enqueued_at or 0) < SOON
        _lines(publisher)
