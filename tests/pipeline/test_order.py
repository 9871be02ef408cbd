"""Order per key (P6): one running event of a key, in the source's order, whatever fails."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any, Literal, TypeAlias

import anyio
import pytest

from eventkit import Backoff, Batch, BatchHandler, Batching, Event, FlowLimits, Handler, Reject, Retry
from eventkit._telemetry.records import BatchBisected, GateClosed, LeaseLost
from eventkit.errors import ConfigurationError, ConnectionLost
from eventkit.spi import Extended, Limits, Settled, Traits
from eventkit.testing import Call, Faults, Kind
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

Release: TypeAlias = Literal["followers", "hold", "redelivers"]
Policy: TypeAlias = Literal["block", "skip"]
Data: TypeAlias = dict[str, Any]

RELEASES: list[Release] = ["followers", "hold", "redelivers"]
POLICIES: list[Policy] = ["block", "skip"]

ERRORS: dict[str, Callable[[], BaseException]] = {
    "item": lambda: ValueError("bad event"),
    "retry": lambda: Retry(after=3.0),
    "reject": lambda: Reject("unwanted"),
    "transient": lambda: ConnectionError("down"),
}
TIMEOUT = 20.0


class Ledger:
    """What handlers did with each event, and whether two calls with events of one key ever overlapped.

    `fails` are the failures to come, by event: each is used up by one call on that event alone.
    """

    def __init__(self, fails: Mapping[int, Sequence[str]] | None = None) -> None:
        self.fails = {n: list(plan) for n, plan in (fails or {}).items()}
        self.effects: dict[str, list[int]] = defaultdict(list)
        self.order: list[int] = []
        self.starts: list[int] = []
        self.attempts: dict[int, int] = {}
        self.overlaps: list[str] = []
        self._running: set[str] = set()

    def start(self, *events: Event[Any]) -> None:
        """A call begins."""
        keys = {str(event.key) for event in events}
        self.overlaps += sorted(keys & self._running)
        self._running |= keys
        self.starts += [event.data["n"] for event in events]
        self.attempts |= {event.data["n"]: event.attempt for event in events}

    def end(self, *events: Event[Any]) -> None:
        """A call has ended."""
        self._running -= {str(event.key) for event in events}

    def effect(self, event: Event[Any]) -> None:
        """The handler has done what the event asks for."""
        self.effects[str(event.key)].append(event.data["n"])
        self.order.append(event.data["n"])

    def next_failure(self, *events: Event[Any], keep: bool = False) -> str | None:
        """The failure of the first of `events` that is to fail; None when none is."""
        for event in events:
            if plan := self.fails.get(event.data["n"]):
                return plan[0] if keep else plan.pop(0)
        return None


class Single(Handler[Data]):
    """One event a call."""

    concurrency = 5
    timeout = TIMEOUT

    def __init__(self, ledger: Ledger, seconds: float = 0.1) -> None:
        self.ledger = ledger
        self.seconds = seconds

    async def handle(self, event: Event[Data]) -> None:
        self.ledger.start(event)
        try:
            failure = self.ledger.next_failure(event)
            await anyio.sleep(TIMEOUT + 10 if failure == "timeout" else self.seconds)
            if failure is not None:
                raise ERRORS[failure]()  # noqa: RSE102 - a function that makes one
            self.ledger.effect(event)
        finally:
            self.ledger.end(event)


class Raising(BatchHandler[Data]):
    """Raises, without an effect, while one of its events is to fail."""

    concurrency = 3
    timeout = TIMEOUT
    batching = Batching(max_size=4, max_wait=0.2)

    def __init__(self, ledger: Ledger, seconds: float = 0.1) -> None:
        self.ledger = ledger
        self.seconds = seconds

    async def handle(self, batch: Batch[Data]) -> None:
        self.ledger.start(*batch)
        try:
            # An outage of a batch ends with the call; a bad event stays bad until it was called alone.
            outage = self.ledger.next_failure(*batch, keep=True) == "transient"
            failure = self.ledger.next_failure(*batch, keep=len(batch) > 1 and not outage)
            await anyio.sleep(TIMEOUT + 10 if failure == "timeout" else self.seconds)
            if failure is not None:
                raise ERRORS[failure]()  # noqa: RSE102 - a function that makes one
            for event in batch:
                self.ledger.effect(event)
        finally:
            self.ledger.end(*batch)


class Marking(Raising):
    """Marks each event that fails, and those of its key behind it; the others have their effect."""

    async def handle(self, batch: Batch[Data]) -> None:
        self.ledger.start(*batch)
        try:
            await anyio.sleep(self.seconds)
            stopped = set()
            for event in batch:
                failure = self.ledger.next_failure(event)
                if failure is not None:
                    batch.fail(event, ERRORS["item" if failure == "timeout" else failure]())
                    stopped |= {event.key} - ({event.key} if failure == "reject" else set())
                elif event.key in stopped:
                    batch.fail(event, Retry("behind a failed event", after=1.0))
                else:
                    self.ledger.effect(event)
        finally:
            self.ledger.end(*batch)


HANDLERS = [Single, Raising, Marking]


class Thief(Faults):
    """Takes leases away at extensions: a share of them, or all while the broker is `deaf` to extensions."""

    def __init__(self, rng: Random, share: float = 0.0) -> None:
        self.deaf: list[tuple[float, float]] = []
        self.rig: Rig | None = None
        self._rng = rng
        self._share = share

    async def before(self, call: Call) -> Mapping[int, Settled]:
        if call.verb == "extend" and self.rig is not None:
            now = anyio.current_time()
            if any(start <= now < end for start, end in self.deaf):
                raise ConnectionLost("no answer")
            taken = [(receipt, 0.0) for receipt in call.items if self._rng.random() < self._share]
            self.rig.broker.queue(QUEUE).nack(taken, now)
        return {}

    async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
        """As on a real wire, an extension counts from before its call: ours ends a little before the broker's."""
        return [Extended(result.until - 0.05) if isinstance(result, Extended) else result for result in results]


