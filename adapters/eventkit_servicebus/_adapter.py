"""Service Bus queues and subscriptions as sources, queues and topics as sinks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

from eventkit.spi import Address, Demand, LocalPlace, Sink, Source, SourceInfo
from eventkit_servicebus._config import Place
from eventkit_servicebus._facts import limits, opening, traits, warnings
from eventkit_servicebus._outbox import outbox
from eventkit_servicebus._sessions import Sessions
from eventkit_servicebus._sink import ServicebusSink
from eventkit_servicebus._source import DeadLetteringSource, ServicebusSource
from eventkit_servicebus._start import Start
from eventkit_servicebus._wire import wire

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
    async with AsyncExitStack() as stack:
        with opening(place):
            way = await stack.enter_async_context(wire(place))
            start = Start(way)
            stack.push_async_callback(start.close)
            await start.open(demand)
        managed, facts = start.managed, start.facts
        ordered = isinstance(start.pool, Sessions)
        info = SourceInfo(
            name=place.address,
            limits=limits(receives=start.receives, most=_SMALLEST),
            traits=traits(facts, delays=start.outbox is not None, sessions=ordered),
            warnings=tuple(warnings(place, demand, facts, managed=managed, denied=start.denied)),
        )
        kind = ServicebusSource if place.dead_letters else DeadLetteringSource
        yield kind(info, place, start.pool, start.outbox, managed, sessions=ordered)


@asynccontextmanager
async def _open_sink(place: Place) -> AsyncIterator[Sink]:
    async with AsyncExitStack() as stack:
        with opening(place):
            way = await stack.enter_async_context(wire(place))
            box = await outbox(way)
            stack.push_async_callback(box.close)
        yield ServicebusSink(limits(most=box.most), place, box)


adapter: Final = ServicebusAdapter()
