"""The rules of one queue of the local Service Bus server, against a model: nothing lost, counted right, in order."""

from __future__ import annotations

import math
from typing import Any

from eventkit_servicebus._local._content import DATA, Content, section
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._queue import LocalQueue
from eventkit_servicebus._local._settings import Settings
from eventkit_servicebus._local._types import Described, Symbol, Timestamp, Uint, Ulong
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

LOCK, MOST = 10.0, 3
WHICH = st.integers(0, 7)


class Known:
    """What the model knows of a message. `locked` is its receipt, 0 for none; `until` the end of lock or schedule."""

    def __init__(self, body: bytes, number: int, expires: float, due: float) -> None:
        self.body = body
        self.number = number
        self.expires = expires
        self.due = due
        self.failures = 0
        self.receipt = 0
        self.until = math.inf
        self.deferred = False
        self.where = "queue"


class Rules(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.dead = LocalQueue("q/$dead", Settings(lock=LOCK), wall=lambda: self.now, dead_letters=None)
        options = Settings(lock=LOCK, max_deliveries=MOST)
        self.queue = LocalQueue("q", options, wall=lambda: self.now, dead_letters=self.dead)
        self.known: list[Known] = []
        self.numbers = 0
        self.stale: list[int] = []

    # -- what the model says of time ---------------------------------------------------------------

    def caught_up(self) -> None:
        """Locks end, and what is scheduled becomes active, in the order in which they were due."""
        for each in sorted(self.known, key=lambda each: (each.due, each.number)):
            if each.where == "queue" and 0 < each.due <= self.now:
                self.numbers += 1
                each.number, each.due = self.numbers, 0.0
        for each in self.known:
            if each.receipt and each.until <= self.now:
                self.failed(each)

    def failed(self, known: Known) -> None:
        self.stale.append(known.receipt)
        known.receipt, known.until = 0, math.inf
        known.failures += 1
        if known.failures >= MOST:
            known.where = "dead"

    def dropped(self) -> None:
        """What has outlived its time is dead when somebody looks."""
        for each in self.known:
            if each.where == "queue" and not each.receipt and not each.due and not each.deferred:
                each.where = "dead" if each.expires <= self.now else "queue"

    def one(self, which: int, *, deferred: bool | None = None, locked: bool) -> Known | None:
        found = [
            each
            for each in self.known
            if each.where == "queue" and bool(each.receipt) is locked and deferred in {None, each.deferred}
        ]
        return found[which % len(found)] if found else None

    # -- what can happen -----------------------------------------------------------------------------

    @rule(ttl=st.one_of(st.none(), st.integers(1, 40)), delay=st.sampled_from([0, 0, 0, 5, 15]))
    def send(self, ttl: int | None, delay: int) -> None:
        body = str(len(self.known)).encode()
        parts: list[Any] = [] if ttl is None else [Described(Ulong(0x70), [None, None, Uint(ttl * 1000)])]
        if delay:
            when = Timestamp((self.now + delay) * 1000)
            parts.append(Described(Ulong(0x72), {Symbol("x-opt-scheduled-enqueue-time"): when}))
        content = Content.read(b"".join(map(encode, [*parts, Described(Ulong(DATA), body)])))
        self.caught_up()
        [number] = self.queue.accept([content], self.now)
        self.numbers += 1
        expires = self.now + delay + (math.inf if ttl is None else ttl)
        known = Known(body, self.numbers, expires, self.now + delay if delay else 0.0)
        self.known.append(known)
        assert number == known.number

    @rule(limit=st.integers(1, 4))
    def take(self, limit: int) -> None:
        self.caught_up()
        found = self.queue.take(limit, self.now)
        waiting = [each for each in self.known if each.where == "queue" and not (each.receipt or each.due)]
        expected = sorted((each for each in waiting if not each.deferred), key=lambda each: each.number)
        fresh = [each for each in expected if each.expires > self.now][:limit]
        assert [(each.message.sequence, each.failures) for each in found] == [(k.number, k.failures) for k in fresh]
        for known, taken in zip(fresh, found, strict=True):
            known.receipt, known.until = taken.receipt, self.now + LOCK
            assert taken.message.body.endswith(known.body)
        self.queue.catch_up(self.now)
        self.dropped()

    @rule(which=WHICH)
    def take_deferred(self, which: int) -> None:
        self.caught_up()
        known = self.one(which, deferred=True, locked=False)
        if known is None:
            return
        [*taken] = self.queue.take_deferred([known.number], self.now)
        if known.expires <= self.now:
            assert not taken
            known.where = "dead"
            return
        assert taken[0].failures == known.failures
        known.receipt, known.until = taken[0].receipt, self.now + LOCK

    @rule(which=WHICH, what=st.sampled_from(["complete", "abandon", "release", "defer", "dead_letter", "renew"]))
    def settle(self, which: int, what: str) -> None:
        self.caught_up()
        known = self.one(which, locked=True)
        if known is None:
            return
        receipt, now = known.receipt, self.now
        if what == "renew":
            assert self.queue.renew(receipt, now) == now + LOCK
            known.until = now + LOCK
            return
        more = ("why", "") if what == "dead_letter" else ()
        assert getattr(self.queue, what)(receipt, *more, now) is True
        if what == "abandon":
            self.failed(known)
            return
        self.stale.append(receipt)
        known.receipt, known.until = 0, math.inf
        known.deferred = known.deferred or what == "defer"
        known.where = {"complete": "done", "dead_letter": "dead"}.get(what, "queue")

    @rule(which=WHICH, what=st.sampled_from(["complete", "abandon", "release", "defer", "renew"]))
    def settle_too_late(self, which: int, what: str) -> None:
        self.caught_up()
        if self.stale:
            assert not getattr(self.queue, what)(self.stale[which % len(self.stale)], self.now)

    @precondition(lambda self: any(each.due for each in self.known))
    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        self.caught_up()
        scheduled = [each for each in self.known if each.where == "queue" and each.due]
        if scheduled:
            known = scheduled[which % len(scheduled)]
            self.queue.cancel([known.number], self.now)
            known.where = "cancelled"
            self.dropped()
            try:
                self.queue.cancel([known.number], self.now)
            except AmqpError:
                return
            raise AssertionError("cancelled twice")

    @rule(seconds=st.sampled_from([1.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    # -- what is true always, but looked at now and then: a look brings everything up to date -------

    def teardown(self) -> None:
        self.look()

    @rule()
    def look(self) -> None:
        self.caught_up()
        self.queue.catch_up(self.now)
        self.dropped()
        here = sorted((each for each in self.known if each.where == "queue"), key=lambda each: each.number)
        shown = [each for each in here if each.expires > self.now]
        seen = self.queue.peek(0, 1_000, None, self.now)
        assert [(each.message.sequence, each.failures) for each in seen] == [(k.number, k.failures) for k in shown]
        dead = [each for each in self.known if each.where == "dead"]
        letters = self.dead.peek(0, 1_000, None, self.now)
        assert {section(letter.message.body, DATA) for letter in letters} == {each.body for each in dead}
        assert len(letters) == len(dead)
        tally = self.queue.tally()
        assert tally.published == len([each for each in self.known if each.where != "cancelled"])
        assert tally.acked == len([each for each in self.known if each.where == "done"])
        assert tally.dead == len(dead)


TestRules = Rules.TestCase
TestRules.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_release_that_comes_too_late_takes_no_count_back() -> None:
    """The lock has ended, and nobody has looked since: chance hardly ever comes this way."""
    rules = Rules()
    rules.send(None, 0)
    rules.take(1)
    rules.pass_time(11.0)
    rules.settle_too_late(0, "release")
    rules.look()
    rules.take(1)
    assert rules.known[0].failures == 1
