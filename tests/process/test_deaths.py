"""Real workers on a real file, killed, drained and stopped: a few of each here, as many as you like by `make kill`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from eventkit._policies.letter import letter_id
from tests.process.deaths import audit, ledger
from tests.process.deaths.ledger import Line
from tests.process.deaths.queue_file import Contents, Dead, Published

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "tests.process.deaths"]
T = TypeVar("T")

# A busy machine, and the patience of the harness.
pytestmark = [pytest.mark.timeout(60), pytest.mark.heavy]

SOURCE = "sqlite:///queue.db?queue=orders"


def deaths(folder: Path, **amounts: int) -> dict[str, Any]:
    """Run the harness in a process of its own: it forks, which a process with threads must not."""
    amounts = {"kills": 0, "terms": 0, "stops": 0, **amounts}
    options = [text for name, amount in amounts.items() for text in (f"--{name}", str(amount))]
    command = [*COMMAND, "--json", "--folder", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tally: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return tally


def test_workers_killed_at_any_instant_lose_nothing(tmp_path: Path) -> None:
    """P1, P2, P3: SIGKILL while workers start, handle, settle and drain; only what was in hand is done once more."""
    tally = deaths(tmp_path, kills=16)

    assert tally["lost"] == 0
    assert tally["kills"] == 16
    assert tally["kill_doubles"] <= 16 * 24
    assert list(tmp_path.iterdir()) == []


def test_workers_told_to_end_at_any_instant_lose_nothing_and_leave_nothing_leased(tmp_path: Path) -> None:
    """P8: within the drain budget, handlers that outlast it cut, and every event done exactly once."""
    tally = deaths(tmp_path, terms=12)

    assert tally["lost"] == tally["term_doubles"] == 0
    assert tally["terms"] >= 12
    assert tally["worst_exit"] < 2.0 + 5.0


def test_what_a_worker_settles_after_it_stood_still_does_not_count(tmp_path: Path) -> None:
    """SIGSTOP beyond the lease: by then another worker has the events, and a stale receipt is worth nothing."""
    tally = deaths(tmp_path, stops=2)

    assert tally["lost"] == 0
    assert tally["stops"] == 2
    assert tally["overtaken"] >= 2
    assert tally["stale_settles"] >= 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_no_worker_outlives_the_harness(tmp_path: Path) -> None:
    """Killed itself, it can end nobody: a worker left behind would go on for ever."""
    harness = subprocess.Popen([*COMMAND, "--kills", "500", "--folder", str(tmp_path)], cwd=ROOT)
    try:
        pids = {line.pid for line in wait_for(lambda: lines_in(tmp_path))}
    finally:
        harness.send_signal(signal.SIGKILL)
        harness.wait()

    pids |= {line.pid for line in lines_in(tmp_path)}
    wait_for(lambda: not any(is_worker(pid) for pid in pids))


def lines_in(folder: Path) -> list[Line]:
    return [line for path in folder.glob(f"*/*/{ledger.NAME}") for line in ledger.read(path.parent)]


def is_worker(pid: int) -> bool:
    try:
        return b"tests.process.deaths" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def wait_for(look: Callable[[], T]) -> T:
    until = time.monotonic() + 10
    while not (seen := look()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return seen


# -- what the audit sees: each check must be able to fail -------------------------------------------------------------

EVENTS = [
    Published(0, "good", "single", "a"),
    Published(1, "poison", "batch", "a"),
    Published(2, "good", "batch", "a"),
]


def line(what: str, event: int = -1, life: int = 0) -> Line:
    return Line(what, event, life, 100 + life, 1, 0.0)


def ran(*events: int, life: int = 0) -> list[Line]:
    return [line(what, event, life) for event in events for what in ("start", "effect")]


def letter(event: int) -> Dead:
    return Dead(event, "attempts", letter_id(SOURCE, str(event), "attempts"))


GOOD = [line("up"), *ran(0), line("start", 1), line("dead", 1), *ran(2), line("drain"), line("down")]
EMPTY = Contents(waiting=frozenset(), leased=[], dead=[letter(1)], strays=0, lanes=0)


def problems(lines: list[Line], contents: Contents = EMPTY, broken: tuple[int, ...] = ()) -> str:
    found = audit.at_the_end(EVENTS, contents, lines, broken=broken, ordered=True, source=SOURCE)
    return "; ".join(found)


def test_a_round_without_a_fault_passes_the_audit() -> None:
    """The cases below differ from this one in one thing each."""
    assert problems(GOOD) == ""
    assert audit.lost(EVENTS, EMPTY, GOOD) == []


def test_an_event_that_is_gone_without_effect_or_letter_is_lost() -> None:
    """For a poison event its dead letter counts, for a good one the effect."""
    without_letter = Contents(waiting=frozenset(), leased=[], dead=[], strays=0, lanes=0)
    waiting = Contents(waiting=frozenset({1, 2}), leased=[], dead=[], strays=0, lanes=0)

    assert audit.lost(EVENTS, EMPTY, ran(0)) == [2]
    assert audit.lost(EVENTS, without_letter, GOOD) == [1]
    assert audit.lost(EVENTS, waiting, ran(0)) == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*GOOD, *ran(2, life=1)], "event 2 took effect 2 times"),
        ([*GOOD, line("effect", 1)], "took effect, and cannot have: 1"),
        ([*GOOD, line("start", 2)], "worker 0 started event 2 after it had begun to drain"),
        ([*ran(2), *ran(0), line("start", 1)], "event 2 took effect before 1"),
        ([line("start", 1), *ran(2), *ran(0)], "event 2 took effect before 0"),
    ],
)
def test_each_wrong_turn_of_a_worker_is_seen(lines: list[Line], said: str) -> None:
    """A check that finds nothing must be able to find something."""
    assert said in problems(lines)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (Contents(waiting=frozenset({2}), leased=[], dead=[letter(1)], strays=0, lanes=0), "still in the queue: 2"),
        (Contents(waiting=frozenset(), leased=[], dead=[letter(1)] * 2, strays=0, lanes=0), "event 1 (poison) has 2"),
        (Contents(waiting=frozenset(), leased=[], dead=[letter(0), letter(1)], strays=0, lanes=0), "event 0 (good)"),
        (Contents(waiting=frozenset(), leased=[], dead=[Dead(1, "attempts", "x")], strays=0, lanes=0), "the id 'x'"),
        (Contents(waiting=frozenset(), leased=[], dead=[letter(1)], strays=1, lanes=0), "1 contents of no event"),
        (Contents(waiting=frozenset(), leased=[], dead=[letter(1)], strays=0, lanes=2), "2 lanes"),
    ],
)
def test_each_thing_left_in_the_file_is_seen(contents: Contents, said: str) -> None:
    """What is left of an event that ended is a leak, and a letter too many a lie."""
    assert said in problems(GOOD, contents)


def test_a_death_a_lost_lease_and_an_unsure_settle_each_explain_one_double() -> None:
    """At least once: a worker that died with an event may have done it, and so may one that lost its lease."""
    again = [*GOOD, *ran(2, life=1)]

    assert problems(again, broken=(0,)) == ""
    assert problems([*again, line("lost", 2)]) == ""
    assert problems([*again, line("unsettled")]) == ""
    assert "took effect 3 times" in problems([*again, *ran(2, life=2)], broken=(0,))


def test_a_line_holds_a_whole_part_of_a_page(tmp_path: Path) -> None:
    """So that a write ends before or after SIGKILL, never in between."""
    pen = ledger.Pen(tmp_path, 123)
    pen.write("unreceived", 123_456, 99)

    assert ledger.size(tmp_path) == ledger.LINE
    assert os.sysconf("SC_PAGE_SIZE") % ledger.LINE == 0
    assert ledger.read(tmp_path)[0][:5] == ("unreceived", 123_456, 123, os.getpid(), 99)
