"""The same contract on every source: a real worker, a real handler, a real source, and what they did together."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.adapters.contract import memory
from tests.adapters.contract.cases import CASES
from tests.adapters.contract.results import Case, Report
from tests.adapters.contract.run import run
from tests.adapters.contract.variant import Variant
from tests.adapters.contract.variants import VARIANTS

# The first test of a variant runs all cases, side by side.
pytestmark = pytest.mark.timeout(90)

report_of = cache(run)


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def report(request: pytest.FixtureRequest) -> Report:
    """All cases at one source."""
    variant: Variant = request.param
    return report_of(variant)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_contract_holds(report: Report, case: Case, record_property: Callable[[str, object], None]) -> None:
    """At each source in the same words; what a trait rules out is reported with its reason."""
    result = report[case]
    result.require()
    if result.ruled_out:
        record_property("not applicable", result.ruled_out)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_case_applies_to_a_source(case: Case) -> None:
    """A case that is ruled out everywhere proves nothing."""
    assert [variant for variant in memory.VARIANTS if not report_of(variant)[case].ruled_out]


@pytest.mark.parametrize("variant", memory.VARIANTS, ids=str)
def test_what_does_not_apply_is_named_with_its_trait(variant: Variant) -> None:
    """Never skipped in silence, and never all of it."""
    ruled_out = [result.ruled_out for result in report_of(variant).results if result.ruled_out]

    assert all(reason.startswith("trait ") for reason in ruled_out)
    assert len(ruled_out) < len(CASES) / 2
