"""Sinks: an answer for each message, in its place, and what is confirmed arrives when it should."""

from __future__ import annotations

from typing import Final

import anyio
from anyio import current_time

from eventkit.errors import AdapterError, ConfigurationError
from eventkit.spi import Outgoing, Sink
from eventkit.testing.conformance._closing import no_task_outlives_a_sink
from eventkit.testing.conformance._errors import (
    CUTS,
    cut,
    expect_configuration_error,
    expect_only_adapter_errors,
    expect_refused,
    with_unknown_parameter,
)
from eventkit.testing.conformance._order import ordered
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Subject, kind

_MOST: Final = 1000  # messages in a call, whatever the limit
_SECRET: Final = b"hunter2 "

# -- 1 and 2: positional, and returned ---------------------------------------------------------------


async def publish_answers_each_message_in_its_place(subject: Subject) -> None:
    """The one that is too large is refused where it stands."""
    async with subject.sink() as sink:
        answers = await sink.publish([_too_large(sink), Outgoing(body=b"a"), Outgoing(body=b"b")])
        subject.expect_answers("publish of one too large and two good", answers, "REFUSED", "DONE", "DONE")


async def a_publish_of_nothing_has_no_answers(subject: Subject) -> None:
    """Same length: an empty call is no error, though a provider may refuse one."""
    async with subject.sink() as sink:
        subject.expect_answers("publish of nothing", await sink.publish([]))


async def good_messages_beside_a_bad_one_arrive(subject: Subject) -> None:
    """One message that cannot be must not take its batch down."""
    async with subject.sink() as sink:
        await sink.publish([Outgoing(body=b"a"), _too_large(sink), Outgoing(body=b"b")])
    async with subject.source() as source:
        seen = await subject.collect_acking(source, 2)
    subject.expect(sorted(seen) == [b"a", b"b"], f"of two good messages beside a bad one, {seen} arrived")


async def a_refusal_names_its_cause(subject: Subject) -> None:
    """Without the payload: causes are logged."""
    async with subject.sink() as sink:
        [answer] = await sink.publish([_too_large(sink)])
    subject.expect_answers("publish of one too large", [answer], "REFUSED")
    subject.expect(bool(answer.cause), "a message that is too large was refused without a `cause`")
    subject.expect(_SECRET.decode().strip() not in answer.cause, f"the cause shows the payload: {answer.cause[:80]!r}")


# -- 6: limits ---------------------------------------------------------------------------------------


async def a_publish_as_large_as_the_limit_is_taken(subject: Subject) -> None:
    """The core fills its calls up to `limits.publish`, and all of it arrives."""
    async with subject.sink() as sink:
        number = min(sink.limits.publish, _MOST)
        names = [b"%04d" % item for item in range(number)]
        answers = await sink.publish([Outgoing(body=name) for name in names])
    other = [kind(answer) for answer in answers if kind(answer) != "DONE"]
    subject.expect(
        len(answers) == number and not other,
        f"publish of {number}, within the limits, gave {len(answers)} answers, {len(other)} of them not DONE",
    )
    async with subject.source() as source:
        seen = await subject.collect_acking(source, number, within=3 * subject.terms.patience)
    missing = sorted({*names} - {*seen})
    subject.expect(not missing, f"{len(missing)} of {number} messages did not arrive, among them {missing[:3]}")


async def limits_of_a_sink_make_sense(subject: Subject) -> None:
    """A call takes one message at least, of one byte at least."""
    async with subject.sink() as sink:
        limits = sink.limits
    subject.expect(limits.publish >= 1 and limits.body >= 1, f"limits below 1: {limits}")


# -- 7: errors ---------------------------------------------------------------------------------------


async def a_missing_sink_is_said_to_be_missing(subject: Subject) -> None:
    """Entering raises SourceNotFound, or another of our errors, with a message."""
    missing = subject.place.missing_sink
    subject.skip_if(missing is None, "the place gives no address `missing_sink`")
    assert missing is not None
    opening = subject.terms.adapter.open_sink(missing)
    await expect_refused(subject, opening, f"a sink at {missing}", (AdapterError, ConfigurationError))


async def an_unknown_parameter_is_a_configuration_error_for_sinks(subject: Subject) -> None:
    """A misspelt option must not be ignored."""
    address = with_unknown_parameter(subject.place.sink)

    async def enter() -> None:
        async with subject.terms.adapter.open_sink(address):
            pass

    await expect_configuration_error(subject, enter, f"a sink at {address}")


async def a_sink_that_is_closed_raises_adapter_errors_only(subject: Subject) -> None:
    """A late publish is answered, or fails as any may."""
    async with subject.sink() as sink:
        pass
    await expect_only_adapter_errors(subject, "publish", lambda: sink.publish([Outgoing(body=b"late")]))


async def a_cancelled_publish_leaves_the_sink_usable(subject: Subject) -> None:
    """Cancellation leaves an adapter as itself, and the next publish works."""
    async with subject.sink() as sink:
        for seconds in CUTS:
            await cut(subject, lambda: sink.publish([Outgoing(body=b"cancelled")]), after=seconds)
        subject.expect_answers("publish after a cancelled one", await sink.publish([Outgoing(body=b"b")]), "DONE")
    async with subject.source() as source:
        await subject.collect_bodies(source, b"b")


