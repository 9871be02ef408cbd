"""Every fault happens, and the core survives each of them alone, at its worst, at every broker that knows it."""

from __future__ import annotations

from collections import Counter
from itertools import chain, count, islice

import pytest
from msgspec.structs import replace

from eventkit.testing.simulation._brokers import BROKERS
from eventkit.testing.simulation._plan import Plan, expand
from eventkit.testing.simulation._run import Result, run
from eventkit.testing.simulation._switches import CALM, SWITCHES, happens_at

pytestmark = pytest.mark.heavy

FIRST_SEED, MOST_RUNS = 551, 1000
"""Where every fault happens within thirty runs; when that has changed, a hundred or two are enough as a rule."""

NEEDS = {
    # A fault of extensions needs leases that are extended, one of dead letters needs dead letters.
    **{name: {"slow": 0.4} for name in ("extend_error", "extend_refused", "extend_lost")},
    **{name: {"poison": 0.3} for name, switch in SWITCHES.items() if switch.where == "letters"},
    # Workers must still be at work when the blow falls.
    **{name: {"late": 0.5, "slow": 0.4} for name, switch in SWITCHES.items() if switch.where == "process"},
}
"""Faults -> what must go on beside them."""

LEAST = {"broker": 0.4, "letters": 0.4, "process": 2.0}
"""Rates below which a fault may well not happen in worlds of a few calls and seconds."""

IN_BATCHES = {"partner", "wrong_marks"}
"""Faults of batch handlers."""


def brokers_of(fault: str) -> list[str]:
    """The brokers that know this fault."""
    return [name for name, settings in BROKERS.items() if happens_at(settings.traits, fault)]


def alone(fault: str, broker: str, seed: int) -> Plan:
    """A small world in which only this goes wrong, as often as ever or more."""
    plan = expand(seed, "small", "trio" if seed % 4 == 3 else "asyncio")
    switch = SWITCHES[fault]
    rate = max(switch.high, LEAST.get(switch.where, 0.0))
    handlers = "both" if plan.handlers == "plain" else plan.handlers
    in_order = BROKERS[broker].traits.key_release != "none"
    return replace(
        plan,
        broker=broker,
        workers=2,
        events=8,
        handlers="batch" if fault in IN_BATCHES else handlers,
        batch_size=8,
        batch_wait=1.0 if fault in IN_BATCHES else plan.batch_wait,
        in_flight=40,
        keys=3 if in_order else 0,
        ordering="key" if in_order else "none",
        lease=2.0,
        heal_at=40.0,
        faults={**NEEDS.get(fault, {}), fault: rate},
    )


def explained(result: Result) -> str:
    """What a failure shows: enough to run it again."""
    return "\n".join([*map(str, result.violations[:1]), result.plan.shown(), result.tail(20)])


@pytest.mark.parametrize("fault", SWITCHES)
def test_a_fault_alone_happens_and_is_survived_at_every_broker_that_knows_it(fault: str) -> None:
    """Beside the swarm: there, one fault may hide what another does, or end the run before it matters."""
    brokers = brokers_of(fault)
    fired: Counter[str] = Counter()
    for seed, broker in enumerate(brokers):
        result = run(alone(fault, broker, seed))
        assert not result.violations, explained(result)
        fired += result.fired

    assert fired[fault], f"{fault} did not happen at any of {brokers}"


def test_every_fault_happens_in_a_few_seeds_of_the_swarm() -> None:
    """One that never happens tests nothing, and nobody would notice."""
    silent = set(SWITCHES)
    pairs = ((expand(seed, "small"), expand(seed, "large")) for seed in count(FIRST_SEED))
    for plan in islice(chain.from_iterable(pairs), MOST_RUNS):
        result = run(plan)
        assert not result.violations, explained(result)
        silent -= result.fired.keys()
        if not silent:
            break

    assert silent == set()


def test_faults_are_known_everywhere_but_for_what_a_broker_of_a_kind_cannot_do() -> None:
    """What breaks a source's own order is no fault of it, but another source."""
    assert {fault for fault in SWITCHES if brokers_of(fault) != [*BROKERS]} == {
        "duplicate",
        "count_inflated",
        "receive_lost",
        "receive_empty",
    }
    assert brokers_of("duplicate") == ["sqs", "servicebus", "pubsub", "pubsub-exactly-once"]
    assert brokers_of("count_inflated") == ["sqs", "fifo", "pubsub", "pubsub-ordered"]
    assert brokers_of("receive_lost") == ["sqs", "fifo", "servicebus", "pubsub", "pubsub-exactly-once"]


def test_seeds_draw_every_fault_at_every_broker_that_knows_it() -> None:
    """And none that is no fault there, which the core need not survive."""
    drawn = {(plan.broker, name) for plan in map(expand, range(1000)) for name in plan.faults}

    assert drawn == {(broker, fault) for fault in SWITCHES for broker in brokers_of(fault)}


def test_only_faults_that_cannot_cost_a_lease_or_an_answer_count_as_calm() -> None:
    """Where it is calm, the ledger holds the core to exactly one call and one settlement an event."""
    rough = set(SWITCHES) - CALM

    assert {name for name in CALM if SWITCHES[name].where in {"letters", "process"}} == set()
    assert {"duplicate", "lease_lost", "receive_lost", "settle_lost", "kill", "freeze", "block"} <= rough
    assert {name for name in CALM if SWITCHES[name].where == "broker"} == {
        "clock_off",
        "late",
        "receive_empty",
        "receive_error",
        "reorder",
    }


def test_nothing_goes_wrong_after_healing() -> None:
    """Liveness is only promised once faults have ended, so they must."""
    faults = {"receive_error": 0.95, "settle_error": 0.95, "kill": 30.0}
    result = run(replace(expand(1), faults=faults, heal_at=10.0))
    told = [line[2] if isinstance(line[2], str) else type(line[2]).__name__ for line in result.trace]
    wrong = {"ReceiveFailed", "SettleFailed", "is killed"}

    assert not result.violations, explained(result)
    assert wrong <= set(told[: told.index("HEALS")])
    assert {"receive", "ack"} <= set(told[told.index("HEALS") :])
    assert not wrong & set(told[told.index("HEALS") :])
