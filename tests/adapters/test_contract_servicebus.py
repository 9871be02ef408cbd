"""The contract at Service Bus. A file of its own: its SDK waits a lot, and files run side by side."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.adapters.contract import servicebus
from tests.adapters.contract.cases import CASES
from tests.adapters.contract.results import Case, Report
from tests.adapters.contract.run import run

# The first test of a variant runs all cases, side by side.
pytestmark = pytest.mark.timeout(90)

VARIANTS = (
    *servicebus.VARIANTS,
    *(pytest.param(variant, marks=pytest.mark.heavy) for variant in servicebus.HEAVY),
)


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def report(request: pytest.FixtureRequest) -> Report:
    """All cases at one entity."""
    return run(request.param)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_contract_holds(report: Report, case: Case, record_property: Callable[[str, object], None]) -> None:
    """As at every source."""
    result = report[case]
    result.require()
    if result.ruled_out:
        record_property("not applicable", result.ruled_out)
