"""What a worker refuses to start with, and what it warns of."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventkit._codec import Decoding
from eventkit._config import FlowLimits, Options
from eventkit._event import Batch, Event
from eventkit._handler import AnyHandler, BatchHandler, Batching, Handler
from eventkit._policies.backoff import Backoff
from eventkit.errors import ConfigurationError
from eventkit.spi import Demand, SourceInfo, Traits

DEFAULT = Options(
    retry=Backoff(),
    limits=FlowLimits(),
    decoding=Decoding(),
    lease=30.0,
    max_processing=600.0,
    wait=5.0,
    drain=20.0,
    ordering="none",
    on_key_failure="block",
    dead_letter=None,
    unroutable="reject",
)


class Single(Handler[dict]):  # type: ignore[type-arg]
    async def handle(self, event: Event[dict[str, Any]]) -> None: ...


class Grouped(BatchHandler[dict]):  # type: ignore[type-arg]
    async def handle(self, batch: Batch[dict[str, Any]]) -> None: ...


def handler(kind: type[AnyHandler] = Single, **options: object) -> AnyHandler:
    return type(kind.__name__, (kind,), options)()  # type: ignore[no-any-return]


def problems(*handlers: AnyHandler, **changes: Any) -> list[str]:
    """What is wrong with the default options and these changes."""
    return list(replace(DEFAULT, **changes).problems(handlers or (Single(),)))


def source_problems(*, native_dead_letter: bool = True, traits: Traits | None = None, **changes: Any) -> list[str]:
    info = SourceInfo(name="sqs://orders", traits=traits or Traits())
    return list(replace(DEFAULT, **changes).source_problems(info, native_dead_letter=native_dead_letter))


def source_warnings(traits: Traits | None = None, **changes: Any) -> list[str]:
    return list(replace(DEFAULT, **changes).source_warnings(SourceInfo(name="sqs://orders", traits=traits or Traits())))


def test_the_defaults_have_no_problems() -> None:
    """A worker starts with nothing but a source and a handler."""
    assert problems(Single(), Grouped()) == []
    assert source_problems() == []
    assert source_warnings() == []


@pytest.mark.parametrize("name", ["lease", "max_processing", "drain"])
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
def test_a_time_that_must_end_must_be_more_than_zero_and_finite(name: str, value: float) -> None:
    """A lease of no time cannot be kept, and a drain without end is no drain."""
    assert problems(**{name: value}) == [f"{name}={value!r}: must be more than zero seconds"]


def test_a_receive_may_wait_no_time_but_not_less() -> None:
    """Short polling is a choice; a negative wait is a mistake."""
    assert problems(wait=0.0) == []
    assert problems(wait=-1) == ["wait=-1: must be zero or more seconds"]


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"ordering": "strict"}, "ordering='strict': must be one of 'none', 'key'"),
        ({"on_key_failure": "stop"}, "on_key_failure='stop': must be one of 'block', 'skip'"),
        ({"unroutable": "drop"}, "unroutable='drop': must be one of 'reject', 'skip'"),
    ],
)
def test_a_choice_that_does_not_exist_is_told_with_those_that_do(option: dict[str, str], problem: str) -> None:
    """Options come from configuration files, too, where no type checker looks."""
    assert problems(**option) == [problem]


def test_a_worker_needs_a_handler() -> None:
    """Without one it would reject every event of the queue."""
    assert list(DEFAULT.problems(())) == ["no handler: give the worker at least one"]


def test_what_is_no_handler_is_left_to_another_check() -> None:
    """The worker says of it what it is; looking at its options would end in an AttributeError."""
    assert list(DEFAULT.problems((print,))) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_handler_needs_a_slot(concurrency: int) -> None:
    """With none its events would wait for ever."""
    assert problems(handler(concurrency=concurrency)) == [f"Single.concurrency={concurrency}: must be at least 1"]


@pytest.mark.parametrize("timeout", [0, -5.0, 600.1, math.nan])
def test_a_handlers_timeout_must_end_within_max_processing(timeout: float) -> None:
    """No lease is kept longer than that: a longer timeout would be a promise nobody keeps."""
    assert problems(handler(timeout=timeout)) == [
        f"Single.timeout={timeout!r}: must be more than 0, at most max_processing (600 s)"
    ]


@pytest.mark.parametrize("timeout", [None, 0.1, 600.0])
def test_a_handlers_timeout_may_be_left_out_or_fill_max_processing(timeout: float | None) -> None:
    """Both ends of what is allowed."""
    assert problems(handler(timeout=timeout)) == []


def test_twice_a_batch_must_fit_in_flight() -> None:
    """One batch gathers while another is handled; with less, a batch would never fill."""
    grouped = handler(Grouped, batching=Batching(max_size=101))

    assert problems(grouped) == ["Grouped.batching.max_size=101 needs limits.in_flight of at least 202, found 200"]
    assert problems(grouped, limits=FlowLimits(in_flight=202)) == []


def test_a_way_to_split_batches_that_does_not_exist_is_refused() -> None:
    """A misspelt `on_raise` would bisect a batch that must stay whole."""
    assert problems(handler(Grouped, on_raise="never")) == [
        "Grouped.on_raise='never': must be one of 'bisect', 'one_by_one', 'whole'"
    ]


def test_a_meaning_of_failures_that_does_not_exist_is_refused() -> None:
    """Found at start, with the handler's name, not when the policy is first built."""
    assert problems(handler(failures={ValueError: "permanent", KeyError: "reject"})) == [
        "Single.failures: 'permanent' must be one of 'item', 'transient', 'reject', 'skip'"
    ]


