"""Service Bus, as its local server has it: real AMQP, with a proxy that breaks connections in front of every worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from eventkit_servicebus import adapter
from eventkit_servicebus._local import Call, ConnectionDropped, Faults, LocalServiceBus, serve
from msgspec.structs import replace

from eventkit.spi import Address, Delivery, Demand, Sink, Source
from eventkit.testing import FaultProxy
from tests.adapters.contract.lines import ProxyLine
from tests.adapters.contract.results import ContractBroken
from tests.adapters.contract.stage import LETTER_ATTRIBUTE
from tests.adapters.contract.variant import Counts, Place, Variant, Verb
from tests.conformance.places import ServicebusAddresses

LOCK: Final = 5.0
"""Seconds: the least that the service has."""
DETECTED: Final = 600.0
"""Seconds for which a queue that detects duplicates knows the id of a message."""
DEAD: Final = "$DeadLetterQueue"
REASON: Final = "DeadLetterReason"
DESCRIPTION: Final = "DeadLetterErrorDescription"

SETTLEMENTS: Final[Mapping[Verb, Sequence[str]]] = {
    "receive": [],
    "ack": ["complete"],
    "nack": ["abandon", "complete"],  # complete: behind the copy that delays a retry
    "dead_letter": ["dead-letter"],
}
COPY: Final = b"eventkit-copy"
"""The property of such a copy."""


class LostAnswers(Faults):
    """Cuts the connection at the next call of a verb: done, unanswered. A proxy cannot tell settlements apart."""

    def __init__(self, server: LocalServiceBus) -> None:
        self._server = server
        self._verbs: list[Verb] = []

    def lose(self, verb: Verb) -> None:
        """Of the next call of `verb`. Only meanwhile the server has faults: they hold up what comes behind a call."""
        self._verbs.append(verb)
        self._server.faults = self

    async def before(self, call: Call) -> None:
        """See `Faults`. What is to be delivered is locked by now, and is not sent."""
        if call.operation == "deliver" and "receive" in self._verbs:
            self._strike("receive")

    async def after(self, call: Call) -> None:
        """See `Faults`."""
        for verb in self._verbs if call.operation == "settle" else ():
            if call.detail in SETTLEMENTS[verb]:
                self._strike(verb)

    def _strike(self, verb: Verb) -> NoReturn:
        self._verbs.remove(verb)
        if not self._verbs:
            self._server.faults = None
        raise ConnectionDropped


class Opener:
    """The adapter; of dead letters it puts what the service keeps of them where the stage looks for it."""

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[Source]:
        """See `Adapter`."""
        opening = adapter.open_source(address, demand)
        return _graves(opening) if address.path.endswith(DEAD) else opening

    def open_sink(self, address: Address) -> AbstractAsyncContextManager[Sink]:
        """See `Adapter`."""
        return adapter.open_sink(address)


@asynccontextmanager
async def _graves(opening: AbstractAsyncContextManager[Source]) -> AsyncIterator[Source]:
    async with opening as source:
        receive = source.receive

        async def receive_letters(limit: int, wait: float) -> Sequence[Delivery]:
            return [_letter(delivery) for delivery in await receive(limit, wait)]

        vars(source)["receive"] = receive_letters
        yield source


def _letter(delivery: Delivery) -> Delivery:
    reason, detail = (delivery.attributes.get(name, "") for name in (REASON, DESCRIPTION))
    told = msgspec.json.decode(detail or "{}").get("reason")
    if told != reason:
        raise ContractBroken(f"a dead letter has the reason {reason!r}, and its detail {told!r}")
    return replace(delivery, attributes={**delivery.attributes, LETTER_ATTRIBUTE: detail})


def servicebus_place(name: str, *, detected: float = 0.0) -> Callable[[Path], AbstractAsyncContextManager[Place]]:
    """Places at a server each, so that counts and connections are those of one case."""

    @asynccontextmanager
    async def place(_: Path) -> AsyncIterator[Place]:
        async with serve([name], lock=LOCK, duplicates=detected) as server:
            answers = LostAnswers(server)
            host, port = server.endpoint.removeprefix("sb://").split(":")
            async with FaultProxy(host, int(port)) as proxy:

                def lose_answer(verb: Verb) -> None:
                    if verb == "nack" and detected:  # without, a copy whose answer is lost is there twice
                        proxy.lose_reply(when=COPY)
                    else:
                        answers.lose(verb)

                def counts() -> Counts:
                    found = server.counts()
                    return Counts(delivered=found.delivered, acked=found.acked)

                beside = ServicebusAddresses(server.endpoint)
                yield Place(
                    adapter=Opener(),
                    source=str(ServicebusAddresses(f"{proxy.host}:{proxy.port}").source(name)),
                    sink=str(beside.sink(name)),
                    beside=str(beside.source(name)),
                    dead_letters=str(beside.dead_letters(name)),
                    line=ProxyLine(proxy, lose_answer),
                    counts=counts,
                )

    return place


VARIANTS = (
    Variant(name="servicebus", place=servicebus_place("orders"), lease=LOCK),
    Variant(name="servicebus sessions", place=servicebus_place("orders.sessions"), lease=LOCK, ordered=True),
)

HEAVY = (
    Variant(name="servicebus subscription", place=servicebus_place("orders/audit"), lease=LOCK),
    Variant(name="servicebus detecting duplicates", place=servicebus_place("orders", detected=DETECTED), lease=LOCK),
)
"""What differs in little from one above, and takes as long."""
