"""What docs/testing.md shows has to run as it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing.md"

SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    ignore:Module already imported so cannot be rewritten
"""


@pytest.mark.timeout(60)  # a pytest of its own; the machine may be busy
def test_every_block_of_code_runs_as_a_test(tmp_path: Path) -> None:
    """A page on testing is copied as it stands: its blocks, one after the other, are one file of tests that pass."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "test_page.py").write_text("\n\n".join(blocks))
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    shutil.copy(ROOT / "examples" / "quakes" / "quakes.py", tmp_path)

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    tests = sum(len(re.findall(r"^(?:async )?def test_", block, re.MULTILINE)) for block in blocks)
    assert tests >= 9
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def test_every_link_within_the_page_leads_somewhere() -> None:
    """The table at its start is how a reader finds the tool."""
    text = PAGE.read_text()
    headings = {re.sub(r"[^\w -]", "", line.strip("# ").lower()).replace(" ", "-") for line in headlines(text)}

    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= headings


def headlines(text: str) -> list[str]:
    return re.findall(r"^#+ .*$", text, re.MULTILINE)
