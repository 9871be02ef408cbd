"""Answers that say no, or later, or never come: each of a call by itself, and no event lost for it."""

from __future__ import annotations

import anyio
import pytest
from anyio import current_time
from eventkit_servicebus import _wire
from eventkit_servicebus._local import (
    AnswerLost,
    Call,
    ConnectionClosed,
    ConnectionDropped,
    Faults,
    LinkDetached,
)

from eventkit.errors import (
    ConnectionLost,
    TransientAdapterError,
)
from eventkit.spi import DONE, LOST, Outgoing, Settled, SettledKind
from tests.adapters.servicebus.adapter_support import (
    BILLS,
    acked,
    bodies,
    error,
    foreign,
    kinds,
    one,
    publish,
    receipts,
    received,
    rigged,
    told,
    written,
)


async def test_what_is_throttled_is_done_later() -> None:
    """Settling, extending, dead-lettering, delaying, publishing: each says so, and nothing is done."""
    async with rigged() as rig, rig.both() as (source, sink):
        await foreign(rig, *[written(b"%d" % n) for n in range(3)])
        held = await received(source, 3)
        rig.trouble.errors = {
            name: error("com.microsoft:server-busy") for name in ("settle", "renew-lock", "send", "update-disposition")
        }
        assert [(each.kind, each.after) for each in await source.ack(receipts(held))] == [(SettledKind.RETRY, 10.0)] * 3
        assert kinds(await source.extend(receipts(held), 30.0)) == [SettledKind.RETRY] * 3
        mixed = await source.nack([(held[0].receipt, 0.0), (held[1].receipt, 5.0)])
        assert kinds(mixed) == [SettledKind.RETRY] * 2
        assert kinds(await sink.publish([Outgoing(body=b"x"), Outgoing(body=b"y")])) == [SettledKind.RETRY] * 2
        rig.trouble.errors = {}
        assert kinds(await source.extend(receipts(held), 30.0)) == [None] * 3
        assert await source.ack(receipts(held)) == [DONE] * 3
        await publish(sink, b"x")
        assert sorted(rig.trouble.of("attach")) == ["receiver", *["sender"] * 3]  # none was opened again

    assert rig.server.counts().acked == 3


async def test_some_of_a_call_fail_and_the_others_are_told_as_done() -> None:
    """Each by itself, whatever the reason; what cannot be known is unknown."""

    def some(call: Call) -> None:
        if call.operation in {"settle", "update-disposition"}:
            number[0] += 1
            if number[0] in refused:
                raise refused[number[0]]

    number = [0]
    refused = {2: error("com.microsoft:server-busy"), 5: error("com.microsoft:message-lock-lost")}
    async with rigged() as rig, rig.source() as source:
        await foreign(rig, *[written(b"%d" % n) for n in range(6)])
        held = await received(source, 6)
        rig.trouble.rule = some
        answers = await source.ack(receipts(held))
        assert kinds(answers) == [
            SettledKind.DONE,
            SettledKind.RETRY,
            SettledKind.DONE,
            SettledKind.DONE,
            SettledKind.LOST,
            SettledKind.DONE,
        ]
        refused[7] = error("amqp:not-allowed")
        assert kinds(await source.ack([held[1].receipt])) == [SettledKind.REFUSED]
        assert await source.ack([held[1].receipt]) == [DONE]


