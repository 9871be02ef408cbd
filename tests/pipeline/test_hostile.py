"""Bytes from the broker are hostile (P9), and nothing they hold may leak (P10)."""

from __future__ import annotations

import io
import json
import resource
import time
from dataclasses import dataclass

import anyio
import pytest

from eventkit import Batch, BatchHandler, Event, FlowLimits, Handler, Reject, Retry, Skip
from eventkit._policies.backoff import Backoff
from eventkit._telemetry.log import LogObserver
from eventkit._telemetry.records import EventDeadLettered, EventSkipped, Level
from eventkit.testing import MemoryBroker
from tests.pipeline.support import QUEUE, Rig, on_virtual_time

CANARY = "canary-4711"


@dataclass
class Quake:
    """A typed event."""

    magnitude: float
    do: str = ""


class Careful(Handler[Quake]):
    """Does what the event says."""

    types = ("quake", "other.*")

    def __init__(self) -> None:
        self.handled: list[str] = []

    async def handle(self, event: Event[Quake]) -> None:
        self.handled.append(event.message_id)
        match event.data.do:
            case "skip":
                raise Skip("not wanted")
            case "reject":
                raise Reject("no good")
            case "retry":
                raise Retry("later")
            case "raise":
                raise ValueError("no such magnitude")
            case "transient":
                raise ConnectionError("no route to host")
            case "hang":
                await anyio.sleep_forever()


def settle(rig: Rig) -> None:
    async def scenario() -> None:
        async with rig.running():
            await rig.until_settled()

    on_virtual_time(scenario)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{\x00}\x00",
        b'{"magnitude": "5.1"}',
        b'{"magnitude": NaN}',
        b'{"magnitude": 1e400}',
        b"[" * 100_000,
        b'{"magnitude": ' + b"1" * 5000 + b"}",
        b'{"magnitude": 1, "more": [' + b"{}," * 60_000 + b"{}]}",
        b'{"magnitude": 1' + b" " * 2_000_000 + b"}",
        b"null",
    ],
    ids=["empty", "cut", "utf-16", "wrong type", "NaN", "infinite", "deep", "long number", "many", "big", "null"],
)
def test_a_bad_body_is_dead_lettered_with_a_reason_and_never_reaches_the_handler(body: bytes) -> None:
    """Whatever the bytes: no crash, no hot loop, no silent drop, and the next event is handled."""
    handler = Careful()
    rig = Rig(handler)
    rig.broker.publish(QUEUE, body, type="quake")
    rig.broker.publish(QUEUE, {"magnitude": 4.2}, type="quake")

    settle(rig)

    assert rig.dead == {"1": "decode"}
    assert handler.handled == ["2"]
    assert rig.broker.counts().delivered == 2
    assert json.loads(rig.broker.dead_letters[0].detail)["message"]


def test_a_decode_error_names_the_place_and_never_the_value() -> None:
    """Dead-letter metadata and logs are read by people who may not see payloads."""
    rig = Rig(Careful())
    rig.broker.publish(QUEUE, {"magnitude": CANARY}, type="quake")

    settle(rig)

    message = rig.of(EventDeadLettered)[0].message
    assert "magnitude" in message
    assert CANARY not in message + rig.broker.dead_letters[0].detail


def test_an_event_no_handler_takes_is_dead_lettered_or_skipped_as_configured() -> None:
    """A silent drop would hide a deployment that forgot a handler."""
    for unroutable in ("reject", "skip"):
        rig = Rig(Careful(), unroutable=unroutable)
        rig.broker.publish(QUEUE, {"magnitude": 1}, type="volcano")
        rig.broker.publish(QUEUE, {"magnitude": 1}, type="other.kind")

        settle(rig)

        assert rig.broker.acked == (1 if unroutable == "reject" else 2)
        assert rig.dead == ({"1": "unroutable"} if unroutable == "reject" else {})
        assert [record.reason for record in rig.of(EventSkipped)] == ([] if unroutable == "reject" else ["unroutable"])


