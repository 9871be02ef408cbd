"""Sources and handlers with one mistake each: the contract has to see it, and say which case it breaks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from eventkit.errors import ConnectionLost
from eventkit.spi import DONE, Address, Delivery, Demand, Extended, Letter, Settled
from eventkit.testing import MemoryAdapter, MemorySource
from tests.adapters.contract import order
from tests.adapters.contract.cases import CASES
from tests.adapters.contract.handlers import Many
from tests.adapters.contract.memory import memory_variant
from tests.adapters.contract.run import run

Spoil = Callable[[MemorySource], dict[str, Any]]
"""What to put in the place of methods and attributes of a source."""


class SpoiltAdapter(MemoryAdapter):
    """Opens sources with a mistake."""

    def __init__(self, spoil: Spoil) -> None:
        super().__init__()
        self._spoil = spoil

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[MemorySource]:
        return self._spoilt(address, demand)

    @asynccontextmanager
    async def _spoilt(self, address: Address, demand: Demand) -> AsyncIterator[MemorySource]:
        async with super().open_source(address, demand) as source:
            source.__dict__.update(self._spoil(source))
            yield source


def nacks_after(change: Callable[[float], float]) -> Spoil:
    def spoil(source: MemorySource) -> dict[str, Any]:
        good = source.nack

        async def nack(items: Sequence[tuple[Any, float]]) -> Sequence[Settled]:
            return await good([(receipt, change(delay)) for receipt, delay in items])

        return {"nack": nack}

    return spoil


def counts_as(change: Callable[[int], int]) -> Spoil:
    def spoil(source: MemorySource) -> dict[str, Any]:
        good = source.receive

        async def receive(limit: int, wait: float) -> Sequence[Delivery]:
            deliveries = await good(limit, wait)
            return [replace(one, delivery_count=change(one.delivery_count or 0)) for one in deliveries]

        return {"receive": receive}

    return spoil


def forgets_details(source: MemorySource) -> dict[str, Any]:
    good: Any = source

    async def dead_letter(letters: Sequence[Letter]) -> Sequence[Settled]:
        plain = [Letter(receipt=letter.receipt, reason=letter.reason, detail="{}") for letter in letters]
        answers: Sequence[Settled] = await type(good).dead_letter(good, plain)
        return answers

    return {"dead_letter": dead_letter}


def extends_in_word_only(_: MemorySource) -> dict[str, Any]:
    async def extend(receipts: Sequence[Any], lease: float) -> Sequence[Extended]:
        return [Extended(anyio.current_time() + lease)] * len(receipts)

    return {"extend": extend}


def acks_in_word_only(_: MemorySource) -> dict[str, Any]:
    async def ack(receipts: Sequence[Any]) -> Sequence[Settled]:
        return [DONE] * len(receipts)

    return {"ack": ack}


def hands_over_in_reverse(source: MemorySource) -> dict[str, Any]:
    good = source.receive

    async def receive(limit: int, wait: float) -> Sequence[Delivery]:
        return [*reversed(await good(limit, wait))]

    return {"receive": receive}


def never_reconnects(source: MemorySource) -> dict[str, Any]:
    good, lost = source.receive, False

    async def receive(limit: int, wait: float) -> Sequence[Delivery]:
        nonlocal lost
        if lost:
            await anyio.sleep(wait)
            return []
        try:
            return await good(limit, wait)
        except ConnectionLost:
            lost = True
            raise

    return {"receive": receive}


@dataclass(frozen=True)
class Mistake:
    """A mistake, the cases it must break, and what they say, as a regular expression."""

    name: str
    spoil: Spoil
    told: str
    breaks: tuple[str, ...]
    family: str = "sessions"

    def __str__(self) -> str:
        return self.name


RETRIES = (
    "a_retry_is_due_not_early_and_at_most_a_second_late",
    "a_backoff_is_due_not_early_and_at_most_a_second_late",
)
LOSSES = tuple(f"a_connection_lost_in_{phase}_heals" for phase in ("receive", "handling", "settling"))
ORDERS = tuple(case.name for case in order.CASES)

MISTAKES = (
    Mistake("delays are halved", nacks_after(lambda delay: delay / 2), "s: before ", RETRIES, family="sqlite"),
    Mistake(
        "delays are two seconds longer", nacks_after(lambda delay: delay + 2), "late after", RETRIES, family="fifo"
    ),
    Mistake(
        "every delivery is the first",
        counts_as(lambda _: 1),
        "had the attempts",
        (
            "attempts_count_failures_and_no_releases",
            "attempts_count_no_release_behind_a_failed_event_of_the_key",
        ),
    ),
    Mistake(
        "the first delivery is the second",
        counts_as(lambda number: number + 1),
        "attempt",
        (
            "an_outage_burns_no_attempts",
            "a_restart_forgets_releases_and_dead_letters_nothing_for_them",
            "a_dead_letter_says_why_and_where_it_comes_from",
        ),
    ),
    Mistake(
        "dead letters lose their detail",
        forgets_details,
        "gives the reason None",
        ("a_dead_letter_says_why_and_where_it_comes_from",),
    ),
    Mistake(
        "a lease is extended in word only",
        extends_in_word_only,
        "times: ",
        ("a_handler_three_leases_long_is_not_run_twice",),
    ),
    Mistake(
        "an ack is done in word only",
        acks_in_word_only,
        "times: |handled twice|came again after all was settled|attempts were burnt",
        ("a_settlement_whose_answer_is_lost_takes_effect_once", *LOSSES, *ORDERS),
    ),
    Mistake(
        "what is given back waits for twenty seconds",
        nacks_after(lambda delay: delay or 20.0),
        "not within 3 s",
        ("a_drain_leaves_nothing_leased",),
        family="sqs",
    ),
    Mistake(
        "what is received together comes in reverse",
        hands_over_in_reverse,
        "was handled in the order",
        tuple(name for name in ORDERS if name != ORDERS[-1]),
    ),
    Mistake("a lost connection is not made again", never_reconnects, "not within 10 s", LOSSES),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_the_contract_sees_a_mistake(mistake: Mistake) -> None:
    """A case that cannot fail proves nothing; what it says must lead to the mistake, with what went before."""
    variant = memory_variant(mistake.family, adapter=lambda: SpoiltAdapter(mistake.spoil))
    report = run(variant, [case for case in CASES if case.name in mistake.breaks])

    for result in report.results:
        assert result.error is not None, f"{result.case} saw nothing"
        assert re.search(mistake.told, str(result.error))
        assert str(variant) in str(result.error)
        assert "WorkerStarted" in str(result.error), "the timeline"


def test_the_contract_sees_company_that_dies_with_a_poison_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not searched, a batch is dead-lettered whole."""
    monkeypatch.setattr(Many, "on_raise", "whole")
    [case] = [case for case in CASES if case.name == "a_poison_event_is_dead_lettered_alone"]

    error = run(memory_variant("servicebus"), [case])[case].error

    assert "not within 10 s: event-0" in str(error)


def test_every_case_is_seen_to_fail() -> None:
    """A new case comes with a mistake that breaks it."""
    broken = {name for mistake in MISTAKES for name in mistake.breaks} | {"a_poison_event_is_dead_lettered_alone"}

    assert {case.name for case in CASES} == broken
