"""Publishing: calls of one key, sizes, and what is known of each message when a call fails."""

from __future__ import annotations

from typing import Any

import pytest

from eventkit.errors import AccessDenied, ConnectionLost
from eventkit.spi import DONE, UNKNOWN, Outgoing, SettledKind
from tests.adapters.pubsub.adapter_support import bodies, error, received, rigged

MEGABYTE = 1_000_000


async def test_a_thousand_messages_are_one_call() -> None:
    """Each call is a round trip, and Pub/Sub bills by the kilobyte."""
    async with rigged() as rig:
        await rig.publish(*[b"%d" % n for n in range(1000)])

        [request] = rig.trouble.of("Publish")
        assert len(request.messages) == 1000
        assert rig.server.counts().published == 1000


async def test_more_than_pubsub_takes_in_one_call_is_refused_as_a_whole() -> None:
    """The core keeps to the limit; whoever does not is told, and nothing was published."""
    async with rigged() as rig, rig.sink() as sink:
        assert sink.limits.publish == 1000
        results = await sink.publish([Outgoing(body=b"x")] * 1001)

        assert {result.kind for result in results} == {SettledKind.REFUSED}
        assert "1" in results[0].cause
        assert rig.server.counts().published == 0


async def test_messages_of_a_key_go_together_and_in_order() -> None:
    """A call has one ordering key; which messages share it is ours to sort out."""
    made = [Outgoing(body=b"%d" % n, key="abc"[n % 3] if n % 4 else None) for n in range(24)]
    async with rigged() as rig:
        await rig.publish(*made, to="bills.ordered")
        calls = rig.trouble.of("Publish")
        async with rig.source("bills.ordered") as source:
            found = await received(source, 24)

    assert len(calls) == 4
    assert all(len({message.ordering_key for message in call.messages}) == 1 for call in calls)
    for key in (None, *"abc"):
        assert [each.body for each in found if each.key == key] == [each.body for each in made if each.key == key]


async def test_what_is_too_large_together_goes_in_several_calls() -> None:
    """Ten megabytes are the limit of a call, not of what one may want to publish at once."""
    made = [Outgoing(body=bytes([n]) * 4 * MEGABYTE, key="k") for n in range(5)]
    async with rigged() as rig:
        await rig.publish(*made, to="bills.ordered")

        assert [len(call.messages) for call in rig.trouble.of("Publish")] == [2, 2, 1]


@pytest.mark.parametrize("size", [9_990_000, 10_000_000, 30_000_000])
async def test_a_message_at_the_limit_goes_and_one_over_it_is_refused(size: int) -> None:
    """With both sizes, and its fellows go."""
    async with rigged() as rig:
        async with rig.sink() as sink:
            large, small = await sink.publish([Outgoing(body=b"x" * size), Outgoing(body=b"small")])
        async with rig.source() as source:
            found = await received(source, 1 + (size < 10_000_000))

    assert small == DONE
    if size < 10_000_000:
        assert large == DONE
        assert sorted(map(len, bodies(found))) == [5, size]
    else:
        assert large.kind is SettledKind.REFUSED
        assert f"{size:,}" in large.cause


async def test_a_message_with_neither_data_nor_attributes_goes_and_comes_back_empty() -> None:
    """Pub/Sub refuses one; an event without data is an event all the same."""
    async with rigged() as rig:
        await rig.publish(b"")
        async with rig.source() as source:
            [found] = await received(source, 1)

    assert (found.body, found.attributes) == (b"", {})


async def test_hostile_attributes_come_back_as_they_were() -> None:
    """Names and values that Pub/Sub does not take, and more than it takes."""
    attributes = {
        "": "no name",
        "googclient_x": "reserved",
        "long": "v" * 5000,
        "n" * 300: "long name",
        "content-type": "mine",
        "zero\x00": "\x00\U0001f30b\ufffe",
        **{f"many-{n}": str(n) for n in range(100)},
    }
    async with rigged() as rig:
        await rig.publish(Outgoing(body=b"x", attributes=attributes, key="k" * 2000))
        async with rig.source() as source:
            [found] = await received(source, 1)

    assert dict(found.attributes) == attributes
    assert found.key == "k" * 2000


@pytest.mark.parametrize(
    ("code", "kind"), [("RESOURCE_EXHAUSTED", SettledKind.RETRY), ("NOT_FOUND", SettledKind.REFUSED)]
)
async def test_a_call_that_was_not_done_is_an_answer(code: str, kind: SettledKind) -> None:
    """Known is known."""
    async with rigged() as rig, rig.sink() as sink:
        rig.trouble.errors = {"Publish": error(code)}
        [result] = await sink.publish([Outgoing(body=b"x")])

    assert result.kind is kind


class Failing:
    """Fails the publish calls whose numbers are given."""

    def __init__(self, rig: Any, code: str, *numbers: int) -> None:
        self.rig, self.code, self.numbers, self.seen = rig, code, numbers, 0
        rig.trouble.before = self.before

    async def before(self, call: Any) -> dict[str, str]:
        self.rig.trouble.calls.append(call)
        if call.operation == "Publish":
            self.seen += 1
            if self.seen in self.numbers:
                raise error(self.code)
        return {}


async def test_after_a_failure_nothing_of_its_key_overtakes_it() -> None:
    """What failed may be published again, and would come after what followed it."""
    made = [Outgoing(body=bytes([n]) * 4 * MEGABYTE, key="k") for n in range(5)]
    async with rigged() as rig, rig.sink("bills.ordered") as sink:
        Failing(rig, "UNAVAILABLE", 2)
        results = await sink.publish(made)

        assert results[:2] == [DONE, DONE]
        assert results[2:4] == [UNKNOWN, UNKNOWN]
        assert results[4].kind is SettledKind.RETRY
        assert rig.server.counts().published == 2


async def test_a_failure_of_one_key_is_not_one_of_another() -> None:
    """Their calls are their own."""
    async with rigged() as rig, rig.sink("bills.ordered") as sink:
        Failing(rig, "RESOURCE_EXHAUSTED", 1)
        first, second = await sink.publish([Outgoing(body=b"1", key="a"), Outgoing(body=b"2", key="b")])

    assert {first.kind, second.kind} == {SettledKind.RETRY, SettledKind.DONE}


async def test_when_nothing_is_known_it_is_raised() -> None:
    """There is an error to show."""
    async with rigged() as rig, rig.sink() as sink:
        rig.trouble.lost = {"Publish": error("UNAVAILABLE")}
        with pytest.raises(ConnectionLost, match="cannot publish to pubsub://"):
            await sink.publish([Outgoing(body=b"x")])


async def test_permission_lost_while_publishing_says_what_is_needed() -> None:
    """The cause of a dead letter that stays where it is."""
    async with rigged() as rig, rig.sink() as sink:
        rig.trouble.errors = {"Publish": error("PERMISSION_DENIED")}
        [result] = await sink.publish([Outgoing(body=b"x")])

    assert "roles/pubsub.publisher" in result.cause
    assert AccessDenied.__name__ not in result.cause
