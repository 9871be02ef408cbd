"""The local Service Bus server, without a wire: sessions and who holds them, and the smaller rules of a queue."""

from __future__ import annotations

import math
from typing import Any

import pytest
from eventkit_servicebus._local import AmqpError
from eventkit_servicebus._local._content import DATA, Content, section
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._namespace import Topic
from eventkit_servicebus._local._queue import LocalQueue
from eventkit_servicebus._local._sessions import Sessions
from eventkit_servicebus._local._settings import Settings
from eventkit_servicebus._local._stored import Taken
from eventkit_servicebus._local._types import Described, Symbol, Timestamp, Uint, Ulong

LOCK = 10.0
EARLY, LATE = 100.0, 100.0 + LOCK
START = 1_000_000.0
"""Unix seconds at `EARLY`."""


class Someone:
    """Who asks for a session, and what it is told."""

    def __init__(self, waits_until: float = math.inf) -> None:
        self.waits_until = waits_until
        self.told: list[Any] = []

    def granted(self, session: str, until: float) -> None:
        self.told.append((session, until))

    def lost(self) -> None:
        self.told.append("lost")

    def waited(self) -> None:
        self.told.append("waited")


class World:
    """A queue, its sessions, its dead letters, and its time."""

    def __init__(self, **options: Any) -> None:
        self.now = EARLY
        self.rings = 0
        dead = Settings(lock=LOCK)
        self.dead = LocalQueue("q/$DeadLetterQueue", dead, wall=self.wall, dead_letters=None)
        settings = Settings(lock=LOCK, max_deliveries=3, **options)
        self.queue = LocalQueue("q", settings, wall=self.wall, dead_letters=self.dead)
        self.sessions = Sessions(self.queue, self.ring)

    def wall(self) -> float:
        return START + self.now - EARLY

    def ring(self) -> None:
        self.rings += 1

    def send(self, body: str = "x", session: str | None = None, **more: Any) -> int:
        [number] = self.queue.accept([content(body, session, **more)], self.now)
        return number

    def take(self, session: str = "", limit: int = 10) -> list[Taken]:
        lease = math.inf if self.queue.settings.sessions else None
        return self.queue.take(limit, self.now, session=session, lease=lease)

    def letters(self) -> list[tuple[str, str | None]]:
        """(body, reason) of each."""
        return [
            (body_of(letter), (section(letter.message.body, 0x74) or {}).get("DeadLetterReason"))
            for letter in self.dead.peek(0, 100, None, self.now)
        ]


def content(
    body: str, session: str | None = None, *, ttl: int | None = None, at: float | None = None, id: Any = None
) -> Content:
    parts: list[Any] = [] if ttl is None else [Described(Ulong(0x70), [None, None, Uint(ttl * 1000)])]
    if at is not None:
        when = Timestamp(min(int(at * 1000), 2**63 - 1))
        parts.append(Described(Ulong(0x72), {Symbol("x-opt-scheduled-enqueue-time"): when}))
    parts.append(Described(Ulong(0x73), [id, *[None] * 9, session]))
    return Content.read(b"".join(map(encode, [*parts, Described(Ulong(DATA), body.encode())])))


def body_of(taken: Taken) -> str:
    body: bytes = section(taken.message.body, DATA)
    return body.decode()


def bodies(taken: list[Taken]) -> list[str]:
    return list(map(body_of, taken))


@pytest.fixture
def world() -> World:
    return World(sessions=True)


# -- sessions --------------------------------------------------------------------------------------


def test_a_session_that_is_held_can_be_had_when_its_lock_is_over(world: World) -> None:
    """Though nobody has looked at the time since: the first to ask finds it free."""
    first, second = Someone(), Someone()
    world.sessions.accept("a", first, EARLY)
    with pytest.raises(AmqpError, match="may be locked by another"):
        world.sessions.accept("a", second, LATE - 0.1)
    world.sessions.accept("a", second, LATE)
    assert first.told == [("a", LATE), "lost"]
    assert second.told == [("a", LATE + LOCK)]


def test_a_lock_that_ends_counts_and_one_that_is_given_up_does_not(world: World) -> None:
    """The one is a worker that hangs, the other one that stops."""
    world.send(session="a")
    owner = Someone()
    for expected in (0, 0):
        world.sessions.accept("a", owner, world.now)
        [taken] = world.take("a")
        assert taken.failures == expected
        world.sessions.release(owner, world.now)
    world.sessions.accept("a", owner, world.now)
    world.take("a")
    world.now = LATE
    world.sessions.expire(world.now)
    [taken] = world.take("a")
    assert taken.failures == 1
    tally = world.queue.tally()
    assert (tally.nacked, tally.expired) == (2, 1)


def test_a_lock_is_renewed_from_now_for_its_whole_length(world: World) -> None:
    """And can be no more once it is over."""
    owner = Someone()
    world.sessions.accept("a", owner, EARLY)
    assert world.sessions.renew("a", EARLY + 6) == EARLY + 16
    world.sessions.expire(EARLY + 15)
    assert owner.told == [("a", LATE)]
    with pytest.raises(AmqpError, match="session lock has expired"):
        world.sessions.renew("a", EARLY + 16)
    assert owner.told[-1] == "lost"


def test_who_waits_first_is_served_first(world: World) -> None:
    """And each gets another session, as soon as there is one."""
    first, second = Someone(), Someone()
    world.sessions.wait(first)
    world.sessions.wait(second)
    world.sessions.tend(EARLY)
    assert first.told == second.told == []
    world.send(session="a")
    world.sessions.tend(EARLY)
    assert first.told == [("a", LATE)]
    world.send(session="a")
    world.sessions.tend(EARLY)
    assert second.told == []
    world.send(session="b")
    world.sessions.tend(EARLY)
    assert second.told == [("b", LATE)]


def test_sessions_take_turns(world: World) -> None:
    """One that is left with something goes to the end of the line, or it would starve the others."""
    for session in "aabb":
        world.send(session=session)
    seen = []
    for _ in range(3):
        owner = Someone()
        world.sessions.wait(owner)
        world.sessions.tend(world.now)
        [(session, _)] = owner.told
        seen.append(session)
        world.sessions.release(owner, world.now)
    assert seen == ["a", "b", "a"]


def test_who_has_waited_long_enough_is_told_so_once(world: World) -> None:
    """And is given nothing any more."""
    owner = Someone(waits_until=EARLY + 5)
    world.sessions.wait(owner)
    assert world.sessions.tend(EARLY) == EARLY + 5
    assert world.sessions.tend(EARLY + 5) == math.inf
    world.send(session="a")
    world.sessions.tend(EARLY + 6)
    assert owner.told == ["waited"]


def test_who_leaves_waits_for_nothing(world: World) -> None:
    """A session that it was given would be nobody's."""
    owner = Someone(waits_until=EARLY + 5)
    world.sessions.wait(owner)
    world.sessions.release(owner, EARLY)
    world.send(session="a")
    assert world.sessions.tend(EARLY) == math.inf
    assert owner.told == []


def test_the_end_of_a_lock_is_looked_at_in_time(world: World) -> None:
    """The sooner of lock and wait: whoever serves sleeps until then."""
    world.sessions.accept("a", Someone(), EARLY)
    assert world.sessions.tend(EARLY) == LATE
    world.sessions.wait(Someone(waits_until=EARLY + 60))
    assert world.sessions.tend(EARLY) == LATE
    assert world.sessions.tend(LATE) == EARLY + 60


def test_every_change_of_hands_is_heard_of(world: World) -> None:
    """There may be somebody who waits for it."""
    owner, before = Someone(), world.rings
    world.sessions.accept("a", owner, EARLY)
    assert world.rings > before
    before = world.rings
    world.sessions.release(owner, EARLY)
    assert world.rings > before
    before = world.rings
    world.sessions.wait(owner)
    assert world.rings > before


def test_sessions_are_listed_that_have_something_to_deliver(world: World) -> None:
    """Not those whose messages are locked, deferred, scheduled or too old."""
    world.send(session="waiting")
    world.send(session="locked")
    world.take("locked")
    world.send(session="deferred")
    [taken] = world.take("deferred")
    world.queue.defer(taken.receipt, world.now)
    world.send(session="scheduled", at=world.wall() + 60)
    world.send(session="old", ttl=5)
    world.send(session="waiting")
    world.now += 6
    assert world.queue.sessions(world.now) == ["waiting"]


def test_a_session_that_holds_only_what_is_scheduled_is_remembered(world: World) -> None:
    """Nobody holds it when the message is due."""
    world.send(session="a", at=world.wall() + 60)
    owner = Someone()
    world.sessions.accept("a", owner, world.now)
    world.sessions.release(owner, world.now)
    world.now += 61
    assert world.queue.next_session((), world.now) == "a"
    assert bodies(world.take("a")) == ["x"]


def test_peeking_at_a_session_shows_no_other(world: World) -> None:
    """A receiver of one session may not see the others' messages."""
    world.send("mine", session="a")
    world.send("yours", session="b")
    assert bodies(world.queue.peek(0, 10, "a", world.now)) == ["mine"]
    assert bodies(world.queue.peek(2, 10, None, world.now)) == ["yours"]


