"""Calls that are cut short by a cancel scope: the core limits each settlement, and goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import pytest
from eventkit_pubsub._local import Call

from eventkit.spi import Delivery, Outgoing, Sink, Source
from tests.adapters.pubsub.adapter_support import Rig, Trouble, received, rigged

Cut = Callable[[Source, Sink, Delivery], Awaitable[Any]]


class Slow(Trouble):
    """Takes long over everything but what it has to do before."""

    async def before(self, call: Call) -> Mapping[str, str]:
        await anyio.sleep(5)
        return await super().before(call)


CALLS: dict[str, Cut] = {
    "ack": lambda source, _, held: source.ack([held.receipt]),
    "nack": lambda source, _, held: source.nack([(held.receipt, 0.0)]),
    "extend": lambda source, _, held: source.extend([held.receipt], 30.0),
    "publish": lambda _, sink, __: sink.publish([Outgoing(body=b"x")]),
    "publish two keys": lambda _, sink, __: sink.publish([Outgoing(body=b"x", key=key) for key in "ab"]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_call_that_is_cut_short_ends_with_its_scope_and_nothing_else(call: Cut) -> None:
    """GRPC raises a cancellation of its own then: it must not end the task of whoever called."""
    async with rigged() as rig:
        await rig.publish(b"a")
        async with rig.source() as source, rig.sink() as sink:
            [held] = await received(source, 1)
            rig.server.faults = Slow()
            with anyio.move_on_after(0.2) as scope:
                await call(source, sink, held)
            assert scope.cancelled_caught
            rig.server.faults = None
            assert await source.receive(1, 0.1) == []


@pytest.mark.parametrize("opened", [Rig.source, Rig.sink])
async def test_an_opening_that_is_cut_short_ends_with_its_scope(opened: Callable[[Rig], Any]) -> None:
    """A worker that is stopped while it starts."""
    async with rigged() as rig:
        rig.server.faults = Slow()
        with anyio.move_on_after(0.2) as scope:
            async with opened(rig):
                pass
        assert scope.cancelled_caught
        rig.server.faults = None
