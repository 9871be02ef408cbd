"""How long to wait before an event is tried again."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eventkit._policies.backoff import Backoff, rounded_up
from eventkit.errors import ConfigurationError


class Extreme(Random):
    """Draws an end of every range: 0.0 the lowest value, 1.0 the highest."""

    def __init__(self, draw: float) -> None:
        super().__init__()
        self._draw = draw

    def random(self) -> float:
        return self._draw


LONGEST, SHORTEST = Extreme(1.0), Extreme(0.0)


@st.composite
def backoffs(draw: st.DrawFn) -> Backoff:
    initial = draw(st.one_of(st.just(0.0), st.floats(1e-3, 1e6)))
    factor = draw(st.one_of(st.floats(1.0, 10.0), st.floats(1.0, 1e300), st.integers(1, 10**12)))
    return Backoff(initial=initial, factor=factor, maximum=draw(st.floats(initial, 1e9)))


FAILURES = st.one_of(st.integers(1, 70), st.integers(1, 10**6), st.just(10**400))


def exact_ceiling(backoff: Backoff, failures: int) -> float:
    """`initial * factor ** (failures - 1)`, at most `maximum`: multiplied out, so that nothing overflows."""
    ceiling = backoff.initial
    for _ in range(failures - 1):
        if ceiling >= backoff.maximum or ceiling == 0 or backoff.factor == 1:
            break
        ceiling *= backoff.factor
    return min(ceiling, backoff.maximum)


@given(backoffs(), FAILURES, st.integers())
def test_a_delay_is_never_negative_nor_above_the_maximum(backoff: Backoff, failures: int, seed: int) -> None:
    """Whatever is configured and however often an event failed: no overflow, no wait beyond the cap."""
    assert 0 <= backoff.delay(failures, Random(seed)) <= backoff.maximum


@given(backoffs(), st.integers(1, 200))
def test_the_longest_delay_is_the_documented_formula(backoff: Backoff, failures: int) -> None:
    """Users compute from it how long an event may take to die: initial * factor ** (n - 1), capped."""
    assert backoff.delay(failures, LONGEST) == pytest.approx(exact_ceiling(backoff, failures), rel=1e-9)


@given(backoffs(), FAILURES)
def test_the_shortest_delay_is_zero(backoff: Backoff, failures: int) -> None:
    """Full jitter: retries of events that failed together spread from now on, not around a mean."""
    assert backoff.delay(failures, SHORTEST) == 0


@pytest.mark.parametrize(("failures", "ceiling"), [(1, 1), (2, 2), (3, 4), (8, 128), (9, 256), (10, 300), (100, 300)])
def test_the_default_doubles_from_one_second_to_five_minutes(failures: int, ceiling: float) -> None:
    """The figures the documentation gives."""
    assert Backoff().delay(failures, LONGEST) == ceiling


def test_an_initial_delay_of_zero_stays_zero() -> None:
    """`Backoff(initial=0)` means at once, after the tenth failure as after the first."""
    assert Backoff(initial=0).delay(50, LONGEST) == 0


def test_a_small_initial_delay_grows_from_there() -> None:
    """A tenth failure with 10 ms waits at most 5 s: the cap is on the delay, not on the factor's power."""
    assert Backoff(initial=0.01).delay(10, LONGEST) == pytest.approx(5.12)


def test_a_small_factor_reaches_the_cap_in_the_end() -> None:
    """Nothing but the cap ends the growth."""
    assert Backoff(factor=1.01).delay(5_000, LONGEST) == 300


def test_one_seed_gives_one_sequence_of_delays() -> None:
    """Simulations repeat from their seed: there must be no other source of chance."""
    first, second = ([Backoff().delay(n, rng) for n in range(1, 20)] for rng in (Random(7), Random(7)))

    assert first == second


def test_delays_fill_the_whole_range() -> None:
    """Events that failed together must not come back together."""
    rng = Random(1)
    delays = [Backoff(initial=100).delay(1, rng) for _ in range(1_000)]

    assert min(delays) < 5
    assert max(delays) > 95
    assert 45 < sum(delays) / len(delays) < 55


