"""Settling: every item's answer is read, and nothing is believed that was not answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import msgspec
import pytest

from eventkit import Event, Handler, Reject
from eventkit._telemetry.records import EventDeadLettered, SettleFailed, Summary
from eventkit.errors import ConfigurationError, ConnectionLost
from eventkit.spi import LOST, UNKNOWN, Settled
from eventkit.testing import Call, Faults, Kind
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

Data = dict[str, object]
LETTERS = "letters"


class Simple(Handler[Data]):
    """Rejects what is bad."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    async def handle(self, event: Event[Data]) -> None:
        self.runs.append(event.message_id)
        if event.data.get("bad"):
            raise Reject("no good")


class First(Faults):
    """Answers the first call of one verb with `answer` for its first item, or raises."""

    def __init__(self, verb: str, answer: Settled | Exception, *, times: int = 1, after: bool = False) -> None:
        self.verb = verb
        self.answer = answer
        self.times = times
        self.late = after
        self.calls: list[int] = []

    def fire(self, call: Call) -> bool:
        if call.verb != self.verb:
            return False
        self.calls.append(len(call.items))
        self.times -= 1
        return self.times >= 0

    async def before(self, call: Call) -> Mapping[int, Settled]:
        if self.late or not self.fire(call):
            return {}
        if isinstance(self.answer, Exception):
            raise self.answer
        return {0: self.answer}

    async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
        if not self.late or not self.fire(call):
            return results
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer, *results[1:]]


def settle(rig: Rig, *bodies: Data, queue_empty: bool = True) -> None:
    async def scenario() -> None:
        rig.publish(*bodies)
        async with rig.running():
            if queue_empty:
                await rig.until_settled()
            else:
                await anyio.sleep(20)

    on_virtual_time(scenario)


def test_acks_are_gathered_into_few_calls() -> None:
    """The cost is a call, not an event: one ack an event is what makes other frameworks slow."""
    faults = First("ack", UNKNOWN, times=0)
    rig = Rig(Simple(), faults=faults)

    settle(rig, *[{}] * 100)

    assert sum(faults.calls) == 100
    assert len(faults.calls) <= 3


@pytest.mark.parametrize("answer", [Settled.retry(0.2), UNKNOWN, ConnectionLost("gone")], ids=str)
def test_an_ack_that_may_not_have_happened_is_sent_again(answer: Settled | Exception) -> None:
    """Otherwise the event comes back after its lease although its effect is done."""
    handler = Simple()
    rig = Rig(handler, faults=First("ack", answer))

    settle(rig, {}, {}, {})

    assert sorted(handler.runs) == ["1", "2", "3"]
    assert rig.broker.acked == 3


def test_a_lost_reply_to_an_ack_that_did_happen_is_counted_and_harmless() -> None:
    """LOST after UNKNOWN means that the first try may have worked: nobody knows, and the summary says so."""
    handler = Simple()
    rig = Rig(handler, faults=First("ack", ConnectionLost("reply lost"), after=True))

    settle(rig, {})

    assert handler.runs == ["1"]
    assert rig.broker.acked == 1
    assert sum(record.settle_unknown for record in rig.of(Summary)) == 1


def test_the_answer_of_each_item_is_read() -> None:
    """A batch call that succeeds may hold items that failed: treating it as success for all loses events."""
    handler = Simple()
    rig = Rig(handler, lease=9.0, faults=First("ack", LOST))

    settle(rig, {}, {}, {})

    assert rig.broker.acked == 3
    assert len(handler.runs) == 4, "the lost one came again after its lease"


def test_a_refused_ack_is_told_and_left_to_its_lease() -> None:
    """A refusal is final: it must be seen, not repeated in a hot loop."""
    handler = Simple()
    rig = Rig(handler, lease=9.0, faults=First("ack", Settled.refused("the queue says no")))

    settle(rig, {}, {})

    failed = [record for record in rig.of(SettleFailed) if record.final]
    assert [(record.verb, record.cause) for record in failed] == [("ack", "the queue says no")]
    assert rig.broker.acked == 2


def test_an_ack_without_an_answer_is_given_up_when_the_lease_ends() -> None:
    """Past the lease the receipt is worth nothing; what is in hand must not grow for ever."""
    handler = Simple()
    faults = First("ack", ConnectionLost("gone"), times=10**9)
    rig = Rig(handler, lease=9.0, faults=faults)

    async def scenario() -> None:
        rig.publish({})
        async with rig.running():
            await anyio.sleep(30)
            rig.broker.faults = None
            await rig.until_settled()

    on_virtual_time(scenario)

    assert rig.broker.acked == 1
    assert len(handler.runs) > 1
    assert len(faults.calls) < 60


