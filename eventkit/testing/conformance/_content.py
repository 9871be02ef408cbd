"""Clause 8 for sinks: bodies and attributes survive byte for byte, or publish refuses them with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eventkit.spi import Outgoing
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Subject, kind

_VALUES: Final[Mapping[str, str]] = {
    "empty": "",
    "spaces": "  inside and around  ",
    "lines": "one\r\ntwo\tthree",
    "quotes": "\"'\\,;=%20&<>{}",
    "beyond-ascii": "Ünïcödé Ω 漢字 🌍",
    "decomposed": "e\u0301",
    "controls": "\x00\x01\x1f\x7f\u0085",
    "looks-like-json": '{"a": null}',
    "long": "x" * 2000,
}
_NAMES: Final = ("a.b", "a-b", "a_b", "A", "ä", "with space", "x" * 200, "ce-id", "content-type", "", "a:b/c", "123")


async def a_body_of_every_byte_survives(subject: Subject) -> None:
    """Bytes are no text."""
    await expect_survival(subject, Outgoing(body=bytes(range(256)) * 3), Outgoing(body=b"\xff\xfe\x00"))


async def a_body_of_text_survives(subject: Subject) -> None:
    """With its spaces, its line ends and its mark in front."""
    texts = (b" a ", b"line\r\nline\n", "\ufeffÄ".encode(), b"null", b'"a"')
    await expect_survival(subject, *(Outgoing(body=text) for text in texts))


async def an_empty_body_survives(subject: Subject) -> None:
    """An event may be its attributes alone."""
    await expect_survival(subject, Outgoing(body=b"", attributes={"only": "this"}))


async def the_largest_body_survives(subject: Subject) -> None:
    """`limits.body` itself is allowed."""
    async with subject.sink() as sink:
        largest = Outgoing(body=(b"0123456789abcde\n" * (sink.limits.body // 16 + 1))[: sink.limits.body])
        answers = await sink.publish([largest])
    subject.expect_answers(f"publish of {len(largest.body):,} bytes, the limit", answers, "DONE")
    async with subject.source() as source:
        [delivery] = await subject.collect(source, 1, within=2 * subject.terms.patience)
    subject.expect(
        delivery.body == largest.body, f"{len(largest.body):,} bytes arrived as {len(delivery.body):,} others"
    )


async def attribute_values_survive(subject: Subject) -> None:
    """Each one that a header cannot hold is escaped on the way, or refused."""
    await expect_survival(
        subject, *(Outgoing(body=name.encode(), attributes={name: value}) for name, value in _VALUES.items())
    )


async def attribute_names_survive(subject: Subject) -> None:
    """Each alone, so that one refusal says nothing of the others; and two that differ in case only."""
    single = [Outgoing(body=b"%d" % number, attributes={name: "v"}) for number, name in enumerate(_NAMES)]
    await expect_survival(subject, *single, Outgoing(body=b"case", attributes={"Case": "1", "case": "2"}))


async def many_attributes_survive(subject: Subject) -> None:
    """More than some providers have room for."""
    many = [Outgoing(body=b"%d" % number, attributes=_numbered(number)) for number in (9, 10, 11, 30)]
    await expect_survival(subject, *many)


async def content_types_survive(subject: Subject) -> None:
    """With their parameters; none is none, not a default."""
    types = ("application/json; charset=utf-8", "application/cloudevents+json", "x/y", None)
    messages = (Outgoing(body=b"{}%d" % n, content_type=type) for n, type in enumerate(types))
    await expect_survival(subject, *messages, field="content_type")


async def keys_survive(subject: Subject) -> None:
    """Whatever text a key is; where there is no order per key, it may be dropped."""
    keys = ("k", "Ä/#? 1", "x" * 128, None)
    async with subject.source() as source:
        rule = source.info.traits.key_release
    subject.skip_if(rule == "none" or not subject.terms.ordered, "no order per key: a sink may drop keys")
    await expect_survival(subject, *(Outgoing(body=b"%d" % n, key=key) for n, key in enumerate(keys)), field="key")


async def text_that_is_not_unicode_survives_or_is_refused(subject: Subject) -> None:
    """A lone surrogate cannot be sent as UTF-8: refused, and not replaced, nor raised."""
    await expect_survival(subject, Outgoing(body=b"a", attributes={"a": "\ud800"}), Outgoing(body=b"b"))


async def expect_survival(subject: Subject, *messages: Outgoing, field: str = "attributes") -> None:
    """Publish these one by one; each arrives with its `field` as it was, or is refused with a cause.

    Bodies tell them apart.
    """
    sent = await _publish_each(subject, messages)
    async with subject.source() as source:
        seen = [arrival.delivery for arrival in await subject.collect_bodies(source, *sent)]
    for delivery in seen:
        message = sent.get(delivery.body)
        if message is None:
            subject.fail(f"a body arrived as {delivery.body[:40]!r}, which was not published")
        before, after = getattr(message, field), getattr(delivery, field)
        subject.expect(
            before == after,
            f"published and confirmed, but {field} {str(before)[:80]!r} arrived as {str(after)[:80]!r}; "
            "refuse what does not survive",
        )


async def _publish_each(subject: Subject, messages: tuple[Outgoing, ...]) -> dict[bytes, Outgoing]:
    sent: dict[bytes, Outgoing] = {}
    async with subject.sink() as sink:
        for message in messages:
            [answer] = await sink.publish([message])
            what = f"publish of {message.body[:20]!r} with {str(message.attributes)[:60]}"
            subject.expect_answers(what, [answer], "DONE|REFUSED")
            refused = kind(answer) == "REFUSED"
            subject.expect(not refused or bool(answer.cause), f"{what} was refused without a `cause`")
            if not refused:
                sent[message.body] = message
    return sent


def _numbered(number: int) -> dict[str, str]:
    return {f"name-{index}": str(index) for index in range(number)}


CHECKS: Final = clause(
    "8",
    a_body_of_every_byte_survives,
    a_body_of_text_survives,
    an_empty_body_survives,
    the_largest_body_survives,
    attribute_values_survive,
    attribute_names_survive,
    many_attributes_survive,
    content_types_survive,
    keys_survive,
    text_that_is_not_unicode_survives_or_is_refused,
)
