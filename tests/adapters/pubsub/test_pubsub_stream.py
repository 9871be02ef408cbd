"""The stream: opened when asked for, given up when not, reopened when it ends, and nothing stranded."""

from __future__ import annotations

import anyio
import grpc
import pytest
from anyio import current_time
from eventkit_pubsub import _intake, _stream, adapter
from eventkit_pubsub._intake import Terms
from eventkit_pubsub._local import serve
from google.pubsub_v1.types import StreamingPullRequest

from eventkit.errors import AccessDenied, ConnectionLost, PermanentAdapterError, SourceNotFound, TransientAdapterError
from eventkit.spi import DONE, Address, Demand, Outgoing, Source
from tests.adapters.pubsub.adapter_support import (
    DEMAND,
    bodies,
    error,
    received,
    rigged,
    subscription,
)

NUMBERS = [b"%03d" % n for n in range(60)]


async def drained(source: Source) -> list[bytes]:
    """What a source still hands over after a stop."""
    found: list[bytes] = []
    while deliveries := await source.receive(10, 5.0):
        found += [each.body for each in deliveries]
    return found


# -- opening ---------------------------------------------------------------------------------------


async def test_nothing_is_received_before_somebody_asks() -> None:
    """A source that is only looked at must not lease anything."""
    async with rigged() as rig:
        await rig.publish(b"a")
        async with rig.source():
            await anyio.sleep(0.3)
            assert rig.trouble.of("StreamingPull") == []
            assert await rig.pulled(1) == [b"a"]


async def test_a_stream_is_asked_for_what_the_worker_has_room_for() -> None:
    """More would wait here, leased, while other workers are idle."""
    async with rigged() as rig:
        async with rig.source(demand=Demand(events=30, bytes=4_000_000, parked=500, lease=45.5)) as source:
            await source.receive(1, 0.1)
        [first] = rig.trouble.of("StreamingPull")

    assert first.subscription == subscription("orders")
    assert (first.max_outstanding_messages, first.max_outstanding_bytes) == (30, 4_000_000)
    assert first.stream_ack_deadline_seconds == 46
    assert first.client_id


async def test_a_lease_shorter_than_a_streams_is_set_on_arrival() -> None:
    """A stream leases for ten seconds at least; a worker that dies would be waited for that long."""
    async with rigged() as rig:
        await rig.publish(b"a")
        async with rig.source(demand=Demand(lease=2.0)) as source:
            [held] = await received(source, 1)
            assert held.leased_until <= current_time() + 2.0
            [again] = await received(source, 1)

    assert again.delivery_count == 2
    assert current_time() >= held.leased_until


async def test_what_is_waited_for_arrives_at_once() -> None:
    """A stream is no poll."""
    async with rigged() as rig, rig.source() as source, anyio.create_task_group() as tasks:
        await source.receive(1, 0.0)
        arrived: list[float] = []

        async def receive() -> None:
            [_] = await source.receive(10, 5.0)
            arrived.append(current_time())

        tasks.start_soon(receive)
        await anyio.sleep(0.3)
        before = current_time()
        await rig.publish(b"a")
        with anyio.fail_after(2):
            while not arrived:
                await anyio.sleep(0.005)
        assert arrived[0] - before < 0.2


# -- what is not handed over -----------------------------------------------------------------------


async def test_what_waits_here_is_kept_leased() -> None:
    """While somebody receives now and then, however slowly."""
    async with rigged() as rig:
        await rig.publish(*NUMBERS[:20])
        async with rig.source(demand=Demand(lease=2.0, events=20)) as source:
            found = []
            for _ in range(20):
                [delivery] = await source.receive(1, 1.0)
                found.append(delivery)
                assert delivery.leased_until > current_time()
                assert await source.ack([delivery.receipt]) == [DONE]
                await anyio.sleep(0.25)

        assert bodies(found) == NUMBERS[:20]
        assert {each.delivery_count for each in found} == {1}
        assert rig.server.counts().expired == 0


