"""Dead letters of the embedded queue."""

from __future__ import annotations

import time

import pytest

from eventkit.errors import PermanentAdapterError
from eventkit.spi import DONE, LOST, DeadLetter, DeadLetterBrowser, Letter, Outgoing
from tests.adapters.sqlite.support import SOON, Queue, bodies, on_both_loops


@on_both_loops
async def test_a_dead_letter_keeps_the_event_and_says_why(queue: Queue) -> None:
    """What an operator needs to decide, and to send it again unchanged."""
    async with queue.sink() as sink, queue.source() as source:
        assert isinstance(source, DeadLetterBrowser)
        before = time.time()
        await sink.publish([Outgoing(body=b"\xff\x00", attributes={"a": "b"}, content_type="x/y", key="k")])
        (first,) = await source.receive(1, SOON)
        await source.nack([(first.receipt, 0.0)])
        (second,) = await source.receive(1, SOON)
        letter = Letter(receipt=second.receipt, reason="decode", detail='{"path": "$.a"}')
        assert await source.dead_letter([letter]) == [DONE]
        assert await source.dead_letter([letter]) == [LOST]
        assert await source.receive(1, 0.0) == ()
        (dead,) = await source.peek(10)
        assert before <= dead.enqueued_at <= dead.dead_at <= time.time()
        assert dead == DeadLetter(
            id=dead.id,
            reason="decode",
            detail='{"path": "$.a"}',
            message_id=second.message_id,
            body=b"\xff\x00",
            attributes={"a": "b"},
            content_type="x/y",
            key="k",
            delivery_count=2,
            enqueued_at=dead.enqueued_at,
            dead_at=dead.dead_at,
        )


async def _kill(queue: Queue, *reasons: str) -> None:
    async with queue.source() as source:
        await queue.publish(*(reason.encode() for reason in reasons))
        for delivery in await source.receive(len(reasons), SOON):
            await source.dead_letter([Letter(receipt=delivery.receipt, reason=delivery.body.decode(), detail="{}")])


@on_both_loops
async def test_pages_come_oldest_first_and_survive_removals(queue: Queue) -> None:
    """A page begins after an id even when the letter of that id is gone."""
    await _kill(queue, "a", "b", "c")
    await _kill(queue, "d", "e")
    async with queue.source() as source:
        first = await source.peek(2)
        assert [x.reason for x in first] == ["a", "b"]
        assert await source.take([x.id for x in first]) == [DONE, DONE]
        second = await source.peek(2, after=first[-1].id)
        assert [x.reason for x in second] == ["c", "d"]
        assert [x.reason for x in await source.peek(2, after=second[-1].id)] == ["e"]
        assert await source.peek(0) == []


@on_both_loops
async def test_what_is_taken_is_gone_for_good(queue: Queue) -> None:
    """The content too: a file does not grow by what was thrown away."""
    await _kill(queue, "a", "b")
    async with queue.source() as source:
        a, b = await source.peek(2)
        assert await source.take([a.id, a.id, "no id", "٣", "9" * 30]) == [DONE, LOST, LOST, LOST, LOST]
        assert await source.put_back([a.id]) == [LOST]
        assert [x.id for x in await source.peek(9)] == [b.id]
        assert (await source.depth()).dead == 1


@on_both_loops
async def test_what_is_put_back_is_delivered_as_new_but_byte_for_byte(queue: Queue) -> None:
    """Count from 0, same message id, in its first place in publish order; an id is used once."""
    async with queue.sink() as sink, queue.source() as source:
        await sink.publish([Outgoing(body=b"\x00a", attributes={"a": "b"}, content_type="x/y", key="k")])
        (was,) = await source.receive(1, SOON)
        await source.dead_letter([Letter(receipt=was.receipt, reason="r", detail="{}")])
        await sink.publish([Outgoing(body=b"later")])
        (dead,) = await source.peek(1)
        assert await source.put_back([dead.id, dead.id]) == [DONE, LOST]
        assert await source.peek(1) == []
        back, later = await source.receive(2, SOON)
        assert (back.body, back.attributes, back.content_type, back.key) == (b"\x00a", {"a": "b"}, "x/y", "k")
        assert (back.message_id, back.delivery_count, back.enqueued_at) == (was.message_id, 1, was.enqueued_at)
        assert later.body == b"later"
        assert await source.ack([was.receipt]) == [LOST]
        await source.dead_letter([Letter(receipt=back.receipt, reason="again", detail="{}")])
        (again,) = await source.peek(1)
        assert again.id != dead.id


@on_both_loops
async def test_what_is_put_back_wakes_a_receive_and_is_found_by_other_sources(queue: Queue) -> None:
    """The command line puts back, a worker receives."""
    await _kill(queue, "a")
    async with queue.source() as shell, queue.source(ordered=True) as worker:
        await shell.put_back([x.id for x in await shell.peek(1)])
        assert bodies(await worker.receive(1, SOON)) == [b"a"]


@on_both_loops
async def test_a_page_after_something_that_is_no_id_is_an_error(queue: Queue) -> None:
    """Not an empty page: the caller has mistaken something."""
    async with queue.source() as source:
        with pytest.raises(PermanentAdapterError, match="'msg-1' is not the id of a dead letter"):
            await source.peek(1, after="msg-1")


@on_both_loops
async def test_a_reason_that_is_no_utf8_is_stored_in_escapes(queue: Queue) -> None:
    """An event must never be kept from the dead letters by the text about it."""
    await queue.publish(b"a")
    async with queue.source() as source:
        (delivery,) = await source.receive(1, SOON)
        assert await source.dead_letter([Letter(receipt=delivery.receipt, reason="\ud800", detail="\x00")]) == [DONE]
        (dead,) = await source.peek(1)
        assert (dead.reason, dead.detail) == ("\\ud800", "\x00")
