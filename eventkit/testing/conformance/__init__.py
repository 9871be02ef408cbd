"""Whether an adapter keeps the contract of `eventkit.spi`: one named check after the other, without pytest.

    @asynccontextmanager
    async def places() -> AsyncIterator[Place]:
        address = Address.parse(await make_an_empty_queue())
        yield Place(source=address, sink=address)

    report = await SourceConformance(adapter, places, lease=1.0).run_all()
    report.require()

Each check runs at a place of its own, on the loop's clock, with nothing but the adapter. The traits a source
declares choose the variant of a check; what they rule out is reported as not applicable, by name, and what
differs from them fails. `run` runs one check, for a test runner that wants a test for each.
"""

from eventkit.testing.conformance._results import Check, NonConformance, NotApplicable, Report, Result, Status
from eventkit.testing.conformance._subject import Subject
from eventkit.testing.conformance._suite import SinkConformance, SourceConformance
from eventkit.testing.conformance._terms import Place, Terms

__all__ = [
    "Check",
    "NonConformance",
    "NotApplicable",
    "Place",
    "Report",
    "Result",
    "SinkConformance",
    "SourceConformance",
    "Status",
    "Subject",
    "Terms",
]
