"""The first thing a newcomer runs, as a newcomer runs it."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "quakes"
RESULT = re.compile(
    r"^quakes: (\d+) published, (\d+) recorded, (\d+) skipped, (\d+) dead-lettered, (\d+) lost$", re.MULTILINE
)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy, so that a demo that runs meanwhile keeps its run folder."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "quakes", ignore=shutil.ignore_patterns("run", "__pycache__")))


def run_demo(example: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(example / "demo.py")]
    return subprocess.run(command, cwd=example.parent, capture_output=True, text=True, timeout=19, check=False)


def feed_types(example: Path) -> list[str]:
    with gzip.open(next((example / "data").iterdir())) as file:
        return [feature["properties"]["type"] for feature in json.load(file)["features"]]


def test_the_demo_accounts_for_every_event_each_time_it_runs(example: Path) -> None:
    """The line is what the README promises; a second run must not find what the first one left."""
    types = feed_types(example)
    earthquakes, damaged = types.count("earthquake"), 3
    expected = [len(types) + damaged, earthquakes, len(types) - earthquakes, damaged, 0]

    for run in (1, 2):
        done = run_demo(example)

        assert done.returncode == 0, f"run {run}:\n{done.stdout}\n{done.stderr}"
        assert [[int(n) for n in found] for found in RESULT.findall(done.stdout)] == [expected], done.stdout
        assert not done.stderr


def test_a_worker_that_cannot_start_ends_the_demo_with_its_log(example: Path) -> None:
    """A newcomer who breaks the handler must see why, at once, not a progress bar that stands still."""
    (example / "quakes.py").write_text("raise RuntimeError('the user broke this')\n")

    done = run_demo(example)

    assert done.returncode == 1
    assert "demo: the worker ended with code" in done.stderr
    assert "the user broke this" in done.stderr
    assert not RESULT.search(done.stdout)
