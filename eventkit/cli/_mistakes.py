"""What pydantic found wrong, in the words of the file: which key, what it may be, what kind of thing it is.

Values are not shown, for a string may hold a secret; numbers may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeAlias

from eventkit.cli._settings import REFUSED

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

__all__ = ["mistakes"]

Key: TypeAlias = tuple[str, ...]

OPTION_PROBLEM = re.compile(r"\w+\((?P<name>\w+)=(?P<value>.*?)\): (?P<rule>.*)", re.DOTALL)
"""How the option classes name what they refuse: `Backoff(initial=-1.0): must be …`."""

KINDS = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "an array", dict: "a table"}

ALLOWED = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "an array",
    "model_type": "a table",
    "string_too_short": "a string that is not empty",
}


def mistakes(
    errors: Iterable[ErrorDetails], table: Mapping[str, Any], settings: type[BaseModel]
) -> list[tuple[Key, str]]:
    """Each wrong key with what is wrong with it."""
    allowed: dict[Key, list[str]] = {}
    found: dict[Key, object] = {}
    lines: list[tuple[Key, str]] = []
    for error in errors:
        key = _key(error["loc"], table)
        match error["type"]:
            case "missing":
                lines.append((tuple(map(str, error["loc"])), f"is missing; {_example(error['loc'])}"))
            case "extra_forbidden":
                lines.append((key, _unknown(key, settings)))
            case kind if kind == REFUSED:
                lines.extend(_refused(key, problem) for problem in error["ctx"]["problems"])
            case _:
                # The alternatives of a union fail one by one.
                allowed.setdefault(key, []).append(_allowed(error))
                found[key] = error["input"]
    wrong = [(key, f"must be {' or '.join(rules)}, found {_found(found[key])}") for key, rules in allowed.items()]
    return [*lines, *wrong]


def _key(location: Sequence[int | str], table: Any) -> Key:
    """As much of the location as the file has; the rest names alternatives of a type."""
    key: list[str] = []
    for part in location:
        inside = part in table if isinstance(table, dict) else isinstance(table, list) and isinstance(part, int)
        if not inside:
            break
        table = table[part]
        key.append(str(part))
    return tuple(key)


def _example(location: Sequence[int | str]) -> str:
    if tuple(location) == ("source",):
        return 'write for example source = "sqlite:///events.db?queue=events"'
    return "it must be given"


def _unknown(key: Key, settings: type[BaseModel]) -> str:
    known = _known(settings)
    *section, name = key
    beside = [other for *path, other in known if path == section]
    near = [*section, *get_close_matches(name, beside, n=1)]
    if len(near) > len(section):
        return f"unknown key; did you mean {'.'.join(near)}?"
    elsewhere = [".".join(path) for path in known if path[-1] == name]
    if elsewhere:
        return f"unknown key here; did you mean {elsewhere[0]}?"
    return f"unknown key; known: {', '.join(beside)}"


def _known(settings: type[BaseModel]) -> list[Key]:
    keys: list[Key] = [("profiles",)]
    for name, field in settings.model_fields.items():
        keys.append((name,))
        kind: Any = field.annotation
        inner = [one.name for one in fields(kind)] if is_dataclass(kind) else getattr(kind, "model_fields", ())
        keys.extend((name, part) for part in inner)
    return keys


def _refused(key: Key, problem: str) -> tuple[Key, str]:
    parts = OPTION_PROBLEM.fullmatch(problem)
    if parts is None:
        return key, problem
    return (*key, parts["name"]), f"{parts['rule']}, found {parts['value']}"


def _allowed(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "literal_error":
            return str(context["expected"]).replace("'", '"')
        case "greater_than":
            return f"more than {context['gt']:g}"
        case kind:
            return ALLOWED.get(kind) or str(error["msg"])


def _found(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    return KINDS.get(type(value)) or f"a {type(value).__name__}"
