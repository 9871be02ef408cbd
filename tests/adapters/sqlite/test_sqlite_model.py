"""Any sequence of calls by several sources, against a model that is slow and plainly right, in a time of its own."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eventkit_sqlite import _leases
from eventkit_sqlite._config import Place
from eventkit_sqlite._ends import Ends
from eventkit_sqlite._leases import Leases
from eventkit_sqlite._letters import Letters
from eventkit_sqlite._publish import Publisher
from eventkit_sqlite._session import Session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventkit.spi import DONE, LOST, Letter, Outgoing, Settled

LEASE = 10.0


@dataclass
class _Event:
    """One event of the model: ready while `due` is over; leased while it has an owner."""

    body: bytes
    key: str | None
    due: float = 0.0
    owner: int | None = None
    count: int = 0
    receipt: Any = None
    dead: bool = False


class _Model:
    def __init__(self) -> None:
        self.events: list[_Event] = []
        self.now = 1000.0

    def expected(self, owner: int, limit: int, *, ordered: bool) -> list[_Event]:
        for event in self.events:
            if event.owner is not None and event.due <= self.now:
                event.owner = event.receipt = None
        taken: list[_Event] = []
        closed = (
            {e.key for e in self.events if e.key is not None and e.owner not in {None, owner}} if ordered else set()
        )
        for event in self.events:
            if event.dead or len(taken) == limit or event.owner is not None:
                continue
            if event.due > self.now:
                closed |= {event.key} if ordered and event.key is not None else set()
            elif event.key not in closed:
                taken.append(event)
        return taken

    def settle(self, receipt: Any) -> _Event | None:
        """The event this receipt holds now."""
        for event in self.events:
            if event.receipt == receipt and event.owner is not None and event.due > self.now:
                return event
        return None


class _Machine:
    """The queue and the model side by side; each step asserts that they agree."""

    def __init__(self, place: Place) -> None:
        self.model = _Model()
        self.session = Session(place, wall=lambda: self.model.now)
        self.publisher = Publisher(self.session)
        self.ends = Ends(self.session)
        self.letters = Letters(self.session)
        # The first source does not ask for order, and comes before anybody does.
        self.leases = [Leases(self.session, ordered=False, lease=LEASE, limit_bytes=1 << 30)]
        self.receipts: list[Any] = []
        self.serial = itertools.count()

    def open_ordered(self) -> None:
        if len(self.leases) < 3:
            self.leases.append(Leases(self.session, ordered=True, lease=LEASE, limit_bytes=1 << 30))

    def publish(self, keys: list[str | None], delay: float) -> None:
        due = self.model.now + delay
        events = [_Event(b"%d" % next(self.serial), key, due) for key in keys]
        self.publisher.publish([Outgoing(body=e.body, key=e.key, delay=delay) for e in events])
        self.model.events += events

    def receive(self, owner: int, limit: int) -> None:
        owner %= len(self.leases)
        expected = self.model.expected(owner, limit, ordered=owner > 0)
        found = self.leases[owner].receive(limit, 0.0).deliveries
        assert [(d.body, d.delivery_count) for d in found] == [(e.body, e.count + 1) for e in expected]
        for event, delivery in zip(expected, found, strict=True):
            event.count, event.owner, event.due = event.count + 1, owner, self.model.now + LEASE
            event.receipt = delivery.receipt
            self.receipts.append(delivery.receipt)

    def ack(self, picks: list[int]) -> None:
        chosen = self._chosen(picks)
        held = [self.model.settle(receipt) for receipt in chosen]
        assert self.ends.ack(chosen) == _answers(held)
        self.model.events = [e for e in self.model.events if not any(e is x for x in held)]

    def nack(self, picks: list[int], delay: float) -> None:
        chosen = self._chosen(picks)
        held = [self.model.settle(receipt) for receipt in chosen]
        assert self.leases[0].nack([(receipt, delay) for receipt in chosen]) == _answers(held)
        for event in filter(None, held):
            event.owner, event.receipt, event.due = None, None, self.model.now + delay

    def bury(self, picks: list[int]) -> None:
        chosen = self._chosen(picks)
        held = [self.model.settle(receipt) for receipt in chosen]
        letters = [Letter(receipt=receipt, reason="r", detail="{}") for receipt in chosen]
        assert self.ends.bury(letters) == _answers(held)
        for event in filter(None, held):
            event.dead, event.owner, event.receipt = True, None, None

    def put_back(self) -> None:
        dead = self.letters.peek(100, None)
        assert sorted(x.body for x in dead) == sorted(e.body for e in self.model.events if e.dead)
        self.letters.put_back([x.id for x in dead])
        for event in self.model.events:
            if event.dead:
                event.dead, event.count, event.due = False, 0, self.model.now

    def extend(self, picks: list[int]) -> None:
        chosen = self._chosen(picks)
        held = [self.model.settle(receipt) for receipt in chosen]
        results = self.leases[0].extend(chosen, LEASE, 0.0)
        assert [one is LOST for one in results] == [one is None for one in held]
        for event in filter(None, held):
            event.due = self.model.now + LEASE

    def wait(self, seconds: float) -> None:
        self.model.now += seconds

    def _chosen(self, picks: list[int]) -> list[Any]:
        return list(dict.fromkeys(self.receipts[-1 - pick] for pick in picks if pick < len(self.receipts)))


def _answers(held: list[_Event | None]) -> list[Settled]:
    return [LOST if event is None else DONE for event in held]


PICKS = st.lists(st.integers(0, 12), min_size=1, max_size=5)
DELAYS = st.sampled_from([0.0, 3.0, 12.0])
STEPS = st.one_of(
    st.tuples(st.just("open_ordered")),
    st.tuples(st.just("publish"), st.lists(st.sampled_from([None, "x", "y", "z"]), min_size=1, max_size=6), DELAYS),
    st.tuples(st.just("receive"), st.integers(0, 2), st.integers(1, 6)),
    st.tuples(st.just("receive"), st.integers(0, 2), st.integers(1, 6)),
    st.tuples(st.just("ack"), PICKS),
    st.tuples(st.just("nack"), PICKS, DELAYS),
    st.tuples(st.just("bury"), PICKS),
    st.tuples(st.just("put_back")),
    st.tuples(st.just("extend"), PICKS),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 4.0, 11.0])),
)


@pytest.mark.parametrize("promoted_at_once", [1000, 2])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=25, max_size=60))
def test_any_sequence_of_calls_does_what_the_model_does(
    tmp_path: Path, promoted_at_once: int, steps: list[tuple[Any, ...]]
) -> None:
    """Leases, counts, delays, order per key and dead letters agree after each step.

    With two promotions at a time the order between keys may differ from the model's, the order within one may not.
    """
    place = Place(path=tmp_path / "q.db", queue=uuid.uuid4().hex, synchronous="OFF")  # a new queue for each example
    machine = _Machine(place) if promoted_at_once > 2 else _Loose(place)
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(machine.session.db):
        patch.setattr(_leases, "_PROMOTED_AT_ONCE", promoted_at_once)
        for name, *arguments in steps:
            getattr(machine, name)(*arguments)


class _Loose(_Machine):
    """Each event received is one the model allows at that moment, and each key comes in order."""

    def receive(self, owner: int, limit: int) -> None:
        owner %= len(self.leases)
        allowed = self.model.expected(owner, 10_000, ordered=owner > 0)
        found = self.leases[owner].receive(limit, 0.0).deliveries
        for delivery in found:
            event = next(e for e in allowed if e.body == delivery.body)
            if owner > 0 and event.key is not None:
                assert event is next(e for e in allowed if e.key == event.key)
            allowed = [e for e in allowed if e is not event]
            event.count, event.owner, event.due = event.count + 1, owner, self.model.now + LEASE
            event.receipt = delivery.receipt
            self.receipts.append(delivery.receipt)
