"""Links that are detached, and servers that go and come: each told for what it is."""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack
from functools import partial

import anyio
import pytest
from eventkit_servicebus import adapter
from eventkit_servicebus._local import (
    Call,
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
from eventkit.spi import DONE, LOST, Address, Outgoing
from tests.adapters.servicebus.adapter_support import (
    BILLS,
    DEMAND,
    ORDERED,
    acked,
    error,
    foreign,
    one,
    rigged,
    told,
    written,
)

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
    "amqp:unauthorized-access": TransientAdapterError,
    "amqp:not-found": TransientAdapterError,
}
"""Why a link may be detached, and what the receive that waits says of it: what is for good, the next one finds out."""


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
            assert await acked(source, held) == [DONE]
        assert not wrong
        assert rig.trouble.of("attach").count("receiver") <= 1 + 2 * len(reasons)

    assert rig.server.counts().acked == len(reasons)


async def test_links_that_are_detached_while_nobody_receives_are_opened_again() -> None:
    """What was held is settled, what was parked is delayed, what waits is received; each by a new link."""
    async with rigged() as rig, rig.source() as source:
        for reason in list(REASONS)[::2]:
            await foreign(rig, written(b"a"))
            held = await one(source)
            rig.server.detach_links(reason, entity="orders")
            [answer] = await acked(source, held)
            assert answer in {DONE, LOST}, reason  # lost: it was done, and the answer had no link to come by
        assert rig.trouble.of("attach").count("receiver") <= 1 + 2 * 6

    assert rig.server.counts().acked == 6


async def test_what_is_wrong_for_good_is_told_when_a_link_is_opened_again() -> None:
    """A queue that was deleted, a right that was taken away: these end the worker. A disabled queue does not."""
    kinds: dict[str, type[AdapterError]] = {
        "amqp:not-found": SourceNotFound,
        "amqp:unauthorized-access": AccessDenied,
        "com.microsoft:entity-disabled": TransientAdapterError,
    }
    async with rigged() as rig, rig.source() as source:
        for reason, kind in kinds.items():
            rig.server.detach_links(reason, entity="orders")
            rig.trouble.errors["attach"] = error(reason)
            with pytest.raises(TransientAdapterError):
                await source.receive(1, 1.0)
            with pytest.raises(kind):
                await source.receive(1, 1.0)
            rig.trouble.errors = {}
            assert await source.receive(1, 0.6) == []


async def test_a_sender_that_is_detached_does_not_stop_retries() -> None:
    """A delayed one is a copy, sent by a link of its own."""
    async with rigged() as rig, rig.source() as source, rig.sink() as sink:
        for reason in ("com.microsoft:server-busy", "amqp:link:detach-forced"):
            await foreign(rig, written(b"a"))
            held = await one(source)
            rig.server.detach_links(reason, entity="orders")
            [answer] = await told(partial(source.nack, [(held.receipt, 5.0)]))
            assert answer in {DONE, LOST}, reason
            rig.skip(6.0)
            again = await one(source)
            assert again.delivery_count == 2
            assert await source.ack([again.receipt]) == [DONE]
            assert await source.receive(1, 0.2) == []
            assert await told(lambda: sink.publish([Outgoing(body=b"b")])) == [DONE]
            assert await acked(source, await one(source)) == [DONE]


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


@pytest.mark.parametrize("name", ["orders", BILLS])
async def test_a_server_that_starts_again_is_found_again(name: str) -> None:
    """At the same place, with nothing of what was: what was held is lost, and all goes on."""
    async with AsyncExitStack() as first:
        server = await first.enter_async_context(serve([name]))
        port = int(server.endpoint.rpartition(":")[2])
        address = Address.parse(f"servicebus://local/{name}?endpoint=127.0.0.1:{port}")
        async with adapter.open_source(address, ORDERED if name == BILLS else DEMAND) as source:
            await foreign(server, written(b"a", session="s"), queue=name)
            held = await one(source)
            await anyio.sleep(0.3)  # links that are being opened as it ends may be accepted by nobody
            await first.aclose()
            for _ in range(3):
                with pytest.raises(ConnectionLost):  # refused, and told at once
                    await source.receive(1, 5.0)
            async with serve([name], port=port) as later:
                await foreign(later, written(b"a", session="s"), queue=name)
                assert await acked(source, held) == [LOST]
                again = await one(source)
                assert await acked(source, again) == [DONE]
                assert later.counts().acked == 1
    gc.collect()  # what it collects, warns
