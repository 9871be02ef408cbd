"""SQS queues as sources and sinks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final

from eventkit.errors import AccessDenied, AdapterError, SourceNotFound
from eventkit.spi import Address, Demand, LocalPlace, Sink, Source, SourceInfo
from eventkit_sqs._config import Place
from eventkit_sqs._facts import Facts, facts_of, url_of, warnings
from eventkit_sqs._sink import SqsSink
from eventkit_sqs._source import SqsSource
from eventkit_sqs._wire import POLL_TIMEOUT, SETTLE_CONNECTIONS, client

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient


class SqsAdapter:
    """Opens SQS queues; the local server is loaded only when asked for."""

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[Source]:
        """See `Adapter.open_source`."""
        return _open_source(Place.from_address(address), demand)

    def open_sink(self, address: Address) -> AbstractAsyncContextManager[Sink]:
        """See `Adapter.open_sink`."""
        return _open_sink(Place.from_address(address))

    def local(self, queues: Sequence[str], *, port: int = 0) -> AbstractAsyncContextManager[LocalPlace]:
        """See `LocalServer.local`."""
        from eventkit_sqs._local import serve

        return serve(queues, port=port)


@asynccontextmanager
async def _open_source(place: Place, demand: Demand) -> AsyncIterator[Source]:
    async with client(place, connections=SETTLE_CONNECTIONS) as settle:
        facts = await facts_of(settle, place)
        letters = await _dead_letters(settle, place, facts)
        limits = facts.limits(demand.events)
        arn = None if isinstance(letters, SourceNotFound) else facts.dead_letters
        info = SourceInfo(
            name=place.address,
            limits=limits,
            traits=facts.traits(fifo=place.fifo),
            dead_letters=place.other(arn) if arn is not None else None,
            warnings=tuple(warnings(place, facts, letters, ordered=demand.ordered)),
        )
        async with client(
            place, connections=limits.concurrent_receives, answer_within=demand.wait + POLL_TIMEOUT
        ) as poll:
            yield SqsSource(
                info,
                place,
                url=facts.url,
                letters_url=letters.url if isinstance(letters, Facts) else None,
                lease=demand.lease,
                wait=demand.wait,
                poll=poll,
                settle=settle,
            )


async def _dead_letters(settle: SQSClient, place: Place, facts: Facts) -> Facts | AdapterError | None:
    """What its dead-letter queue says of itself, or why that is not known; None if it has none."""
    if facts.dead_letters is None:
        return None
    try:
        return await facts_of(settle, Place.from_address(Address.parse(place.other(facts.dead_letters))))
    except (AccessDenied, SourceNotFound) as exc:
        return exc


@asynccontextmanager
async def _open_sink(place: Place) -> AsyncIterator[Sink]:
    async with client(place, connections=SETTLE_CONNECTIONS) as made:
        try:
            facts = await facts_of(made, place)
        except AccessDenied:  # to publish, it is enough to know where
            facts = Facts(url=await url_of(made, place))
        yield SqsSink(facts.limits(0), place, url=facts.url, client=made)


adapter: Final = SqsAdapter()
