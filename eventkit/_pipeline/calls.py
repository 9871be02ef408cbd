"""Calls to the source on the wire: each has its time, and none outlasts the drain."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

__all__ = ["CALL_LIMIT", "Calls"]

CALL_LIMIT = 5.0
"""Seconds after which the answer to a settlement or an extension is taken for lost."""


class Calls:
    """Limits calls in time; they are shielded from any other cancellation.

    `last` is when the last answer is waited for, on the loop's clock.
    """

    def __init__(self) -> None:
        self.last = math.inf
        self._scopes: dict[anyio.CancelScope, None] = {}

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Cut what is inside when its time is over."""
        deadline = min(anyio.current_time() + CALL_LIMIT, self.last)
        with anyio.CancelScope(deadline=deadline, shield=True) as scope:
            self._scopes[scope] = None
            try:
                yield
            finally:
                del self._scopes[scope]

    def end_by(self, last: float) -> None:
        """Wait for no answer after `last`, on the loop's clock."""
        self.last = min(self.last, last)
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, self.last)
