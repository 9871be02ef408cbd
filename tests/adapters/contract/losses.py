"""A connection that is lost loses no event, and comes back by itself."""

from __future__ import annotations

import anyio
from anyio import current_time

from eventkit import Reject, Retry
from tests.adapters.contract.handlers import One
from tests.adapters.contract.results import case
from tests.adapters.contract.stage import Stage

HEALED = 10.0
"""Seconds after which all must be well again."""

SETTLED = 0.5
"""Seconds after which what was handled is surely settled, while all is well."""


async def a_connection_lost_in_receive_heals(stage: Stage) -> None:
    """Also when what was received never arrived: it comes again when its lease ends."""
    async with stage.working(One(stage)):
        await stage.publish("before")
        await stage.until_done("before")
        await anyio.sleep(SETTLED)
        await _outage(stage)
        await stage.publish("after", "after-too")
        await stage.until_done("after", "after-too", within=HEALED)
    stage.expect_once("before", "after", "after-too")
    await stage.publish("unheard", "unheard-too")
    if stage.place.line.lose_answer("receive"):
        stage.note("the answer of the next receive is lost")
    async with stage.working(One(stage)):
        await stage.until_done("unheard", "unheard-too", within=HEALED)
    stage.expect_once("unheard", "unheard-too")
    await _expect_all_well(stage)


async def a_connection_lost_in_handling_heals(stage: Stage) -> None:
    """Leases may be lost meanwhile; then the events come again, and no attempt was burnt."""

    async def act(name: str) -> None:
        await anyio.sleep(stage.variant.outage + 0.5 if len(stage.of(name)) == 1 else 0.1)

    async with stage.working(One(stage, act)):
        await stage.publish("one", "other")
        await stage.until(lambda: {call.name for call in stage.calls} == {"one", "other"}, 10, "two calls running")
        await _outage(stage)
        await stage.until_done("one", "other", within=HEALED)
        await stage.publish("next")
        await stage.until_done("next", within=HEALED)
    attempts = [call.attempt for call in stage.calls]
    stage.expect(stage.traits.delivery_count == "none" or {*attempts} == {1}, f"attempts were burnt: {attempts}")
    await _expect_all_well(stage)


async def a_connection_lost_in_settling_heals(stage: Stage) -> None:
    """The handler has returned, and the ack does not get through: it is repeated, or the event comes again."""

    async def act(name: str) -> None:
        if name == "last" and len(stage.of(name)) == 1:
            await stage.place.line.lose()
            stage.note("the line is lost")

    async with stage.working(One(stage, act)):
        await stage.publish("last")
        await stage.until_done("last")
        await anyio.sleep(stage.variant.outage)
        await _heal(stage)
        await stage.publish("next")
        await stage.until_done("next", within=HEALED)
    stage.expect_once("next")
    results = {call.result for call in stage.of("last")}
    stage.expect(results == {"ok"}, f"the calls of the event whose ack was lost: {results}")
    await _expect_all_well(stage)


async def a_settlement_whose_answer_is_lost_takes_effect_once(stage: Stage) -> None:
    """Done, and nobody knows: nothing is handled twice for it, and a dead letter is there."""

    async def act(name: str) -> None:
        if name == "retried" and len(stage.of(name)) == 1:
            raise Retry(after=0.2)
        if name == "rejected":
            raise Reject("unwanted")

    line = stage.place.line
    async with stage.working(One(stage, act)):
        can = {"ack": line.lose_answer("ack")}
        await stage.publish("acked")
        await stage.until_done("acked")
        await anyio.sleep(SETTLED)
        can["nack"] = line.lose_answer("nack")
        await stage.publish("retried")
        await stage.until_done("retried", within=HEALED)
        await anyio.sleep(SETTLED)
        can["dead_letter"] = line.lose_answer("dead_letter")
        await stage.publish("rejected")
        await stage.until(lambda: bool(stage.of("rejected")), HEALED, "the event to reject")
        letters = await stage.dead_letters(1)
    stage.note(f"answers that could be lost: {can}")
    stage.expect_once("acked")
    results = [call.result for call in stage.of("retried")]
    stage.expect(stage.variant.repeats or results == ["Retry", "ok"], f"the calls of the retried event: {results}")
    ids = {letter.detail.get("id") for letter in letters}
    stage.expect({letter.name for letter in letters} == {"rejected"}, f"the dead letters are {letters}")
    stage.expect(len(ids) == 1, f"copies of one dead letter have the ids {ids}, and cannot be told to be copies")
    await stage.expect_nothing_left()


async def _outage(stage: Stage) -> None:
    await stage.place.line.lose()
    stage.note("the line is lost")
    await anyio.sleep(stage.variant.outage)
    await _heal(stage)


async def _heal(stage: Stage) -> None:
    began = current_time()
    await stage.place.line.heal()
    stage.note(f"the line is healed, in {current_time() - began:.3f} s")


async def _expect_all_well(stage: Stage) -> None:
    stage.expect(not await stage.dead_letters(0), "something is among the dead letters")
    await stage.expect_nothing_left()


CASES = (
    case(a_connection_lost_in_receive_heals),
    case(a_connection_lost_in_handling_heals),
    case(a_connection_lost_in_settling_heals),
    case(a_settlement_whose_answer_is_lost_takes_effect_once),
)
