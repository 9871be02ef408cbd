"""Records as log lines, by structlog: JSON for machines, columns for a terminal.

Field names are those of the records; `docs/logs.md` lists them. What a stranger wrote (ids, types, error
messages) can neither end a line nor drive a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, MutableMapping
from functools import cache
from typing import Any, Literal, TextIO, TypeAlias

import msgspec
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.typing import FilteringBoundLogger, Processor

from eventkit._telemetry.context import current_event, current_handler
from eventkit._telemetry.escape import escaped
from eventkit._telemetry.records import Level, Record

__all__ = ["LogFormat", "LogObserver", "configure_logging"]

LogFormat: TypeAlias = Literal["auto", "json", "console"]
"""`auto` is `console` on a terminal, `json` elsewhere."""

Fields: TypeAlias = MutableMapping[str, Any]

ID_CHARACTERS = 128
TEXT_CHARACTERS = 1000

IDS = frozenset({"event_id", "event_type", "message_id"})
"""Fields whose text the producer of an event chooses."""

EMPTY: tuple[object, ...] = ("", None, ())
"""Left out of a line. Zero and false are said."""

MULTILINE = frozenset({"exception", "stack"})

TALKATIVE = ("aiobotocore", "azure", "botocore", "google", "grpc")
"""SDKs that log requests, headers and bodies below the level of a warning."""


class LogObserver:
    """Writes a line for every record of at least `level` to `stream`, standard error by default.

    Has a logger of its own: the configuration of structlog and of `logging` is neither used nor changed. A line that
    cannot be written (disk full, reader gone) is dropped; the next one that can be says how many (`lines_lost`).
    """

    def __init__(self, format: LogFormat = "auto", level: Level = Level.INFO, stream: TextIO | None = None) -> None:
        self.level = level
        stream = stream or sys.stderr
        lines = _Lines(stream)
        logger: FilteringBoundLogger = structlog.wrap_logger(
            lines,
            processors=[
                structlog.processors.add_log_level,
                _stamp(),
                lines.mention_lost,
                _renderer(format, stream),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            context_class=dict,
        ).bind()
        self._write: dict[Level, Callable[..., object]] = {
            Level.DEBUG: logger.debug,
            Level.INFO: logger.info,
            Level.WARNING: logger.warning,
            Level.ERROR: logger.error,
        }

    def observe(self, record: Record) -> None:
        """Write one line. May be called from any thread."""
        cls = type(record)
        self._write[record.level](_snake_case(cls.__name__), **_fields(record))


def configure_logging(format: LogFormat = "auto", level: Level = Level.INFO, stream: TextIO | None = None) -> None:
    """Send everything this process logs, by structlog or by `logging`, through the format of `LogObserver`.

    For a process that is ours, as under `eventkit run`. Lines written while a handler works on an event name the event
    (`event_id`, `event_type`, `attempt`) and the handler, without anything bound by hand. The SDKs of the clouds
    are kept to warnings.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_the_event,
        structlog.processors.add_log_level,
        _stamp(),
    ]
    render: list[Processor] = [_traceback_as_text, _renderer(format, stream)]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(level, Level.WARNING))


class _Lines:
    """The end of a logger: writes whole lines, and counts those it could not write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = 0

    def mention_lost(self, _logger: object, _method: str, fields: Fields) -> Fields:
        """Say in the next line how many are missing before it."""
        if self._lost:
            fields["lines_lost"] = self._lost
        return fields

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # Whoever reads the log is gone, or the disk is full: no reason to stop handling events.
            self._lost += 1
        else:
            self._lost = 0

    debug = info = warning = error = critical = msg


def _stamp() -> Processor:
    return structlog.processors.TimeStamper(fmt="iso", utc=True)


def _renderer(format: LogFormat, stream: TextIO) -> Processor:
    terminal = stream.isatty()
    if format == "json" or (format == "auto" and not terminal):
        return _as_json
    console = ConsoleRenderer(
        colors=terminal and "NO_COLOR" not in os.environ,
        sort_keys=False,
        pad_event_to=20,
        # The default shows local variables: payloads.
        exception_formatter=plain_traceback,
    )

    def as_columns(logger: object, method: str, fields: Fields) -> str:
        return str(console(logger, method, {escaped(name): _shown(name, value) for name, value in fields.items()}))

    return as_columns


def _as_json(_logger: object, _method: str, fields: Fields) -> str:
    line = {"timestamp": fields.pop("timestamp"), "level": fields.pop("level"), "event": fields.pop("event"), **fields}
    try:
        text = msgspec.json.encode(line, enc_hook=repr).decode()
    except (UnicodeError, TypeError, ValueError):  # half a surrogate pair, or a key that cannot be one in JSON
        return json.dumps(line, default=repr, skipkeys=True)
    # What divides lines or drives a terminal besides the ASCII controls: U+2028, U+009B, bidirectional marks.
    return text if text.isprintable() else json.dumps(json.loads(text))


def _shown(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    if name in MULTILINE:
        # Indented, so that no line of an exception's text passes for a log line.
        return "\n".join("    " + escaped(line) for line in value.splitlines())
    return escaped(value)


def _traceback_as_text(logger: object, method: str, fields: Fields) -> Fields:
    return structlog.processors.format_exc_info(logger, method, fields)


def _name_the_event(_logger: object, _method: str, fields: Fields) -> Fields:
    event, handler = current_event.get(), current_handler.get()
    if event is not None:
        fields.setdefault("event_id", _cut(event.id, ID_CHARACTERS))
        fields.setdefault("event_type", _cut(event.type, ID_CHARACTERS))
        fields.setdefault("attempt", event.attempt)
    if handler:
        fields.setdefault("handler", handler)
    return fields


def _fields(record: Record) -> dict[str, object]:
    return {
        name: _shortened(name, value)
        for name in record.__struct_fields__
        if (value := getattr(record, name)) not in EMPTY
    }


def _shortened(name: str, value: object) -> object:
    if isinstance(value, str):
        return _cut(value, ID_CHARACTERS if name in IDS else TEXT_CHARACTERS)
    return round(value, 3) if isinstance(value, float) else value


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


@cache
def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
