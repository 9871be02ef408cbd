"""The types of AMQP 1.0 that Python has no type for.

What is decoded keeps its type, so that it can be encoded again as it was: integers come in nine kinds, text in two.
`None`, `bool`, `float` (double), `str`, `bytes` and `UUID` are Python's own; `list` is a list, `dict` a map.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Ubyte(int):
    """An integer of 8 bits, not negative."""

    __slots__ = ()


class Ushort(int):
    """An integer of 16 bits, not negative."""

    __slots__ = ()


class Uint(int):
    """An integer of 32 bits, not negative."""

    __slots__ = ()


class Ulong(int):
    """An integer of 64 bits, not negative."""

    __slots__ = ()


class Byte(int):
    """An integer of 8 bits."""

    __slots__ = ()


class Short(int):
    """An integer of 16 bits."""

    __slots__ = ()


class Int(int):
    """An integer of 32 bits."""

    __slots__ = ()


class Long(int):
    """An integer of 64 bits."""

    __slots__ = ()


class Timestamp(int):
    """Milliseconds since 1970."""

    __slots__ = ()


class Float(float):
    """A number of 32 bits."""

    __slots__ = ()


class Decimal(bytes):
    """A decimal number of 4, 8 or 16 bytes, which nobody here looks into."""

    __slots__ = ()


class Char(str):
    """One character."""

    __slots__ = ()


class Symbol(str):
    """A text of ASCII letters, as names in the protocol are."""

    __slots__ = ()


class Described(NamedTuple):
    """A value with a descriptor that says what it stands for."""

    descriptor: Any
    value: Any


class Array(NamedTuple):
    """Values of one type; `code` is the constructor that they share on the wire."""

    code: int
    items: tuple[Any, ...]
