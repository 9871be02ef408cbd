"""Which events of a failed batch to call next. Pure: indexes in, groups of indexes out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

__all__ = ["Bisection", "FailureRate"]


@dataclass(slots=True, eq=False)
class _Group:
    members: list[int]
    right_half: _Group | None = None
    """The other half, where this is the left half of a group that raised."""
    known_bad: bool = False
    """It raised as part of a larger group whose other half passed: split it without a call."""
    touched: bool = False
    """An event was taken out of it, perhaps the bad one."""


class Bisection:
    """Plans the calls for one batch of n: halves, left before right, at most `n + ceil(n / 2)` calls.

    Ask `next`, call, then say `passed` or `failed`; repeat until `next` gives None. A right half is known bad
    when its left half passed whole; it is then split without a call, unless an event was taken out of it
    since. At most `ceil(n / 2)` calls go to groups of two or more, then one by one. A single event is always
    called itself before it counts as failed: nothing fails by inference.
    """

    def __init__(self, size: int, *, mode: Literal["bisect", "one_by_one", "whole"], singly: bool = False) -> None:
        """Plan for `size` events; `singly` starts one by one (many failed lately), but never splits a `whole` batch."""
        self.calls = 0
        self._mode = mode
        self._any_success = False
        self._group_calls_left = (size + 1) // 2
        # 2 * ceil(log2 n) + 2: one bad first event of n already costs ceil(log2 n) + 1 calls before a success.
        self._systemic_after = 2 * max(size - 1, 0).bit_length() + 2
        members = list(range(size))
        alone = singly and mode != "whole"
        self._stack = [_Group([i]) for i in reversed(members)] if alone else [_Group(members)]
        self._current = _Group([])

    @property
    def systemic(self) -> bool:
        """So many calls without one success: it looks like an outage, not like bad events."""
        return not self._any_success and self.calls >= self._systemic_after

    @property
    def untested(self) -> list[int]:
        """Events that are still to be called, in order."""
        return [i for group in reversed(self._stack) for i in group.members]

    def next(self) -> list[int] | None:
        """The next group to call, or None when all is decided."""
        while self._stack:
            group = self._stack.pop()
            if len(group.members) > 1 and self._group_calls_left <= 0:
                self._push_singly(group.members)
            elif len(group.members) > 1 and group.known_bad:
                self._push_halves(group.members)
            elif group.members:
                self._current = group
                self.calls += 1
                self._group_calls_left -= len(group.members) > 1
                return group.members
        return None

    def narrow(self, called: Collection[int]) -> None:
        """Of the group just given, only these are called: the others have gone since."""
        if len(called) < len(self._current.members):
            self._current.members = [i for i in self._current.members if i in called]
            self._current.touched = True

    def passed(self) -> None:
        """The call returned, or named what failed: all its events are decided."""
        self._any_success = True
        right = self._current.right_half
        if right is not None and not right.touched and not self._current.touched:
            right.known_bad = True

    def failed(self, unmarked: Collection[int], *, marked: bool = False) -> bool:
        """The call raised, leaving these events undecided. True when that was their direct failure.

        `marked` says that it decided some; others that were called with these may have lost their leases.
        """
        called = self._current.members
        members = [i for i in called if i in unmarked]
        self._any_success |= marked
        if self._mode == "whole" or len(members) == len(called) == 1:
            return True
        if self._mode == "one_by_one":
            self._push_singly(members)
        else:
            self._push_halves(members)
        return False

    def remove(self, taken: Collection[int]) -> None:
        """Take events out of what is to come: their lease was lost, or their key is stopped."""
        for group in self._stack:
            kept = [i for i in group.members if i not in taken]
            if len(kept) < len(group.members):
                group.members, group.known_bad, group.touched = kept, False, True

    def _push_singly(self, members: list[int]) -> None:
        self._stack += [_Group([i]) for i in reversed(members)]

    def _push_halves(self, members: list[int]) -> None:
        if len(members) < 2:
            self._push_singly(members)
            return
        middle = (len(members) + 1) // 2
        right = _Group(members[middle:])
        self._stack += [right, _Group(members[:middle], right_half=right)]


class FailureRate:
    """The share of recent events that failed, over about the last `window` events."""

    def __init__(self, window: int = 200) -> None:
        self._window = window
        self._events = 0
        self._failed = 0

    def add(self, events: int, failed: int) -> None:
        """Count `events` more, `failed` of which failed; what is older than the window fades by halves."""
        self._events += events
        self._failed += failed
        while self._events > self._window:
            self._events //= 2
            self._failed //= 2

    @property
    def high(self) -> bool:
        """More than 20 % failed: halving a batch would cost more calls than one by one."""
        return self._failed * 5 > self._events