def test_a_single_type_must_stand_in_a_sequence() -> None:
    """`types = "quake"` would take events of types q, u, a, k and e."""
    assert problems(handler(types="quake.*")) == ["Single.types='quake.*': must be a sequence, such as (\"quake.*\",)"]


def test_every_problem_of_options_and_handlers_is_listed() -> None:
    """One run shows them all."""
    found = problems(handler(concurrency=0, timeout=0), handler(Grouped, concurrency=0), lease=0, wait=-1, ordering="x")

    assert len(found) == 6


def test_every_limit_of_the_flow_that_is_too_small_is_listed() -> None:
    """No event in flight is no worker; no parking is a choice."""
    with pytest.raises(ConfigurationError) as caught:
        FlowLimits(in_flight=0, in_flight_bytes=0, parked=-1)

    assert list(caught.value.problems) == [
        "FlowLimits(in_flight=0): must be at least 1",
        "FlowLimits(in_flight_bytes=0): must be at least 1",
        "FlowLimits(parked=-1): must be at least 0",
    ]
    FlowLimits(in_flight=1, in_flight_bytes=1, parked=0)


def test_a_source_without_dead_letters_needs_a_sink_or_a_word() -> None:
    """A poison event must go somewhere; losing it must be written down."""
    problem = (
        "sqs://orders has no dead letters of its own: set dead_letter to the address of a sink, "
        'or to "discard" to lose failed events'
    )

    assert source_problems(native_dead_letter=False) == [problem]
    assert source_problems(native_dead_letter=False, dead_letter="discard") == []
    assert source_problems(native_dead_letter=False, dead_letter="sqs://dead") == []


def test_order_per_key_is_refused_where_the_source_has_none() -> None:
    """A promise nobody can keep must not be made."""
    assert source_problems(ordering="key") == [
        'sqs://orders does not order events by key: ordering="key" cannot be kept'
    ]
    assert source_problems(ordering="key", traits=Traits(key_release="hold")) == []


def test_a_source_that_does_not_count_needs_attempts_by_age() -> None:
    """Attempts that nobody counts would never end."""
    uncounted = Traits(delivery_count="none")

    assert source_problems(traits=uncounted) == [
        'sqs://orders does not count deliveries: set attempts="age" (with max_age), or configure a store'
    ]
    assert source_problems(traits=uncounted, retry=Backoff(attempts="age")) == []


def test_max_processing_must_fit_into_what_a_source_leases_at_most() -> None:
    """Past it the event is delivered again while it is still being handled."""
    assert source_problems(traits=Traits(lease_total_max=599)) == [
        "max_processing=600: sqs://orders keeps a lease for at most 599 s"
    ]
    assert source_problems(traits=Traits(lease_total_max=600)) == []


def test_a_backoff_longer_than_the_source_can_delay_is_refused() -> None:
    """It would be cut in silence, and events would come back sooner than configured."""
    traits = Traits(max_retry_delay=299)

    assert source_problems(traits=traits) == [
        "retry.maximum=300: sqs://orders can delay a retry by at most 299 s; lower it, or raise max_processing"
    ]
    assert source_problems(traits=traits, retry=Backoff(maximum=299)) == []


def test_where_a_source_cannot_delay_a_retry_waits_parked_within_max_processing() -> None:
    """Nine tenths of it: the rest is for the run that follows."""
    traits = Traits(max_retry_delay=0)

    assert source_problems(traits=traits, max_processing=400.0) == []
    assert source_problems(traits=traits, max_processing=300.0) == [
        "retry.maximum=300: sqs://orders can delay a retry by at most 270 s; lower it, or raise max_processing"
    ]


