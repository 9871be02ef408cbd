"""Batches: gathering, marks, and the search for what is bad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from eventkit import Batch, BatchFailure, BatchHandler, Batching, Event, Reject, Skip
from eventkit._policies.backoff import Backoff
from eventkit._telemetry.records import BatchBisected, EventReleased, EventRetried, HandlerFailed
from eventkit.testing import Kind
from tests.pipeline.support import Rig, on_virtual_time

QUICK = Backoff(initial=0.1, maximum=0.5, attempts=3)
Data = dict[str, Any]


class Poisonable(BatchHandler[Data]):
    """Raises when a batch holds an event that says `bad`."""

    batching = Batching(max_size=16, max_wait=1.0)

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.done: list[str] = []

    async def handle(self, batch: Batch[Data]) -> None:
        self.calls.append([event.message_id for event in batch])
        await anyio.sleep(0.01)
        if any(event.data.get("bad") for event in batch):
            raise ValueError("a bad one")
        self.done += [event.message_id for event in batch]


def settle(rig: Rig, *bodies: Mapping[str, object], keys: list[str] | None = None) -> None:
    """Publish, run until all is settled, drain."""

    async def scenario() -> None:
        for position, body in enumerate(bodies):
            rig.publish(body, key=keys[position] if keys else None)
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)


@pytest.mark.parametrize("place", range(16))
def test_a_poison_event_does_not_take_its_batch_down(place: int) -> None:
    """P4: the good events are handled once, in their first delivery, whatever the poison's place."""
    handler = Poisonable()
    rig = Rig(handler, retry=QUICK)

    settle(rig, *({"bad": True} if position == place else {} for position in range(16)))

    poison = str(place + 1)
    assert sorted(handler.done, key=int) == [str(n) for n in range(1, 17) if n != place + 1]
    assert rig.dead == {poison: "attempts"}
    assert rig.broker.counts().delivered == 15 + 3
    assert handler.calls.count([poison]) == 3, "each attempt ends with a call on that event alone"


def test_a_batch_is_full_by_size_or_ready_by_age() -> None:
    """Two triggers, the first wins: throughput when there is much, latency when there is little."""
    handler = Poisonable()
    rig = Rig(handler)
    started: list[float] = []

    async def scenario() -> None:
        rig.publish(*[{}] * 20)
        started.append(anyio.current_time())
        async with rig.running():
            await rig.until_settled()
            started.append(anyio.current_time())

    on_virtual_time(scenario)

    assert [len(call) for call in handler.calls] == [16, 4]
    assert 1.0 <= started[1] - started[0] < 1.2


def test_events_of_different_keys_never_share_a_batch() -> None:
    """`batch_key` is for calls that can only take one tenant, table or partition."""

    class ByTenant(Poisonable):
        def batch_key(self, event: Event[Data]) -> object:
            return event.data["tenant"]

    handler = ByTenant()
    rig = Rig(handler)

    settle(rig, *({"tenant": position % 3} for position in range(12)))

    assert sorted(handler.calls) == sorted([[str(n) for n in range(1 + t, 13, 3)] for t in range(3)])


def test_marks_made_before_a_raise_stay() -> None:
    """`batch.done` is how a handler that fails half-way keeps its first half from running twice."""
    runs: list[str] = []

    class Marking(BatchHandler[Data]):
        batching = Batching(max_size=4)

        async def handle(self, batch: Batch[Data]) -> None:
            for event in batch:
                if event.data.get("bad"):
                    raise ValueError("stop here")
                runs.append(event.message_id)
                batch.done(event)

    rig = Rig(Marking(), retry=QUICK)

    settle(rig, {}, {}, {"bad": True}, {})

    assert sorted(runs) == ["1", "2", "4"]
    assert rig.dead == {"3": "attempts"}


def test_single_events_are_failed_skipped_and_rejected_by_marks() -> None:
    """The cheapest way to report partial failure: no search, one call."""
    calls = 0

    class Marking(BatchHandler[Data]):
        batching = Batching(max_size=5)

        async def handle(self, batch: Batch[Data]) -> None:
            nonlocal calls
            calls += 1
            for event in batch:
                match event.data.get("do"):
                    case "fail":
                        batch.fail(event, ValueError("bad"))
                    case "reject":
                        batch.fail(event, Reject("no good"))
                    case "skip":
                        batch.skip(event, "not wanted")

    rig = Rig(Marking(), retry=Backoff(attempts=1))

    settle(rig, {}, {"do": "fail"}, {"do": "reject"}, {"do": "skip"}, {})

    assert calls == 1
    assert rig.dead == {"2": "attempts", "3": "no good"}
    assert sorted(rig.changes(Kind.ACKED)) == ["1", "4", "5"]