def dead(rig: Rig) -> set[int]:
    return {int(letter.body.removeprefix(b'{"n":').removesuffix(b"}")) for letter in rig.broker.dead_letters}


def firsts(numbers: Sequence[int]) -> list[int]:
    """Without repetitions: an event whose lease was lost may have its effect twice."""
    return list(dict.fromkeys(numbers))


# -- one failed head ---------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ["item", "retry", "reject", "transient", "timeout", "lost"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("handler", HANDLERS)
def test_followers_of_a_failed_event_run_in_order_and_other_keys_go_on(
    handler: type[Single | Raising], release: Release, policy: Policy, failure: str
) -> None:
    """P6: whatever becomes of the head, its key keeps its order, and no other key pays for it."""
    ledger = Ledger({0: [failure]} if failure != "lost" else None)
    thief = Thief(Random(0))
    rig = Rig(
        handler(ledger, seconds=3.0 if failure == "lost" else 0.1),
        traits=Traits(key_release=release),
        ordering="key",
        on_key_failure=policy,
        retry=Backoff(initial=5.0),
        faults=thief,
        lease=3.0,
        max_processing=60.0,
    )
    thief.rig = rig

    async def scenario() -> None:
        if failure == "lost":
            now = anyio.current_time()
            thief.deaf = [(now, now + 2.5)]
        for n in range(5):
            rig.publish({"n": n}, key="failing")
            rig.publish({"n": n + 10}, key="other")
        async with rig.running():
            await rig.until_settled(300)

    on_virtual_time(scenario)
    assert ledger.overlaps == []
    assert sorted(firsts(ledger.effects["other"])) == [10, 11, 12, 13, 14]
    # In an outage a batch fails whole: every key in it has failed.
    together = failure == "transient" and handler is not Single
    if policy == "block" or not together:
        assert firsts(ledger.effects["other"]) == [10, 11, 12, 13, 14]
    expected = [1, 2, 3, 4] if failure == "reject" else [0, 1, 2, 3, 4]
    if policy == "block":
        assert firsts(ledger.effects["failing"]) == expected
    else:
        assert sorted(firsts(ledger.effects["failing"])) == expected
        # Events that failed together in one batch are each retried on their own.
        assert handler is not Single or [n for n in firsts(ledger.effects["failing"]) if n] == [1, 2, 3, 4]
    if policy == "block" and failure not in {"lost", "reject"} and not together:
        assert ledger.order.index(14) < ledger.order.index(1), "another key waited for the failed one"


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("handler", HANDLERS)
def test_followers_go_on_once_their_head_is_among_the_dead_letters(
    handler: type[Single | Raising], release: Release
) -> None:
    """A poison event blocks its key for its attempts, not for ever."""
    ledger = Ledger({0: ["item"] * 9})
    rig = Rig(
        handler(ledger), traits=Traits(key_release=release), ordering="key", retry=Backoff(attempts=3, maximum=10.0)
    )

    async def scenario() -> None:
        for n in range(4):
            rig.publish({"n": n}, key="a")
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)
    assert rig.dead == {"1": "attempts"}
    assert ledger.attempts[0] == 3
    assert ledger.effects["a"] == [1, 2, 3]


@pytest.mark.parametrize("release", ["hold", "redelivers"])
def test_an_event_that_comes_while_the_nack_of_its_head_is_on_the_wire_waits_for_it(release: Release) -> None:
    """Until the source has the head back, it does not know that the key is blocked."""

    class SlowNacks(Faults):
        async def before(self, call: Call) -> Mapping[int, Settled]:
            await anyio.sleep(1.0 if call.verb == "nack" else 0.0)
            return {}

    ledger = Ledger({0: ["item"]})
    rig = Rig(Single(ledger), traits=Traits(key_release=release), ordering="key", faults=SlowNacks())

    async def scenario() -> None:
        rig.publish({"n": 0}, key="a")
        async with rig.running():
            await rig.until(lambda: len(ledger.starts) == 1)
            await anyio.sleep(0.5)
            rig.publish({"n": 1}, key="a")
            await rig.until_settled()

    on_virtual_time(scenario)
    assert ledger.effects["a"] == [0, 1]


@pytest.mark.parametrize("release", RELEASES)
def test_a_key_keeps_its_order_through_an_outage_longer_than_max_processing(release: Release) -> None:
    """Head and followers reach the end of their time one after the other, and must come back as they left."""
    ledger = Ledger()
    back_at = 400.0

    class Store(Single):
        async def handle(self, event: Event[Data]) -> None:
            self.ledger.start(event)
            self.ledger.end(event)
            if anyio.current_time() < back_at:
                raise ConnectionError("down")
            self.ledger.effect(event)

    rig = Rig(Store(ledger), traits=Traits(key_release=release), ordering="key", max_processing=100.0)

    async def scenario() -> None:
        nonlocal back_at
        back_at += anyio.current_time()
        async with rig.running():
            for n in range(60):
                rig.publish({"n": n}, key="abc"[n % 3])
                await anyio.sleep(10.0 if n > 30 else 0.0)
            await rig.until_settled()

    on_virtual_time(scenario)
    assert rig.of(GateClosed)
    assert set(ledger.attempts.values()) == {1}
    assert [ledger.effects[key] for key in "abc"] == [list(range(k, 60, 3)) for k in range(3)]


@pytest.mark.parametrize("max_delay", [None, 0.0], ids=["delayed", "parked"])
def test_a_source_without_order_is_refused_for_ordering_by_key(max_delay: float | None) -> None:
    """A promise that cannot be kept is an error at the start, not a surprise in production."""
    rig = Rig(Single(Ledger()), traits=Traits(max_retry_delay=max_delay), ordering="key")
    with pytest.raises(ConfigurationError, match='does not order events by key: ordering="key" cannot be kept'):
        on_virtual_time(rig.worker.run)


# -- batches -----------------------------------------------------------------------------------------


class Scripted(BatchHandler[Data]):
    """Notes its calls, and does as it is told."""

    batching = Batching(max_size=4, max_wait=0.2)

    def __init__(self, script: Callable[[Batch[Data], int], None]) -> None:
        self.script = script
        self.calls: list[list[int]] = []

    async def handle(self, batch: Batch[Data]) -> None:
        self.calls.append([event.data["n"] for event in batch])
        await anyio.sleep(0.1)
        self.script(batch, len(self.calls))