@pytest.mark.parametrize(("trait", "longest"), [(None, None), (43_200.0, 43_200.0), (0.0, 540.0)])
def test_the_longest_delay_is_the_sources_or_what_can_be_parked(trait: float | None, longest: float | None) -> None:
    """None is any delay at all."""
    assert DEFAULT.longest_delay(SourceInfo(name="x", traits=Traits(max_retry_delay=trait))) == longest


def test_a_source_that_gives_up_before_our_last_attempt_is_refused_with_the_line_to_write() -> None:
    """Its own dead-lettering would take events away in the middle of their retries."""
    problem = (
        "sqs://orders itself dead-letters after 4 deliveries, before attempts=5: write attempts = 1, "
        "or raise the source's limit to 8"
    )

    assert source_problems(traits=Traits(native_receive_limit=4)) == [problem]


@given(st.integers(1, 100), st.integers(1, 100))
def test_following_the_advice_about_attempts_is_enough(limit: int, attempts: int) -> None:
    """The line that is told to be written must not lead to the next error."""
    traits = Traits(native_receive_limit=limit)
    if not source_problems(traits=traits, retry=Backoff(attempts=attempts)):
        assert limit >= attempts
        return

    assert source_problems(traits=traits, retry=Backoff(attempts=max(1, limit - 3))) == []
    raised = Traits(native_receive_limit=attempts + 3)
    assert source_problems(traits=raised, retry=Backoff(attempts=attempts)) == []
    assert source_warnings(raised, retry=Backoff(attempts=attempts)) == []


def test_every_problem_of_a_source_is_listed() -> None:
    """One start shows them all."""
    traits = Traits(delivery_count="none", lease_total_max=10, max_retry_delay=10, native_receive_limit=1)

    assert len(source_problems(traits=traits, native_dead_letter=False, ordering="key")) == 6


@pytest.mark.parametrize(("limit", "warned"), [(5, True), (7, True), (8, False), (4, False)])
def test_a_native_limit_close_to_the_attempts_is_a_warning(limit: int, warned: bool) -> None:
    """Releases count at the source: three of them and an event dies early. Below the attempts it is an error."""
    warning = (
        f"sqs://orders itself dead-letters after {limit} deliveries, close to attempts=5: releases count there too; "
        "raise it to 8"
    )

    assert source_warnings(Traits(native_receive_limit=limit)) == ([warning] if warned else [])


@pytest.mark.parametrize(("limit", "warned"), [(5, True), (49, True), (50, False)])
def test_where_followers_are_released_a_native_limit_needs_ten_times_the_attempts(limit: int, warned: bool) -> None:
    """On SQS FIFO every failure of an event costs each one behind it a delivery."""
    warnings = source_warnings(Traits(native_receive_limit=limit, key_release="followers"))

    assert bool(warnings) is warned
    assert all("raise it to 50" in warning for warning in warnings)


def test_attempts_by_age_have_no_native_limit_to_keep_clear_of() -> None:
    """There is nothing to compare it with."""
    traits = Traits(native_receive_limit=1)

    assert source_problems(traits=traits, retry=Backoff(attempts="age")) == []
    assert source_warnings(traits, retry=Backoff(attempts="age")) == []


def test_discarding_failed_events_is_warned_of() -> None:
    """It is written down, and still worth a line at every start."""
    assert source_warnings(dead_letter="discard") == ['dead_letter = "discard": events that fail for good are lost']


@given(st.floats(0, 1000), st.floats(0.1, 1000))
def test_a_receive_waits_at_most_a_quarter_of_the_drain(wait: float, drain: float) -> None:
    """A receive is never cancelled: what it waits, a drain waits."""
    options = replace(DEFAULT, wait=wait, drain=drain)

    assert options.receive_wait <= wait
    assert options.receive_wait <= drain / 4
    assert options.receive_wait in (wait, drain / 4)


def test_a_source_is_told_what_will_be_asked_of_it() -> None:
    """Sources size their pools and prefetch before the first receive."""
    limits = FlowLimits(in_flight=7, in_flight_bytes=8, parked=9)
    options = replace(DEFAULT, limits=limits, ordering="key", lease=12.0, wait=100.0)

    assert options.demand() == Demand(events=7, bytes=8, parked=9, ordered=True, lease=12.0, wait=5.0)
    assert DEFAULT.demand().ordered is False
