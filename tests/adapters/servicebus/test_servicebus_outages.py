"""Servers that detach, throttle, restart or lose their answers: told for what it is, survived, and never in a hot loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import current_time
from eventkit_servicebus import _wire, adapter
from eventkit_servicebus._local import (
    AnswerLost,
    Call,
    ConnectionClosed,
    ConnectionDropped,
    LinkDetached,
    serve,
)

from eventkit.errors import (
    AccessDenied,
    AdapterError,
    ConnectionLost,
    SourceNotFound,
    Throttled,
    TransientAdapterError,
)
from eventkit.spi import DONE, LOST, Address, Delivery, Demand, Extended, Outgoing, SettledKind
from tests.adapters.servicebus.adapter_support import (
    DEMAND,
    Rig,
    bodies,
    error,
    foreign,
    kinds,
    publish,
    receipts,
    received,
    rigged,
    written,
)

BILLS = "bills.sessions"
ORDERED = Demand(events=50, ordered=True, lease=30.0, wait=1.0)

REASONS: dict[str, type[AdapterError]] = {
    "com.microsoft:server-busy": Throttled,
    "com.microsoft:timeout": ConnectionLost,
    "amqp:resource-limit-exceeded": Throttled,
    "amqp:internal-error": TransientAdapterError,
    "amqp:link:detach-forced": ConnectionLost,
    "com.microsoft:container-close": TransientAdapterError,
    "com.microsoft:message-lock-lost": TransientAdapterError,
    "com.microsoft:session-lock-lost": TransientAdapterError,
    "com.microsoft:entity-disabled": TransientAdapterError,
    "amqp:unauthorized-access": AccessDenied,
    "amqp:not-found": SourceNotFound,
}
"""Why a link may be detached, and what the receive that waits says of it."""


async def one(source: Any, within: float = 5.0) -> Delivery:
    """The next delivery, whatever the receives before it raise."""
    with anyio.fail_after(within):
        while True:
            try:
                if found := await source.receive(1, 1.0):
                    return found[0]  # type: ignore[no-any-return]
            except AdapterError:
                await anyio.sleep(0.02)


async def told(source: Any, call: Callable[[], Any], within: float = 5.0) -> list[Any]:
    """What a call answers at last, repeated as the core does."""
    with anyio.fail_after(within):
        while True:
            try:
                answers = list(await call())
            except TransientAdapterError:
                answers = []
            unsure = {SettledKind.RETRY, SettledKind.UNKNOWN}
            if answers and not any(getattr(each, "kind", None) in unsure for each in answers):
                return answers
            await anyio.sleep(0.05)


@pytest.mark.parametrize("reasons", [list(REASONS)[0::2], list(REASONS)[1::2]])
async def test_a_link_that_is_detached_while_a_receive_waits_is_told_for_what_it_is(reasons: list[str]) -> None:
    """One ends the worker, another passes: then the next receive goes on with one new link."""
    async with rigged() as rig, rig.source() as source:
        wrong = []
        for number, reason in enumerate(reasons):
            async with anyio.create_task_group() as tasks:

                async def detach(reason: str = reason) -> None:
                    await anyio.sleep(0.1)
                    assert rig.server.detach_links(reason, entity="orders")

                tasks.start_soon(detach)
                raised: Exception | None = None
                try:
                    assert await source.receive(10, 1.0) == []
                except AdapterError as exc:
                    raised = exc
            if not isinstance(raised, REASONS[reason]):
                wrong.append((reason, raised))
            await foreign(rig, written(b"%d" % number))
            held = await one(source)
            assert held.body == b"%d" % number
            assert await told(source, lambda held=held: source.ack([held.receipt])) == [DONE]  # type: ignore[misc]
        assert not wrong
        assert rig.trouble.of("attach").count("receiver") <= 1 + 2 * len(reasons)

    assert rig.server.counts().acked == len(reasons)


async def test_links_that_are_detached_while_nobody_receives_are_opened_again() -> None:
    """What was held is settled, what was parked is delayed, what waits is received; each by a new link."""
    async with rigged() as rig, rig.source() as source:
        for reason in REASONS:
            await foreign(rig, written(b"a"))
            held = await one(source)
            rig.server.detach_links(reason, entity="orders")
            [answer] = await told(source, lambda held=held: source.ack([held.receipt]))  # type: ignore[misc]
            assert answer in {DONE, LOST}, reason  # lost: it was done, and the answer had no link to come by
        assert rig.trouble.of("attach").count("receiver") <= 1 + 2 * len(REASONS)

    assert rig.server.counts().acked == len(REASONS)


async def test_a_sender_that_is_detached_does_not_stop_retries() -> None:
    """A delayed one is a copy, sent by a link of its own."""
    async with rigged() as rig, rig.source() as source, rig.sink() as sink:
        for reason in ("com.microsoft:server-busy", "amqp:link:detach-forced", "com.microsoft:container-close"):
            await foreign(rig, written(b"a"))
            held = await one(source)
            rig.server.detach_links(reason, entity="orders")
            [answer] = await told(source, lambda held=held: source.nack([(held.receipt, 5.0)]))  # type: ignore[misc]
            assert answer in {DONE, LOST}, reason
            rig.skip(6.0)
            again = await one(source)
            assert again.delivery_count == 2
            assert await source.ack([again.receipt]) == [DONE]
            assert await source.receive(1, 0.2) == []
            assert await told(source, lambda: sink.publish([Outgoing(body=b"b")])) == [DONE]
            assert await told(source, lambda held=await one(source): source.ack([held.receipt])) == [DONE]  # type: ignore[misc]


async def test_a_queue_that_refuses_everybody_is_asked_once_a_receive() -> None:
    """And is open again as soon as it lets somebody in."""

    def nobody(call: Call) -> None:
        if call.operation in {"attach", "deliver"}:
            raise error("com.microsoft:server-busy")

    async with rigged() as rig, rig.source() as source:
        await foreign(rig, written(b"a"))
        rig.trouble.rule = nobody
        before = len(rig.trouble.of("attach"))
        for _ in range(3):
            with pytest.raises(Throttled) as caught:
                await source.receive(1, 2.0)
            assert caught.value.retry_after == 10.0
        assert len(rig.trouble.of("attach")) - before <= 3
        rig.trouble.rule = lambda call: None
        rig.skip(61.0)
        assert (await one(source)).body == b"a"


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
        assert rig.trouble.of("attach").count("receiver") == 1

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
        answers = await told(source, lambda: source.ack([held[1].receipt]))
        assert answers == [LOST]
        assert await told(source, lambda: source.nack([(held[2].receipt, 0.0), (held[3].receipt, 5.0)])) != [DONE, DONE]
        again = await received(source, 4)
        assert {each.delivery_count for each in again} == {2}
        rig.server.drop_connections()
        assert await told(source, lambda: source.extend(receipts(again), 30.0)) != [LOST] * 4
        assert await told(source, lambda: source.ack(receipts(again))) == [DONE] * 4


@pytest.mark.parametrize("name", ["orders", BILLS])
async def test_a_server_that_starts_again_is_found_again(name: str) -> None:
    """At the same place, with nothing of what was: what was held is lost, and all goes on."""
    demand = ORDERED if name == BILLS else DEMAND
    async with rigged(name) as rig:
        port = int(rig.endpoint.rpartition(":")[2])
        first = rig.server
    async with _served(port, name) as server:
        address = Address.parse(f"servicebus://local/{name}?endpoint=127.0.0.1:{port}")
        async with adapter.open_source(address, demand) as source:
            await _stored(server, name)
            held = await one(source)
            server_ended = current_time()
            await server.__dict__["stop_it"]()
            for _ in range(3):
                with pytest.raises(ConnectionLost):
                    while current_time() < server_ended + 10:
                        await source.receive(1, 1.0)
            async with _served(port, name) as later:
                await _stored(later, name)
                answers = await told(source, lambda: source.ack([held.receipt]))
                assert answers == [LOST]
                again = await one(source)
                assert await told(source, lambda: source.ack([again.receipt])) == [DONE]
                assert later.counts().acked == 1
    del first


class _Served:
    """A server that can be ended before its time."""

    def __init__(self, port: int, name: str) -> None:
        self._made = serve([name], port=port)
        self._ended = False

    async def __aenter__(self) -> Any:
        server: Any = await self._made.__aenter__()
        server.stop_it = self.stop
        return server

    async def stop(self) -> None:
        if not self._ended:
            self._ended = True
            await self._made.__aexit__(None, None, None)

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _served(port: int, name: str) -> _Served:
    return _Served(port, name)


async def _stored(server: Any, name: str) -> None:
    class Here:
        def __init__(self) -> None:
            self.server = server

    await foreign(Here(), written(b"a", session="s"), queue=name)  # type: ignore[arg-type]


@pytest.mark.parametrize("lost", [ConnectionDropped(), ConnectionClosed("amqp:connection:forced", "x"), LinkDetached("amqp:internal-error", "x")])
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
        answers = await told(source, lambda: source.ack(receipts(held)))
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
        assert await told(source, lambda: source.nack([(held.receipt, 5.0)])) == [DONE]
        rig.skip(6.0)
        copies = 1 if duplicates else 3
        found = await received(source, copies)
        assert bodies(found) == [b"a"] * copies
        assert {each.delivery_count for each in found} == {2}
        assert await source.receive(1, 0.3) == []
        assert await source.ack(receipts(found)) == [DONE] * copies


async def test_the_answer_to_a_publish_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown, and the sender is another one after it; an event with an id is stored once where duplicates are detected."""
    monkeypatch.setitem(_wire._ONCE, "try_timeout", 1.5)
    async with rigged(duplicates=600.0) as rig, rig.both() as (source, sink):
        rig.trouble.lost["send"] = AnswerLost()
        with pytest.raises(ConnectionLost):
            await sink.publish([Outgoing(body=b"a", event_id="1")])
        await publish(sink, Outgoing(body=b"a", event_id="1"))
        assert bodies(await received(source, 1)) == [b"a"]
        assert await source.receive(1, 0.3) == []


