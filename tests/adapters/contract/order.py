"""Order per key, under failures, with both policies and both kinds of handlers."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from eventkit import BatchHandler, Handler, Retry
from eventkit._config import KeyFailure
from tests.adapters.contract.handlers import Data, Many, One
from tests.adapters.contract.results import Case
from tests.adapters.contract.stage import Call, Stage

KEYS = "abcd"
NAMES = [f"{key}{n}" for n in range(4) for key in KEYS]
FAILS = {"a0": 1, "b1": 2, "c0": 1, "c2": 1}
"""How often each event fails; those of key d never do."""


async def order(stage: Stage, policy: KeyFailure, *, batches: bool) -> None:
    """Every event is handled, and no failure lets another of its key pass that should wait."""
    stage.skip_if(not stage.variant.ordered, "trait key_release is 'none'")
    left = dict(FAILS)

    async def act(batch: Sequence[str]) -> None:
        await anyio.sleep(0.02)
        bad = next((name for name in batch if left.get(name)), None)
        if bad is None:
            return
        left[bad] -= len(batch) == 1  # in company it is bad on and on, until it has failed alone
        raise Retry(after=1.0) if bad == "a0" and len(batch) == 1 else ValueError(f"{bad} is bad")

    async def act_alone(name: str) -> None:
        await act([name])

    handler: Handler[Data] | BatchHandler[Data] = Many(stage, act) if batches else One(stage, act_alone)
    for name in NAMES[:8]:
        await stage.publish(name, key=name[0])
    async with stage.working(handler, on_key_failure=policy, retry=stage.backoff(0.3, maximum=0.3)):
        for name in NAMES[8:]:
            await stage.publish(name, key=name[0])
        await stage.until_done(*NAMES, within=20)
    returned = [call for call in sorted(stage.calls, key=lambda call: call.ended) if call.result == "ok"]
    handled = [call.name for call in returned]
    stage.expect(stage.variant.repeats or len(handled) == len(NAMES), f"some were handled twice: {handled}")
    _expect_no_overlap(stage)
    _expect_order(stage, list(dict.fromkeys(handled)), policy, batches=batches)
    if not batches:
        stage.expect(handled.index("d3") < handled.index("a0"), f"a key waited for another: {handled}")
    await stage.expect_nothing_left()


def _expect_order(stage: Stage, handled: list[str], policy: KeyFailure, *, batches: bool) -> None:
    """With "skip", what failed is overtaken; so is what was in one batch with it, which fails with it."""
    for key in KEYS:
        of_key = [name for name in handled if name[0] == key]
        if policy == "skip":
            of_key = [name for name in of_key if name not in FAILS]
        if policy == "block" or not batches:
            stage.expect(of_key == sorted(of_key), f"key {key} was handled in the order {of_key}")


def _expect_no_overlap(stage: Stage) -> None:
    """One running event of a key, or those of one batch."""
    for key in KEYS:
        calls: list[Call] = sorted((call for call in stage.calls if call.key == key), key=lambda call: call.began)
        for place, call in enumerate(calls):
            others = [other for other in calls[place + 1 :] if call.began < other.began < call.ended]
            stage.expect(not others, f"{[other.name for other in others]} ran beside {call.name}")


def _case(policy: KeyFailure, kind: str) -> Case:
    async def run(stage: Stage) -> None:
        await order(stage, policy, batches=kind == "batches")

    return Case(f"order_per_key_holds_under_failures[{policy}, {kind}]", run)


CASES = (
    _case("block", "single"),
    _case("block", "batches"),
    _case("skip", "single"),
    _case("skip", "batches"),
)