async def test_what_waits_here_stays_when_an_extension_is_throttled() -> None:
    """Its lease goes on, and is extended when there is quota again."""
    async with rigged() as rig:
        await rig.publish(*NUMBERS[:9])
        async with rig.source(demand=Demand(lease=2.0, events=9)) as source:
            found = await received(source, 1)
            rig.trouble.errors = {"ModifyAckDeadline": error("RESOURCE_EXHAUSTED")}
            began = current_time()
            while len(found) < 9:
                await anyio.sleep(0.4)
                if current_time() > began + 1.5:
                    rig.trouble.errors = {}
                found += await received(source, 1)

    assert bodies(found) == NUMBERS[:9]
    assert {each.delivery_count for each in found} == {1}


async def test_what_nobody_asks_for_is_given_back() -> None:
    """A worker that is busy for long must not keep from others what it will not come to; later it goes on."""
    async with rigged() as rig:
        await rig.publish(*NUMBERS[:10])
        async with rig.source(demand=Demand(lease=2.0, events=10)) as source:
            await received(source, 1)
            with anyio.fail_after(3):
                assert sorted(await rig.pulled(9)) == NUMBERS[1:10]
            await rig.publish(b"new")
            assert b"new" in bodies(await received(source, 1))


async def test_what_follows_something_held_in_its_key_is_not_given_back_before_it() -> None:
    """Another worker would be given it at once, and it would overtake what is held here."""
    made = [Outgoing(body=name.encode(), key=name[0]) for name in ("a1", "a2", "a3", "b1")]
    async with rigged() as rig:
        await rig.publish(*made, to="bills.ordered")
        async with rig.source("bills.ordered", Demand(lease=2.0, ordered=True)) as source:
            [head] = await source.receive(1, 2.0)
            assert head.body == b"a1"
            for _ in range(6):
                await anyio.sleep(0.5)
                await source.extend([head.receipt], 2.0)
            counts = rig.server.counts()
            assert (counts.nacked, counts.expired) == (1, 0), "b1 went back, what follows a1 is kept"
            assert await source.ack([head.receipt]) == [DONE]
            again = await received(source, 3)

    assert [each.body for each in again if each.key == "a"] == [b"a2", b"a3"]


@pytest.mark.parametrize("lost", [False, True], ids=["given back", "lost"])
@pytest.mark.parametrize("queue", ["bills.ordered", "both.ordered.exactly-once"])
async def test_what_follows_something_that_comes_again_comes_after_it(queue: str, lost: bool) -> None:
    """Pub/Sub brings it again; what waits here of the key is worth nothing any more, and must not go before."""
    made = [Outgoing(body=name.encode(), key=name[0]) for name in ("a1", "b1", "a2", "a3", "b2")]
    async with rigged(queue) as rig:
        await rig.publish(*made, to=queue)
        async with rig.source(queue, Demand(lease=2.0, ordered=True)) as source:
            [head] = await source.receive(1, 2.0)
            assert head.body == b"a1"
            if lost:
                until = current_time() + 2.5
                while current_time() < until:
                    await source.receive(0, 0.0)
                    await anyio.sleep(0.1)
            else:
                await source.nack([(head.receipt, 0.0)])
            found = await received(source, 5)

    assert [each.body for each in found if each.key == "a"] == [b"a1", b"a2", b"a3"]
    assert [each.body for each in found if each.key == "b"] == [b"b1", b"b2"]


async def test_what_comes_again_is_not_taken_for_what_it_replaces() -> None:
    """It may be here before anybody asks again: what waited is forgotten first."""
    made = [Outgoing(body=name, key="a") for name in (b"a1", b"a2")]
    async with rigged() as rig:
        await rig.publish(*made, to="bills.ordered")
        async with rig.source("bills.ordered", Demand(lease=10.0, ordered=True)) as source:
            [head] = await source.receive(1, 2.0)
            head.receipt.mark.leased_until = 0.0  # its lease is over ...
            source._intake.held._first_end = 0.0  # type: ignore[attr-defined]
            request = {"subscription": subscription("bills.ordered"), "ack_ids": [head.receipt.ack_id]}
            await rig.subscriber.modify_ack_deadline(request=request | {"ack_deadline_seconds": 0})  # ... there too
            await anyio.sleep(0.3)
            assert bodies(await received(source, 2)) == [b"a1", b"a2"]


