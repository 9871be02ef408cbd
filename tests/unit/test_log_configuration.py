"""Logging of a process that is ours: users' own lines in the form of the worker's."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
import structlog

from eventkit._event import Event
from eventkit._telemetry.context import current_event, current_handler
from eventkit._telemetry.log import TALKATIVE, LogFormat, configure_logging
from eventkit._telemetry.records import Level
from eventkit.spi import Delivery


@pytest.fixture(autouse=True)
def _global_logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, show = list(root.handlers), root.level, warnings.showwarning
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    warnings.showwarning = show
    for handler in root.handlers:
        if handler not in handlers:
            root.removeHandler(handler)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def event(id: str = "7") -> Event[dict[str, int]]:
    delivery = Delivery(receipt=1, body=b"{}", message_id="m-7", leased_until=0.0)
    return Event(delivery, id, "shop", "order.placed", {"total": 1}, attempt=3)


def while_handling(handled: Event[Any] | None, call: Any) -> None:
    """Call in a context of its own, as the executor does."""
    context = copy_context()
    context.run(current_event.set, handled)
    context.run(current_handler.set, "Ship")
    context.run(call)


def refuse(payload: str) -> None:
    raise RuntimeError(f"refused {len(payload)} characters")


def fail(message: str) -> None:
    raise ValueError(message)


def test_a_line_inside_a_handler_names_its_event(stream: io.StringIO) -> None:
    """Users bind nothing, and still find every line about an event by its id."""
    configure_logging("json", stream=stream)

    while_handling(event(), lambda: structlog.get_logger().info("shipped", parcels=2))

    [line] = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (
        line.items()
        >= {
            "level": "info",
            "event": "shipped",
            "parcels": 2,
            "event_id": "7",
            "event_type": "order.placed",
            "attempt": 3,
            "handler": "Ship",
        }.items()
    )


def test_a_line_of_the_standard_library_looks_the_same(stream: io.StringIO) -> None:
    """Most libraries, and most users, log through `logging`."""
    configure_logging("json", stream=stream)

    while_handling(event(), lambda: logging.getLogger("shop").warning("late by %d s", 5, extra={"van": 9}))

    [line] = lines(stream)
    assert (
        line.items()
        >= {
            "level": "warning",
            "event": "late by 5 s",
            "logger": "shop",
            "van": 9,
            "event_id": "7",
            "handler": "Ship",
        }.items()
    )


def test_nothing_of_an_event_shows_outside_its_handler(stream: io.StringIO) -> None:
    """A line that names the wrong event sends somebody the wrong way."""
    configure_logging("json", stream=stream)

    while_handling(event(), lambda: structlog.contextvars.bind_contextvars(customer=1))
    structlog.get_logger().info("idle")

    assert not {"event_id", "handler", "customer"} & set(lines(stream)[0])


def test_in_a_batch_only_the_handler_is_named(stream: io.StringIO) -> None:
    """A call on a hundred events is about none of them."""
    configure_logging("json", stream=stream)

    while_handling(None, lambda: structlog.get_logger().info("inserted"))

    assert lines(stream)[0]["handler"] == "Ship"
    assert "event_id" not in lines(stream)[0]


def test_what_the_user_binds_wins(stream: io.StringIO) -> None:
    """`event_id=` said on purpose, about another event, must not be overwritten."""
    configure_logging("json", stream=stream)

    while_handling(event(), lambda: structlog.get_logger().info("caused", event_id="8"))

    assert lines(stream)[0]["event_id"] == "8"


def test_the_level_holds_for_both_and_sdks_are_kept_to_warnings(stream: io.StringIO) -> None:
    """Below a warning the SDKs of the clouds log requests: tokens and payloads (P10)."""
    configure_logging("json", Level.DEBUG, stream)

    structlog.get_logger().debug("one")
    logging.getLogger("shop").debug("two")
    logging.getLogger("botocore.endpoint").debug("the request, with its body")

    assert [line["event"] for line in lines(stream)] == ["one", "two"]


def test_a_traceback_shows_no_local_variables(stream: io.StringIO) -> None:
    """The variables of a handler are payloads (P10); structlog's own console would print them."""
    formats: tuple[LogFormat, ...] = ("json", "console")
    for format in formats:
        configure_logging(format, stream=stream)
        try:
            refuse("card " + "4111")
        except RuntimeError:
            structlog.get_logger().exception("failed")
            logging.getLogger("shop").exception("failed")

    assert stream.getvalue().count("RuntimeError: refused 9 characters") == 4
    assert "card 4111" not in stream.getvalue()


def test_the_text_of_an_exception_cannot_forge_a_line(stream: io.StringIO) -> None:
    """A message with a line break must stay, visibly, part of its traceback."""
    configure_logging("console", stream=stream)

    try:
        fail("x\n2026-01-01T00:00:00Z [info     ] all_is_well\x1b[2K")
    except ValueError:
        structlog.get_logger().exception("failed")

    [*_, forged] = [line for line in stream.getvalue().splitlines() if "all_is_well" in line]
    assert forged.startswith("    2026")
    assert "\x1b" not in forged


def test_values_json_does_not_know_are_written_all_the_same(stream: io.StringIO) -> None:
    """A log call must never raise for what it was given."""
    configure_logging("json", stream=stream)

    structlog.get_logger().info("odd", thing=object, surrogate="\udc80", nan=float("nan"), raw=b"\xff")

    assert lines(stream)[0]["event"] == "odd"


def test_warnings_come_out_as_lines(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain text between JSON lines breaks whoever reads them."""
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("json", stream=stream)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    assert lines(stream)[0]["logger"] == "py.warnings"
