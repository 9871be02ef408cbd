"""What the development install makes importable: the packages, and no folder of the checkout beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FIND = """
import importlib.util, sys
spec = importlib.util.find_spec(sys.argv[1])
print(spec and spec.submodule_search_locations)
"""


@pytest.mark.parametrize("name", ["adapters", "bench", "docs", "examples", "tests"])
def test_no_folder_of_the_checkout_is_importable(name: str, root: Path, tmp_path: Path) -> None:
    """`adapters.eventkit_sqlite` would be a second copy of every class: isinstance then fails in baffling ways."""
    assert str(root / name) not in find(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"), [("eventkit", "eventkit"), ("eventkit_sqlite", "adapters/eventkit_sqlite")]
)
def test_the_packages_are_importable_from_anywhere(name: str, folder: str, root: Path, tmp_path: Path) -> None:
    """Or the tests would run against whatever happens to lie in the current folder."""
    assert str(root / folder) in find(name, tmp_path)


def find(name: str, cwd: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", FIND, name], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout
