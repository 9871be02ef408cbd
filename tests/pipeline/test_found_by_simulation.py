"""What the simulator found in the core, each made as small as it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from eventkit import Backoff, Batch, BatchHandler, Batching, Event, Handler
from eventkit._telemetry.records import BatchBisected, DrainEnded, EventReleased, GateClosed, LeaseLost, SettleFailed
from eventkit.errors import ConnectionLost
from eventkit.spi import LOST, Settled, Traits
from eventkit.testing import Call, Faults, Kind
from eventkit.testing.simulation import run_simulated
from tests.pipeline.support import Rig, on_virtual_time

Data = dict[str, Any]


class Numbers(Handler[Data]):
    """Remembers whom it handled; takes as long as the event says."""

    def __init__(self) -> None:
        self.handled: list[int] = []

    async def handle(self, event: Event[Data]) -> None:
        await anyio.sleep(event.data.get("seconds", 0.0))
        self.handled.append(event.data["n"])


def settle(rig: Rig, *bodies: object, key: str | None = None, limit: float = 3600.0) -> None:
    async def scenario() -> None:
        rig.publish(*bodies, key=key)
        async with rig.running():
            await rig.until_settled(limit)

    on_virtual_time(scenario)


def test_a_refused_dead_letter_waits_parked_where_the_source_cannot_delay() -> None:
    """The nack with a delay was refused, and the event left to its lease."""

    class Refuses(Faults):
        refusals = 1

        async def before(self, call: Call) -> dict[int, Settled]:
            if call.verb == "dead_letter" and self.refusals:
                self.refusals -= 1
                return {0: Settled.refused("too large")}
            return {}

    rig = Rig(Numbers(), faults=Refuses(), traits=Traits(max_retry_delay=0.0), retry=Backoff(maximum=5.0))

    settle(rig, b"{")

    assert rig.dead == {"1": "decode"}
    assert [record.verb for record in rig.of(SettleFailed)] == ["dead-letter"]


def test_what_follows_an_event_that_came_too_late_waits_for_it() -> None:
    """The lease of the first was over before it came; the second overtook it."""

    class SlowOnce(Faults):
        slow = True

        async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
            if call.verb == "receive" and results and self.slow:
                self.slow = False
                await anyio.sleep(9.5)
            return results

    handler = Numbers()
    rig = Rig(handler, ordering="key", lease=10.0, faults=SlowOnce())

    async def scenario() -> None:
        rig.publish({"n": 0}, key="a")
        async with rig.running():
            await anyio.sleep(5.0)
            rig.publish({"n": 1}, key="a")
            await rig.until_settled()

    on_virtual_time(scenario)
    assert handler.handled == [0, 1]


def test_what_follows_an_undecodable_event_waits_for_its_dead_letter() -> None:
    """It was in no lane: what followed ran before it was stored, and while it was away."""

    class SlowLetters(Faults):
        async def before(self, call: Call) -> dict[int, Settled]:
            if call.verb == "dead_letter":
                await anyio.sleep(3.0)
            return {}

    handler = Numbers()
    rig = Rig(handler, ordering="key", faults=SlowLetters())

    settle(rig, b"{", {"n": 1}, key="a")

    kinds = [(change.kind, change.message_id) for change in rig.broker.history]
    assert kinds.index((Kind.DEAD, "1")) < kinds.index((Kind.ACKED, "2"))
    acked_at = next(change.at for change in rig.broker.history if change.kind is Kind.ACKED)
    assert acked_at >= 3.0


def test_an_undecodable_event_that_is_brought_again_is_not_dead_lettered_again() -> None:
    """Pub/Sub brings back what follows a failed event, acked or not; only what had been handled was remembered."""
    handler = Numbers()
    rig = Rig(
        handler,
        ordering="key",
        traits=Traits(key_release="redelivers", max_retry_delay=0.0),
        native_dead_letter=False,
        dead_letter="memory://dead",
    )

    async def scenario() -> None:
        [message_id] = rig.publish(b"{", key="a")
        async with rig.running():
            await rig.until_settled()
            # What is brought again is the same message, with a place after one that failed.
            rig.broker.publish("events", b"{", key="a", message_id=message_id)
            await rig.until_settled()

    on_virtual_time(scenario)
    assert rig.broker.counts("dead").published == 1


def test_a_drain_does_not_wait_for_an_answer_that_does_not_come() -> None:
    """A nack sent at its end was waited for five seconds more."""

    class Silent(Faults):
        async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
            if call.verb == "nack":
                await anyio.sleep_forever()
            return results

    rig = Rig(Numbers(), faults=Silent(), drain=5.0)

    async def scenario() -> float:
        rig.publish({"n": 0, "seconds": 100.0})
        async with rig.running():
            await anyio.sleep(1.0)
            asked_at = anyio.current_time()
            rig.worker.drain()
        return anyio.current_time() - asked_at

    seconds = on_virtual_time(scenario)
    assert seconds <= 10.0
    assert rig.of(DrainEnded)


def test_an_event_that_waited_for_nearly_all_its_time_goes_back_instead_of_being_cut() -> None:
    """Its call was cut after the little time that was left, and counted as its failure."""

    class One(Numbers):
        concurrency = 1
        timeout = 90.0

    handler = One()
    rig = Rig(handler, max_processing=100.0, retry=Backoff(attempts=1))

    settle(rig, {"n": 0, "seconds": 85.0}, {"n": 1, "seconds": 12.0}, {"n": 2, "seconds": 5.0})

    assert sorted(handler.handled) == [0, 1, 2]
    assert rig.dead == {}
    assert [record.message_id for record in rig.of(EventReleased)] == ["3"]


def test_a_failure_just_at_the_deadline_is_judged_by_what_it_was() -> None:
    """An outage was taken for a time-out, which counts: the cancellation had not reached the handler."""

    class Late(Handler[Data]):
        timeout = 5.0

        async def handle(self, event: Event[Data]) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5.0)
            if anyio.current_time() < 20:
                raise ConnectionError("down")

    rig = Rig(Late(), retry=Backoff(attempts=1))

    async def scenario() -> None:
        rig.publish({"n": 0})
        async with rig.running():
            await rig.until_settled()

    # On trio, the end of any sleep looks like a cancellation from inside: there it stays a time-out.
    run_simulated(scenario)
    assert rig.dead == {}


def test_a_nack_that_the_source_refuses_is_waited_for_until_its_lease_ends() -> None:
    """What followed in the key went on while the first was still leased, and to come again."""

    class Refuses(Faults):
        refusals = 1

        async def before(self, call: Call) -> dict[int, Settled]:
            if call.verb == "nack" and self.refusals:
                self.refusals -= 1
                return {0: Settled.refused("not now")}
            return {}

    class FailsOnce(Numbers):
        async def handle(self, event: Event[Data]) -> None:
            if event.data["n"] == 0 and event.attempt == 1:
                raise ValueError("once")
            await super().handle(event)

    handler = FailsOnce()
    rig = Rig(handler, ordering="key", faults=Refuses(), lease=60.0, max_processing=200.0, retry=Backoff(maximum=1.0))

    settle(rig, {"n": 0}, {"n": 1}, key="a")

    assert handler.handled == [0, 1]


def test_a_dead_letter_in_doubt_that_was_not_stored_keeps_its_key_waiting() -> None:
    """The first answer was lost and the second said that the lease is gone: it was taken for stored, and was not."""

    class Doubtful(Faults):
        step = 0

        async def before(self, call: Call) -> dict[int, Settled]:
            if call.verb == "dead_letter" and self.step < 2:
                self.step += 1
                if self.step == 1:
                    raise ConnectionLost("did not arrive")
                rig.broker.queue("events").expire(call.items[0].receipt, anyio.current_time())
                return {0: LOST}
            return {}

        async def after(self, call: Call, results: Sequence[Any]) -> Sequence[Any]:
            if call.verb == "receive" and self.step == 2:
                await anyio.sleep(1.0)
            return results

    class Rejects(Numbers):
        async def handle(self, event: Event[Data]) -> None:
            if event.data["n"] == 0:
                raise ValueError("bad")
            await super().handle(event)

    handler = Rejects()
    rig = Rig(handler, ordering="key", faults=Doubtful(), retry=Backoff(attempts=1))

    settle(rig, {"n": 0}, {"n": 1}, key="a")

    kinds = [(change.kind, change.message_id) for change in rig.broker.history]
    assert kinds.index((Kind.DEAD, "1")) < kinds.index((Kind.ACKED, "2"))


def test_a_lease_lost_in_a_call_does_not_make_an_outage_look_like_bad_events() -> None:
    """It was taken for an event the call had decided, so for a success: nothing ever stopped the search."""

    class Down(BatchHandler[Data]):
        batching = Batching(max_size=8, max_wait=1.0)
        calls = 0

        async def handle(self, batch: Batch[Data]) -> None:
            self.calls += 1
            if self.calls == 1:
                last = batch[len(batch) - 1]
                rig.broker.queue("events").expire(last.delivery.receipt, anyio.current_time())
                await anyio.sleep(21.0)  # until an extension tells
            raise ValueError("the database is down, and says so strangely")

    rig = Rig(Down(), lease=30.0)

    async def scenario() -> None:
        rig.publish(*[{"n": number} for number in range(8)])
        async with rig.running():
            await anyio.sleep(30.0)

    on_virtual_time(scenario)
    assert len(rig.of(LeaseLost)) == 1
    assert rig.of(BatchBisected)[0].stopped == "no call succeeded"
    assert rig.of(GateClosed)[0].reason == "bisector"
