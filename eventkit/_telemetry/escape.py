"""Text that a stranger wrote, made safe to show."""

from __future__ import annotations

__all__ = ["escaped"]


def escaped(text: str) -> str:
    """`text` with escapes for what ends a line or commands a terminal, such as U+001B, U+009B, U+2028 and U+202E."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
