"""Plain counts of what happened, read by the summary."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Totals since the worker started."""

    received: int = 0
    handled: int = 0
    skipped: int = 0
    retried: int = 0
    dead_lettered: int = 0
    released: int = 0
    transient: int = 0
    lease_lost: int = 0
    settle_unknown: int = 0

    def copy(self) -> Counters:
        """The totals as they are now."""
        return replace(self)

    def since(self, before: Counters) -> dict[str, int]:
        """What was added since `before`, by name."""
        return {field.name: getattr(self, field.name) - getattr(before, field.name) for field in fields(self)}
