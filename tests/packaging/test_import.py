"""`import eventkit` is cheap: what it loads is listed, what it costs is stated."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Every module of ours that `import eventkit` loads: add only what every user needs at once.
PACKAGES = {
    "eventkit": ["_config", "_event", "_handler", "_registry", "_run", "_version", "_worker", "errors", "spi"],
    "eventkit._codec": [
        "_binary",
        "_bounds",
        "_codec",
        "_content_type",
        "_data",
        "_encode",
        "_envelope",
        "_explain",
        "_forms",
        "_options",
        "_structured",
    ],
    "eventkit._pipeline": [
        "batcher",
        "bisector",
        "calls",
        "counters",
        "executor",
        "flow",
        "inflight",
        "judge",
        "lane",
        "lanes",
        "leases",
        "outbox",
        "pipeline",
        "receiver",
        "routes",
        "settler",
        "single",
        "wakeup",
    ],
    "eventkit._policies": ["backoff", "bisect", "failure", "gate", "history", "letter"],
    "eventkit._telemetry": ["context", "observer", "records"],
}
LOADED = {*PACKAGES, *(f"{package}.{module}" for package, modules in PACKAGES.items() for module in modules)}

# Everything of others that it may load; sniffio, idna and typing_extensions come with anyio.
THIRD_PARTY = {"anyio", "idna", "msgspec", "sniffio", "typing_extensions"}
BASE = "anyio, anyio.abc, anyio.lowlevel, anyio.to_thread, msgspec"
DEAR = {"asyncio", "concurrent", "sqlite3", "ssl", "urllib.request"}  # of the standard library: only if BASE loads it

LIST = "import json, sys; before = set(sys.modules); import {0}; print(json.dumps([*set(sys.modules) - before]))"
TIME = "from time import perf_counter as now; began = now(); import {0}; print(now() - began)"


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[str], str]:
    """Run a line in a new interpreter, away from the checkout."""

    def run(line: str) -> str:
        command = [sys.executable, "-c", line]
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_importing_eventkit_loads_only_what_is_listed(fresh: Callable[[str], str]) -> None:
    """No SDK, no pydantic, no SQLite, no structlog, no command line: a handler's unit test starts at once."""
    loaded = set(json.loads(fresh(LIST.format("eventkit"))))
    base = set(json.loads(fresh(LIST.format(BASE))))
    strangers = {name.split(".")[0] for name in loaded} - sys.stdlib_module_names - {"eventkit"}

    assert {name for name in loaded if name.split(".")[0] == "eventkit"} == LOADED
    assert strangers <= THIRD_PARTY
    assert DEAR & (loaded - base) == set()


def test_importing_the_doors_for_tests_loads_no_second_loop_and_no_processes(fresh: Callable[[str], str]) -> None:
    """A unit test with the in-memory broker does not pay for simulations, nor need trio to be installed."""
    doors = "eventkit.testing, eventkit.testing.conformance, eventkit.testing.simulation"
    loaded = set(json.loads(fresh(LIST.format(doors))))

    assert loaded & {"asyncio", "multiprocessing", "pytest", "trio"} == set()


def test_importing_eventkit_costs_little_beside_anyio(
    fresh: Callable[[str], str], record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ratios, so that the figures mean the same on every machine; the bound only catches a heavy import.

    Recent anyio loads its parts when they are first used: `import anyio` alone may take a millisecond and be
    anything from a tenth to a hundredth of ours. The bound is on anyio with its backend, which every run loads.
    """
    names = ("eventkit", "anyio", "anyio._backends._asyncio")
    rounds = [[float(fresh(TIME.format(name))) for name in names] for _ in range(7)]  # in turns: a busy moment hits all
    ours, anyio, backend = map(min, zip(*rounds, strict=True))

    record_property("import eventkit / import anyio", round(ours / anyio, 1))
    record_property("import eventkit / anyio and its backend", round(ours / backend, 1))
    with capsys.disabled():
        print(
            f"\nimport eventkit: {ours * 1e3:.0f} ms, {ours / anyio:.1f} times `import anyio`,"
            f" {ours / backend:.1f} times anyio with its backend"
        )
    assert ours / backend < 6
