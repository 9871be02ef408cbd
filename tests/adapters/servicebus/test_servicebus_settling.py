"""Receiving, acks, nacks, extensions and dead letters."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest
from anyio import current_time
from eventkit_servicebus._local import AnswerLost

from eventkit.errors import ConnectionLost, TransientAdapterError
from eventkit.spi import DONE, LOST, Extended, Letter, Outgoing, SettledKind
from tests.adapters.servicebus.adapter_support import bodies, error, kinds, publish, receipts, received, rigged

ORDER = Outgoing(body=b"\x00order", attributes={"ce-id": "7"}, content_type="text/plain", key="k", event_id="7")


async def test_a_message_arrives_as_it_was_published() -> None:
    """Byte for byte, on its first delivery."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, ORDER)
        asked_at = current_time()
        [delivery] = await received(source, 1)
        assert await source.ack([delivery.receipt]) == [DONE]

    assert (delivery.body, dict(delivery.attributes)) == (ORDER.body, dict(ORDER.attributes))
    assert (delivery.content_type, delivery.key, delivery.delivery_count) == ("text/plain", "k", 1)
    assert asked_at + 57 < delivery.leased_until < current_time() + 59.1
    assert rig.server.counts().acked == 1


async def test_a_subscription_gets_what_is_published_to_its_topic() -> None:
    """As does each of the others."""
    async with rigged() as rig, rig.both("news/audit") as (source, sink):
        await publish(sink, b"a")
        assert bodies(await received(source, 1)) == [b"a"]


async def test_a_lonely_message_is_handed_over_at_once() -> None:
    """Asked for several, the SDK would wait 0.2 s for more."""
    async with rigged() as rig, rig.both() as (source, sink), anyio.create_task_group() as tasks:
        tasks.start_soon(publish, sink, b"a")
        asked_at = current_time()
        assert len(await source.receive(100, 2.0)) == 1
        assert current_time() - asked_at < 0.15


async def test_a_backlog_comes_in_large_calls() -> None:
    """One at a time, each would cost a round trip."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, *[b"%d" % n for n in range(500)])
        sizes = [len(await source.receive(100, 2.0)) for _ in range(4)]

    assert sum(sizes) > 200


async def test_everything_of_a_call_is_settled_side_by_side() -> None:
    """There is no call for several; each waits for its own answer."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, *[b"%d" % n for n in range(100)])
        held = await received(source, 100)
        assert await source.ack(receipts(held)) == [DONE] * 100
        assert await source.ack(receipts(held)) == [LOST] * 100

    assert rig.server.counts().acked == 100


async def test_a_nack_without_delay_gives_back_at_once() -> None:
    """And counts: `release_counts`."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a")
        [first] = await received(source, 1)
        assert await source.nack([(first.receipt, 0.0)]) == [DONE]
        [again] = await received(source, 1)

    assert (again.delivery_count, again.message_id) == (2, first.message_id)


async def test_a_delayed_retry_is_the_same_event_later() -> None:
    """A copy by the wire, and the next delivery by what the core sees."""
    async with rigged(duplicates=60.0) as rig, rig.both() as (source, sink):
        await publish(sink, ORDER)
        [first] = await received(source, 1)
        assert await source.nack([(first.receipt, 600.0)]) == [DONE]
        assert await source.receive(1, 0.3) == []
        rig.skip(599.0)
        assert await source.receive(1, 0.3) == []
        rig.skip(2.0)
        [again] = await received(source, 1)
        assert await source.nack([(again.receipt, 1.0)]) == [DONE]
        rig.skip(2.0)
        [third] = await received(source, 1)

    assert (again.message_id, again.delivery_count, third.delivery_count) == (first.message_id, 2, 3)
    assert (again.body, again.key, dict(again.attributes)) == (ORDER.body, "k", dict(ORDER.attributes))
    assert again.enqueued_at == first.enqueued_at


async def test_a_retry_is_not_settled_before_its_copy_is_stored() -> None:
    """What cannot be sent stays as it is: nothing is lost."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a")
        [held] = await received(source, 1)
        rig.trouble.errors["send"] = error("com.microsoft:server-busy")
        [answer] = await source.nack([(held.receipt, 5.0)])
        assert answer.kind is SettledKind.RETRY
        assert rig.trouble.of("settle") == []
        rig.trouble.errors.clear()
        assert await source.nack([(held.receipt, 5.0)]) == [DONE]

    assert rig.trouble.of("settle") == ["complete"]


async def test_a_copy_is_not_sent_twice_when_the_original_could_not_be_completed() -> None:
    """It would be handled twice."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a")
        [held] = await received(source, 1)
        rig.trouble.errors["settle"] = error("com.microsoft:server-busy")
        [answer] = await source.nack([(held.receipt, 5.0)])
        assert answer.kind is SettledKind.RETRY
        rig.trouble.errors.clear()
        assert await source.nack([(held.receipt, 5.0)]) == [DONE]

    assert rig.trouble.of("send") == [1, 1]


async def test_an_extension_is_as_long_as_the_lock() -> None:
    """Whatever is asked for; and it is what keeps it from others."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a", b"b")
        held = await received(source, 2)
        rig.skip(40.0)
        asked_at = current_time()
        [extended, _] = await source.extend(receipts(held), 10.0)
        assert isinstance(extended, Extended)
        assert extended.until - asked_at == pytest.approx(100.0, abs=1.0)  # the server's clock is 40 s ahead
        rig.skip(40.0)
        assert await source.ack(receipts(held)) == [DONE, DONE]


