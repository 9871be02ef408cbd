"""What is remembered of an event between its deliveries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventkit._policies.history import TRANSIENT_LIMIT, History, Past


@given(st.lists(st.text(max_size=3), max_size=60), st.integers(1, 10))
def test_no_more_events_are_remembered_than_there_is_room_for(ids: list[str], capacity: int) -> None:
    """Message ids are the outside world's: a map by them must be bounded."""
    history = History(capacity)
    for message_id in ids:
        history.of(message_id)

    assert len(history.known) == min(capacity, len(set(ids)))


@given(st.lists(st.integers(0, 20).map(str), max_size=60), st.integers(1, 10))
def test_the_oldest_is_forgotten_first(ids: list[str], capacity: int) -> None:
    """The events that failed last are the ones that come back next."""
    history = History(capacity)
    for message_id in ids:
        history.of(message_id)
    latest_first = list(dict.fromkeys(reversed(ids)))

    assert sorted(history.known) == sorted(latest_first[:capacity])


def test_an_events_past_is_the_same_until_it_is_forgotten() -> None:
    """Counts must add up over the deliveries of one message."""
    history = History()
    history.of("a").failures += 1
    history.of("b")
    history.of("a").failures += 1

    assert history.of("a").failures == 2
    assert history.of("b").failures == 0


def test_looking_an_event_up_does_not_begin_a_past() -> None:
    """Every delivery is looked up; most events never fail and must not fill the map."""
    history = History()

    assert history.find("a") is None
    assert not history.known


def test_a_past_that_was_begun_is_found() -> None:
    """The attempt of a delivery is computed from what its message's last ones left."""
    history = History()
    past = history.of("a")

    assert history.find("a") is past


def test_a_settled_event_is_forgotten() -> None:
    """A message id that comes again, from a dead-letter redrive, starts afresh."""
    history = History()
    history.of("a").failures = 3
    history.forget("a")

    assert history.find("a") is None
    assert history.of("a").failures == 0


def test_forgetting_an_unknown_event_is_no_error() -> None:
    """Every acknowledged event is forgotten, whether or not it had a past."""
    History().forget("a")


@given(st.integers(1, 500))
def test_without_a_success_in_between_an_event_is_never_blamed(failures: int) -> None:
    """In an outage nothing succeeds: an event that failed a thousand times is still not at fault."""
    past = Past()

    assert [past.transient(successes=7) for _ in range(failures)] == [False] * failures


def test_an_event_is_blamed_at_its_20th_transient_failure_with_a_success_before_each() -> None:
    """While all others succeed, one event that always finds an outage is itself the trouble."""
    past = Past()
    blamed = [past.transient(successes=n) for n in range(25)]

    assert blamed.index(True) + 1 == TRANSIENT_LIMIT == 20
    assert all(blamed[19:])


@given(st.lists(st.integers(0, 3), max_size=80))
def test_only_failures_with_a_success_since_the_one_before_count(steps: list[int]) -> None:
    """Failures within one outage are one piece of evidence, however many there are."""
    past, successes, evidence = Past(), 0, 0
    for position, step in enumerate(steps):
        successes += step
        evidence += position == 0 or step > 0
        assert past.transient(successes) is (evidence >= TRANSIENT_LIMIT)


@given(st.integers(0, 50))
def test_transient_failures_in_a_row_are_counted_for_the_backoff(failures: int) -> None:
    """The wait grows with them, with or without a success of others in between."""
    past = Past()
    for n in range(failures):
        past.transient(successes=n % 3)

    assert past.transient_in_a_row == failures