# -- a queue ---------------------------------------------------------------------------------------


def test_what_comes_back_is_delivered_in_its_place() -> None:
    """A queue is in the order of sequence numbers, as the service has it, not in that of returning."""
    world = World()
    for body in "abcd":
        world.send(body)
    first, second = world.take(limit=2)
    world.queue.abandon(second.receipt, world.now)
    world.queue.abandon(first.receipt, world.now)
    assert bodies(world.take()) == ["a", "b", "c", "d"]


def test_what_expires_while_nobody_receives_is_dead_all_the_same() -> None:
    """Whoever looks at the dead letters only, sees it."""
    world = World()
    world.send("short", ttl=10)
    world.now += 11
    world.queue.catch_up(world.now)
    assert world.letters() == [("short", "TTLExpiredException")]


def test_numbers_are_given_in_the_order_of_time() -> None:
    """What was due before a message came in has the number before it, though nobody has looked since."""
    world = World()
    world.send("scheduled", at=world.wall() + 5)
    world.now += 6
    assert world.send("now") == 3
    assert [(body_of(each), each.message.sequence) for each in world.take()] == [("scheduled", 2), ("now", 3)]


def test_a_message_knows_when_it_became_active_and_its_number_before() -> None:
    """Scheduled, its age begins when it is due."""
    world = World()
    world.send(at=world.wall() + 5)
    world.now += 6
    [taken] = world.take()
    assert taken.message.enqueued_at == START + 5
    assert (taken.message.first_sequence, taken.message.sequence) == (1, 2)


def test_time_to_live_begins_when_a_message_is_active() -> None:
    """And a queue may have a limit of its own."""
    world = World(ttl=8.0)
    world.send("scheduled", at=world.wall() + 20, ttl=5)
    world.send("long", ttl=1_000)
    world.send("short", ttl=5)
    world.now += 6
    assert bodies(world.take()) == ["long"]
    world.now += 18  # 24 s: the scheduled one is 4 s old
    assert bodies(world.take()) == ["scheduled"]
    assert world.letters() == [("short", "TTLExpiredException"), ("long", "TTLExpiredException")]


def test_what_has_expired_is_gone_where_no_one_asks_for_dead_letters() -> None:
    """And does not count as a delivery either way."""
    world = World(dead_letter_expired=False)
    world.send(ttl=5)
    world.now += 6
    assert world.take() == []
    assert world.letters() == []
    assert (world.queue.tally().dead, world.queue.tally().delivered) == (0, 0)


def test_a_letter_that_expired_has_not_failed() -> None:
    """Taking it to see how old it is was no delivery."""
    world = World()
    world.send(ttl=5)
    [taken] = world.take()
    world.queue.abandon(taken.receipt, world.now)
    world.now += 6
    assert world.take() == []
    [letter] = world.dead.take(1, world.now)
    assert letter.failures == 1


def test_a_letter_keeps_its_age_and_its_first_number_and_never_expires() -> None:
    """It is a new message in another queue, of the same event."""
    world = World()
    world.send()
    world.send(ttl=5)
    world.send(at=world.wall() + 1)
    world.now += 1
    for taken in world.take()[1:]:
        world.queue.dead_letter(taken.receipt, "why", "", world.now)
    world.now += 100
    letters = [letter.message for letter in world.dead.take(2, world.now)]
    assert [(each.sequence, each.first_sequence, each.enqueued_at) for each in letters] == [
        (1, 2, START),
        (2, 3, START + 1),
    ]
    assert world.dead.peek(0, 10, None, world.now)


def test_a_letter_of_a_session_is_received_without_one(world: World) -> None:
    """Dead letters have no sessions to lock."""
    world.send("x", session="a")
    [taken] = world.take("a")
    world.queue.dead_letter(taken.receipt, "why", "", world.now)
    assert bodies(world.dead.take(1, world.now)) == ["x"]


def test_a_letter_of_what_was_deferred_is_active() -> None:
    """Or nobody would ever receive it."""
    world = World()
    world.send()
    [taken] = world.take()
    world.queue.defer(taken.receipt, world.now)
    [taken] = world.queue.take_deferred([1], world.now)
    world.queue.dead_letter(taken.receipt, "why", "", world.now)
    [letter] = world.dead.take(1, world.now)
    assert letter.message.state == 0
    with pytest.raises(AmqpError):
        world.queue.take_deferred([1], world.now)