async def test_no_message_is_held_up_by_a_receiver_that_nobody_reads() -> None:
    """A source has several, and may be idle; another one gets what comes then, and so does a receive of its own."""
    async with rigged() as rig, rig.source(demand=Demand(events=600)) as source:
        for limit in (1, 100):
            async with anyio.create_task_group() as tasks:
                for _ in range(source.info.limits.concurrent_receives):
                    tasks.start_soon(source.receive, limit, 0.2)
        await anyio.sleep(0.2)  # credit is taken back beside
        for number in range(6):
            await foreign(rig, written(b"%d" % number))
            since = current_time()
            [held] = await received(source, 1)
            assert current_time() - since < 0.5
            assert await source.ack([held.receipt]) == [DONE]
            assert held.delivery_count == 1


async def test_a_source_that_is_stopped_holds_up_nothing() -> None:
    """Nor one that has not received for a while: what comes is another's."""
    async with rigged() as rig, rig.source() as stopped, rig.source() as other:
        assert await stopped.receive(1, 0.2) == []
        stopped.stop()
        await anyio.sleep(0.3)
        await foreign(rig, *[written(b"%d" % n) for n in range(3)])
        found = await received(other, 3, within=2.0)
        assert sorted(bodies(found)) == [b"0", b"1", b"2"]
        assert {each.delivery_count for each in found} == {1}
        assert await other.ack(receipts(found)) == [DONE] * 3


