"""Names that must not appear: what breaks simulated time, what runs a stranger's bytes, what is of one machine."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# Where wall time, randomness and the event loop enter; everything else takes them as arguments.
EDGE = ("eventkit._worker", "eventkit._telemetry.loop_watch", "eventkit.cli", "eventkit.testing")

BANNED_MODULES = {"asyncio", "random", "secrets", "time"}
BANNED_NAMES = {
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "os.getrandom",
    "os.urandom",
    "uuid.uuid1",
    "uuid.uuid4",
}
ALLOWED_NAMES = {"random.Random"}  # the type; without a seed it may not be called

CODE_IN_DATA = {"cPickle", "cloudpickle", "dill", "jsonpickle", "marshal", "pickle", "shelve", "yaml"}

NOT_OURS = re.compile(
    r"--(?:extra-)?index-ur[l]|--find-link[s]|(?:pypi|pythonhosted)\.org/(?:simple|packages)"
    r"|(?<![\w.~-])/(?:home|Users|root|work|opt/pypi)/[\w.-]"
    r"|\b[A-Z]:\\Users\\"
)


def test_the_core_reads_no_clock_and_throws_no_dice(core: dict[str, ast.Module]) -> None:
    """The same seed must give the same run: time is the loop's, randomness is handed down."""
    inner = {name: tree for name, tree in core.items() if not is_edge(name)}
    used = [f"{module}:{line} uses {name}" for module, tree in inner.items() for name, line in banned(tree)]

    assert used == []


def test_the_core_iterates_no_set(core: dict[str, ast.Module]) -> None:
    """The order of a set of strings changes from process to process. What is plainly a set is seen here."""
    inner = {name: tree for name, tree in core.items() if not is_edge(name)}
    loops = [f"{module}:{node.lineno}" for module, tree in inner.items() for node in iterated(tree) if is_set(node)]

    assert loops == []


@pytest.mark.parametrize(
    "line",
    [
        "import asyncio",
        "from asyncio import run",
        "import time as clock",
        "from time import monotonic",
        "import random",
        "from random import Random, uniform",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime as dt\ndt.now()",
        "from uuid import uuid4",
        "import os\nos.urandom(8)",
        "from random import Random\nRandom()",
    ],
)
def test_each_way_to_a_banned_name_is_seen(line: str) -> None:
    """A test that finds nothing must be able to find something."""
    assert list(banned(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "from random import Random\nrng = Random(7)\nrng.random()",
        "from datetime import datetime\ndatetime.fromisoformat('x')",
        "def f(time: float) -> float: return time",
        "event.time.now()",
    ],
)
def test_what_is_allowed_is_left_alone(line: str) -> None:
    """Event time, a seeded generator and a parameter named `time` are everyday words here."""
    assert list(banned(ast.parse(line))) == []


def test_nothing_turns_data_into_code(root: Path) -> None:
    """Unpickling what a broker hands over is running it; the rule has no exception, tests and tools included."""
    found = [
        f"{path.relative_to(root)}:{line} imports {name}"
        for path in project_files(root)
        if path.suffix == ".py"
        for name, line in imported(ast.parse(path.read_text()))
        if name.split(".")[0] in CODE_IN_DATA
    ]

    assert found == []


def test_no_file_names_an_index_or_somebodys_machine(root: Path) -> None:
    """A lock must resolve on any index, and a path of one machine works on no other."""
    found = [
        f"{path.relative_to(root)}:{number}: {match[0]}"
        for path in project_files(root)
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if (match := NOT_OURS.search(line))
    ]

    assert found == []


def is_edge(module: str) -> bool:
    return any(module == edge or module.startswith(f"{edge}.") for edge in EDGE)


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def banned(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Imports of banned modules and names, and uses of banned names through an imported module or class."""
    for name, line in imported(tree):
        if name not in ALLOWED_NAMES and (name.split(".")[0] in BANNED_MODULES or name in BANNED_NAMES):
            yield name, line
    origin = local_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and full_name(node, origin) in BANNED_NAMES:
            yield full_name(node, origin), node.lineno
        elif isinstance(node, ast.Call) and full_name(node.func, origin) in ALLOWED_NAMES and not node.args:
            yield f"{full_name(node.func, origin)} without a seed", node.lineno


def local_names(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for in this module: `dt` for `datetime.datetime`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                names |= {alias.asname: alias.name} if alias.asname else {top: top}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def full_name(node: ast.expr, origin: dict[str, str]) -> str:
    """The dotted name an expression stands for, or an empty string."""
    if isinstance(node, ast.Name):
        return origin.get(node.id, "")
    if isinstance(node, ast.Attribute) and (owner := full_name(node.value, origin)):
        return f"{owner}.{node.attr}"
    return ""


def iterated(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            yield node.iter


def is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in {"set", "frozenset"}
    return isinstance(node, ast.Set | ast.SetComp)


def project_files(root: Path) -> list[Path]:
    """What is, or is about to be, in the repository; without git, everything but what a run leaves behind."""
    git = shutil.which("git")
    if git and (root / ".git").exists():
        command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
        paths = [root / name for name in listed.split("\0") if name]
    else:
        made = {".venv", "build", "dist", "run"}
        paths = [path for path in root.rglob("*") if not made & set(path.relative_to(root).parts)]
    return sorted(path for path in paths if path.is_file())


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""