async def test_what_was_given_back_unseen_is_no_attempt() -> None:
    """Pub/Sub counts each time it sent it: a worker that paused would dead-letter what it never tried."""
    async with rigged() as rig:
        await rig.publish(*NUMBERS[:10])
        async with rig.source(demand=Demand(lease=2.0, events=10)) as source:
            [first] = await received(source, 1)
            for _ in range(2):
                await anyio.sleep(1.5)
                await source.receive(1, 0.0)  # opens a stream, and takes nothing
            rest = await received(source, 9)

        assert rig.server.counts().nacked >= 9
        assert {each.delivery_count for each in [first, *rest]} == {1}


async def test_a_stop_strands_nothing() -> None:
    """What has arrived is handed over or given back at once, not left to its lease."""
    for receives in (0, 1, 7):
        async with rigged() as rig:
            await rig.publish(*NUMBERS)
            async with rig.source(demand=Demand(lease=600.0)) as source:
                held = await received(source, receives)
                source.stop()
                late = await drained(source)
                with anyio.fail_after(3):
                    others = await rig.pulled(len(NUMBERS) - len(held) - len(late))

            assert sorted([*bodies(held), *late, *others]) == NUMBERS


async def test_a_stop_ends_a_receive_that_waits() -> None:
    """A drain must not wait for events."""
    async with rigged() as rig, rig.source() as source:
        await source.receive(1, 0.0)
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                await anyio.sleep(0.2)
                source.stop()

            tasks.start_soon(stop)
            before = current_time()
            assert await source.receive(1, 10.0) == []
        assert current_time() - before < 1.0
        assert await source.receive(1, 10.0) == []


async def test_the_end_of_the_context_strands_nothing() -> None:
    """Without a stop, too, and when it is cancelled."""
    for cancelled in (False, True):
        async with rigged() as rig:
            await rig.publish(*NUMBERS)
            with anyio.CancelScope() as scope:
                async with rig.source(demand=Demand(lease=600.0)) as source:
                    [held] = await source.receive(1, 2.0)
                    await anyio.sleep(0.1)
                    if cancelled:
                        scope.cancel()
                        await anyio.sleep(1)
            with anyio.fail_after(3):
                others = await rig.pulled(len(NUMBERS) - 1)

        assert sorted([held.body, *others]) == NUMBERS


# -- limits ----------------------------------------------------------------------------------------


async def test_what_is_parked_leaves_room_for_more() -> None:
    """Held back by retries, a worker goes on with other events: the stream's limit is for what is at work."""
    async with rigged() as rig:
        await rig.publish(*NUMBERS)
        async with rig.source(demand=Demand(lease=60.0, events=10, parked=50)) as source:
            parked = await received(source, 50)
            assert len({each.body for each in parked}) == 50
            assert await source.ack([each.receipt for each in parked]) == [DONE] * 50
            rest = await received(source, 10)

        assert sorted(bodies(parked + rest)) == NUMBERS
        assert {each.max_outstanding_messages for each in rig.trouble.of("StreamingPull")} == {10}
        assert len(rig.trouble.of("StreamingPull")) <= 7


def limited(monkeypatch: pytest.MonkeyPatch, *, messages: int, bytes: int) -> None:
    """Let Pub/Sub hold streams to other limits than the source believes."""
    asked = Terms.first_request

    def first_request(terms: Terms) -> StreamingPullRequest:
        request = asked(terms)
        request.max_outstanding_messages, request.max_outstanding_bytes = messages, bytes
        return request

    monkeypatch.setattr(Terms, "first_request", first_request)


async def test_bytes_that_are_parked_leave_room_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pub/Sub counts bytes in its own way, and may stop before we would: a stream half full and quiet is replaced."""
    async with rigged() as rig:
        await rig.publish(*[bytes([n]) * 100_000 for n in range(8)])
        limited(monkeypatch, messages=0, bytes=150_000)
        async with rig.source(demand=Demand(lease=60.0, bytes=400_000)) as source:
            found = await received(source, 8)

    assert len({each.body for each in found}) == 8
    assert len(rig.trouble.of("StreamingPull")) == 4


async def test_a_server_without_limits_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's emulator sends whatever there is."""
    async with rigged() as rig:
        limited(monkeypatch, messages=0, bytes=0)
        await rig.publish(*[b"%d" % n for n in range(1000)])
        async with rig.source(demand=Demand(lease=60.0, events=20)) as source:
            found = await received(source, 1)
            await anyio.sleep(0.3)
            assert rig.server.counts().delivered < 800, "one stream's worth, and what was on its way"
            while len(found) < 1000:
                new = await received(source, 1)
                await source.ack([each.receipt for each in new])
                found += new

    assert len({each.body for each in found}) == 1000


