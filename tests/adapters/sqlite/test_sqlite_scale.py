"""A receive costs the same however much waits: counted in steps of SQLite's own machine, so exact on any computer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from eventkit_sqlite._config import Place
from eventkit_sqlite._leases import Leases
from eventkit_sqlite._publish import Publisher
from eventkit_sqlite._session import Session

from eventkit.spi import Outgoing

LATER = time.time() + 3600
MANY = 100_000
OTHER = 7
"""The owner of leases that are not ours."""


@dataclass
class Scene:
    """A session, and ways to fill its queue fast."""

    session: Session

    def fill(self, key: str, *, due: float | None = None, owner: int | None = None, amount: int = MANY) -> None:
        """Append events; `key` is an SQL expression of the row's number `n`."""
        self.session.db.execute(
            f"""
            WITH RECURSIVE numbers (n) AS (
                SELECT 1 + (SELECT count(*) FROM content) UNION ALL
                SELECT n + 1 FROM numbers LIMIT {amount})
            INSERT INTO content SELECT n, {key}, '', NULL, 0, '{{}}', x'' FROM numbers""",
        )
        self.session.db.execute(
            """
            INSERT INTO event (id, queue, key, due, owner, receipt)
            SELECT id, ?, nullif(message_id, 'none'), ?, ?, 1 FROM content
            WHERE id NOT IN (SELECT id FROM event)""",
            (self.session.queue, due, owner),
        )
        self.session.db.execute("UPDATE counter SET event = (SELECT max(id) FROM content)")

    def publish(self) -> None:
        """Append the hundred events that are measured."""
        Publisher(self.session).publish([Outgoing(body=b"", key=str(number % 10)) for number in range(100)])

    def steps(self, *, ordered: bool) -> int:
        """The steps of a receive that brings exactly the hundred events of `publish`, in hundreds."""
        leases = Leases(self.session, ordered=ordered, lease=30.0, limit_bytes=1 << 30)
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        self.session.db.set_progress_handler(count, 100)
        found = leases.receive(100, 0.0)
        self.session.db.set_progress_handler(None, 0)
        assert len(found.deliveries) == 100
        return steps


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    session = Session(Place(path=tmp_path / "q.db", queue="q", synchronous="OFF"))
    with closing(session.db):
        yield Scene(session)


def _many_ready_behind(scene: Scene) -> None:
    scene.publish()
    scene.fill("'none'")
    scene.fill("'k' || (n % 1000)")


def _many_delayed_and_leased_before(scene: Scene) -> None:
    scene.fill("'none'", due=LATER)
    scene.fill("'none'", due=LATER, owner=OTHER)
    scene.publish()


def _many_behind_one_leased_key(scene: Scene) -> None:
    scene.fill("'hot'", due=LATER, owner=OTHER, amount=1)
    scene.fill("'hot'")
    scene.publish()


def _many_behind_one_delayed_key(scene: Scene) -> None:
    scene.fill("'hot'", due=LATER, amount=1)
    scene.fill("'hot'")
    scene.publish()


def _many_keys_leased_to_another(scene: Scene) -> None:
    scene.fill("'k' || (n % 50000)", due=LATER, owner=OTHER, amount=50_000)
    scene.fill("'k' || (n % 50000)", amount=50_000)
    scene.publish()


@pytest.mark.parametrize(
    ("fill", "ordered"),
    [
        (_many_ready_behind, False),
        (_many_ready_behind, True),
        (_many_delayed_and_leased_before, False),
        (_many_delayed_and_leased_before, True),
        (_many_behind_one_leased_key, True),
        (_many_behind_one_delayed_key, True),
        (_many_keys_leased_to_another, True),
    ],
)
def test_a_receive_looks_at_what_it_brings_only(
    scene: Scene, tmp_path: Path, fill: Callable[[Scene], None], ordered: bool
) -> None:
    """A backlog of any size and shape must not slow the worker that is to clear it."""
    fill(scene)
    steps = scene.steps(ordered=ordered)
    alone = Session(Place(path=tmp_path / "alone.db", queue="q", synchronous="OFF"))
    with closing(alone.db):
        small = Scene(alone)
        small.publish()
        assert steps <= 1.5 * small.steps(ordered=ordered)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_look_into_a_blocked_queue_costs_nothing(scene: Scene, *, ordered: bool) -> None:
    """It is repeated several times a second, for as long as nothing can be had."""
    scene.fill("'hot'", due=LATER, owner=OTHER, amount=1)
    scene.fill("'hot'", due=None if ordered else LATER)
    leases = Leases(scene.session, ordered=ordered, lease=30.0, limit_bytes=1 << 30)
    looked = []
    scene.session.db.set_progress_handler(lambda: looked.append(1), 100)
    assert leases.receive(100, 0.0).deliveries == ()
    assert len(looked) <= 1


def test_leases_that_end_together_are_taken_back_a_thousand_at_a_time(scene: Scene) -> None:
    """Or the first receive after a crash would hold the file's lock for a second."""
    scene.fill("'none'", due=time.time() - 1, owner=OTHER)
    leases = Leases(scene.session, ordered=False, lease=30.0, limit_bytes=1 << 30)
    assert len(leases.receive(100, 0.0).deliveries) == 100
    assert leases.depth().ready == MANY - 100
    ((left,),) = scene.session.db.execute("SELECT count(*) FROM event WHERE owner = ?", (OTHER,)).fetchall()
    assert left == MANY - 1000