def run_batches(script: Callable[[Batch[Data], int], None], keys: str, **options: Any) -> tuple[list[list[int]], Rig]:
    """The calls made for one event a letter of `keys`, which is the event's key."""
    handler = Scripted(script)
    rig = Rig(handler, ordering="key", **options)

    async def scenario() -> None:
        for n, key in enumerate(keys):
            rig.publish({"n": n}, key=key)
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)
    return handler.calls, rig


@pytest.mark.parametrize("release", RELEASES)
def test_a_batch_stops_a_key_at_its_first_failure_and_goes_on_with_the_others(release: Release) -> None:
    """The later events of the key must not run before the failed one is decided."""

    def script(batch: Batch[Data], _: int) -> None:
        if any(event.data["n"] == 0 and event.attempt == 1 for event in batch):
            raise ValueError("bad event")

    calls, rig = run_batches(script, "abaa", traits=Traits(key_release=release))
    order = [n for call in calls for n in call]
    assert calls[:2] == [[0, 1, 2, 3], [0, 1]] or calls[0] == [0, 1]
    assert order.index(1) < len(order) - 1 - order[::-1].index(0), "the other key went on"
    last = {n: max(i for i, call in enumerate(calls) if n in call) for n in range(4)}
    assert last[0] <= last[2] <= last[3]
    assert rig.of(BatchBisected)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("max_delay", [None, 0.0], ids=["delayed", "parked"])
def test_two_failed_events_of_one_key_in_a_batch_come_back_in_order(release: Release, max_delay: float | None) -> None:
    """Their delays are drawn apart: the second must not overtake the first, nor must the third."""
    for seed in range(10):
        done: list[int] = []

        def script(batch: Batch[Data], _: int, done: list[int] = done) -> None:
            for event in batch:
                if event.attempt == 1 and event.data["n"] < 2:
                    batch.fail(event, ValueError("bad event"))
                elif event.attempt == 1 and 2 not in done and 0 not in done:
                    batch.fail(event, Retry("behind a failed event", after=0.5))
                else:
                    done.append(event.data["n"])

        traits = Traits(key_release=release, max_retry_delay=max_delay)
        run_batches(script, "aaa", traits=traits, retry=Backoff(initial=10.0), seed=seed)
        assert done == [0, 1, 2], f"seed {seed}"


@pytest.mark.parametrize("release", RELEASES)
def test_an_event_behind_a_marked_one_of_its_key_is_not_called_in_the_same_batch(release: Release) -> None:
    """The call marks the first and then raises: what it left undecided is searched, but not past the failed event."""

    def script(batch: Batch[Data], call: int) -> None:
        if call == 1:
            batch.fail(batch[0], Retry(after=5.0))
            raise ValueError("and more")

    calls, rig = run_batches(script, "aba", traits=Traits(key_release=release))
    assert calls[0] == [0, 1, 2]
    assert next(call for call in calls[1:] if 2 in call) in ([2], [0, 2])
    assert next(i for i, call in enumerate(calls[1:]) if 0 in call) <= next(
        i for i, call in enumerate(calls[1:]) if 2 in call
    )
    assert not rig.dead


@pytest.mark.parametrize("release", RELEASES)
def test_a_batch_that_failed_in_an_outage_runs_again_in_order(release: Release) -> None:
    """Each event is parked for a delay of its own: the order of a key does not follow the dice."""
    for seed in range(10):
        done: list[int] = []

        def script(batch: Batch[Data], call: int, done: list[int] = done) -> None:
            if call <= 3:
                raise ConnectionError("down")
            done += [event.data["n"] for event in batch]

        traits = Traits(key_release=release)
        run_batches(script, "aabb", traits=traits, retry=Backoff(initial=10.0), seed=seed)
        assert [n for n in done if n < 2] == [0, 1], f"seed {seed}"
        assert [n for n in done if n >= 2] == [2, 3], f"seed {seed}"


def test_a_suspect_does_not_overtake_the_events_of_its_key_that_gather() -> None:
    """It runs alone, which is no reason to run first."""

    def script(batch: Batch[Data], _: int) -> None:
        """Every event is fine."""

    handler = Scripted(script)
    handler.concurrency = 3  # type: ignore[misc]
    rig = Rig(handler, ordering="key")

    async def scenario() -> None:
        async with rig.running():
            await anyio.sleep(0.1)
            assert rig.worker._pipeline is not None
            rig.worker._pipeline._judge._history.of("2").suspect = True
            for n in range(3):
                rig.publish({"n": n}, key="a")
            await rig.until_settled()

    on_virtual_time(scenario)
    assert handler.calls == [[0], [1], [2]]


