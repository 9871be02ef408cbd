"""What is shown when a command fails: one clear message, or the traceback of the user's own code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import PurePath

import anyio
import typer

import eventkit
from eventkit.errors import ConfigurationError, EventKitError

__all__ = ["FAILED", "MISCONFIGURED", "UserCodeError", "report", "say", "summary", "users_traceback"]

FAILED, MISCONFIGURED = 1, 2


def _folder(file: str | None) -> str:
    return f"{PurePath(file or '').parent}{os.sep}"


EVENTKIT = _folder(eventkit.__file__)
IMPORTLIB = ("<frozen importlib", _folder(importlib.__file__))
STANDARD_LIBRARY = _folder(os.__file__)
MACHINERY = (EVENTKIT, _folder(anyio.__file__), _folder(typer.__file__), "<frozen ")


class UserCodeError(ConfigurationError):
    """Code of the user's raised while the worker was put together; `tracebacks` are for them to read."""

    def __init__(self, *problems: str, tracebacks: tuple[str, ...] = ()) -> None:
        super().__init__(*problems)
        self.tracebacks = tracebacks


def report(error: Exception) -> int:
    """Print what went wrong to standard error. Gives the exit code."""
    code = FAILED
    for leaf in _leaves(error):
        match leaf:
            case ConfigurationError():
                code = MISCONFIGURED
                for text in getattr(leaf, "tracebacks", ()):
                    typer.echo(text, err=True)
                for problem in leaf.problems:
                    say(problem)
            case EventKitError():
                say(str(leaf))
            case _:
                typer.echo(users_traceback(leaf), err=True)
                say(summary(leaf))
    return code


def users_traceback(error: BaseException) -> str:
    """The traceback of `error` without what stands above the user's code, and without our own lines within it."""
    shown = traceback.TracebackException.from_exception(error)
    for part in _with_causes(shown):
        part.stack = traceback.StackSummary.from_list(_users_frames(part.stack))
    if isinstance(error, SyntaxError) and not any(_is_users(frame.filename) for frame in shown.stack):
        shown.stack.clear()  # the parser has no frame: what is left is ours
    return "".join(shown.format())


def summary(error: BaseException) -> str:
    """The class of `error` and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def say(text: str) -> None:
    """Print one error."""
    label = "error:"
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        label = typer.style(label, fg="red", bold=True)
    typer.echo(f"{label} {text}", err=True)


def _users_frames(stack: traceback.StackSummary) -> list[traceback.FrameSummary]:
    first = next((place for place, frame in enumerate(stack) if _is_users(frame.filename)), None)
    if first is None:  # a mistake of ours: all of it is needed
        return list(stack)
    return [frame for frame in stack[first:] if not frame.filename.startswith((EVENTKIT, *IMPORTLIB))]


def _is_users(file: str) -> bool:
    """Not what runs the user's code; a handler may well be an installed package."""
    return not file.startswith(MACHINERY) and (not file.startswith(STANDARD_LIBRARY) or "site-packages" in file)


def _with_causes(error: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    yield error
    for other in (error.__cause__, error.__context__, *(error.exceptions or ())):
        if other is not None:
            yield from _with_causes(other)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
