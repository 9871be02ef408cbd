"""Publishing to the embedded queue: what survives, and what is refused."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventkit.spi import DONE, Outgoing, Settled, SettledKind
from tests.adapters.sqlite.support import SOON, Queue, bodies, on_both_loops

LIMIT = 16 * 1024 * 1024
# Every character that UTF-8 can hold: NUL, quotes, controls and the end of Unicode among them.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
MESSAGES = st.builds(
    Outgoing,
    body=st.binary(max_size=300),
    attributes=st.dictionaries(TEXTS, TEXTS, max_size=5),
    content_type=st.none() | TEXTS,
    key=st.none() | TEXTS,
    event_id=TEXTS,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, max_size=5))
def test_bodies_attributes_and_keys_survive_byte_for_byte(queue: Queue, messages: list[Outgoing]) -> None:
    """Clause 8, in both ways of receiving."""

    async def there_and_back() -> None:
        for ordered in (False, True):
            async with queue.sink() as sink, queue.source(ordered=ordered) as source:
                assert await sink.publish(messages) == [DONE] * len(messages)
                deliveries = await source.receive(10, 0.0)
                assert [_content(x) for x in deliveries] == [_content(x) for x in messages]
                assert [list(x.attributes) for x in deliveries] == [list(x.attributes) for x in messages]
                await source.ack([x.receipt for x in deliveries])

    anyio.run(there_and_back)


def _content(item: Any) -> tuple[Any, ...]:
    return item.body, item.attributes, item.content_type, item.key


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (Outgoing(body=bytes(LIMIT + 1)), "the body has 16,777,217 bytes, over the limit of 16,777,216"),
        (Outgoing(body="text"), "the body is str, not bytes"),  # type: ignore[arg-type]
        (Outgoing(body=b"", attributes={"a": 1}), "attribute 'a' is int, not str"),  # type: ignore[dict-item]
        (Outgoing(body=b"", attributes={1: "a"}), "attribute name is int, not str"),  # type: ignore[dict-item]
        (Outgoing(body=b"", attributes={"a": "\ud800"}), "attribute 'a' has a lone surrogate"),
        (Outgoing(body=b"", attributes={"\ud800": "a"}), "attribute name has a lone surrogate"),
        (Outgoing(body=b"", attributes={"a": "b" * 1024 * 1024}), "the attributes have 1,048,584 bytes, over"),
        (Outgoing(body=b"", key="\udfff"), "the key has a lone surrogate"),
        (Outgoing(body=b"", key="k" * 70_000), "the key has 70,000 characters, over the limit of 65,536"),
        (Outgoing(body=b"", content_type=7), "the content type is int, not str"),  # type: ignore[arg-type]
        (Outgoing(body=b"", event_id="\ud800"), "the event id has a lone surrogate"),
        (Outgoing(body=b"", delay=float("inf")), "the delay is inf s"),
        (Outgoing(body=b"", delay=float("nan")), "the delay is nan s"),
    ],
)
async def test_what_would_not_survive_is_refused_with_a_reason_and_the_rest_is_published(
    queue: Queue, message: Outgoing, cause: str
) -> None:
    """One bad message must not take its batch down, nor be kept in another form."""
    async with queue.sink() as sink, queue.source() as source:
        first, refused, last = await sink.publish([Outgoing(body=b"a"), message, Outgoing(body=b"b")])
        assert (first, last) == (DONE, DONE)
        assert refused.kind is SettledKind.REFUSED
        assert refused.cause.startswith(cause)
        assert bodies(await source.receive(10, SOON)) == [b"a", b"b"]


@on_both_loops
async def test_the_largest_body_and_the_emptiest_survive(queue: Queue) -> None:
    """The limit itself is allowed; attributes may come in any mapping."""
    largest = bytes(range(256)) * (LIMIT // 256)
    async with queue.sink() as sink, queue.source(bytes=1 << 40) as source:
        attributes = UserDict({"a": "b"})
        messages = [Outgoing(body=largest), Outgoing(body=b"", attributes=attributes)]
        assert await sink.publish(messages) == [DONE, DONE]
        first, second = await source.receive(10, SOON)
        assert first.body == largest
        assert (second.body, second.attributes) == (b"", {"a": "b"})


@on_both_loops
async def test_nothing_to_publish_is_no_transaction(queue: Queue) -> None:
    """An empty batch, and one in which everything is refused."""
    async with queue.sink() as sink:
        assert await sink.publish([]) == []
        refused = Settled.refused("the body is int, not bytes")
        assert await sink.publish([Outgoing(body=1)]) == [refused]  # type: ignore[arg-type]


@on_both_loops
async def test_the_event_id_is_kept_beside_the_event(queue: Queue) -> None:
    """So that a later release can tell a repeated publish; today both are delivered."""
    async with queue.sink() as sink:
        await sink.publish([Outgoing(body=b"a", event_id="e-1"), Outgoing(body=b"a", event_id="e-1")])
    rows = await anyio.to_thread.run_sync(queue.sql, "SELECT event_id FROM content")
    assert rows == [("e-1",), ("e-1",)]
