"""Links that go down, for a while or for good, and those that run dry."""

from __future__ import annotations

import anyio
import pytest
from anyio import current_time
from eventkit_servicebus import _link
from eventkit_servicebus._config import Place
from eventkit_servicebus._errors import LinkDown
from eventkit_servicebus._link import Link
from eventkit_servicebus._local import Call, ConnectionDropped
from eventkit_servicebus._wire import wire

from eventkit.errors import AdapterError, ConnectionLost, Throttled
from eventkit.spi import DONE, Demand, Settled, SettledKind
from tests.adapters.servicebus.adapter_support import (
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
    until,
    written,
)


async def settled(source: object, held: list[object], within: float = 5.0) -> list[Settled]:
    """Ack until it is known of each, as the core does."""
    until = current_time() + within
    while True:
        try:
            answers = await source.ack(held)  # type: ignore[attr-defined]
        except ConnectionLost:
            answers = [Settled.retry()] * len(held)
        if not any(answer.kind in {SettledKind.RETRY, SettledKind.UNKNOWN} for answer in answers):
            return list(answers)
        assert current_time() < until, answers
        await anyio.sleep(0.05)


@pytest.mark.parametrize("how", ["drop_connections", "close_connections"])
async def test_what_was_received_before_the_connection_was_lost_is_settled_after_it(how: str) -> None:
    """A lock belongs to the message, not to the connection."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, *[b"%d" % n for n in range(20)])
        held = await received(source, 20)
        getattr(rig.server, how)()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(settled, source, receipts(held[:10]))
            tasks.start_soon(settled, source, receipts(held[5:15]))
        answers = await settled(source, receipts(held))
        assert rig.trouble.of("attach").count("receiver") == 2  # one for all in the place of the one that is down

    assert {answer.kind for answer in answers} <= {SettledKind.DONE, SettledKind.LOST}
    assert rig.server.counts().acked == 20


async def test_a_receive_that_loses_its_connection_says_so_and_the_next_one_goes_on() -> None:
    """Whether to try again is for the core to say."""
    async with rigged() as rig, rig.source() as source:
        async with anyio.create_task_group() as tasks:

            async def drop() -> None:
                await anyio.sleep(0.1)
                rig.server.drop_connections()

            tasks.start_soon(drop)
            with pytest.raises(ConnectionLost):
                await source.receive(10, 3.0)
        async with rig.sink() as sink:
            await publish(sink, b"a")
        assert bodies(await received(source, 1)) == [b"a"]


@pytest.mark.parametrize(
    ("condition", "kind"),
    [
        ("com.microsoft:server-busy", Throttled),
        ("com.microsoft:timeout", ConnectionLost),
        ("amqp:resource-limit-exceeded", Throttled),
        ("amqp:internal-error", AdapterError),
    ],
)
async def test_a_receiver_that_is_detached_is_replaced(condition: str, kind: type[Exception]) -> None:
    """The SDK's own stays detached for good, and says so without a pause."""
    async with rigged() as rig, rig.both() as (source, sink):
        rig.trouble.errors["deliver"] = error(condition)
        await publish(sink, b"a")
        with pytest.raises(kind):
            await source.receive(10, 3.0)
        rig.trouble.errors.clear()
        rig.skip(61.0)
        assert bodies(await received(source, 1)) == [b"a"]


