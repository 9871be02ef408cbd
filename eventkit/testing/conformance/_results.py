"""What comes of checks."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventkit.testing.conformance._subject import Subject


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `clause` is the number of a clause of `Source`, or the name of what declares the rule.

    `alone` says that it must not run beside others, because it looks at the whole loop.
    """

    clause: str
    run: Callable[[Subject], Awaitable[None]]
    alone: bool = False

    @property
    def name(self) -> str:
        """The name of its function."""
        return self.run.__name__

    @property
    def summary(self) -> str:
        """What it asks for, in one line."""
        return (self.run.__doc__ or self.name).partition("\n")[0]

    def __str__(self) -> str:
        return self.name


def clause(clause: str, *checks: Callable[[Subject], Awaitable[None]], alone: bool = False) -> tuple[Check, ...]:
    """The checks of one clause."""
    return tuple(Check(clause, check, alone) for check in checks)


class NonConformance(AssertionError):
    """An adapter does not keep a clause. The text says what failed, on what, and what was expected."""

    def __init__(self, check: Check, at: str, told: str) -> None:
        super().__init__(f"clause {check.clause}, {check.name}, at {at}: {told}")
        self.clause = check.clause
        self.check = check.name


class TooSlow(NonConformance):
    """The machine was too slow for the check to say anything; it is repeated."""


class NotApplicable(Exception):
    """A trait, an option or what the place lacks rules the check out; the text names it."""


class Status(enum.Enum):
    """What came of one check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one check. `reason` says why, but where it passed; `seconds` are on the loop's clock."""

    check: Check
    status: Status
    reason: str = ""
    seconds: float = 0.0
    error: NonConformance | None = None

    def require(self) -> None:
        """Raise NonConformance if the check failed."""
        if self.error is not None:
            raise self.error


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all checks, in the order of the clauses. `str` gives a table."""

    results: Sequence[Result]

    @property
    def failed(self) -> list[Result]:
        """The results of the checks that failed."""
        return [result for result in self.results if result.status is Status.FAILED]

    def __getitem__(self, name: str) -> Result:
        return next(result for result in self.results if result.check.name == name)

    def require(self) -> None:
        """Raise AssertionError, with every failure in its text, if any check failed."""
        if self.failed:
            raise AssertionError(
                f"{len(self.failed)} of {len(self.results)} checks failed:\n" + "\n".join(r.reason for r in self.failed)
            )

    def __str__(self) -> str:
        lines = [
            f"{r.check.clause:>18}  {r.status.value:<14}  {r.seconds:7.2f} s  {r.check.name}"
            + (f": {r.reason}" if r.reason else "")
            for r in self.results
        ]
        return "\n".join(lines)