# -- ends ------------------------------------------------------------------------------------------


async def test_streams_that_end_all_the_time_lose_nothing_and_tell_nothing() -> None:
    """Pub/Sub ends every stream now and then, with an error by design."""
    async with rigged() as rig, anyio.create_task_group() as tasks:

        async def end_streams() -> None:
            while True:
                await anyio.sleep(0.6)
                rig.server.end_streams()

        async def publish() -> None:
            for number in NUMBERS[:20]:
                await rig.publish(number)
                await anyio.sleep(0.1)

        tasks.start_soon(end_streams)
        tasks.start_soon(publish)
        found: list[bytes] = []
        async with rig.source(demand=Demand(lease=10.0)) as source:
            with anyio.fail_after(8):
                while len(found) < 20:
                    for each in await source.receive(5, 1.0):
                        found.append(each.body)
                        await source.ack([each.receipt])
        tasks.cancel_scope.cancel()

    assert sorted(found) == NUMBERS[:20]
    assert len(rig.trouble.of("StreamingPull")) < 15


async def test_a_stream_that_brought_something_has_not_failed_however_short_it_was() -> None:
    """Told as a failure, it would hold up the next receive for nothing."""
    async with rigged() as rig, rig.source() as source:
        for name in (b"a", b"b", b"c"):
            await rig.publish(name)
            assert bodies(await received(source, 1)) == [name]
            rig.server.end_streams()
            assert await source.receive(1, 0.05) == []


async def test_a_stream_that_a_proxy_cancels_is_reopened() -> None:
    """GRPC has one word for our own cancellation and for another's; the task that reads must not end by it."""
    async with rigged() as rig, rig.source() as source:
        await source.receive(1, 0.7)
        rig.server.end_streams(grpc.StatusCode.CANCELLED, "by a proxy")
        await rig.publish(b"a")
        assert bodies(await received(source, 1)) == [b"a"]


async def test_a_stream_that_fails_at_once_is_told_and_tried_by_whoever_asks_again() -> None:
    """No loop of its own: the core knows how long to wait."""
    async with rigged() as rig, rig.source() as source:
        rig.trouble.errors = {"StreamingPull": error("UNAVAILABLE")}
        for _ in range(3):
            with pytest.raises(ConnectionLost, match="cannot receive from pubsub://"):
                await source.receive(1, 5.0)
        await anyio.sleep(0.5)
        assert len(rig.trouble.of("StreamingPull")) == 3

        rig.trouble.errors = {}
        await rig.publish(b"a")
        assert bodies(await received(source, 1)) == [b"a"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("PERMISSION_DENIED", AccessDenied),
        ("UNAUTHENTICATED", AccessDenied),
        ("FAILED_PRECONDITION", PermanentAdapterError),
        ("RESOURCE_EXHAUSTED", TransientAdapterError),
        ("INTERNAL", TransientAdapterError),
    ],
)
async def test_what_a_stream_is_refused_for_is_told(code: str, kind: type[Exception]) -> None:
    """Permission lost in mid-run ends the worker with a line; what passes does not."""
    async with rigged() as rig, rig.source() as source:
        await source.receive(1, 0.7)
        rig.trouble.errors = {"StreamingPull": error(code)}
        rig.server.end_streams()
        with pytest.raises(kind):
            await received(source, 1)


async def test_an_error_of_whoever_uses_the_source_passes_as_it_is() -> None:
    """Not in a group: the worker looks for its class."""
    with pytest.raises(ValueError, match="mine"):
        async with rigged() as rig, rig.source():
            raise ValueError("mine")


async def test_a_deleted_subscription_ends_the_source_with_its_name() -> None:
    """In mid-run: nothing will come any more."""
    async with rigged() as rig, rig.source() as source:
        await source.receive(1, 0.2)
        await rig.subscriber.delete_subscription(request={"subscription": subscription("orders")})
        with pytest.raises(SourceNotFound, match="there is no subscription orders"):
            await received(source, 1)


