"""Running checks: each at a place of its own, with a limit, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import anyio
from anyio import current_time

from eventkit.testing.conformance import (
    _answers,
    _closing,
    _content,
    _counts,
    _dead_letters,
    _deliveries,
    _errors,
    _leases,
    _order,
    _publishing,
    _receiving,
    _retries,
    _stopping,
)
from eventkit.testing.conformance._results import (
    Check,
    NonConformance,
    NotApplicable,
    Report,
    Result,
    Status,
    TooSlow,
)
from eventkit.testing.conformance._subject import Subject
from eventkit.testing.conformance._terms import Terms

_SOURCE_MODULES = (
    _answers,
    _closing,
    _receiving,
    _errors,
    _deliveries,
    _stopping,
    _leases,
    _retries,
    _counts,
    _order,
    _dead_letters,
)
_REPEATS = 2


def _by_clause(checks: Sequence[Check]) -> tuple[Check, ...]:
    """In order of the numbers of clauses; clauses that are names follow, in the order in which they appear."""
    names = list(dict.fromkeys(check.clause for check in checks))
    places = {name: int(name) if name.isdecimal() else 100 + index for index, name in enumerate(names)}
    return tuple(sorted(checks, key=lambda check: places[check.clause]))


@dataclass(frozen=True)
class _Suite(Terms):
    checks: ClassVar[tuple[Check, ...]] = ()

    async def run(self, check: Check) -> Result:
        """Run one check at a place of its own. A failure is a result: `require` raises it.

        A check for which the machine was too slow is repeated, at a new place, twice.
        """
        began = current_time()
        result = await self._attempt(check)
        for _ in range(_REPEATS):
            if not isinstance(result.error, TooSlow):
                break
            result = await self._attempt(check)
        return replace(result, seconds=current_time() - began)

    async def run_all(self, *, side_by_side: int = 100) -> Report:
        """Run every check, at most `side_by_side` at a time, and those that must be alone before the others."""
        results: dict[Check, Result] = {}
        for check in self.checks:
            if check.alone:
                results[check] = await self.run(check)
        limiter = anyio.CapacityLimiter(side_by_side)

        async def run(check: Check) -> None:
            async with limiter:
                results[check] = await self.run(check)

        async with anyio.create_task_group() as tasks:
            for check in self.checks:
                if not check.alone:
                    tasks.start_soon(run, check)
        return Report([results[check] for check in self.checks])

    async def _attempt(self, check: Check) -> Result:
        at = "its place"
        try:
            async with self.places() as place:
                at = str(place.source)
                subject = Subject(check, self, place)
                with anyio.move_on_after(self.limit) as scope:
                    await check.run(subject)
                if scope.cancelled_caught:
                    subject.fail(f"not finished after {self.limit:g} s: a call hangs, or `patience` is too short")
        except Exception as raised:  # noqa: BLE001  # it runs the code of others: whatever they raise is the result
            error = _read(raised, check, at)
            if isinstance(error, NotApplicable):
                return Result(check=check, status=Status.NOT_APPLICABLE, reason=str(error))
            return Result(check=check, status=Status.FAILED, reason=str(error), error=error)
        return Result(check=check, status=Status.PASSED)


def _read(raised: Exception, check: Check, at: str) -> NonConformance | NotApplicable:
    """What `raised` says of the adapter; what a check itself raised comes first."""
    leaves = list(_leaves(raised))
    ours = [leaf for leaf in leaves if isinstance(leaf, NonConformance | NotApplicable)]
    if ours:
        return ours[0]
    cause = leaves[0]
    told = f"{type(cause).__name__} was raised, which this check does not allow for: {cause}"
    error = NonConformance(check, at, told)
    error.__cause__ = cause
    return error


def _leaves(raised: Exception) -> Iterator[Exception]:
    """The errors themselves: adapters and checks use task groups, which wrap what passes through them."""
    if isinstance(raised, ExceptionGroup):
        for inner in raised.exceptions:
            yield from _leaves(inner)
    else:
        yield raised


class SourceConformance(_Suite):
    """Whether the sources of an adapter keep the contract of `eventkit.spi.Source`, with the traits they declare.

    Each check in `checks` runs at a place of its own and needs nothing but the adapter. The arguments are those
    of `Terms`.
    """

    checks = _by_clause([check for module in _SOURCE_MODULES for check in module.CHECKS])


class SinkConformance(_Suite):
    """Whether the sinks of an adapter keep the contract of `eventkit.spi.Sink`.

    What was published is looked at through a source of the same adapter. The arguments are those of `Terms`.
    """

    checks = _by_clause([*_publishing.CHECKS, *_content.CHECKS])