async def test_what_is_fetched_ahead_comes_and_is_settled() -> None:
    """More than is asked for is there already; one after another, long after the first ones were short."""
    async with rigged() as rig, rig.source(more="&prefetch=50") as source:
        assert any("prefetch=50" in each for each in source.info.warnings)
        found: list[Delivery] = []
        for number in range(3):
            await foreign(rig, *[written(b"%d" % (40 * number + n)) for n in range(40)])
            some = await received(source, 40)
            assert await source.ack(receipts(some)) == [DONE] * 40
            found += some
        assert len({*bodies(found)}) == 120
        assert {each.delivery_count for each in found} == {1}


@pytest.mark.parametrize("pause", [1.3, 3.5])
async def test_what_was_fetched_ahead_and_has_expired_is_not_handed_over(pause: float) -> None:
    """It is somebody else's: handed over, it would be handled twice."""
    async with rigged(lock=1.0) as rig, rig.source(more="&prefetch=50") as source:
        await foreign(rig, written(b"a"), written(b"b"))
        first = await received(source, 1)
        await anyio.sleep(pause)
        found = list(first)
        while current_time() and len(found) < 3:
            found += await source.receive(10, 1.0)
        answers = await source.ack(receipts(found[1:]))
        assert answers == [DONE] * len(answers)