async def test_a_server_that_is_started_again_is_found_again() -> None:
    """Within seconds, not after the two minutes that gRPC would wait."""
    async with serve(["orders"]) as server:
        port = int(server.endpoint.rpartition(":")[2])
        address = Address.parse(f"{server.address('orders')}?endpoint={server.endpoint}")
        source_context = adapter.open_source(address, DEMAND)
        source = await source_context.__aenter__()
        await source.receive(1, 0.2)
    try:
        failures = 0
        for _ in range(12):
            try:
                await source.receive(1, 0.1)
            except TransientAdapterError:
                failures += 1
            await anyio.sleep(0.1)
        assert failures > 5
        async with serve(["orders"], port=port):
            async with adapter.open_sink(address) as sink:
                await sink.publish([Outgoing(body=b"a")])
            found: list[bytes] = []
            with anyio.fail_after(8):
                while not found:
                    try:
                        found += bodies([*await source.receive(1, 1.0)])
                    except TransientAdapterError:
                        await anyio.sleep(0.1)
            assert found == [b"a"]
    finally:
        await source_context.__aexit__(None, None, None)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams whose silence is noticed within a second."""
    monkeypatch.setattr(_stream, "HEARTBEAT", 0.3)
    monkeypatch.setattr(_stream, "SILENCE", 1.0)
    monkeypatch.setattr(_intake, "TICK", 0.1)


@pytest.mark.usefixtures("hasty")
async def test_a_stream_that_goes_silent_is_noticed_and_replaced() -> None:
    """The connection lives, the server says nothing any more: without a heartbeat nobody would ever know."""
    async with rigged() as rig, rig.source() as source:
        await source.receive(1, 0.2)
        rig.trouble.responses = lambda _: None
        await anyio.sleep(0.5)
        opened = len(rig.trouble.of("StreamingPull"))
        with anyio.fail_after(4):
            while len(rig.trouble.of("StreamingPull")) == opened:
                await source.receive(1, 0.2)
        rig.trouble.responses = lambda response: response
        await rig.publish(b"a")
        assert bodies(await received(source, 1)) == [b"a"]


@pytest.mark.usefixtures("hasty")
async def test_a_quiet_stream_is_left_alone() -> None:
    """Its heartbeats are answered: that nothing comes is no reason to reconnect."""
    async with rigged() as rig, rig.source() as source:
        until = current_time() + 3.0
        while current_time() < until:
            assert await source.receive(1, 0.5) == []
        assert len(rig.trouble.of("StreamingPull")) == 1


# -- exactly-once ----------------------------------------------------------------------------------

ONCE = "sums.exactly-once"


@pytest.mark.parametrize("reason", ["PERMANENT_FAILURE_INVALID_ACK_ID", "TRANSIENT_FAILURE_INTERNAL"])
async def test_with_exactly_once_delivery_only_what_can_be_leased_is_handed_over(reason: str) -> None:
    """A message whose lease cannot be extended is, or will be, somebody else's: it would run twice."""
    async with rigged() as rig:
        await rig.publish(b"a", b"b", b"c", to=ONCE)
        seen: list[str] = []

        def refuse_the_second(id: str) -> str | None:
            seen.append(id)
            return reason if len(seen) == 2 else None

        rig.trouble.ids["ModifyAckDeadline"] = refuse_the_second
        async with rig.source(ONCE) as source:
            held = await received(source, 2)
            assert await source.receive(1, 0.5) == []

        assert bodies(held) == [b"a", b"c"]


async def test_with_exactly_once_delivery_a_stop_strands_nothing() -> None:
    """What waits to be confirmed is given back, too."""
    async with rigged() as rig:
        await rig.publish(*NUMBERS, to=ONCE)
        async with rig.source(ONCE, Demand(lease=600.0)) as source:
            held = await received(source, 1)
            source.stop()
            late = await drained(source)
            with anyio.fail_after(3):
                others = await rig.pulled(len(NUMBERS) - len(held) - len(late), ONCE)

    assert sorted([*bodies(held), *late, *others]) == NUMBERS


async def test_several_receives_side_by_side_share_what_there_is() -> None:
    """Clause 10: methods may run concurrently."""
    async with rigged() as rig, rig.source() as source:
        found: list[bytes] = []

        async def receive() -> None:
            while len(found) < len(NUMBERS):
                found.extend(each.body for each in await source.receive(3, 0.5))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(receive)
            await rig.publish(*NUMBERS)

    assert sorted(found) == NUMBERS