def letters(rig: Rig) -> list[dict[str, Any]]:
    """What is in the queue for dead letters: body and metadata."""
    found: list[dict[str, Any]] = []

    async def read() -> None:
        async with rig.broker.source(LETTERS) as source:
            for delivery in await source.receive(100, 0):
                detail = msgspec.json.decode(delivery.attributes["eventkit-dead-letter"])
                found.append({"body": delivery.body, "attributes": dict(delivery.attributes), "detail": detail})

    on_virtual_time(read)
    return found


def test_a_dead_letter_in_a_sink_is_stored_before_the_event_is_acked() -> None:
    """P2: the reverse order loses the event when the worker dies in between."""
    rig = Rig(Simple(), native_dead_letter=False, dead_letter=f"memory://{LETTERS}")

    settle(rig, {"bad": True}, {}, queue_empty=False)

    order = [(change.kind, change.queue) for change in rig.broker.history if change.message_id in ("1", "3")]
    assert order.index((Kind.PUBLISHED, LETTERS)) < order.index((Kind.ACKED, QUEUE))
    (letter,) = letters(rig)
    assert letter["body"] == b'{"bad":true}'
    assert letter["detail"]["reason"] == "no good"
    assert letter["detail"]["origin"] == f"memory://{QUEUE}"
    assert letter["attributes"]["ce-id"] == "1"


def test_a_dead_letter_whose_confirmation_is_lost_has_the_same_id_when_sent_again() -> None:
    """Two copies may exist after a lost reply; readers tell them by their stable id."""
    rig = Rig(
        Simple(),
        native_dead_letter=False,
        dead_letter=f"memory://{LETTERS}",
        faults=First("publish", ConnectionLost("reply lost"), after=True),
    )

    settle(rig, {"bad": True}, queue_empty=False)

    copies = letters(rig)
    assert len(copies) == 2
    assert len({copy["detail"]["id"] for copy in copies}) == 1
    assert rig.broker.acked == 1


def test_an_event_is_not_acked_while_its_dead_letter_cannot_be_stored() -> None:
    """A dead-letter queue that is down must not swallow events; their leases are kept meanwhile."""
    handler = Simple()
    faults = First("publish", ConnectionLost("dead-letter queue down"), times=10**9)
    rig = Rig(handler, lease=6.0, native_dead_letter=False, dead_letter=f"memory://{LETTERS}", faults=faults)

    async def scenario() -> None:
        rig.publish({"bad": True})
        async with rig.running():
            await anyio.sleep(60)
            assert rig.broker.acked == 0
            rig.broker.faults = None
            await rig.until(lambda: rig.broker.acked == 1)

    on_virtual_time(scenario)

    assert handler.runs == ["1"], "its lease was kept while the letter waited"
    assert len(letters(rig)) == 1


def test_a_refused_dead_letter_sends_the_event_back_with_a_delay() -> None:
    """It can be stored nowhere and must not be lost: it comes again, not at once, and the log says why."""
    faults = First("dead_letter", Settled.refused("too large"))
    rig = Rig(Simple(), faults=faults)

    settle(rig, {"bad": True})

    assert rig.dead == {"1": "no good"}
    delivered = [change.at for change in rig.broker.history if change.kind is Kind.DELIVERED]
    assert delivered[1] - delivered[0] >= 59
    assert rig.of(SettleFailed)[0].cause == "too large"


def test_discard_acks_and_says_so() -> None:
    """Losing failed events must be somebody's written choice, and seen."""
    rig = Rig(Simple(), native_dead_letter=False, dead_letter="discard")

    settle(rig, {"bad": True}, {})

    assert rig.broker.acked == 2
    assert rig.of(EventDeadLettered)[0].reason == "no good"


def test_without_a_place_for_dead_letters_nothing_starts() -> None:
    """Better no worker than one that finds out at the first bad event."""
    rig = Rig(Simple(), native_dead_letter=False)

    with pytest.raises(ConfigurationError, match="has no dead letters of its own: set dead_letter"):
        on_virtual_time(rig.worker.run)


def test_dead_letter_metadata_is_small_and_free_of_secrets() -> None:
    """It travels in one attribute, through brokers with limits, to people who may not see credentials."""

    class Leaky(Handler[Data]):
        async def handle(self, event: Event[Data]) -> None:
            raise Reject("postgresql://user:hunter2@db/orders \ud800" + "r" * 3000)

    rig = Rig(Leaky())

    settle(rig, {})

    detail = rig.broker.dead_letters[0].detail
    assert len(detail.encode()) <= 1024
    assert "hunter2" not in detail + rig.broker.dead_letters[0].reason
    assert rig.broker.dead_letters[0].reason.startswith("postgresql://***@db/orders ?r")