async def test_a_receipt_that_is_settled_twice_at_a_time_is_lost_the_second_time() -> None:
    """In one call or in two: one copy is sent, one answer is waited for."""
    async with rigged() as rig, rig.source() as source:
        await foreign(rig, written(b"a"), written(b"b"), written(b"c"))
        a, b, c = receipts(await received(source, 3))
        assert await source.nack([(a, 5.0), (a, 5.0)]) == [DONE, LOST]
        assert rig.trouble.of("send")[3:] == [1]
        assert await source.ack([b, b, c]) == [DONE, LOST, DONE]
        rig.skip(6.0)
        [again] = await received(source, 1)
        answers: list[Settled] = []

        async def ack() -> None:
            answers.extend(await source.ack([again.receipt]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ack)
            tasks.start_soon(ack)
        assert sorted(each.kind.value for each in answers) == ["done", "lost"]


async def test_what_is_published_in_one_call_is_sent_by_session_and_in_order() -> None:
    """A batch is of one session; after one that failed, nothing more of its session is sent, and the others are."""
    large = [Outgoing(body=bytes([n]) * 200_000, key=key) for n, key in enumerate("aabab")]
    number = [0]

    def second(call: Call) -> None:
        if call.operation == "send":
            number[0] += 1
            if number[0] == 2:
                raise error("com.microsoft:server-busy")

    async with rigged() as rig, rig.sink(BILLS, "&sessions=on") as sink:
        assert await sink.publish([Outgoing(body=b"x", key=key) for key in "aba"]) == [DONE] * 3
        assert rig.trouble.of("send") == [2, 1]
        rig.trouble.rule = second
        answers = kinds(await sink.publish(large))
        done, retry = SettledKind.DONE, SettledKind.RETRY
        assert answers == [done, retry, done, retry, done]


async def test_a_delayed_retry_of_what_is_lost_by_our_own_clock_is_not_sent() -> None:
    """Somebody else has the event, or will: a copy would be one too many."""
    async with rigged() as rig, rig.source() as source:
        await foreign(rig, written(b"a"))
        held = await received(source, 1)
        held[0].receipt.until = current_time() - 0.1
        assert await source.nack([(held[0].receipt, 5.0)]) == [LOST]
        assert rig.trouble.of("send") == [1]  # which was the first one


async def test_publishes_side_by_side_are_sent_one_after_another() -> None:
    """When a connection goes down, the SDK tells all that were on it as failed, sent or not."""
    sending = [0, 0]

    class Slow(Faults):
        async def before(self, call: Call) -> None:
            if call.operation == "send":
                sending[0] += 1
                sending[1] = max(sending)
                await anyio.sleep(0.02)
                sending[0] -= 1

    async with rigged() as rig, rig.sink() as sink:
        rig.server.faults = Slow()
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(publish, sink, b"%d" % number)
        assert sending[1] == 1


async def test_a_nack_that_cannot_be_delayed_for_good_says_what_was_done_of_the_others() -> None:
    """Of what was given back at once the answer is known."""

    def no_senders(call: Call) -> None:
        if call.operation == "attach" and call.detail == "sender":
            raise error("amqp:unauthorized-access")
        if call.operation == "send":
            raise ConnectionDropped

    async with rigged() as rig, rig.source() as source:
        await foreign(rig, written(b"a"), written(b"b"))
        held = await received(source, 2)
        rig.trouble.rule = no_senders
        with pytest.raises(TransientAdapterError):
            await source.nack([(held[1].receipt, 5.0)])
        answers = await source.nack([(held[0].receipt, 0.0), (held[1].receipt, 5.0)])
        assert answers[0] in {DONE, LOST}
        assert answers[1] != DONE


async def test_a_lock_that_is_lost_in_the_middle_of_the_work_is_told() -> None:
    """By the server's word, on the link that is there or by token on another one."""
    async with rigged() as rig, rig.source() as source:
        await foreign(rig, *[written(b"%d" % n) for n in range(4)])
        held = await received(source, 4)
        rig.skip(61.0)
        assert await source.extend([held[0].receipt], 30.0) == [LOST]
        assert await source.ack([held[0].receipt]) == [LOST]
        rig.server.drop_connections()
        answers = await acked(source, held[1])
        assert answers == [LOST]
        assert await told(lambda: source.nack([(held[2].receipt, 0.0), (held[3].receipt, 5.0)])) != [DONE, DONE]
        again = await received(source, 4)
        assert {each.delivery_count for each in again} == {2}
        rig.server.drop_connections()
        assert await told(lambda: source.extend(receipts(again), 30.0)) != [LOST] * 4
        assert await acked(source, *again) == [DONE] * 4


@pytest.mark.parametrize(
    "lost",
    [ConnectionDropped(), ConnectionClosed("amqp:connection:forced", "x"), LinkDetached("amqp:internal-error", "x")],
)
async def test_the_answer_to_a_settlement_that_is_lost_leaves_it_unknown(lost: Exception) -> None:
    """It was done: asked again, it is lost. The others of the call are found out, too; each is done once."""
    async with rigged() as rig, rig.source() as source:
        await foreign(rig, *[written(b"%d" % n) for n in range(3)])
        held = await received(source, 3)
        rig.trouble.lost["settle"] = lost
        try:
            first = kinds(await source.ack(receipts(held)))
        except ConnectionLost:
            first = [SettledKind.UNKNOWN]
        except TransientAdapterError:
            first = [SettledKind.UNKNOWN]
        assert SettledKind.REFUSED not in first
        answers = await acked(source, *held)
        assert set(answers) <= {DONE, LOST}

    assert rig.server.counts().acked == 3


@pytest.mark.parametrize("duplicates", [0.0, 600.0])
async def test_the_answer_to_a_copy_that_is_lost_leaves_no_event_behind(duplicates: float) -> None:
    """It may come twice, never not at all; once, where duplicates are detected."""
    async with rigged(duplicates=duplicates) as rig, rig.source() as source:
        await foreign(rig, written(b"a"))
        held = await one(source)
        for lost in (ConnectionDropped(), LinkDetached("com.microsoft:server-busy", "x")):
            rig.trouble.lost["send"] = lost
            with pytest.raises(TransientAdapterError):
                await source.nack([(held.receipt, 5.0)])
            assert "complete" not in rig.trouble.of("settle")
        assert await told(lambda: source.nack([(held.receipt, 5.0)])) == [DONE]
        rig.skip(6.0)
        copies = 1 if duplicates else 3
        found = await received(source, copies)
        assert bodies(found) == [b"a"] * copies
        assert {each.delivery_count for each in found} == {2}
        assert await source.receive(1, 0.3) == []
        assert await source.ack(receipts(found)) == [DONE] * copies


async def test_the_answer_to_a_publish_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown, and another sender goes on; an event with an id is stored once where duplicates are detected."""
    monkeypatch.setitem(_wire._ONCE, "try_timeout", 1.5)
    async with rigged(duplicates=600.0) as rig, rig.both() as (source, sink):
        rig.trouble.lost["send"] = AnswerLost()
        with pytest.raises(ConnectionLost):
            await sink.publish([Outgoing(body=b"a", event_id="1")])
        await publish(sink, Outgoing(body=b"a", event_id="1"))
        assert bodies(await received(source, 1)) == [b"a"]
        assert await source.receive(1, 0.3) == []
