"""What is made of the trace of a run."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, TypeAlias

__all__ = ["Trace", "digest_of", "tail_of"]

Trace: TypeAlias = Sequence[tuple[Any, ...]]
"""Lines of (time, number of the worker or 0, what happened)."""


def digest_of(trace: Trace) -> str:
    """A hash of all that happened, equal for equal runs."""
    digest = blake2b(digest_size=16)
    for line in trace:
        digest.update(repr(line).encode())
    return digest.hexdigest()


def tail_of(trace: Trace, lines: int = 50) -> str:
    """The last lines, as text."""
    return "\n".join(f"  {at:10.4f}  w{who:<4} {' '.join(map(str, what))}" for at, who, *what in trace[-lines:])
