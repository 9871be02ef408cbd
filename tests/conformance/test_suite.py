"""Running checks: what a report says, and what an author sees who has made a mistake."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import anyio
import pytest

from eventkit.errors import ConfigurationError
from eventkit.spi import Traits
from eventkit.testing import MemoryAdapter
from eventkit.testing.conformance import (
    Check,
    NonConformance,
    Report,
    Result,
    SinkConformance,
    SourceConformance,
    Status,
    Subject,
)
from tests.conformance.places import memory_places
from tests.unit.test_memory_broker_loops import run

CLAUSES = [str(number) for number in range(1, 14)]


def suite(traits: Traits | None = None, **terms: Any) -> SourceConformance:
    """The checks of sources on the in-memory broker."""
    adapter = MemoryAdapter()
    return SourceConformance(adapter, memory_places(adapter, traits=traits or Traits()), **terms)


def result_of(check: Callable[[Subject], Awaitable[None]]) -> Result:
    """Run one check, on virtual time."""
    results: list[Result] = []

    async def main() -> None:
        results.append(await suite().run(Check("4", check)))

    run("trio", main)
    return results[0]


def test_each_clause_has_its_checks_in_order() -> None:
    """The contract has thirteen clauses; what is declared elsewhere stands behind them."""
    clauses = list(dict.fromkeys(check.clause for check in SourceConformance.checks))

    assert clauses[:13] == CLAUSES
    assert len(SourceConformance.checks) + len(SinkConformance.checks) >= 40


def test_each_check_has_a_name_of_its_own_and_says_what_it_asks_for() -> None:
    """Reports, and adapters that list what they know to be different, name them."""
    checks = [*SourceConformance.checks, *SinkConformance.checks]

    assert len({check.name for check in checks}) == len(checks)
    assert [check.name for check in checks if not check.summary.endswith(".")] == []


def test_a_failure_names_clause_check_place_and_reason() -> None:
    """Whoever reads it need not open the check."""

    async def some_check(subject: Subject) -> None:
        subject.fail("two deliveries came")

    result = result_of(some_check)

    assert result.reason == "clause 4, some_check, at memory://events?broker=broker-0: two deliveries came"
    with pytest.raises(NonConformance, match="two deliveries came"):
        result.require()


def test_an_exception_of_the_adapter_is_a_failure_with_its_cause() -> None:
    """Also from within the task group of an adapter."""

    async def some_check(_: Subject) -> None:
        async with anyio.create_task_group():
            raise KeyError("link")

    result = result_of(some_check)

    assert "KeyError was raised, which this check does not allow for: 'link'" in result.reason
    assert result.error is not None
    assert isinstance(result.error.__cause__, KeyError)


def test_what_a_check_says_comes_before_what_went_wrong_beside_it() -> None:
    """A task group brings both; the first thing to read is the clause."""

    async def some_check(subject: Subject) -> None:
        async def other() -> NoReturn:
            try:
                await anyio.sleep_forever()
            finally:
                raise OSError("connection reset")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await anyio.sleep(0.1)
            subject.fail("nothing came")

    assert result_of(some_check).reason.endswith("nothing came")


def test_a_check_that_hangs_fails() -> None:
    """An adapter that never answers must not stop the report of the others."""

    async def some_check(_: Subject) -> None:
        await anyio.sleep_forever()

    result = result_of(some_check)

    assert result.status is Status.FAILED
    assert "not finished after 56 s: a call hangs" in result.reason
    assert result.seconds == pytest.approx(56.0)


def test_a_timeout_of_the_adapter_is_not_taken_for_one_of_ours() -> None:
    """It is an error of another class that has left an adapter: clause 7."""

    async def some_check(_: Subject) -> None:
        raise TimeoutError("read timed out")

    assert (
        "TimeoutError was raised, which this check does not allow for: read timed out" in result_of(some_check).reason
    )


def test_a_check_for_which_the_machine_was_too_slow_is_repeated() -> None:
    """At a new place; what says nothing of the adapter is no failure of the adapter, unless it never works."""
    places: list[str] = []

    async def some_check(subject: Subject) -> None:
        places.append(str(subject.place.source))
        if len(places) < 3:
            subject.before(anyio.current_time() - 1.0)

    async def hopeless_check(subject: Subject) -> None:
        subject.before(anyio.current_time() - 1.0)

    assert result_of(some_check).status is Status.PASSED
    assert len({*places}) == 3
    assert "give the check a longer `lease`" in result_of(hopeless_check).reason


def test_what_does_not_apply_says_why() -> None:
    """A check that is ruled out is neither passed nor forgotten."""

    async def some_check(subject: Subject) -> None:
        subject.skip_if(ruled_out=True, why="trait retention is None")

    result = result_of(some_check)
    result.require()

    assert (result.status, result.reason) == (Status.NOT_APPLICABLE, "trait retention is None")


def test_a_report_is_a_table_and_raises_every_failure_at_once() -> None:
    """One run shows all there is to do."""
    reports = []

    async def main() -> None:
        reports.append(await suite(Traits(key_release="hold"), ordered=True).run_all())

    run("asyncio", main)
    [report] = reports
    report.require()
    lines = str(report).splitlines()

    assert len(lines) == len(SourceConformance.checks)
    assert "passed" in lines[0]
    assert lines[0].endswith("ack_answers_each_receipt_in_its_place")


def test_a_report_with_failures_lists_them() -> None:
    """And each is found by its name."""
    check = SourceConformance.checks[0]
    error = NonConformance(check, "sqs://orders", "two answers for three receipts")
    failed = Result(check=check, status=Status.FAILED, reason=str(error), error=error)
    report = Report([failed, Result(check=SourceConformance.checks[1], status=Status.PASSED)])

    assert report.failed == [failed] == [report[check.name]]
    assert "failed" in str(report)
    with pytest.raises(AssertionError, match=r"1 of 2 checks failed:\nclause 1, ack_answers_.*two answers for three"):
        report.require()


@pytest.mark.parametrize("terms", [{"lease": -1.0}, {"patience": 0.0}, {"lease": 0.1}, {"slack": float("nan")}])
def test_terms_that_cannot_be_are_said_so_at_once(terms: dict[str, Any]) -> None:
    """Not by a hundred checks that hang."""
    with pytest.raises(ConfigurationError, match="times are seconds"):
        suite(**terms)


def test_conformance_needs_no_test_runner() -> None:
    """An author may run it from a script."""
    line = "import sys, eventkit.testing.conformance; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", line], check=True)
