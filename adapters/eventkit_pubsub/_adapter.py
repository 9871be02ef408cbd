"""Pub/Sub subscriptions as sources, topics as sinks."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final
from uuid import uuid4

from google.pubsub_v1 import PublisherAsyncClient

from eventkit.errors import ConnectionLost, EventKitError, PermanentAdapterError, SourceNotFound
from eventkit.spi import Address, Demand, LocalPlace, Sink, Source, SourceInfo
from eventkit_pubsub._config import Place
from eventkit_pubsub._errors import translated_errors
from eventkit_pubsub._facts import LIMITS, Facts, facts_of, letter_warnings, unreachable, warnings
from eventkit_pubsub._intake import SHORTEST_LEASE, Intake, Terms
from eventkit_pubsub._leases import LONGEST_LEASE, Leases
from eventkit_pubsub._sink import PubsubSink
from eventkit_pubsub._source import PubsubSource
from eventkit_pubsub._wire import ONCE, Way, answered, publisher, subscriber, way_to


class PubsubAdapter:
    """Opens subscriptions and topics; the local server is loaded only when asked for."""

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[Source]:
        """See `Adapter.open_source`."""
        return _open_source(Place.from_address(address, "subscriptions"), demand)

    def open_sink(self, address: Address) -> AbstractAsyncContextManager[Sink]:
        """See `Adapter.open_sink`."""
        return _open_sink(Place.from_address(address, "topics"))

    def local(self, queues: Sequence[str], *, port: int = 0) -> AbstractAsyncContextManager[LocalPlace]:
        """See `LocalServer.local`."""
        from eventkit_pubsub._local import serve

        return serve(queues, port=port)


@asynccontextmanager
async def _open_source(place: Place, demand: Demand) -> AsyncIterator[Source]:
    way = await way_to(place)
    async with subscriber(way) as client:
        facts = await facts_of(client, place, way)
        async with publisher(way) as letters:
            surprises = [
                *warnings(place, facts, way, ordered=demand.ordered),
                *await letter_warnings(letters, place, facts, way),
            ]
        info = SourceInfo(
            name=place.address,
            limits=LIMITS,
            traits=facts.traits(),
            dead_letters=place.other(facts.dead_letters) if facts.dead_letters is not None else None,
            warnings=tuple(surprises),
        )
        leases = Leases(client, place, facts.path)
        intake = Intake(client, place, leases, _terms(facts, demand))
        async with PubsubSource(info, intake, leases).running() as source:
            yield source


def _terms(facts: Facts, demand: Demand) -> Terms:
    """What a stream is asked for: room for what the worker holds at once.

    A lease shorter than a stream's shortest is set when a message is here, as is that of exactly-once delivery: there,
    a message whose lease cannot be extended is somebody else's.
    """
    lease = min(max(math.ceil(demand.lease), 1), LONGEST_LEASE)
    return Terms(
        subscription=facts.path,
        client_id=str(uuid4()),
        lease=lease,
        most=demand.events,
        most_bytes=demand.bytes,
        receipts=facts.exactly_once or lease < SHORTEST_LEASE,
    )


@asynccontextmanager
async def _open_sink(place: Place) -> AsyncIterator[Sink]:
    way = await way_to(place)
    async with publisher(way) as client:
        topic = f"projects/{way.project}/topics/{place.name}"
        await _require_topic(client, place, way, topic)
        yield PubsubSink(client, place, topic)


async def _require_topic(client: PublisherAsyncClient, place: Place, way: Way, topic: str) -> None:
    """Raises SourceNotFound, ConnectionLost or another AdapterError."""
    try:
        with translated_errors("find", place):
            await answered(client.get_topic(request={"topic": topic}, **ONCE))
    except SourceNotFound as exc:
        raise SourceNotFound(
            f"there is no topic {place.name} in project {way.project}{way.shown}: create it, or correct project or "
            f"name in {place.address}{await _topic_of(place, way)}"
        ) from exc.__cause__
    except ConnectionLost as exc:
        raise unreachable(place, way, exc) from exc.__cause__
    except PermanentAdapterError:
        return  # to publish, one need not be allowed to look


async def _topic_of(place: Place, way: Way) -> str:
    """A hint for those who publish to a subscription."""
    async with subscriber(way) as client:
        try:
            facts = await facts_of(client, place, way)
        except EventKitError:
            return ""
    return f"; {place.name} is a subscription, and its events come from {place.other(facts.topic)}"


adapter: Final = PubsubAdapter()
