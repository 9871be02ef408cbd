"""A seed is a whole run: the same one everywhere, or a failure found in a sweep could not be looked at."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import get_args, get_type_hints

import pytest
from msgspec.structs import asdict, replace

from eventkit.testing.simulation._brokers import BROKERS
from eventkit.testing.simulation._engines import Engine
from eventkit.testing.simulation._plan import Plan, Size, expand, stream
from eventkit.testing.simulation._run import run
from eventkit.testing.simulation._sweep import digests_elsewhere
from eventkit.testing.simulation._switches import SWITCHES, swarm

SEEDS = (3, 6)
KINDS: list[tuple[Size, Engine]] = [("large", "asyncio"), ("large", "trio"), ("small", "asyncio"), ("small", "trio")]

PLANS = [expand(seed) for seed in range(500)]


def digests(seeds: Iterable[int], size: Size, engine: Engine) -> dict[int, str]:
    return {seed: run(expand(seed, size, engine)).digest for seed in seeds}


@pytest.mark.parametrize(("size", "engine"), KINDS)
def test_a_seed_gives_the_same_run_whatever_ran_before(size: Size, engine: Engine) -> None:
    """Nothing of a run is left in the process: no counter, no cache, no generator that went on."""
    first = digests(SEEDS, size, engine)
    again = digests([9, *reversed(SEEDS)], size, engine)

    assert {seed: again[seed] for seed in SEEDS} == first


def test_a_seed_gives_the_same_run_in_another_process() -> None:
    """With other hashes and other addresses; side by side, for most of it is the start of an interpreter."""
    with ThreadPoolExecutor(2) as pool:
        elsewhere = list(pool.map(lambda kind: digests_elsewhere(SEEDS, *kind), KINDS))

    assert elsewhere == [digests(SEEDS, *kind) for kind in KINDS]


@pytest.mark.parametrize("engine", ["asyncio", "trio"])
def test_another_seed_gives_another_run(engine: Engine) -> None:
    """Or a sweep over thousands would try but a few."""
    assert len(set(digests(range(12), "small", engine).values())) == 12


def test_the_engines_do_not_give_the_same_run() -> None:
    """The trace is fine enough to show in which order tasks ran."""
    assert run(expand(3, "small", "asyncio")).digest != run(expand(3, "small", "trio")).digest


def test_a_digest_tells_traces_apart_by_any_line() -> None:
    """A digest that overlooks a line would call two runs equal that are not."""
    result = run(expand(11, "small"))
    digest = result.digest
    at, who, *what = result.trace[len(result.trace) // 2]
    changed = [*result.trace]
    changed[len(changed) // 2] = (at, who, *what, "and more")

    assert replace(result, trace=changed).digest != digest
    assert replace(result, trace=changed[:-1]).digest != replace(result, trace=changed).digest


# -- plans ---------------------------------------------------------------------------------------


def test_a_seed_expands_to_the_same_plan_whatever_came_before() -> None:
    """Also under another engine, so that one seed can be tried on both."""
    assert [expand(seed) for seed in reversed(range(50))] == PLANS[49::-1]
    assert replace(expand(7, "small", "trio"), engine="asyncio") == expand(7, "small")


def test_sizes_are_as_promised() -> None:
    """Rates of seeds are only comparable for scenarios of one size."""
    assert {(plan.workers, plan.events) for plan in PLANS} == {(3, 40)}
    assert {(plan.workers, plan.events) for plan in map(small, range(100))} == {(1, 12), (2, 12)}


def small(seed: int) -> Plan:
    return expand(seed, "small")


def test_every_fault_is_on_in_some_plan_with_a_rate_in_its_range() -> None:
    """A fault that no seed turns on is no test."""
    for name, switch in SWITCHES.items():
        rates = [plan.faults[name] for plan in PLANS if name in plan.faults]
        assert rates, f"{name} is never on"
        assert all(switch.low <= rate <= switch.high for rate in rates), name


def test_every_broker_is_in_some_plan_with_every_ordering_it_can_do() -> None:
    """Order per key is where sources differ most."""
    possible = {(name, "none") for name in BROKERS}
    possible |= {(name, "key") for name, settings in BROKERS.items() if settings.traits.key_release != "none"}

    assert {(plan.broker, plan.ordering) for plan in PLANS} == possible


@pytest.mark.parametrize("field", ["handlers", "on_raise", "style", "ordering", "on_key_failure"])
def test_every_value_of_a_choice_is_in_some_plan(field: str) -> None:
    """Each is a path of its own through the core."""
    assert {getattr(plan, field) for plan in PLANS} == set(get_args(get_type_hints(Plan)[field]))


def test_some_plans_have_no_fault_but_a_handlers() -> None:
    """Only a quiet world can tell that something was done twice for no reason."""
    quiet = [plan for plan in PLANS if all(SWITCHES[name].where in {"handler", "world"} for name in plan.faults)]

    assert len(quiet) > len(PLANS) / 10
    assert any(plan.faults for plan in quiet)


# -- one thing less ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_without_a_fault_is_the_same_but_for_it(seed: int) -> None:
    """A minimiser must change one thing at a time."""
    plan = expand(seed)
    gone = sorted(plan.faults)[:2]
    without = plan.without(*gone)

    assert without.faults == {name: rate for name, rate in plan.faults.items() if name not in gone}
    assert replace(without, faults=plan.faults) == plan
    assert asdict(expand(seed)) == asdict(plan)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_the_rate_of_a_fault_does_not_depend_on_how_many_are_on(share: float) -> None:
    """Each is drawn whether it is on or off."""
    everything = swarm(Random(1), list(SWITCHES), 1.0)
    some = swarm(Random(1), list(SWITCHES), share)

    assert set(everything) == set(SWITCHES)
    assert some.items() <= everything.items()
    assert abs(len(some) - share * len(everything)) < len(everything) / 4


def test_generators_of_a_seed_are_apart() -> None:
    """To draw once more for one thing must not move another."""
    draws = [stream(seed, name).random() for seed in range(20) for name in ("plan", "faults", "cast", "nemesis")]

    assert len(set(draws)) == len(draws)
    assert stream(3, "faults").random() == stream(3, "faults").random()


def test_a_plan_shows_all_that_it_is_made_of() -> None:
    """What is printed of a failure is enough to run it again by hand."""
    plan = PLANS[0]
    shown = plan.shown()

    for name, value in asdict(plan).items():
        if name != "faults":
            assert f"  {name} = {value!r}" in shown
    for name, rate in plan.faults.items():
        assert f"  fault {name} = {rate:.3f}" in shown
