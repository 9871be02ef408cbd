"""Turn the bytes of an event's data into what a handler asks for: made once per handler, called for each event."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, NamedTuple, get_args, get_type_hints

import msgspec
import msgspec.inspect

from eventkit._codec._bounds import Bounds, utf8
from eventkit._codec._envelope import Envelope
from eventkit._codec._explain import explain, type_name
from eventkit.errors import ConfigurationError, DecodeError

__all__ = ["Reader", "octets", "refuse_duplicate_keys", "text_reader", "typed_reader"]

_WHITE = b" \t\n\r"
_BOM = b"\xef\xbb\xbf"
_BUILT = (dict, list, str, int, float, bool, type(None))

_PYDANTIC = ("__pydantic_core_schema__", "__pydantic_validator__", "__get_pydantic_core_schema__")

_string = msgspec.json.Decoder(str).decode


class Reader(NamedTuple):
    """Decodes JSON text as one type; `explain` puts in words what `decode` raised, without quoting the text."""

    decode: Callable[[bytes], Any]
    explain: Callable[[Exception, bytes], str]


def octets(envelope: Envelope) -> bytes:
    """The data as it is: nothing is parsed."""
    return envelope.data


def text_reader(bounds: Bounds) -> Callable[[Envelope], str]:
    """Data as text: what a JSON string says, otherwise the data itself, which must be UTF-8."""

    def read(envelope: Envelope) -> str:
        data = envelope.data
        if not envelope.is_json or not data.lstrip(_WHITE).startswith((b'"', _BOM)):
            return utf8(data)
        bounds.check(data)
        try:
            return _string(data)
        except msgspec.DecodeError as exc:
            raise DecodeError(explain(exc, data)) from None

    return read


def typed_reader(data_type: Any) -> Reader:
    """A reader of `data_type`. Raises ConfigurationError if neither msgspec nor pydantic can decode it."""
    if _needs_pydantic(data_type, {}):
        # Imported only here: nobody without a pydantic model pays for it, or needs it installed.
        from eventkit._codec._pydantic import pydantic_reader

        return Reader(*pydantic_reader(data_type))
    try:
        decode = msgspec.json.Decoder(data_type).decode
        unknown = _undecodable(msgspec.inspect.type_info(data_type), set())
    except (TypeError, NameError, AttributeError) as exc:
        raise ConfigurationError(f"data type {type_name(data_type)} cannot be decoded: {exc}") from exc
    if unknown is not None:
        within = "" if unknown is data_type else f": nothing in JSON becomes {type_name(unknown)}"
        raise ConfigurationError(
            f"data type {type_name(data_type)} cannot be decoded{within}; "
            f"take a dataclass, TypedDict, msgspec Struct, pydantic model or built-in type"
        )
    return Reader(decode, explain)


def refuse_duplicate_keys(data: bytes) -> None:
    """Raise DecodeError if an object in `data` has a key twice. What is not JSON passes: decoding will say so."""
    try:
        # `len`: nobody wants the numbers.
        json.loads(data, object_pairs_hook=_distinct, parse_int=len, parse_float=len)
    except (ValueError, RecursionError):
        return


def _distinct(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise DecodeError("an object has the same key twice")


def _needs_pydantic(data_type: Any, seen: dict[int, Any]) -> bool:
    """Whether a pydantic type is in there, told by the marks pydantic leaves on it."""
    if id(data_type) in seen:
        return False
    seen[id(data_type)] = data_type  # kept alive: the id of what is gone may be given to another
    # Not by `hasattr`, on which an unfinished model raises.
    classes = getattr(data_type, "__mro__", type(data_type).__mro__)
    if any(mark in vars(cls) for cls in classes for mark in _PYDANTIC) or type(data_type).__module__[:9] == "pydantic.":
        return True
    inner = [*get_args(data_type), *getattr(data_type, "__metadata__", ()), getattr(data_type, "__supertype__", None)]
    # By its mark: `is_typeddict` of `typing` does not know those of `typing_extensions`.
    if is_dataclass(data_type) or hasattr(data_type, "__required_keys__"):
        inner += _hints(data_type)
    return any(_needs_pydantic(part, seen) for part in inner)


def _hints(data_type: Any) -> list[Any]:
    try:
        return list(get_type_hints(data_type, include_extras=True).values())
    except (TypeError, NameError, AttributeError):
        return []  # msgspec meets the same error, and says it better


def _undecodable(node: object, seen: set[int]) -> Any:
    """The first class in a msgspec type that nothing built from JSON is an instance of."""
    if id(node) in seen:
        return None
    seen.add(id(node))
    if isinstance(node, msgspec.inspect.CustomType):
        return None if any(issubclass(built, node.cls) for built in _BUILT) else node.cls
    if isinstance(node, tuple):
        parts = node
    elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field):
        parts = tuple(getattr(node, name) for name in node.__struct_fields__)
    else:
        return None
    return next((found for part in parts if (found := _undecodable(part, seen)) is not None), None)
