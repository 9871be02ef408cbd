"""Data types of pydantic. The one module that imports it, itself imported for a type that needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgspec
import pydantic
from pydantic_core import core_schema

from eventkit._codec._explain import explain, refused_by_type, type_name
from eventkit.errors import ConfigurationError

__all__ = ["pydantic_reader"]

_CODES = frozenset(get_args(core_schema.ErrorType)) - {"value_error", "assertion_error"}
_FIELDS = ("model-field", "typed-dict-field", "dataclass-field")

_any_json = msgspec.json.Decoder().decode


def pydantic_reader(data_type: Any) -> tuple[Callable[[bytes], Any], Callable[[Exception, bytes], str]]:
    """Decode and explain `data_type`. Raises ConfigurationError if pydantic cannot decode it."""
    try:
        adapter = pydantic.TypeAdapter(data_type)
        if not getattr(adapter, "pydantic_complete", True):  # of pydantic 2.10
            adapter.rebuild(raise_errors=True)
        names = _field_names(adapter.core_schema)
    except (pydantic.errors.PydanticUserError, TypeError, NameError, AttributeError) as exc:
        reason, _, _ = str(exc).partition("\n")
        raise ConfigurationError(f"data type {type_name(data_type)} cannot be decoded: {reason}") from exc

    def decode(data: bytes) -> Any:
        _any_json(data)  # pydantic lets NaN, Infinity and 1e400 pass
        return adapter.validate_json(data)

    def explain_pydantic(error: Exception, data: bytes) -> str:
        if isinstance(error, pydantic.ValidationError):
            return _first(error, names)
        try:
            _any_json(data)
        except (msgspec.DecodeError, RecursionError) as exc:
            return explain(exc, data)
        return refused_by_type(error)

    return decode, explain_pydantic


def _first(error: pydantic.ValidationError, names: set[str]) -> str:
    """The first of the errors; its message could quote a value, its code and the fields of the type cannot."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    more = error.error_count() - 1
    place = "$" + "".join(_step(part, names) for part in first["loc"])
    return f"{place}: {_what(first['type'])}" + (f" (and {more} more)" if more else "")


def _step(part: int | str, names: set[str]) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if part in names else "[...]"


def _what(code: str) -> str:
    if code not in _CODES:
        return "refused by the type's own check"
    if code == "missing":
        return "required, and missing"
    expected, _, kind = code.rpartition("_")
    if kind in ("type", "parsing") and expected:
        return f"expected {expected.replace('_', ' ')}"
    return f"not valid: {code.replace('_', ' ')}"


def _field_names(schema: object) -> set[str]:
    """The names and aliases of every field in a core schema: what may be shown of a place."""
    names: set[str] = set()
    parts: list[Any] = [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, Mapping):
            if part.get("type") in _FIELDS:
                names.update(_texts([part.get("name"), part.get("validation_alias")]))
            fields = part.get("fields")
            names.update(fields if isinstance(fields, Mapping) else ())
            parts.extend(part.values())
        elif isinstance(part, list | tuple):
            parts.extend(part)
    return names


def _texts(value: object) -> list[str]:
    """The texts in an alias: one, a path of them, or a choice of paths."""
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []
