"""The observer that writes log lines."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
import structlog

from eventkit._telemetry.log import LogFormat, LogObserver
from eventkit._telemetry.records import (
    DrainEnded,
    EventDeadLettered,
    EventHandled,
    EventSkipped,
    Level,
    Record,
    WorkerStarted,
    WorkerStopped,
)

HOSTILE = "a\r\nb\x1b[31mc\u2028d\x9be\u202ef"


def dead_lettered(event_id: str = "7", message: str = "bad") -> EventDeadLettered:
    return EventDeadLettered(
        event_id=event_id,
        event_type="order.placed",
        message_id="m-7",
        handler="Ship",
        attempt=2,
        reason="attempts",
        error="ValueError",
        message=message,
        dead_letter_id="d7",
    )


def logged(*records: Record, format: LogFormat = "json", level: Level = Level.INFO) -> str:
    stream = io.StringIO()
    observer = LogObserver(format, level, stream)
    for record in records:
        observer.observe(record)
    return stream.getvalue()


def test_a_record_becomes_a_line_with_its_own_field_names() -> None:
    """Whoever reads logs and whoever reads records speak the same words."""
    line = json.loads(logged(dead_lettered()))

    stamp = datetime.fromisoformat(line.pop("timestamp"))
    assert stamp.utcoffset() == timedelta(0)
    assert line == {
        "level": "error",
        "event": "event_dead_lettered",
        "event_id": "7",
        "event_type": "order.placed",
        "message_id": "m-7",
        "handler": "Ship",
        "attempt": 2,
        "reason": "attempts",
        "error": "ValueError",
        "message": "bad",
        "dead_letter_id": "d7",
    }


def test_what_is_empty_is_left_out_and_what_is_zero_is_said() -> None:
    """`cut=0` is news after a drain, `error=` is noise."""
    line = json.loads(logged(WorkerStopped(clean=True, cut=0)))

    assert line.items() >= {"clean": True, "cut": 0}.items()
    assert not {"error", "message"} & set(line)


def test_a_record_below_the_level_is_not_written() -> None:
    """The fan-out asks the observer's level; a caller that does not must not see more."""
    handled = EventHandled(event_id="1", event_type="t", message_id="m", handler="H", attempt=1)

    assert logged(handled) == ""
    assert json.loads(logged(handled, level=Level.DEBUG))["event"] == "event_handled"


def test_long_ids_are_cut_to_128_characters() -> None:
    """An id is the producer's to choose, and a megabyte of it on every line is an attack on the disk."""
    line = json.loads(logged(dead_lettered("x" * 5000, "y" * 5000)))

    assert len(line["event_id"]) == 128
    assert line["event_id"].endswith("…")
    assert len(line["message"]) == 1000


@pytest.mark.parametrize("format", ["json", "console"])
def test_what_a_producer_chose_can_neither_end_a_line_nor_drive_a_terminal(format: LogFormat) -> None:
    """Forged lines, colours and reversed text are how logs lie (research: T10)."""
    text = logged(dead_lettered(HOSTILE, HOSTILE), format=format)

    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert text[:-1].isprintable()


def test_json_gives_hostile_text_back_unchanged() -> None:
    """What was escaped for the eye must still be found by a program that compares ids."""
    assert json.loads(logged(dead_lettered(HOSTILE)))["event_id"] == HOSTILE


def test_console_lines_show_name_and_fields() -> None:
    """For a person: no braces, no quotes where none are needed."""
    text = logged(dead_lettered(), format="console")

    assert re.search(r"\[error +\] event_dead_lettered +event_id=7 event_type=order.placed", text)


def test_durations_are_in_milliseconds_at_most() -> None:
    """`0.010699521999413264` helps nobody."""
    assert json.loads(logged(DrainEnded(seconds=0.010699521999413264, cut=0)))["seconds"] == 0.011


def test_auto_is_json_where_there_is_no_terminal() -> None:
    """Containers and files get what machines read, without configuration."""
    started = WorkerStarted(source="s", handlers=("H",), retry="", dead_letter="", ordering="none", idempotency="none")

    assert json.loads(logged(started, format="auto"))["handlers"] == ["H"]


def test_auto_is_columns_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who starts a worker by hand reads it at once; NO_COLOR is respected."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)

    LogObserver("auto", stream=stream).observe(dead_lettered())

    assert "[error" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_nothing_global_is_touched() -> None:
    """A Worker is a guest in its user's process: whose logging is set up there is not ours."""
    before = structlog.get_config().copy(), list(logging.getLogger().handlers), logging.getLogger().level

    assert logged(dead_lettered())
    assert (structlog.get_config(), logging.getLogger().handlers, logging.getLogger().level) == before


def test_a_full_disk_stops_no_worker_and_is_told_afterwards() -> None:
    """Handling events matters more than saying so; but nobody may think the log is whole."""
    stream = Sometimes()
    observer = LogObserver("json", stream=stream)

    stream.full = True
    observer.observe(dead_lettered("1"))
    observer.observe(dead_lettered("2"))
    stream.full = False
    observer.observe(dead_lettered("3"))
    observer.observe(dead_lettered("4"))

    third, fourth = map(json.loads, stream.getvalue().splitlines())
    assert (third["event_id"], third["lines_lost"]) == ("3", 2)
    assert (fourth["event_id"], "lines_lost" in fourth) == ("4", False)


class Sometimes(io.StringIO):
    """A stream whose disk is full now and then."""

    full = False

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_line_is_cheap() -> None:
    """10,000 undecodable events in a row must keep their rate; the bound is four times what it takes here."""
    observer, record, lines = LogObserver("json", stream=Nowhere()), dead_lettered(), 2000
    costs = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(lines):
            observer.observe(record)
        costs.append((time.process_time() - began) / lines * 1e6)

    assert min(costs) < 40, f"{min(costs):.0f} us a line"


class Nowhere(io.StringIO):
    def write(self, text: str) -> int:
        return len(text)


# -- docs/logs.md ------------------------------------------------------------------------------


def test_the_page_about_logs_lists_every_record_as_it_is() -> None:
    """A field that is renamed in the code and not on the page breaks somebody's alert."""
    page = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| .+ \|$", page, re.MULTILINE)

    assert rows[1:] == [
        (snake_case(record), record.level.name.lower(), ", ".join(f"`{name}`" for name in record.__struct_fields__))
        for record in get_args(Record)
    ]


def test_a_skip_says_why() -> None:
    """Every outcome but success is a line that explains itself."""
    record = EventSkipped(event_id="1", event_type="t", message_id="m", handler="H", attempt=1, reason="too old")

    assert json.loads(logged(record))["reason"] == "too old"


def snake_case(record: type) -> str:
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", record.__name__).lower()
