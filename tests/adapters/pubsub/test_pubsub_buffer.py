"""What waits to be handed over: in order, within the limit, and never when its lease is over."""

from __future__ import annotations

from typing import Any

from eventkit_pubsub._buffer import Buffer, Group
from eventkit_pubsub._hold import Held, Hold
from eventkit_pubsub._pulse import Pulse
from eventkit_pubsub._stream import Stream
from eventkit_pubsub._unseen import MOST, Unseen
from google.pubsub_v1.types import ReceivedMessage, StreamingPullRequest

from eventkit.spi import DONE, LOST, Settled

_received: Any = ReceivedMessage.pb()


def messages(*names: str) -> list[Any]:
    return [_received(ack_id=f"ack-{name}", message={"message_id": name, "data": name.encode()}) for name in names]


class Rig:
    """A buffer, and the stream that all came on."""

    def __init__(self) -> None:
        self.stream = Stream(StreamingPullRequest())
        self.unseen = Unseen()
        self.buffer = Buffer()

    def add(self, *names: str, leased_until: float = 100.0) -> Group:
        group = Group(messages(*names), 1.0, self.stream, leased_until, self.unseen)
        self.stream.arrived(len(names), len(names))
        self.buffer.add(group)
        return group

    def pop(self, limit: int, now: float = 0.0) -> list[str]:
        return [each.message.message_id for taken in self.buffer.take(limit, now) for each in taken.messages]


async def test_messages_come_in_the_order_of_their_arrival_and_within_the_limit() -> None:
    """Across groups."""
    rig = Rig()
    rig.add("a", "b", "c")
    rig.add("d", "e")

    assert (len(rig.buffer), rig.buffer.size) == (5, 5)
    assert rig.pop(2) == ["a", "b"]
    assert rig.pop(2) == ["c", "d"]
    assert (len(rig.buffer), rig.buffer.size) == (1, 1)
    assert rig.pop(9) == ["e"]
    assert rig.pop(9) == []


async def test_what_has_lost_its_lease_is_not_handed_over() -> None:
    """It is somebody else's, or comes again; that it was here is no attempt."""
    rig = Rig()
    rig.add("a", "b", leased_until=10.0)
    rig.add("c", leased_until=20.0)

    assert rig.pop(9, now=10.0) == ["c"]
    assert [rig.unseen.times(name) for name in "abc"] == [1, 1, 0]
    assert rig.stream.outstanding == 1


async def test_a_message_counts_against_its_stream_until_it_is_settled() -> None:
    """Once, however often it is settled."""
    rig = Rig()
    rig.add("a", "b", "c")
    [taken] = rig.buffer.take(3, 0.0)
    holds = [Hold(each.ack_id, taken.share, taken.stream) for each in taken.messages]
    assert (rig.stream.outstanding, rig.stream.outstanding_bytes) == (3, 3.0)

    held = Held()
    held.settle(holds, [DONE, Settled.retry(), LOST])
    assert (rig.stream.outstanding, rig.stream.outstanding_bytes) == (2, 2.0)
    held.settle(holds[:2], [DONE, DONE])
    assert (rig.stream.outstanding, rig.stream.outstanding_bytes) == (1, 1.0)


async def test_what_is_dropped_counts_no_more_and_was_not_seen() -> None:
    """What was handed over before does, and was."""
    rig = Rig()
    rig.add("a", "b", "c")
    assert rig.pop(1) == ["a"]

    assert rig.buffer.drop(lambda each: each.ack_id != "ack-c") == ["ack-b"]
    assert (len(rig.buffer), rig.stream.outstanding) == (1, 2)
    assert [rig.unseen.times(name) for name in "abc"] == [0, 1, 0]
    assert rig.pop(9) == ["c"]


async def test_a_group_keeps_what_still_has_a_lease() -> None:
    """With exactly-once delivery each message has its own answer."""
    rig = Rig()
    group = rig.add("a", "b", "c")

    assert group.drop(lambda each: each.ack_id == "ack-b") == ["ack-b"]

    assert rig.pop(9) == ["a", "c"]
    assert rig.unseen.times("b") == 1
    assert rig.stream.outstanding == 2


async def test_groups_of_a_stream_can_be_one() -> None:
    """One call confirms them all; what they count for stays the same."""
    rig, other = Rig(), Rig()
    first = Group(messages("a", "b"), 2.0, rig.stream, 20.0, rig.unseen)
    second = Group(messages("c"), 5.0, rig.stream, 10.0, rig.unseen)
    rig.stream.arrived(3, 9.0)

    assert not first.absorbs(Group(messages("x"), 1.0, other.stream, 10.0, other.unseen))
    assert first.absorbs(second)
    assert (first.ack_ids, first.leased_until) == (["ack-a", "ack-b", "ack-c"], 10.0)
    first.drop_all()
    assert (rig.stream.outstanding, rig.stream.outstanding_bytes) == (0, 0.0)


def test_what_was_unseen_is_remembered_within_bounds() -> None:
    """A worker lives for months; the oldest go first."""
    unseen = Unseen()
    unseen.add(messages("first", "second"))
    unseen.add(messages("first"))
    unseen.add(messages(*[str(n) for n in range(MOST - 1)]))

    assert [unseen.times(name) for name in ("first", "second", "0", "never")] == [2, 0, 1, 0]


def test_what_arrives_after_a_standstill_has_waited_since_it_began() -> None:
    """For a moment longer: several responses may have waited."""
    pulse = Pulse(0.0)
    assert not pulse.beat(0.5)
    assert pulse.waited(0.6) == 1.0

    assert pulse.waited(8.0) == 7.5, "before the first beat after it"
    assert pulse.beat(8.5)
    assert pulse.waited(8.6) == 8.0
    assert pulse.waited(9.4) == 8.0
    pulse.beat(9.0)
    pulse.beat(9.5)
    assert pulse.waited(9.6) == 1.0


async def test_a_key_is_held_until_all_of_it_that_was_handed_over_is_settled() -> None:
    """Other keys are their own."""
    stream, held = Stream(StreamingPullRequest()), Held()
    holds = [Hold(str(number), 1.0, stream, held.mark(key, 10.0)) for number, key in enumerate("aab")]

    held.settle(holds[:1], [DONE])
    assert held.keys() == {"a", "b"}
    held.settle(holds[1:], [DONE, LOST])
    assert held.keys() == {"b"}


async def test_a_key_is_lost_when_the_lease_of_something_held_is_over() -> None:
    """Told once; an extension puts it off."""
    stream, held = Stream(StreamingPullRequest()), Held()
    holds = [Hold(key, 1.0, stream, held.mark(key, 10.0)) for key in "ab"]
    assert holds[0].mark is not None
    holds[0].mark.leased_until = 20.0

    assert held.lost(9.9) == set()
    assert held.lost(10.0) == {"b"}
    assert held.lost(19.0) == set()
    assert held.keys() == {"a"}
    assert held.lost(21.0) == {"a"}
    assert held.lost(99.0) == held.keys() == set()
