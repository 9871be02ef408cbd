"""What a handler receives: events, compared by identity, and batches, whose events can be marked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from eventkit._event import Batch, Event
from eventkit.errors import Retry, Skip
from eventkit.spi import Delivery


def event(number: int = 0, *, time: str | None = None) -> Event[int]:
    delivery = Delivery(
        receipt=number,
        body=b"%d" % number,
        message_id=f"m{number}",
        leased_until=0.0,
        attributes={"colour": "red"},
        key="k",
        enqueued_at=17.0,
    )
    return Event(delivery, f"e{number}", "source", "number.drawn", number, 1, None, time)


def test_two_deliveries_of_one_message_are_two_events() -> None:
    """Each has its own lease and outcome; marking one must not mark the other."""
    first, second = event(1), event(1)

    assert first != second
    assert len({first, second}) == 2


def test_an_event_is_equal_to_itself_whatever_its_data() -> None:
    """Data may be unhashable, or changed by its handler."""
    one = event(1)
    marks = {one: "done"}
    one.data = 2

    assert marks[one] == "done"


def test_an_event_shows_what_its_delivery_says() -> None:
    """Handlers read these without knowing of deliveries."""
    one = event(1)

    assert (one.key, one.message_id, one.attributes, one.enqueued_at) == ("k", "m1", {"colour": "red"}, 17.0)


def test_an_event_without_extensions_has_none() -> None:
    """`event.extensions.get("traceparent")` must work on a body that is no CloudEvent."""
    assert event().extensions == {}


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2024-05-01T10:20:30Z", datetime(2024, 5, 1, 10, 20, 30, tzinfo=UTC)),
        ("2024-05-01T10:20:30.5+02:00", datetime(2024, 5, 1, 10, 20, 30, 500_000, timezone(timedelta(hours=2)))),
        ("2024-05-01T10:20:30.123456789Z", datetime(2024, 5, 1, 10, 20, 30, 123_456, UTC)),
    ],
)
def test_the_time_of_an_event_is_aware(text: str, time: datetime) -> None:
    """Producers write UTC, offsets and, some of them, nanoseconds."""
    parsed = event(time=text).time

    assert parsed == time
    assert parsed is not None
    assert parsed.tzinfo is not None


def test_an_event_without_a_time_has_none() -> None:
    """Time is optional in CloudEvents; now would be a lie."""
    assert event().time is None


def test_the_time_of_an_event_is_parsed_only_when_it_is_asked_for() -> None:
    """Most handlers never ask, and the price is paid for every event."""
    unread = event(time="the codec would have refused this")

    with pytest.raises(ValueError, match="isoformat"):
        _ = unread.time


def test_the_text_of_an_event_holds_no_payload() -> None:
    """It ends up in logs and in error messages."""
    secret: Event[str] = Event(event().delivery, "x" * 1000, "s", "", "hunter2")

    assert repr(secret) == f"<Event untyped id='{'x' * 128}' attempt=1>"


def test_a_batch_is_a_sequence_of_its_events() -> None:
    """`len`, `for`, `in`, indexes: what users expect of a list."""
    events = [event(n) for n in range(4)]
    batch = Batch(events)

    assert list(batch) == events
    assert len(batch) == 4
    assert (batch[0], batch[-1]) == (events[0], events[3])
    assert events[2] in batch
    assert event(2) not in batch


def test_a_slice_of_a_batch_is_a_tuple_of_events() -> None:
    """Not a batch: marks belong to the whole."""
    events = [event(n) for n in range(4)]

    assert Batch(events)[1:3] == (events[1], events[2])


def test_a_batch_does_not_change_with_the_list_it_was_made_of() -> None:
    """The pipeline goes on using its lists while a handler runs."""
    events = [event(n) for n in range(3)]
    batch = Batch(events)
    events.clear()

    assert len(batch) == 3


def test_a_new_batch_has_no_marks() -> None:
    """No mark and no raise is success of all."""
    assert Batch([event()]).marks == {}


def test_marks_say_what_becomes_of_each_event() -> None:
    """Done is None, skip carries its reason, a failure its error."""
    done, skipped, failed, retried, unmarked = (event(n) for n in range(5))
    batch = Batch([done, skipped, failed, retried, unmarked])
    error, retry = ValueError("bad"), Retry(after=3)

    batch.done(done)
    batch.skip(skipped, "old")
    batch.fail(failed, error)
    batch.fail(retried, retry)

    skip = batch.marks.pop(skipped)
    assert isinstance(skip, Skip)
    assert skip.reason == "old"
    assert batch.marks == {done: None, failed: error, retried: retry}


def test_the_last_mark_of_an_event_stands() -> None:
    """A handler may change its mind, from a bulk answer that names the failed at its end."""
    one = event(1)
    batch = Batch([one])
    error = ValueError("bad")
    batch.done(one)
    batch.fail(one, error)

    assert batch.marks == {one: error}


def test_marking_an_event_of_another_batch_fails_loudly() -> None:
    """A mark that went nowhere would let a failed event pass as done. Another delivery of the same is another."""
    one = event(1)
    batch = Batch([one])
    stranger = event(1)

    marks: list[Callable[[], None]] = [
        lambda: batch.done(stranger),
        lambda: batch.skip(stranger, "old"),
        lambda: batch.fail(stranger, ValueError()),
        lambda: batch.require(stranger),
    ]
    for mark in marks:
        with pytest.raises(ValueError, match="is not an event of this batch of 1"):
            mark()
    assert batch.marks == {}


def test_the_events_of_a_batch_are_only_looked_through_when_something_is_marked() -> None:
    """A set of every batch's events costs more than handing the batch over; most batches are never marked."""
    one = event(1)
    batch = Batch([one])
    assert batch._members is None

    batch.done(one)
    assert batch._members == frozenset({one})