def test_deferred_messages_are_had_all_or_none_and_each_once() -> None:
    """A receiver that names one twice has made a mistake."""
    world = World()
    for _ in range(2):
        world.send()
    for taken in world.take():
        world.queue.defer(taken.receipt, world.now)
    for numbers in ([1, 1], [1, 3]):
        with pytest.raises(AmqpError, match="do not exist, or are locked"):
            world.queue.take_deferred(numbers, world.now)
    for taken in world.queue.take_deferred([1, 2], world.now):
        world.queue.complete(taken.receipt, world.now)
    assert not world.queue._shelf._deferred  # one for each message that ever was would be a leak


def test_only_what_is_scheduled_is_cancelled_all_of_it_or_nothing() -> None:
    """What is active may be in somebody's hands."""
    world = World()
    world.send("active")
    world.send("scheduled", at=world.wall() + 5)
    with pytest.raises(AmqpError, match="No scheduled message"):
        world.queue.cancel([2, 1], world.now)
    assert world.queue.tally().published == 2
    world.queue.cancel([2, 2], world.now)
    assert world.queue.tally().published == 1
    world.now += 6
    [taken] = world.take()
    assert body_of(taken) == "active"
    world.queue.complete(taken.receipt, world.now)
    world.now += LOCK
    world.queue.catch_up(world.now)
    assert world.queue.tally().expired == 0  # nobody has it, not even the broker below


def test_a_date_beyond_all_reason_is_far_away() -> None:
    """The largest that the wire can say; nothing overflows."""
    world = World()
    world.send(at=2**63 / 1000)
    world.send(at=-(2**63) / 1000)
    assert len(world.take()) == 1
    [shown] = [each for each in world.queue.peek(0, 10, None, world.now) if each.message.state == 2]
    assert shown.message.outgoing(0, None)


@pytest.mark.parametrize("id", ["same", b"same", Ulong(5)])
def test_an_id_is_known_for_the_whole_window_and_no_longer(id: Any) -> None:
    """Also of what was completed since; what has none is never known."""
    world = World(duplicates=60.0)
    assert world.send(id=id) == 1
    [taken] = world.take()
    world.queue.complete(taken.receipt, world.now)
    world.now += 59.9
    assert world.send(id=id) == 0
    assert [world.send(), world.send()] == [2, 3]
    world.now += 0.1
    assert world.send(id=id) == 4
    assert world.queue.tally().published == 4


def test_ids_of_two_types_are_two_ids() -> None:
    """The text "a" and the bytes of it, as AMQP has them."""
    world = World(duplicates=60.0)
    assert [world.send(id="a"), world.send(id=b"a"), world.send(id=Ulong(1))] == [1, 2, 3]


def test_messages_of_which_one_cannot_be_are_all_refused() -> None:
    """A batch is sent once more as a whole: half of it would come twice."""
    world = World(duplicates=60.0)
    torn = Content.read(b"\x00\x53\x73\xc1\x03\x02\x45\x41" + encode(Described(Ulong(DATA), b"x")))
    with pytest.raises(AmqpError):
        world.queue.accept([content("x", id="a"), torn], world.now)
    assert world.queue.tally().published == 0
    assert world.send(id="a") == 1


def test_a_topic_takes_a_message_for_all_its_subscriptions_or_for_none() -> None:
    """Refused by one, it is sent again, and the others would get it twice."""
    plain, strict = World(), World(sessions=True)
    topic = Topic("news")
    topic.subscriptions += [plain.queue, strict.queue]
    with pytest.raises(AmqpError, match="no session id"):
        topic.accept([content("x")], EARLY)
    assert plain.queue.tally().published == 0
    assert topic.accept([content("x", session="a")], EARLY) == [1]
    assert [each.queue.tally().published for each in (plain, strict)] == [1, 1]


def test_what_dies_of_its_last_release_is_a_letter() -> None:
    """Each way in which a message can come back looks whether that was once too often."""
    for way in ("abandon", "expire"):
        world = World()
        world.send()
        for _ in range(3):
            [taken] = world.take()
            if way == "abandon":
                world.queue.abandon(taken.receipt, world.now)
            else:
                world.now += LOCK
        if way == "expire":
            assert world.queue.peek(0, 10, None, world.now) == []
        assert world.letters() == [("x", "MaxDeliveryCountExceeded")]
        assert world.queue.peek(0, 10, None, world.now) == []
        assert world.queue.tally().expired == (3 if way == "expire" else 0)


def test_a_receipt_is_good_once() -> None:
    """Whatever it was used for."""
    for use in ("complete", "abandon", "release", "defer"):
        world = World()
        world.send()
        [taken] = world.take()
        assert getattr(world.queue, use)(taken.receipt, world.now)
        for other in ("complete", "abandon", "release", "defer"):
            assert not getattr(world.queue, other)(taken.receipt, world.now)
        assert world.queue.renew(taken.receipt, world.now) is None