async def test_what_somebody_else_has_is_lost() -> None:
    """Whatever is asked for it."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a")
        held = await received(source, 1)
        rig.skip(61.0)
        assert await source.extend(receipts(held), 10.0) == [LOST]
        assert await source.ack(receipts(held)) == [LOST]
        assert await source.nack([(held[0].receipt, 0.0)]) == [LOST]
        assert await source.dead_letter([Letter(receipt=held[0].receipt, reason="r", detail="d")]) == [LOST]
        [again] = await received(source, 1)

    assert again.delivery_count == 2


async def test_a_dead_letter_has_its_reason() -> None:
    """It is read by whoever looks after them."""
    async with rigged() as rig:
        async with rig.both() as (source, sink):
            await publish(sink, b"a", b"b")
            held = await received(source, 2)
            letters = [Letter(receipt=each.receipt, reason=f"r{n}", detail="{" * 9_000) for n, each in enumerate(held)]
            assert await source.dead_letter(letters) == [DONE, DONE]
        async with rig.source("orders/$DeadLetterQueue") as dead:
            found = await received(dead, 2)
            assert await dead.ack(receipts(found)) == [DONE, DONE]

    assert bodies(found) == [b"a", b"b"]
    raws: list[Any] = [each.raw for each in found]
    assert [raw.dead_letter_reason for raw in raws] == ["r0", "r1"]
    assert [raw.dead_letter_error_description for raw in raws] == ["{" * 4_096] * 2  # all that the service takes
    assert rig.server.counts().dead == 2


async def test_a_busy_server_is_asked_again_later() -> None:
    """It said no: nothing is done."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a")
        held = await received(source, 1)
        rig.trouble.errors["settle"] = error("com.microsoft:server-busy")
        [answer] = await source.ack(receipts(held))
        assert (answer.kind, answer.after) == (SettledKind.RETRY, 10.0)
        rig.trouble.errors.clear()
        assert await source.ack(receipts(held)) == [DONE]


async def test_one_answer_of_several_is_told_by_itself() -> None:
    """The others are done."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a", b"b", b"c")
        held = await received(source, 3)
        assert await source.ack([held[1].receipt]) == [DONE]
        assert await source.ack(receipts(held)) == [DONE, LOST, DONE]


async def test_a_delayed_message_is_delivered_when_it_is_due() -> None:
    """Not before."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, Outgoing(body=b"a", delay=100.0))
        assert await source.receive(1, 0.3) == []
        rig.skip(101.0)
        assert bodies(await received(source, 1)) == [b"a"]


async def test_more_than_a_batch_holds_goes_in_several() -> None:
    """And what is too large for any is refused by itself."""
    async with rigged() as rig, rig.both() as (source, sink):
        large = [Outgoing(body=bytes([n]) * 100_000) for n in range(5)]
        answers = await sink.publish([*large, Outgoing(body=b"x" * 2_000_000)])
        assert kinds(answers) == [SettledKind.DONE] * 5 + [SettledKind.REFUSED]
        assert [each.body[0] for each in await received(source, 5)] == [0, 1, 2, 3, 4]

    assert len(rig.trouble.of("send")) == 3


async def test_a_lost_answer_to_a_publish_is_told() -> None:
    """Stored or not: nobody knows."""
    async with rigged() as rig, rig.sink() as sink:
        rig.trouble.lost["send"] = error("amqp:internal-error")
        with pytest.raises(TransientAdapterError):
            await sink.publish([Outgoing(body=b"a")])
        await publish(sink, b"b")


async def test_stop_ends_a_pending_receive_and_settling_goes_on() -> None:
    """Nothing that arrived is stranded."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a")
        [held] = await received(source, 1)
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                await anyio.sleep(0.1)
                source.stop()
                source.stop()

            tasks.start_soon(stop)
            started = time.monotonic()
            assert await source.receive(10, 20.0) == []
            assert time.monotonic() - started < 0.4  # a call of the SDK would wait for longer
        assert await source.receive(10, 20.0) == []
        assert isinstance((await source.extend([held.receipt], 10.0))[0], Extended)
        assert await source.ack([held.receipt]) == [DONE]


async def test_an_answer_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK would wait a minute."""
    monkeypatch.setattr("eventkit_servicebus._link.ANSWER_WITHIN", 0.3)
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a")
        held = await received(source, 1)
        rig.trouble.lost["settle"] = AnswerLost()
        with pytest.raises(ConnectionLost):
            await source.ack(receipts(held))
        assert kinds(await source.ack(receipts(held))) == [SettledKind.LOST]


async def test_a_body_over_the_limit_is_refused_alone() -> None:
    """The service would detach the link, and its fellows with it."""
    async with rigged() as rig, rig.sink() as sink:
        most = sink.limits.body
        answers = await sink.publish([Outgoing(body=b"x" * size) for size in (most + 1, most, 1)])

    assert [answer.kind for answer in answers] == [SettledKind.REFUSED, SettledKind.DONE, SettledKind.DONE]
    assert f"{most + 1:,} bytes, over the limit of {most:,}" in answers[0].cause
