"""The intake gate: when it closes, when a probe may run, and what opens it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventkit._policies.gate import Gate, GateOptions, ProbeResult

OPTIONS = GateOptions()
REASONS = ["transient", "bisector", "store"]


class Middle(Random):
    """Draws the middle of every range: waits without jitter."""

    def random(self) -> float:
        return 0.5


def closed(reason: str, now: float = 0.0) -> Gate:
    gate = Gate(OPTIONS)
    gate.pause(reason, now, Middle())
    return gate


def test_a_new_gate_is_open_and_wants_no_probe() -> None:
    """A worker starts by receiving."""
    gate = Gate(OPTIONS)

    assert not gate.closed
    assert not gate.probe_due(1e9)


@given(st.lists(st.booleans(), max_size=60))
def test_the_gate_asks_to_close_at_ten_transient_outcomes_in_a_row(outcomes: list[bool]) -> None:
    """One slow answer is no outage, ten failures without anything else are."""
    gate, in_a_row = Gate(OPTIONS), 0
    for transient in outcomes:
        in_a_row = in_a_row + 1 if transient else 0
        assert gate.called(transient=transient) is (in_a_row >= 10)


def test_a_closed_gate_does_not_ask_to_close() -> None:
    """Handlers that were running when it closed go on failing; that is no news."""
    gate = closed("bisector")

    assert [gate.called(transient=True) for _ in range(30)] == [False] * 30


def test_after_it_opened_ten_more_transient_outcomes_are_needed() -> None:
    """The failures of the last outage are not evidence for the next."""
    gate = Gate(OPTIONS)
    for _ in range(15):
        gate.called(transient=True)
    gate.pause("transient", 0.0, Middle())
    gate.probed(ProbeResult.HEALTHY, 5.0, Middle())

    assert [gate.called(transient=True) for _ in range(10)] == [False] * 9 + [True]


def test_pausing_closes_with_its_reason_and_time() -> None:
    """Both are told in the log line and decide what a failed probe means."""
    gate = closed("store", now=12.0)

    assert (gate.closed, gate.reason, gate.closed_at) == (True, "store", 12.0)


def test_pausing_a_closed_gate_changes_nothing() -> None:
    """A second cause during an outage must neither delay the probe nor change what opens the gate."""
    gate = closed("transient", now=0.0)
    before = (gate.reason, gate.closed_at, gate.probe_at, gate.wait)
    gate.pause("bisector", 4.0, Middle())

    assert (gate.reason, gate.closed_at, gate.probe_at, gate.wait) == before


def test_the_first_probe_is_due_after_five_seconds() -> None:
    """Not before: the service that is down needs a rest; not much later: the queue grows."""
    gate = closed("transient", now=100.0)

    assert not gate.probe_due(104.999)
    assert gate.probe_due(105.0)


def test_only_one_probe_runs_at_a_time() -> None:
    """Ten probes at once would be ten attempts burnt on a service that is down."""
    gate = closed("transient")
    gate.probing = True

    assert not gate.probe_due(1e9)


def test_the_wait_doubles_to_a_minute_while_probes_fail() -> None:
    """The schedule the documentation gives: 5, 10, 20, 40, 60, 60 seconds."""
    gate, now, waits = closed("transient"), 0.0, []
    for _ in range(6):
        waits.append(gate.probe_at - now)
        now = gate.probe_at
        gate.probed(ProbeResult.TRANSIENT, now, Middle())

    assert waits == pytest.approx([5, 10, 20, 40, 60, 60])


@given(st.integers())
def test_every_wait_is_jittered_by_a_fifth(seed: int) -> None:
    """Workers that lost one database together must not probe it together."""
    gate, rng, now = Gate(OPTIONS), Random(seed), 50.0
    gate.pause("transient", now, rng)
    for wait in (5, 10, 20, 40, 60, 60):
        assert 0.8 * wait <= gate.probe_at - now <= 1.2 * wait
        now = gate.probe_at
        gate.probed(ProbeResult.TRANSIENT, now, rng)


def test_jitter_reaches_both_ends() -> None:
    """A jitter of nothing would pass the test above."""
    waits = []
    for seed in range(200):
        gate = Gate(OPTIONS)
        gate.pause("transient", 0.0, Random(seed))
        waits.append(gate.probe_at)

    assert min(waits) < 4.1
    assert max(waits) > 5.9


@pytest.mark.parametrize("reason", REASONS)
def test_a_healthy_probe_opens_the_gate(reason: str) -> None:
    """Handled, skipped, rejected or retried at its wish: the handler works, whatever closed the gate."""
    gate = closed(reason)

    assert gate.probed(ProbeResult.HEALTHY, 5.0, Middle())
    assert not gate.closed
    assert not gate.probe_due(1e9)


@pytest.mark.parametrize("reason", REASONS)
def test_a_transient_probe_leaves_the_gate_closed(reason: str) -> None:
    """The outage goes on."""
    gate = closed(reason)

    assert not gate.probed(ProbeResult.TRANSIENT, 5.0, Middle())
    assert gate.closed
    assert not gate.probe_due(14.9)
    assert gate.probe_due(15.0)


@pytest.mark.parametrize("reason", ["transient", "store"])
def test_an_item_shaped_failure_of_a_probe_opens_a_gate_that_an_outage_closed(reason: str) -> None:
    """The event is bad, but the service answered: the outage is over."""
    gate = closed(reason)

    assert gate.probed(ProbeResult.ITEM_FAILED, 5.0, Middle())
    assert not gate.closed


def test_an_item_shaped_failure_of_a_probe_leaves_a_gate_closed_that_the_bisector_closed() -> None:
    """It is the very failure that looked like an outage; the next event is tried at the rate of the probes."""
    gate = closed("bisector")
    gate.probed(ProbeResult.TRANSIENT, 5.0, Middle())

    assert not gate.probed(ProbeResult.ITEM_FAILED, 15.0, Middle())
    assert gate.closed
    assert gate.probe_at == pytest.approx(20.0)


@pytest.mark.parametrize("reason", REASONS)
def test_a_probe_that_never_reached_its_handler_is_repeated_at_once(reason: str) -> None:
    """It showed nothing: the outage must not last longer for it."""
    gate = closed(reason)
    gate.probing = True

    assert not gate.probed(ProbeResult.NOTHING, 7.0, Middle())
    assert gate.closed
    assert gate.probe_due(7.0)


def test_a_gate_that_closes_again_starts_with_the_first_wait() -> None:
    """A long outage yesterday must not slow the recovery from a short one today."""
    gate = closed("transient")
    for _ in range(5):
        gate.probed(ProbeResult.TRANSIENT, gate.probe_at, Middle())
    gate.probed(ProbeResult.HEALTHY, 300.0, Middle())
    gate.pause("transient", 1000.0, Middle())

    assert gate.probe_at == pytest.approx(1005.0)


class GateMachine(RuleBasedStateMachine):
    """Any order of calls the pipeline may make, with time that only goes forward."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(OPTIONS)
        self.rng = Random(0)
        self.now = 0.0
        self.in_a_row = 0
        self.scheduled_at = 0.0

    @rule(seconds=st.floats(0.01, 90))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(transient=st.booleans())
    def call_ends(self, transient: bool) -> None:
        self.in_a_row = self.in_a_row + 1 if transient else 0
        if self.gate.called(transient=transient):
            assert self.in_a_row >= 10
            self.pause("transient")

    @rule(reason=st.sampled_from(REASONS))
    def pause(self, reason: str) -> None:
        if not self.gate.closed:
            self.scheduled_at = self.now
        self.gate.pause(reason, self.now, self.rng)
        assert self.gate.closed

    @precondition(lambda self: self.gate.probe_due(self.now))
    @rule()
    def start_probe(self) -> None:
        self.gate.probing = True
        assert not self.gate.probe_due(self.now)

    @precondition(lambda self: self.gate.probing)
    @rule(result=st.sampled_from(ProbeResult))
    def end_probe(self, result: ProbeResult) -> None:
        bisector = self.gate.reason == "bisector"
        opened = self.gate.probed(result, self.now, self.rng)
        self.scheduled_at = self.now
        assert opened is not self.gate.closed
        assert opened is (result is ProbeResult.HEALTHY or (result is ProbeResult.ITEM_FAILED and not bisector))
        if opened:
            self.in_a_row = 0

    @invariant()
    def an_open_gate_has_no_reason_and_no_probe(self) -> None:
        assert bool(self.gate.reason) is self.gate.closed
        assert self.gate.closed or not (self.gate.probing or self.gate.probe_due(self.now))

    @invariant()
    def a_closed_gate_probes_within_its_longest_wait(self) -> None:
        if self.gate.closed:
            assert 0 <= self.gate.probe_at - self.scheduled_at <= 60 * 1.2
            assert self.gate.probing or self.gate.probe_due(self.scheduled_at + 60 * 1.2)


TestAnyOrderOfCalls = GateMachine.TestCase