def test_batch_failure_names_the_failed_and_the_others_are_done() -> None:
    """For clients whose bulk call returns the list of what it refused."""

    class Bulk(BatchHandler[Data]):
        batching = Batching(max_size=4)

        async def handle(self, batch: Batch[Data]) -> None:
            raise BatchFailure({event: ValueError("refused") for event in batch if event.data.get("bad")})

    rig = Rig(Bulk(), retry=Backoff(attempts=1))

    settle(rig, {}, {"bad": True}, {}, {})

    assert rig.dead == {"2": "attempts"}
    assert sorted(rig.changes(Kind.ACKED)) == ["1", "3", "4"]


def test_an_event_of_another_batch_in_a_mark_fails_loudly() -> None:
    """A wrong failure list must never ack what has not been done."""
    kept: list[Event[Data]] = []

    class Confused(BatchHandler[Data]):
        batching = Batching(max_size=2, max_wait=0.1)

        async def handle(self, batch: Batch[Data]) -> None:
            if kept:
                raise BatchFailure({kept[0]: ValueError("from another batch")})
            kept.append(batch[0])

    rig = Rig(Confused(), retry=Backoff(attempts=1))

    settle(rig, {}, {}, {}, {})

    assert sorted(rig.changes(Kind.ACKED)) == ["1", "2"]
    assert rig.dead == {"3": "attempts", "4": "attempts"}
    assert "is not an event of this batch" in rig.broker.dead_letters[0].detail


def test_a_raised_skip_is_searched_like_any_other_raise() -> None:
    """A signal raised by a call on many events does not say which of them it means."""

    class Skipping(BatchHandler[Data]):
        batching = Batching(max_size=8)

        async def handle(self, batch: Batch[Data]) -> None:
            if any(event.data.get("skip") for event in batch):
                raise Skip("not wanted")

    rig = Rig(Skipping())

    settle(rig, *({"skip": position == 5} for position in range(8)))

    assert rig.dead == {}
    assert rig.broker.acked == 8
    assert rig.of(EventRetried) == []


def test_on_raise_one_by_one_calls_each_event_alone() -> None:
    """For handlers whose calls cost the same whatever their size."""

    class OneByOne(Poisonable):
        on_raise = "one_by_one"

    handler = OneByOne()
    rig = Rig(handler, retry=Backoff(attempts=1))

    settle(rig, *({"bad": position == 2} for position in range(16)))

    assert [len(call) for call in handler.calls] == [16, *[1] * 16]
    assert rig.dead == {"3": "attempts"}


def test_on_raise_whole_fails_every_event_with_the_batch() -> None:
    """For batches that stand or fall together."""

    class Whole(Poisonable):
        on_raise = "whole"

    handler = Whole()
    rig = Rig(handler, retry=Backoff(attempts=1))

    settle(rig, *({"bad": position == 2} for position in range(16)))

    assert len(handler.calls) == 1
    assert len(rig.dead) == 16


def test_after_many_failures_batches_start_one_by_one() -> None:
    """Above 20 % bad events, halving costs more calls than asking each."""
    handler = Poisonable()
    rig = Rig(handler, retry=Backoff(attempts=1))

    settle(rig, *({"bad": position % 2 == 0} for position in range(64)))

    assert len(rig.dead) == 32
    assert len(handler.calls) < 16 * 1.5 + 48 + 2
    assert all(len(call) == 1 for call in handler.calls[-16:])


def test_what_is_left_of_a_failed_batch_at_the_end_of_its_time_runs_alone_later() -> None:
    """A batch with one hanging event must not take the same companions down again and again."""
    calls: list[list[str]] = []

    class Hanging(BatchHandler[Data]):
        batching = Batching(max_size=4, max_wait=0.1)

        async def handle(self, batch: Batch[Data]) -> None:
            calls.append([event.message_id for event in batch])
            if any(event.data.get("hang") for event in batch):
                await anyio.sleep_forever()

    rig = Rig(Hanging(), retry=Backoff(attempts=2), max_processing=20.0)

    settle(rig, {"hang": True}, {}, {}, {})

    assert rig.dead == {"1": "attempts"}
    assert sorted(rig.changes(Kind.ACKED)) == ["2", "3", "4"]
    assert {record.reason for record in rig.of(EventReleased)} == {"end of max_processing"}
    assert all(len(call) == 1 for call in calls[2:]), calls


def test_the_search_is_told() -> None:
    """Operators must see that a batch failed, how, and what the search cost."""
    rig = Rig(Poisonable(), retry=Backoff(attempts=1))

    settle(rig, *({"bad": position == 0} for position in range(16)))

    assert rig.of(HandlerFailed)[0].events == 16
    bisected = rig.of(BatchBisected)[0]
    assert (bisected.events, bisected.failed, bisected.calls) == (16, 1, 9)