async def test_a_connection_lost_before_the_answer_leaves_it_unknown() -> None:
    """It was done: asked again, it is lost, and that is counted."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a")
        held = await received(source, 1)
        rig.trouble.lost["settle"] = ConnectionDropped()
        try:
            first = kinds(await source.ack(receipts(held)))
        except ConnectionLost:
            first = [SettledKind.UNKNOWN]
        assert first in ([SettledKind.UNKNOWN], [SettledKind.LOST])
        assert kinds(await settled(source, receipts(held))) == [SettledKind.LOST]

    assert rig.server.counts().acked == 1


async def test_while_nothing_can_be_opened_settling_is_to_be_tried_again() -> None:
    """Nothing was sent, and the lock may outlast it."""

    def nobody_in(call: Call) -> None:
        if call.operation == "attach":
            raise error("com.microsoft:server-busy")

    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a", b"b")
        held = await received(source, 2)
        rig.server.drop_connections()
        with pytest.raises(ConnectionLost):
            await source.receive(1, 1.0)
        rig.trouble.rule = nobody_in
        assert kinds(await source.ack(receipts(held))) == [SettledKind.RETRY] * 2
        rig.trouble.rule = lambda call: None
        assert await source.ack(receipts(held)) == [DONE, DONE]


async def test_a_receiver_is_replaced_before_its_management_link_runs_dry(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 10,000 answers the SDK gives it no more credit; what it brought is settled on it all the same."""
    monkeypatch.setattr(_link, "MOST_MANAGED", 3)
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a", b"b")
        held = await received(source, 2)
        for _ in range(4):
            assert kinds(await source.extend([held[0].receipt], 30.0)) == [None]
        assert rig.trouble.of("attach").count("receiver") == 2
        assert await source.receive(1, 0.3) == []
        assert await source.ack(receipts(held)) == [DONE, DONE]
        await source.receive(1, 0.3)
        with anyio.fail_after(5):
            while len(rig.server._server.connections) > 3:  # one that receives, one for copies, and the sink
                await anyio.sleep(0.05)

    assert "update-disposition" not in {call.operation for call in rig.trouble.calls}


async def test_what_is_settled_by_token_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes by the management link of the receiver in the place of the one that is gone."""
    monkeypatch.setattr(_link, "MOST_MANAGED", 2)
    async with rigged() as rig, rig.source() as source:
        await foreign(rig, *[written(b"%d" % n) for n in range(4)])
        held = await received(source, 4)
        rig.server.drop_connections()
        for each in held:
            assert await acked(source, each) == [DONE]
        assert rig.trouble.of("attach").count("receiver") == 3


async def test_links_that_are_of_no_use_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was detached, whatever it brought; one that runs dry, when nothing that it brought can be settled."""
    async with rigged(lock=1.0) as rig, rig.source() as source:
        await foreign(rig, written(b"a"))
        assert len(await received(source, 1)) == 1
        rig.server.detach_links("com.microsoft:server-busy", entity="orders")
        again = await one(source)
        await until(lambda: len(rig.server._server.connections) == 2)  # a receiver, and a sender for copies
        monkeypatch.setattr(_link, "MOST_MANAGED", 1)
        assert kinds(await source.extend([again.receipt], 1.0)) == [None]
        await source.receive(1, 0.2)
        assert len(rig.server._server.connections) == 3
        await anyio.sleep(1.0)
        await source.receive(1, 0.2)
        await until(lambda: len(rig.server._server.connections) == 2)


async def test_a_source_that_has_nothing_to_do_stays_connected() -> None:
    """The server hangs up on who says nothing for so long as it has told."""
    async with rigged(idle=2.0) as rig, rig.source() as source:
        await foreign(rig, written(b"a"))
        [held] = await received(source, 1)
        await anyio.sleep(3.0)
        assert await source.ack([held.receipt]) == [DONE]
        assert rig.trouble.of("attach").count("receiver") == 1


async def test_the_value_error_of_a_closed_handler_is_no_mistake_of_ours() -> None:
    """The SDK raises the builtin one, which also means that an argument is wrong."""
    async with rigged() as rig, wire(Place.from_address(rig.address("orders"), "source")) as way:
        opened = await way.receiver()
        await opened.close()
        link = Link(opened)
        with pytest.raises(LinkDown) as caught:
            await link.receive(1, 1.0)

    assert link.down
    assert type(caught.value.__cause__) is ValueError


async def test_receives_side_by_side_have_a_receiver_each() -> None:
    """Of two on one, the second would get nothing."""
    async with rigged() as rig, rig.both(demand=Demand(events=2_000)) as (source, sink):
        found: list[bytes] = []

        async def receive() -> None:
            found.extend(bodies(list(await source.receive(1, 3.0))))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            tasks.start_soon(receive)
            await anyio.sleep(0.2)
            await publish(sink, b"a", b"b")

    assert sorted(found) == [b"a", b"b"]