async def test_ten_thousand_undecodable_events_in_a_row_are_all_dead_lettered_at_a_steady_rate() -> None:
    """A flood of garbage must neither fill memory nor stop the worker from reaching what is good."""
    handler = Careful()
    stream = io.StringIO()
    rig = Rig(handler)
    rig.level = Level.ERROR + 1  # type: ignore[assignment]  # keep no records
    rig.worker._observers = (LogObserver("json", stream=stream),)
    rig.broker = broker = MemoryBroker()
    rig.worker._adapter.use(broker)  # type: ignore[union-attr]
    for _ in range(10_000):
        broker.publish(QUEUE, b"{", type="quake")
    broker.publish(QUEUE, {"magnitude": 4.2}, type="quake")
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.process_time()

    async with rig.running():
        await rig.until(lambda: len(handler.handled) == 1 and broker.counts().dead == 10_000, limit=18)

    seconds = time.process_time() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before.ru_maxrss
    assert {letter.reason for letter in broker.dead_letters} == {"decode"}
    assert stream.getvalue().count("event_dead_lettered") == 10_000
    # The dead letters and the log themselves are kept in memory here: about 1 KiB each.
    assert grown < 60_000, f"{grown} KiB"
    assert seconds < 10, f"{seconds} s"


def test_nothing_of_a_payload_shows_in_logs_or_dead_letter_metadata() -> None:
    """P10: searched for by a canary, over every way an event can end."""
    stream = io.StringIO()
    rig = Rig(Careful(), Collecting(), retry=Backoff(initial=0.1, maximum=0.1, attempts=2), max_processing=30.0)
    rig.worker._observers = (LogObserver("json", level=Level.DEBUG, stream=stream),)
    for do in ("", "skip", "reject", "retry", "raise", "transient", "hang"):
        rig.publish({"magnitude": 1.0, "do": do, "secret": CANARY}, type="quake")
    rig.publish({"magnitude": CANARY}, CANARY, {CANARY: 1}, {"magnitude": 1.0, "do": [CANARY]}, type="quake")
    rig.publish({"note": CANARY}, {"note": CANARY, "bad": True}, {"note": 5}, type="note")
    rig.publish({"note": CANARY}, type="nobody")

    async def scenario() -> None:
        async with rig.running():
            await anyio.sleep(120)

    on_virtual_time(scenario)

    log = stream.getvalue()
    assert log.count("\n") > 20
    assert CANARY not in log
    assert all(CANARY not in letter.detail + letter.reason for letter in rig.broker.dead_letters)
    assert len(rig.broker.dead_letters) >= 8


class Collecting(BatchHandler[dict[str, str]]):
    """Fails on what is bad."""

    types = ("note",)

    async def handle(self, batch: Batch[dict[str, str]]) -> None:
        if any(event.data.get("bad") for event in batch):
            raise ValueError("a bad note")


def test_what_is_in_flight_stays_within_its_limits() -> None:
    """P7: a receive takes only what there is room for, in events and in bytes."""
    most = 0
    most_bytes = 0

    class Slow(Handler[bytes]):
        concurrency = 4

        async def handle(self, event: Event[bytes]) -> None:
            nonlocal most, most_bytes
            leased = rig.broker.queue(QUEUE).depth(anyio.current_time()).leased
            most, most_bytes = max(most, leased), max(most_bytes, leased * 1000)
            await anyio.sleep(1)

    rig = Rig(Slow(), limits=None, lease=30.0)
    rig.worker = type(rig.worker)(
        f"memory://{QUEUE}",
        Slow(),
        adapter=rig.worker._adapter,
        observers=[rig],
        limits=FlowLimits(in_flight=50, in_flight_bytes=20_000),
        seed=1,
    )
    rig.worker._watch_loop = False
    rig.publish(*[b"x" * 1000] * 300)

    settle(rig)

    assert most <= 50
    assert most_bytes <= 20_000 + 50 * 1000
