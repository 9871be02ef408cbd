"""Cases, and what comes of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.adapters.contract.stage import Stage


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that holds at every source."""

    name: str
    run: Callable[[Stage], Awaitable[None]]

    def __str__(self) -> str:
        return self.name


def case(run: Callable[[Stage], Awaitable[None]]) -> Case:
    """A case with the name of its function."""
    return Case(run.__name__, run)


class ContractBroken(AssertionError):
    """A source and the core do not keep the contract together. The text says where, what, and what went before."""


class NotApplicable(Exception):
    """A trait rules the case out; the text names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one case: `error` where it failed, `ruled_out` where a trait rules it out.

    `blocked` says that the loop stood still meanwhile, so that a failure may be the machine's.
    """

    case: Case
    seconds: float
    error: ContractBroken | None = None
    ruled_out: str = ""
    blocked: bool = False

    def require(self) -> None:
        """Raise ContractBroken if the case failed."""
        if self.error is not None:
            raise self.error

    def __str__(self) -> str:
        status = "failed" if self.error else "not applicable" if self.ruled_out else "passed"
        return f"{status:<14} {self.seconds:6.2f} s  {self.case}" + (f": {self.ruled_out}" if self.ruled_out else "")


class Report:
    """What came of all cases at one source."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = results

    def __getitem__(self, case: Case) -> Result:
        return next(result for result in self.results if result.case == case)

    def __str__(self) -> str:
        return "\n".join(map(str, self.results))
