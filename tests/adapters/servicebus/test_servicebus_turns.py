"""Sessions that come and go: which of them a source has, and for how long."""

from __future__ import annotations

import anyio
import pytest
from eventkit_servicebus import _sessions
from eventkit_servicebus._local import (
    AmqpError,
    Call,
)

from eventkit.errors import (
    AdapterError,
    ConfigurationError,
)
from eventkit.spi import DONE, LOST, Delivery
from tests.adapters.servicebus.adapter_support import (
    BILLS,
    ORDERED,
    Rig,
    bodies,
    error,
    one,
    receipts,
    received,
    rigged,
    stored,
)


def of(rig: Rig, key: str, found: list[Delivery]) -> list[bytes]:
    return [each.body for each in found if each.key == key]


async def test_a_session_queue_is_opened_for_order_only() -> None:
    """With the right to manage or without it, it says so; a queue without sessions is opened for order all the same."""
    async with rigged() as rig:
        for denied in (False, True):
            if denied:
                rig.trouble.errors["read-entity"] = error("amqp:unauthorized-access")
            with pytest.raises(ConfigurationError, match='ordering = "key"'):
                async with rig.source(BILLS):
                    pass
            async with rig.source(BILLS, ORDERED) as source:
                assert (source.info.traits.key_release, source.info.traits.max_retry_delay) == ("hold", 0)
                assert source.info.limits.concurrent_receives == 1
        async with rig.source("orders", ORDERED) as plain:
            assert plain.info.traits.key_release == "none"


async def test_more_sessions_than_there_is_room_for_all_get_through() -> None:
    """One that is empty makes room as long as others wait."""
    async with rigged() as rig, rig.source(BILLS, ORDERED, "&sessions=2") as source:
        await stored(rig, *[f"{key}{n}" for n in range(3) for key in "abcdef"])
        found: list[Delivery] = []
        with anyio.fail_after(6):
            while len(found) < 18:
                some = await source.receive(100, 2.0)
                assert len(source._pool.links) + len(source._pool._accepting) <= 2
                assert await source.ack(receipts(some)) == [DONE] * len(some)
                found += some
        for key in "abcdef":
            assert of(rig, key, found) == [b"%s%d" % (key.encode(), n) for n in range(3)]


async def test_a_session_that_never_is_empty_has_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would wait for ever."""
    monkeypatch.setattr(_sessions, "_TURN", 0.3)
    async with rigged() as rig, rig.source(BILLS, ORDERED, "&sessions=1") as source:
        await stored(rig, "a0")
        seen: set[str | None] = set()
        number = 0
        with anyio.fail_after(8):
            while "b" not in seen:
                some = await source.receive(1, 1.0)
                seen |= {each.key for each in some}
                number += 1
                await stored(rig, f"a{number}", *(["b0"] if number == 1 else []))
                assert await source.ack(receipts(some)) == [DONE] * len(some)


async def test_a_session_of_which_something_is_lost_makes_room_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody settles what is lost: the source would stand still until it ends."""
    monkeypatch.setattr(_sessions, "_TURN", 0.2)
    async with rigged(lock=1.0) as rig, rig.source(BILLS, ORDERED, "&sessions=1") as source:
        await stored(rig, "a0")
        [held] = await received(source, 1)
        assert await source.receive(1, 0.5) == []  # its turn is over, and it is held
        await stored(rig, "b0")
        with anyio.fail_after(6):
            found = await received(source, 2)
        assert {each.key for each in found} == {"a", "b"}
        assert await source.ack([held.receipt]) == [LOST]


async def test_a_session_is_kept_while_nothing_of_it_is_held() -> None:
    """As long as no other waits for its place: its lock is renewed when half of it is over, and not more often."""
    async with rigged(lock=1.0) as rig, rig.source(BILLS, ORDERED) as source:
        assert await source.receive(1, 2.0) == []
        await stored(rig, "a0")
        assert await source.ack(receipts(await received(source, 1))) == [DONE]
        assert await source.receive(1, 1.6) == []
        assert 2 <= len(rig.trouble.of("renew-session-lock")) <= 5
        await stored(rig, "a1")
        [again] = await received(source, 1, within=0.5)
        assert (again.body, again.delivery_count) == (b"a1", 1)
        assert await source.ack([again.receipt]) == [DONE]


async def test_sessions_that_cannot_be_had_are_told_and_asked_for_again_slowly() -> None:
    """Every receive says so, which the core takes for what it is; no hot loop."""

    def busy(call: Call) -> None:
        if call.operation == "attach":
            raise error("com.microsoft:server-busy")

    async with rigged() as rig, rig.source(BILLS, ORDERED) as source:
        await stored(rig, "a0")
        rig.trouble.rule = busy
        for _ in range(3):
            with pytest.raises(AdapterError):
                await source.receive(1, 2.0)
        assert len(rig.trouble.of("attach")) < 25
        rig.trouble.rule = lambda call: None
        assert await source.ack([(await one(source)).receipt]) == [DONE]


async def test_a_queue_without_a_session_is_asked_slowly() -> None:
    """The server says at once that there is none."""

    def nobody(call: Call) -> None:
        if call.operation == "attach":
            raise AmqpError("com.microsoft:timeout", "no session")

    async with rigged() as rig, rig.source(BILLS, ORDERED) as source:
        rig.trouble.rule = nobody
        assert await source.receive(1, 2.0) == []
        assert len(rig.trouble.of("attach")) <= 4 + 4  # side by side at first, then one after another
        rig.trouble.rule = lambda call: None
        await stored(rig, "a0")
        assert bodies(await received(source, 1)) == [b"a0"]
