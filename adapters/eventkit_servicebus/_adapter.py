"""Service Bus queues and subscriptions as sources, queues and topics as sinks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

from eventkit.errors import AccessDenied
from eventkit.spi import Address, Demand, LocalPlace, Sink, Source, SourceInfo
from eventkit_servicebus._config import Place
from eventkit_servicebus._facts import limits, opening, traits, warnings
from eventkit_servicebus._outbox import Outbox, outbox
from eventkit_servicebus._receivers import receivers
from eventkit_servicebus._sink import ServicebusSink
from eventkit_servicebus._source import DeadLetteringSource, ServicebusSource
from eventkit_servicebus._wire import Wire, wire

_SMALLEST: Final = 255 * 1024
"""Bytes that a message may have in every tier."""


class ServicebusAdapter:
    """Opens queues, topics and subscriptions; the local server is loaded only when asked for."""

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[Source]:
        """See `Adapter.open_source`."""
        return _open_source(Place.from_address(address, "source"), demand)

    def open_sink(self, address: Address) -> AbstractAsyncContextManager[Sink]:
        """See `Adapter.open_sink`."""
        return _open_sink(Place.from_address(address, "sink"))

    def local(self, queues: Sequence[str], *, port: int = 0) -> AbstractAsyncContextManager[LocalPlace]:
        """See `LocalServer.local`."""
        from eventkit_servicebus._local import serve

        return serve(queues, port=port)


@asynccontextmanager
async def _open_source(place: Place, demand: Demand) -> AsyncIterator[Source]:
    asked = limits(demand, most=_SMALLEST)
    async with AsyncExitStack() as stack:
        with opening(place):
            way = await stack.enter_async_context(wire(place))
            pool = await stack.enter_async_context(receivers(way, asked.concurrent_receives))
            copies = await _copies(stack, way)
        denied = copies if isinstance(copies, AccessDenied) else None
        box = copies if isinstance(copies, Outbox) else None
        info = SourceInfo(
            name=place.address,
            limits=asked,
            traits=traits(delays=box is not None),
            warnings=tuple(warnings(place, ordered=demand.ordered, denied=denied)),
        )
        kind = ServicebusSource if place.dead_letters else DeadLetteringSource
        yield kind(info, place, pool, box)


async def _copies(stack: AsyncExitStack, way: Wire) -> Outbox | AccessDenied | None:
    """Where copies of messages are sent for a retry; None where they would go to others too, or to nobody."""
    if way.place.subscription is not None or way.place.dead_letters:
        return None
    try:
        return await stack.enter_async_context(outbox(way))
    except AccessDenied as exc:
        return exc


@asynccontextmanager
async def _open_sink(place: Place) -> AsyncIterator[Sink]:
    async with AsyncExitStack() as stack:
        with opening(place):
            way = await stack.enter_async_context(wire(place))
            box = await stack.enter_async_context(outbox(way))
        yield ServicebusSink(limits(None, most=box.most), place, box)


adapter: Final = ServicebusAdapter()