# -- 10: side by side --------------------------------------------------------------------------------


async def publishes_side_by_side_all_arrive(subject: Subject) -> None:
    """Handlers publish from several slots."""
    names = [b"%d%d" % (call, item) for call in range(4) for item in range(2)]
    answers: list[object] = []

    async def publish(sink: Sink, chunk: list[bytes]) -> None:
        answers.extend(await sink.publish([Outgoing(body=name) for name in chunk]))

    async with subject.sink() as sink:
        size = min(2, max(1, sink.limits.publish))
        async with anyio.create_task_group() as tasks:
            for start in range(0, len(names), size):
                tasks.start_soon(publish, sink, names[start : start + size])
    subject.expect_answers("publishes side by side", answers, *["DONE"] * len(names))
    async with subject.source() as source:
        seen = await subject.collect_acking(source, len(names))
    subject.expect(sorted(seen) == names, f"publishes of {names} side by side brought {sorted(seen)}")


# -- Outgoing ----------------------------------------------------------------------------------------


async def a_delayed_message_does_not_come_early(subject: Subject) -> None:
    """It comes after its delay; a sink that cannot hold back refuses it."""
    async with subject.source() as source, subject.sink() as sink:
        step = max(source.info.traits.delay_granularity, subject.terms.lease / 4, 4 * subject.terms.slack)
        began = current_time()
        answers = await sink.publish([Outgoing(body=b"late", delay=step), Outgoing(body=b"now")])
        refused = kind(answers[0]) == "REFUSED"
        subject.expect_answers(f"publish with a delay of {step:g} and 0 s", answers, "DONE|REFUSED", "DONE")
        wanted = (b"now",) if refused else (b"now", b"late")
        seen = await subject.collect_bodies(source, *wanted, within=2 * step + subject.terms.patience)
    at = {arrival.delivery.body: arrival.at - began for arrival in reversed(seen)}
    subject.skip_if(refused, "the sink refuses delays")
    early = at[b"late"] < step - subject.terms.slack
    subject.expect(not early, f"a message delayed by {step:g} s came after {at[b'late']:.2f} s")


async def equal_messages_all_arrive(subject: Subject) -> None:
    """Events are told apart by `event_id`, not by their content; without one, nothing is dropped."""
    async with subject.sink() as sink:
        equal = [Outgoing(body=b"same"), Outgoing(body=b"same")]
        equal += [Outgoing(body=b"same", event_id=id) for id in ("1", "2")]
        answers = [answer for message in equal for answer in await sink.publish([message])]
    subject.expect_answers("publish of four equal messages", answers, *["DONE"] * 4)
    async with subject.source() as source:
        seen = await subject.collect_acking(source, 4)
    subject.expect(len(seen) == 4, f"of four equal messages, none with the event id of another, {len(seen)} arrived")


async def a_repeated_event_id_is_confirmed(subject: Subject) -> None:
    """Publishing again after a lost answer is done, and the event is there: once, or twice."""
    message = Outgoing(body=b"a", event_id="order-7")
    async with subject.sink() as sink:
        answers = [answer for _ in range(2) for answer in await sink.publish([message])]
    subject.expect_answers("publish of one event twice", answers, "DONE", "DONE")
    async with subject.source() as source:
        await subject.collect_bodies(source, b"a")


async def messages_of_a_key_keep_their_order(subject: Subject) -> None:
    """Within a call, and from one call to the next."""
    names = [b"%d" % number for number in range(6)]
    async with ordered(subject) as source:
        async with subject.sink() as sink:
            half = min(3, max(1, sink.limits.publish))
            for start in range(0, len(names), half):
                chunk = [Outgoing(body=name, key="order-7") for name in names[start : start + half]]
                subject.expect_answers("publish of a key", await sink.publish(chunk), *["DONE"] * len(chunk))
        seen = await subject.collect_acking(source, len(names))
    subject.expect(seen == names, f"published as {names} with one key, they came as {seen}")


def _too_large(sink: Sink) -> Outgoing:
    repeats, rest = divmod(sink.limits.body + 1, len(_SECRET))
    return Outgoing(body=_SECRET * repeats + b"." * rest)


CHECKS: Final = (
    *clause("1", publish_answers_each_message_in_its_place, a_publish_of_nothing_has_no_answers),
    *clause("2", good_messages_beside_a_bad_one_arrive, a_refusal_names_its_cause),
    *clause("3", no_task_outlives_a_sink, alone=True),
    *clause("6", limits_of_a_sink_make_sense, a_publish_as_large_as_the_limit_is_taken),
    *clause(
        "7",
        a_missing_sink_is_said_to_be_missing,
        an_unknown_parameter_is_a_configuration_error_for_sinks,
        a_sink_that_is_closed_raises_adapter_errors_only,
        a_cancelled_publish_leaves_the_sink_usable,
    ),
    *clause("10", publishes_side_by_side_all_arrive),
    *clause(
        "Outgoing",
        a_delayed_message_does_not_come_early,
        equal_messages_all_arrive,
        a_repeated_event_id_is_confirmed,
        messages_of_a_key_keep_their_order,
    ),
)