# -- any failures, in any order ----------------------------------------------------------------------


def failures(rng: Random, kinds: Sequence[str], events: int, share: float) -> dict[int, list[str]]:
    return {n: rng.choices(kinds, k=rng.choice([1, 1, 2, 3])) for n in range(events) if rng.random() < share}


@pytest.mark.parametrize("max_delay", [None, 0.0], ids=["delayed", "parked"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("handler", HANDLERS)
def test_a_key_keeps_its_order_whatever_fails(
    handler: type[Single | Raising], release: Release, policy: Policy, max_delay: float | None
) -> None:
    """P1 and P6 together: random keys, failures and pauses; every event once, and in order."""
    events = 60
    for seed in (1,):  # many more run in simulation
        rng = Random(seed)
        ledger = Ledger(failures(rng, [*ERRORS, "transient", "timeout"], events, 0.25))
        rig = Rig(
            handler(ledger),
            traits=Traits(key_release=release, max_retry_delay=max_delay),
            ordering="key",
            on_key_failure=policy,
            retry=Backoff(attempts=30, maximum=20.0),
            seed=seed,
        )

        async def scenario(rng: Random = rng, rig: Rig = rig) -> None:
            async with rig.running():
                for n in range(events):
                    rig.publish({"n": n}, key=rng.choice("abcde"))
                    await anyio.sleep(rng.uniform(0, 1) if rng.random() < 0.3 else 0.0)
                await rig.until_settled(550)

        on_virtual_time(scenario)
        lost = {int(record.message_id) - 1 for record in rig.of(LeaseLost) if record.state == "running"}
        assert ledger.overlaps == [], f"seed {seed}"
        assert set(ledger.order) ^ dead(rig) == set(range(events)), f"seed {seed}"
        assert all(n in lost for n in range(events) if ledger.order.count(n) > 1), f"seed {seed}"
        if policy == "block":
            assert all(a < b for numbers in ledger.effects.values() for a, b in pairwise(numbers)), f"seed {seed}"


@pytest.mark.parametrize("deaf", [False, True], ids=["stolen", "deaf"])
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("handler", HANDLERS)
def test_a_key_keeps_its_order_when_leases_are_lost(
    handler: type[Single | Raising], release: Release, deaf: bool
) -> None:
    """A lost lease lets the source bring the event again beside its followers, or after them."""
    events, lost = 40, 0
    for seed in (1,):  # many more run in simulation
        rng = Random(seed)
        ledger = Ledger(failures(rng, ["item", "transient"], events, 0.2))
        thief = Thief(rng, share=0.0 if deaf else 0.05)
        rig = Rig(
            handler(ledger, seconds=1.5),
            traits=Traits(key_release=release),
            ordering="key",
            retry=Backoff(attempts=30, maximum=5.0),
            faults=thief,
            lease=3.0,
            seed=seed,
        )
        thief.rig = rig

        async def scenario(rng: Random = rng, rig: Rig = rig, thief: Thief = thief) -> None:
            now = anyio.current_time()
            thief.deaf = [(now + t, now + t + 5.0) for t in (3.0, 15.0, 30.0)] if deaf else []
            async with rig.running():
                for n in range(events):
                    rig.publish({"n": n}, key=rng.choice("abcde"))
                    await anyio.sleep(rng.uniform(0, 3) if rng.random() < 0.3 else 0.0)
                await rig.until_settled(550)

        on_virtual_time(scenario)
        lost += len(rig.of(LeaseLost))
        assert ledger.overlaps == [], f"seed {seed}"
        assert set(ledger.order) | dead(rig) == set(range(events)), f"seed {seed}"
        assert all(firsts(ns) == sorted(firsts(ns)) for ns in ledger.effects.values()), f"seed {seed}"
    assert lost


class Unreliable(Faults):
    """Settlements fail before they reach the broker, or their answers are lost."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    async def before(self, call: Call) -> Mapping[int, Settled]:
        if call.verb == "receive" or self._rng.random() > 0.2:
            return {}
        await anyio.sleep(self._rng.choice([0.0, 0.01, 0.3]))
        if self._rng.random() < 0.3:
            raise ConnectionLost("no route")
        if call.verb == "extend":
            return {}
        return {i: Settled.retry(0.1) for i in range(len(call.items)) if self._rng.random() < 0.5}

    async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
        if call.verb not in {"receive", "extend"} and self._rng.random() < 0.1:
            raise ConnectionLost("the answer is lost")
        return results


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("handler", HANDLERS)
def test_a_key_keeps_its_order_and_goes_on_while_settling_fails(
    handler: type[Single | Raising], release: Release
) -> None:
    """Small limits, short times, an outage, and a broker that answers badly: nothing stands still for ever."""
    events = 50
    for seed in (1,):  # many more run in simulation
        rng = Random(seed)
        ledger = Ledger(failures(rng, ["item", "retry", "reject", "transient", "timeout"], events, 0.4))
        rig = Rig(
            handler(ledger, seconds=rng.choice([0.0, 0.1, 1.0])),
            traits=Traits(key_release=release, max_retry_delay=rng.choice([None, 0.0])),
            limits=Limits(receive=10, settle=rng.choice([3, 100])),
            ordering="key",
            retry=Backoff(attempts=60, maximum=20.0),
            max_processing=60.0,
            faults=Unreliable(rng),
            lease=10.0,
            seed=seed,
        )
        flow = FlowLimits(in_flight=rng.choice([8, 200]), in_flight_bytes=rng.choice([50, 10**6]), parked=10)
        rig.worker.options = replace(rig.worker.options, limits=flow)

        async def scenario(rng: Random = rng, rig: Rig = rig) -> None:
            async with rig.running():
                for n in range(events):
                    rig.publish({"n": n}, key=rng.choice("abcd"))
                    await anyio.sleep(rng.uniform(0, 1) if rng.random() < 0.3 else 0.0)
                with anyio.fail_after(1500):
                    while (depth := rig.broker.depth(QUEUE)).ready + depth.delayed + depth.leased:
                        await anyio.sleep(0.5)

        on_virtual_time(scenario)
        assert ledger.overlaps == [], f"seed {seed}"
        assert set(ledger.order) | dead(rig) == set(range(events)), f"seed {seed}"
        assert all(firsts(ns) == sorted(firsts(ns)) for ns in ledger.effects.values()), f"seed {seed}"


@pytest.mark.parametrize("release", RELEASES)
def test_a_key_goes_on_after_a_dead_letter_whose_confirmation_was_lost(release: Release) -> None:
    """Asked again, the source no longer knows the delivery: the letter is stored, and its key must go on some day."""

    class Forgets(Faults):
        first = True

        async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
            if call.verb == "dead_letter" and self.first:
                self.first = False
                raise ConnectionLost("the answer is lost")
            return results

    ledger = Ledger({0: ["reject"]})
    rig = Rig(Single(ledger), traits=Traits(key_release=release), ordering="key", faults=Forgets())

    async def scenario() -> None:
        for n in range(3):
            rig.publish({"n": n}, key="a")
        async with rig.running():
            await rig.until_settled(30)

    on_virtual_time(scenario)
    assert dead(rig) == {0}
    assert ledger.effects["a"] == [1, 2]


def test_a_key_keeps_its_order_with_several_receives_at_once() -> None:
    """Receives side by side may end in any order; one key's events come in one of them at a time, or in order."""
    ledger = Ledger({n: ["item"] for n in range(0, 100, 7)})
    limits = Limits(receive=5, concurrent_receives=4)
    rig = Rig(Single(ledger), limits=limits, ordering="key", retry=Backoff(maximum=5.0))

    async def scenario() -> None:
        for n in range(100):
            rig.publish({"n": n}, key="abcdefg"[n % 7])
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)
    assert ledger.overlaps == []
    assert all(numbers == sorted(numbers) for numbers in ledger.effects.values())
    assert sorted(ledger.order) == list(range(100))
    assert len(rig.changes(Kind.DELIVERED)) >= 100
