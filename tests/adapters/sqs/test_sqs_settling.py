"""Settling and publishing in batches: each entry has an answer of its own, and each answer is read."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from anyio import current_time
from eventkit_sqs import adapter
from eventkit_sqs._local import SqsError
from eventkit_sqs._source import Hold

from eventkit.errors import ConnectionLost, SourceNotFound, Throttled, TransientAdapterError
from eventkit.spi import DONE, LOST, Address, Extended, Outgoing, SettledKind
from eventkit.testing import FaultProxy
from tests.adapters.sqs.adapter_support import DEMAND, Rig, received, rigged

REFUSED, RETRY = SettledKind.REFUSED, SettledKind.RETRY


async def in_hand(rig: Rig, number: int, queue: str = "orders") -> None:
    await rig.publish(*[str(each).encode() for each in range(number)], queue=queue)


@pytest.mark.parametrize(
    ("operation", "verb"),
    [
        ("DeleteMessageBatch", "ack"),
        ("ChangeMessageVisibilityBatch", "nack"),
        ("ChangeMessageVisibilityBatch", "extend"),
    ],
)
async def test_an_entry_that_fails_is_told_in_its_place(operation: str, verb: str) -> None:
    """A batch call is a success when half of it failed: who reads only the status loses acks."""
    async with rigged() as rig:
        await in_hand(rig, 4)
        async with rig.source() as source:
            receipts = [delivery.receipt for delivery in await received(source, 4)]
            rig.trouble.entries = {
                operation: {
                    "1": SqsError("InternalFailure", "not now"),
                    "2": SqsError("AccessDenied", "never"),
                    "3": SqsError("RequestThrottled", "slow down"),
                }
            }
            answers: list[Any]
            match verb:
                case "ack":
                    answers = list(await source.ack(receipts))
                case "nack":
                    answers = list(await source.nack([(receipt, 1.0) for receipt in receipts]))
                case _:
                    [first, *rest] = await source.extend(receipts, 2.0)
                    assert isinstance(first, Extended)
                    answers = [DONE, *rest]

    assert [answer.kind for answer in answers] == [SettledKind.DONE, RETRY, REFUSED, RETRY]
    assert answers[3].after > 0
    assert "AccessDenied" in answers[2].cause


async def test_an_answer_that_is_lost_leaves_all_unknown() -> None:
    """The core repeats it: SQS takes both for the same."""
    async with rigged() as rig:
        await in_hand(rig, 2)
        async with rig.source() as source:
            receipts = [delivery.receipt for delivery in await received(source, 2)]
            rig.trouble.lost = {"DeleteMessageBatch"}
            with pytest.raises(TransientAdapterError):
                await source.ack(receipts)
            assert await source.ack(receipts) == [DONE, DONE]


async def test_a_call_that_sqs_asks_to_slow_down_is_known_not_to_be_done() -> None:
    """So it is answered, item by item, and not left in doubt."""
    async with rigged() as rig:
        await in_hand(rig, 1)
        async with rig.source() as source, rig.sink() as sink:
            [delivery] = await received(source, 1)
            rig.trouble.errors = dict.fromkeys(
                ["DeleteMessageBatch", "SendMessageBatch", "ReceiveMessage"],
                SqsError("ThrottlingException", "slow down"),
            )
            [acked] = await source.ack([delivery.receipt])
            [sent] = await sink.publish([Outgoing(body=b"x")])
            with pytest.raises(Throttled) as raised:
                await source.receive(1, 1.0)

    assert acked.kind is sent.kind is RETRY
    assert acked.after == raised.value.retry_after == 1.0


async def test_a_queue_that_was_deleted_refuses_what_is_settled_and_ends_what_is_received() -> None:
    """Nothing will change by asking again."""
    async with rigged() as rig:
        await in_hand(rig, 1)
        async with rig.source() as source, rig.sink() as sink:
            [delivery] = await received(source, 1)
            await rig.call("delete_queue", QueueUrl=rig.url("orders"))
            [acked] = await source.ack([delivery.receipt])
            [sent] = await sink.publish([Outgoing(body=b"x")])
            with pytest.raises(SourceNotFound, match="there is no such queue"):
                await source.receive(1, 1.0)

    assert acked.kind is sent.kind is REFUSED


async def test_delays_end_twelve_hours_after_the_receive() -> None:
    """SQS refuses a longer one, and with it the retry: the event would come at once, or only when its lease ends."""
    hold = Hold("handle", current_time() - 43_000.0)

    assert hold.left(current_time()) in {199, 200}
    assert Hold("handle", current_time() - 50_000.0).left(current_time()) == 0


async def test_a_retry_that_has_waited_long_is_delayed_by_what_is_left() -> None:
    """A little early beats refused."""
    async with rigged() as rig:
        await in_hand(rig, 1)
        async with rig.source() as source:
            [delivery] = await received(source, 1)
            old = delivery.receipt._replace(received_at=current_time() - 43_000.0)
            assert await source.nack([(old, 3_000.0)]) == [DONE]

        sent = rig.trouble.calls[-1].request["Entries"][0]["VisibilityTimeout"]
        assert sent in {199, 200}


async def test_an_old_receipt_of_a_fifo_queue_is_a_lost_lease() -> None:
    """There SQS does say so; on a standard queue it claims to have deleted."""
    async with rigged() as rig:
        await in_hand(rig, 1, "bills.fifo")
        async with rig.source("bills.fifo") as source:
            [delivery] = await received(source, 1)
            await anyio.sleep(2.1)
            assert await source.ack([delivery.receipt]) == [LOST]


async def test_on_a_fifo_queue_the_receive_after_a_lost_answer_gets_the_same_events() -> None:
    """They are leased to nobody, and hold up their groups until that ends: SQS gives them again to the same id."""
    async with rigged() as rig:
        async with rig.source("bills.fifo") as source:
            rig.trouble.lost = {"ReceiveMessage"}
            with pytest.raises(TransientAdapterError):
                await source.receive(1, 0.0)
            await source.receive(1, 0.0)
            await source.receive(1, 0.0)

        ids = [
            call.request["ReceiveRequestAttemptId"] for call in rig.trouble.calls if call.operation == "ReceiveMessage"
        ]
    assert ids[0] == ids[1] != ids[2]


async def test_two_workers_never_use_the_same_id_for_a_receive() -> None:
    """SQS would give both the same events."""
    async with rigged() as rig:
        async with rig.source("bills.fifo") as one, rig.source("bills.fifo") as two:
            await one.receive(1, 0.0)
            await two.receive(1, 0.0)
        requests = [call.request for call in rig.trouble.calls if call.operation == "ReceiveMessage"]

    assert len({request["ReceiveRequestAttemptId"] for request in requests}) == 2


async def test_what_is_too_large_for_one_call_goes_in_several() -> None:
    """SQS takes 1 MiB a call, not an entry; the core knows only how many."""
    async with rigged() as rig:
        bodies = [bytes([65 + number]) * 300_000 for number in range(10)]
        async with rig.sink() as sink, rig.source() as source:
            assert await sink.publish([Outgoing(body=body) for body in bodies]) == [DONE] * 10
            came = [delivery.body for delivery in await received(source, 10)]

    assert sorted(came) == bodies
    assert rig.trouble.number("SendMessageBatch") == 4


async def test_what_was_sent_before_a_call_that_failed_is_known() -> None:
    """Of several calls for one publish, each has its own answer."""
    async with rigged() as rig:

        class Second(dict[str, SqsError]):
            def __contains__(self, operation: object) -> bool:
                return operation == "SendMessageBatch" and rig.trouble.number("SendMessageBatch") == 2

            def __missing__(self, _: str) -> SqsError:
                return SqsError("InternalFailure", "not now")

        rig.trouble.errors = Second()
        async with rig.sink() as sink:
            answers = await sink.publish([Outgoing(body=b"x" * 600_000)] * 3)

    assert [answer.kind for answer in answers] == [SettledKind.DONE, SettledKind.UNKNOWN, SettledKind.UNKNOWN]


async def test_a_message_over_the_limit_of_its_queue_is_refused_beside_its_fellows() -> None:
    """SQS refuses the whole call for one of them."""
    async with rigged() as rig:
        await rig.set_attributes("orders", MaximumMessageSize="1024")
        async with rig.sink() as sink:
            small, large = await sink.publish([Outgoing(body=b"x" * 1024), Outgoing(body=b"x" * 1025)])

    assert small == DONE
    assert large.kind is REFUSED
    assert "over the queue's limit of 1,024" in large.cause


async def test_a_server_that_goes_away_is_a_lost_connection() -> None:
    """Worth trying again: a server that restarts, a network that blinks."""
    async with rigged() as rig:
        upstream = urlsplit(rig.server.endpoint)
        assert upstream.port is not None
        async with FaultProxy("127.0.0.1", upstream.port) as proxy:
            address = Address.parse(f"sqs://orders?endpoint=http://{proxy.host}:{proxy.port}")
            async with adapter.open_source(address, DEMAND) as source, adapter.open_sink(address) as sink:
                proxy.refuse()
                proxy.reset()
                with pytest.raises(ConnectionLost, match="cannot receive from sqs://orders"):
                    await source.receive(1, 1.0)
                with pytest.raises(ConnectionLost, match="cannot publish to sqs://orders"):
                    await sink.publish([Outgoing(body=b"x")])
                proxy.heal()
                assert await sink.publish([Outgoing(body=b"x")]) == [DONE]
                await received(source, 1)
