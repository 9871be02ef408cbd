"""Clauses 8 and 9, and `Delivery`: what a delivery carries."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from anyio import current_time

from eventkit.spi import Delivery, Outgoing
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Subject, kind

_SKEW: Final = 300.0  # how far the provider's wall clock may be from ours, seconds
_PLAIN: Final = Outgoing(
    body=b'{"id": 7}', attributes={"trace": "00-ab", "ce-type": "order.made"}, content_type="application/json"
)

# -- 8: as it was published --------------------------------------------------------------------------


async def what_was_published_arrives_as_it_was(subject: Subject) -> None:
    """Body, attributes and content type; and values of the declared types."""
    delivery = await _delivered(subject, _PLAIN)
    for name in ("body", "attributes", "content_type"):
        found, expected = getattr(delivery, name), getattr(_PLAIN, name)
        subject.expect(found == expected, f"{name} {expected!r} arrived as {found!r}")
    subject.expect(type(delivery.body) is bytes, f"the body is {type(delivery.body).__name__}, not bytes")
    subject.expect(isinstance(delivery.attributes, Mapping), f"attributes are {type(delivery.attributes).__name__}")


async def a_body_that_is_no_text_arrives_byte_for_byte(subject: Subject) -> None:
    """Every byte there is, and what looks like UTF-8 with a mark in front."""
    for body in (bytes(range(256)), b"\xef\xbb\xbf\xff\x00 \r\n"):
        delivery = await _delivered(subject, Outgoing(body=body))
        subject.expect(delivery.body == body, f"{len(body)} bytes of no text arrived as {delivery.body[:40]!r}…")


async def attribute_names_keep_their_case(subject: Subject) -> None:
    """A header `traceParent` is not `traceparent`."""
    attributes = {"traceParent": "Ab", "UPPER": "Cd"}
    delivery = await _delivered(subject, Outgoing(body=b"a", attributes=attributes))
    subject.expect(delivery.attributes == attributes, f"{attributes} arrived as {dict(delivery.attributes)}")


async def an_event_that_comes_again_is_the_same(subject: Subject) -> None:
    """Body, attributes, message id and when it was enqueued; the receipt is a new one."""
    await subject.publish(_PLAIN)
    async with subject.source() as source:
        [first] = await subject.collect(source, 1)
        await source.nack([(first.receipt, 0.0)])
        [again] = await subject.collect(source, 1)
    for name in ("body", "attributes", "content_type", "message_id", "key", "enqueued_at"):
        before, after = getattr(first, name), getattr(again, name)
        subject.expect(before == after, f"the {name} of an event that came again was {before!r} and is {after!r}")


# -- 9: the provider's own ---------------------------------------------------------------------------


async def raw_is_the_providers_own_object(subject: Subject) -> None:
    """One of the declared class for each delivery, not one for all; None where there is none."""
    async with subject.holding(b"a", b"b") as (_, held):
        expected = subject.terms.raw
    for delivery in held:
        found = type(delivery.raw).__name__
        subject.expect(isinstance(delivery.raw, expected), f"raw is a {found}; expected a {expected.__name__}")
    first, second = (delivery.raw for delivery in held)
    subject.expect(first is None or first is not second, "two deliveries share one `raw`; it is that of each delivery")


# -- Delivery ----------------------------------------------------------------------------------------


async def message_ids_tell_events_apart(subject: Subject) -> None:
    """Also those of equal events."""
    await subject.publish(Outgoing(body=b"a", event_id="1"), Outgoing(body=b"a", event_id="2"))
    async with subject.source() as source:
        ids = [delivery.message_id for delivery in await subject.collect(source, 2)]
    subject.expect(len({*ids}) == 2, f"two events have the message ids {ids}")
    subject.expect(all(id and isinstance(id, str) for id in ids), f"a message id is text, and not empty: {ids}")


async def enqueued_at_is_in_unix_seconds(subject: Subject) -> None:
    """When the source accepted the event; None where it does not say."""
    before = time.time()
    delivery = await _delivered(subject, _PLAIN)
    found = delivery.enqueued_at
    subject.expect(
        found is None or before - _SKEW <= found <= time.time() + _SKEW,
        f"enqueued_at is {found!r}, published at {before:.0f}; it is in Unix seconds",
    )


async def leased_until_is_on_the_loops_clock(subject: Subject) -> None:
    """About a lease from the response: at most the whole of it, at least a third."""
    await subject.publish(_PLAIN)
    async with subject.source() as source:
        lease = subject.lease_of(source, subject.long_lease)
        until = current_time() + subject.terms.patience
        seen = await subject.arrivals(source, until=until, enough=bool)
    subject.expect(bool(seen), f"a published event did not come within {subject.terms.patience:g} s")
    left = seen[0].delivery.leased_until - seen[0].at
    subject.expect(
        lease / 3 <= left <= lease + subject.terms.slack,
        f"leased_until is {left:.2f} s after the response, with a lease of {lease:g} s; it is on the loop's clock "
        "(anyio.current_time), measured from the response less 1 s, and never less than half the lease",
    )


async def _delivered(subject: Subject, outgoing: Outgoing) -> Delivery:
    """What is delivered for `outgoing`, acked. Skips where the sink refuses it: that is for its own checks."""
    async with subject.sink() as sink:
        [answer] = await sink.publish([outgoing])
    subject.skip_if(kind(answer) == "REFUSED", f"the sink refuses it: {answer.cause}")
    async with subject.source() as source:
        delivery = (await subject.collect(source, 1))[0]
        await source.ack([delivery.receipt])
        return delivery


CHECKS: Final = (
    *clause(
        "8",
        what_was_published_arrives_as_it_was,
        a_body_that_is_no_text_arrives_byte_for_byte,
        attribute_names_keep_their_case,
        an_event_that_comes_again_is_the_same,
    ),
    *clause("9", raw_is_the_providers_own_object),
    *clause(
        "Delivery",
        message_ids_tell_events_apart,
        enqueued_at_is_in_unix_seconds,
        leased_until_is_on_the_loops_clock,
    ),
)
