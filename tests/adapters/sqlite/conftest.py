"""The queue under test, in a new file each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.sqlite.support import Queue


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    """The queue "default" of a file that does not exist yet."""
    return Queue(tmp_path / "events.db")