@given(st.integers(1, 50), st.integers(1, 100), st.floats(0, 1e9))
def test_counted_attempts_are_exhausted_at_the_last_one_whatever_the_age(
    attempts: int, attempt: int, age: float
) -> None:
    """An event gets exactly as many attempts as configured."""
    assert Backoff(attempts=attempts).exhausted(attempt, age) is (attempt >= attempts)


@given(st.floats(1, 1e6), st.integers(1, 10**6), st.floats(0, 1e7))
def test_with_age_an_event_is_exhausted_by_its_age_whatever_the_count(max_age: float, attempt: int, age: float) -> None:
    """Where a source does not count, only time can end the retries."""
    assert Backoff(attempts="age", max_age=max_age).exhausted(attempt, age) is (age >= max_age)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"initial": -1}, "Backoff(initial=-1): must be zero or more seconds"),
        ({"factor": 0.5}, "Backoff(factor=0.5): must be at least 1"),
        ({"factor": math.inf}, "Backoff(factor=inf): must be at least 1"),
        ({"initial": 10, "maximum": 9}, "Backoff(maximum=9): must be at least `initial` seconds"),
        ({"maximum": math.inf}, "Backoff(maximum=inf): must be at least `initial` seconds"),
        ({"attempts": 0}, 'Backoff(attempts=0): must be 1 or more, or "age"'),
        ({"attempts": 2.5}, 'Backoff(attempts=2.5): must be 1 or more, or "age"'),
        ({"attempts": "often"}, "Backoff(attempts='often'): must be 1 or more, or \"age\""),
        ({"max_age": math.nan}, "Backoff(max_age=nan): must be more than zero seconds"),
        ({"max_age": 0}, "Backoff(max_age=0): must be more than zero seconds"),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_its_rule(options: dict[str, Any], problem: str) -> None:
    """Mistakes are found when the worker is made, and the message says what to write."""
    with pytest.raises(ConfigurationError) as caught:
        Backoff(**options)

    assert list(caught.value.problems) == [problem]


def test_every_wrong_option_is_listed_at_once() -> None:
    """One run shows them all: nobody should fix five mistakes in five runs."""
    with pytest.raises(ConfigurationError) as caught:
        Backoff(initial=-1, factor=0, maximum=-2, attempts=0, max_age=-1)

    assert len(caught.value.problems) == 5


STEPS = st.one_of(st.floats(0.001, 3600), st.integers(1, 3600).map(float))
DELAYS = st.floats(0, 1e6)


@given(DELAYS, STEPS)
def test_a_delay_is_never_rounded_down(delay: float, step: float) -> None:
    """A retry must not be due early; a billionth of a step is what float arithmetic costs."""
    assert rounded_up(delay, step) >= delay - 1e-9 * max(step, delay)


@given(DELAYS, STEPS)
def test_a_delay_grows_by_less_than_one_step(delay: float, step: float) -> None:
    """Rounding up must not add a step that nobody asked for."""
    assert rounded_up(delay, step) < delay + step + 1e-9 * max(step, delay)


@given(DELAYS, STEPS)
def test_a_rounded_delay_is_whole_steps(delay: float, step: float) -> None:
    """What the source cannot say in its own unit would be cut by its SDK."""
    steps = rounded_up(delay, step) / step

    assert steps == pytest.approx(round(steps), rel=1e-9)


@given(st.integers(0, 10_000), st.sampled_from([0.001, 0.1, 0.2, 0.3, 0.7, 1.0, 60.0]))
def test_whole_steps_are_left_as_they_are(steps: int, step: float) -> None:
    """0.1 * 11 / 0.1 is 11.000000000000002: that must not become 12 steps."""
    assert rounded_up(steps * step, step) == pytest.approx(steps * step)


@given(DELAYS, st.floats(-1, 0))
def test_without_a_granularity_a_delay_is_left_alone(delay: float, step: float) -> None:
    """Sources with any precision get what the backoff drew."""
    assume(step <= 0)

    assert rounded_up(delay, step) == delay
