"""The handler of examples/quakes by itself: how a user would test one."""

from __future__ import annotations

import importlib.util
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from eventkit.testing import Harness

QUAKES = Path(__file__).parents[2] / "examples" / "quakes" / "quakes.py"
HUALIAN = {"type": "earthquake", "place": "22km NNE of Hualian, Taiwan", "mag": 6.4, "coordinates": [121.7, 24.2, 17.0]}


@pytest.fixture
def quakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example's module, its read model in a folder of the test's own."""
    spec = importlib.util.spec_from_file_location("quakes", QUAKES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "quakes", module)  # the annotations of a dataclass are looked up there
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "READ_MODEL", tmp_path / "run" / "quakes.db")
    return module


def rows(quakes: ModuleType, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(quakes.READ_MODEL)) as db:
        return db.execute(query).fetchall()


async def test_earthquakes_are_recorded_and_blasts_skipped_with_a_reason(quakes: ModuleType) -> None:
    """One batch holds both; the blast must neither be written nor fail the others."""
    blast = HUALIAN | {"type": "quarry blast"}

    async with Harness(quakes.RecordQuakes()) as harness:
        outcomes = await harness.send_all([HUALIAN, blast, HUALIAN | {"mag": 5}])

    assert [(outcome.kind, outcome.reason) for outcome in outcomes] == [
        ("ok", ""),
        ("skip", "not an earthquake: quarry blast"),
        ("ok", ""),
    ]
    assert rows(quakes, "SELECT place, magnitude, depth, quakes FROM strongest") == [("Hualian, Taiwan", 6.4, 17.0, 2)]


async def test_a_second_delivery_changes_nothing(quakes: ModuleType) -> None:
    """Brokers deliver at least once; the read model must count an event once."""
    event = {"ce-specversion": "1.0", "ce-id": "us1000chhc", "ce-source": "usgs", "ce-type": "usgs.quake"}

    async with Harness(quakes.RecordQuakes()) as harness:
        for _ in range(2):
            outcome = await harness.send(HUALIAN, attributes=event)
            assert outcome.kind == "ok"

    assert rows(quakes, "SELECT id, magnitude FROM quakes") == [("us1000chhc", 6.4)]


async def test_a_record_of_the_wrong_shape_never_reaches_the_handler(quakes: ModuleType) -> None:
    """The type is the contract: what does not fit is rejected by its place, not by a crash in the middle."""
    async with Harness(quakes.RecordQuakes()) as harness:
        outcome = await harness.send(HUALIAN | {"mag": "strong"})

    assert (outcome.kind, outcome.reason) == ("reject", "decode")
    assert "$.mag" in outcome.message
    assert "strong" not in outcome.message
