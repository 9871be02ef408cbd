"""Clauses 6 and 7: limits that hold, and errors of our own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import anyio
import msgspec
from anyio import current_time
from anyio.lowlevel import checkpoint_if_cancelled

from eventkit.errors import AdapterError, ConfigurationError, SourceNotFound
from eventkit.spi import Address
from eventkit.testing.conformance._results import clause
from eventkit.testing.conformance._subject import Subject, kind, receipts

_MOST: Final = 1000  # items in a call, whatever the limit: enough to find a wrong one

# -- 6: limits ---------------------------------------------------------------------------------------


async def a_call_as_large_as_the_limit_is_taken(subject: Subject) -> None:
    """The core fills its calls up to `limits.settle` and `limits.extend`."""
    limits = await _limits(subject)
    number = min(max(limits), _MOST, subject.terms.demand.events)
    await subject.publish(*(b"%04d" % item for item in range(number)))
    async with subject.source(events=number) as source:
        tokens = receipts(await subject.collect(source, number, within=3 * subject.terms.patience))[:number]
        settle, extend = min(limits[0], number), min(limits[1], number)
        longer = await source.extend(tokens[:extend], subject.long_lease)
        _expect_all(subject, f"extend of {extend}", longer, "EXTENDED", extend)
        _expect_all(subject, f"ack of {settle}", await source.ack(tokens[:settle]), "DONE", settle)


async def limits_and_traits_make_sense(subject: Subject) -> None:
    """Constant for the life of a source: numbers the core can count with."""
    async with subject.source() as source:
        info = source.info
        limits = msgspec.structs.asdict(info.limits)
        source.stop()
        subject.expect(source.info == info, f"info has changed from {info} to {source.info}")
    low = [f"{name}={value}" for name, value in limits.items() if not value >= 1]
    subject.expect(not low, f"limits below 1: {', '.join(low)}")
    times = [
        info.traits.max_retry_delay,
        info.traits.nack_delay_max,
        info.traits.delay_granularity,
        info.traits.retention,
    ]
    times += [info.traits.lease_total_max, info.traits.native_receive_limit]
    negative = [time for time in times if time is not None and not time >= 0]
    subject.expect(not negative, f"traits below 0 in {info.traits}; None says unlimited or unknown")
    subject.expect(bool(info.name), "the source has no name; logs and errors show it")


async def _limits(subject: Subject) -> tuple[int, int]:
    async with subject.source() as source:
        return source.info.limits.settle, source.info.limits.extend


def _expect_all(subject: Subject, call: str, answers: Sequence[Any], expected: str, number: int) -> None:
    other = [kind(answer) for answer in answers if kind(answer) != expected]
    subject.expect(
        len(answers) == number and not other,
        f"{call}, within the limits, gave {len(answers)} answers, {len(other)} of them not {expected}: {other[:3]}; "
        "declare the limit the provider has",
    )


# -- 7: errors ---------------------------------------------------------------------------------------


async def a_missing_source_is_said_to_be_missing(subject: Subject) -> None:
    """Entering raises SourceNotFound, or another of our errors, with a message."""
    missing = subject.place.missing
    subject.skip_if(missing is None, "the place gives no address `missing`")
    assert missing is not None
    opening = subject.terms.adapter.open_source(missing, subject.terms.demand)
    await expect_refused(subject, opening, f"a source at {missing}", (AdapterError, ConfigurationError))


async def an_unknown_parameter_is_a_configuration_error(subject: Subject) -> None:
    """A misspelt option must not be ignored."""
    address = with_unknown_parameter(subject.place.source)

    async def enter() -> None:
        async with subject.terms.adapter.open_source(address, subject.terms.demand):
            pass

    await expect_configuration_error(subject, enter, f"a source at {address}")


async def a_source_that_is_closed_raises_adapter_errors_only(subject: Subject) -> None:
    """A late call is answered, or fails as any call may."""
    async with subject.holding(b"a", b"b", b"c") as (source, held):
        a, b, c = receipts(held)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "receive": lambda: source.receive(1, 0.0),
        "ack": lambda: source.ack([a]),
        "nack": lambda: source.nack([(b, 0.0)]),
        "extend": lambda: source.extend([c], subject.terms.lease),
    }
    for name, call in calls.items():
        await expect_only_adapter_errors(subject, name, call)
    source.stop()


async def a_source_out_of_reach_raises_adapter_errors_only(subject: Subject) -> None:
    """The SDK's own error is the cause, for whoever has to find out why."""
    unreachable = subject.place.unreachable
    subject.skip_if(unreachable is None, "the place gives no address `unreachable`")
    assert unreachable is not None
    error: AdapterError | None = None
    try:
        async with subject.terms.adapter.open_source(unreachable, subject.terms.demand) as source:
            await source.receive(1, 0.0)
    except AdapterError as raised:
        error = raised
    subject.expect(error is not None, f"a receive at {unreachable}, where nobody answers, raised nothing")
    assert error is not None
    subject.expect(bool(str(error)), f"{type(error).__name__} at {unreachable} has no message")
    subject.expect(
        error.__cause__ is not None, f"{error!r} at {unreachable} has no cause; raise it from the SDK's error"
    )


async def a_cancelled_call_leaves_the_source_usable(subject: Subject) -> None:
    """Cancellation leaves an adapter as itself, and the next calls work."""
    async with subject.holding(b"a", b"b") as (source, [a, b]):
        await cut(subject, lambda: source.ack([a.receipt]), after=0.0)
        for seconds in CUTS:
            await cut(subject, lambda: source.extend([b.receipt], subject.long_lease), after=seconds)
        answers = await source.ack([a.receipt, b.receipt])
        subject.expect_answers("ack after a cancelled one", answers, "DONE|LOST", "DONE")
        await subject.publish(b"c")
        await subject.collect_bodies(source, b"c")


# -- shared with the checks of sinks -------------------------------------------------------------------

CUTS: Final = (0.0, 0.0003, 0.0006, 0.001, 0.0015, 0.002, 0.003)
"""Seconds after which calls are cancelled: on a wire, one of them strikes between call and answer."""


async def cut(subject: Subject, call: Callable[[], Awaitable[object]], *, after: float) -> None:
    """Cancel `call` after so many seconds: that ends the call, and nothing else."""
    try:
        with anyio.move_on_after(after):
            await call()
    except anyio.get_cancelled_exc_class():
        await checkpoint_if_cancelled()  # where it was the check that was cancelled
        subject.fail("a call that was cancelled raised another cancellation than its scope's, and ends its caller too")


def with_unknown_parameter(address: Address) -> Address:
    """`address` and a parameter nobody knows."""
    return msgspec.structs.replace(address, query=(*address.query, ("conformance", "unknown")))


async def expect_refused(
    subject: Subject, opening: AbstractAsyncContextManager[object], what: str, allowed: tuple[type[Exception], ...]
) -> None:
    """Entering `opening` must raise one of `allowed`, with a message."""
    error: Exception | None = None
    try:
        async with opening:
            pass
    except allowed as raised:
        error = raised
    subject.expect(
        error is not None, f"{what} was opened, though it does not exist; raise {SourceNotFound.__name__} on entering"
    )
    subject.expect(bool(str(error)), f"{type(error).__name__} for {what} has no message; say what to do")


async def expect_configuration_error(subject: Subject, enter: Callable[[], Awaitable[None]], what: str) -> None:
    """`enter` must raise ConfigurationError."""
    error: ConfigurationError | None = None
    try:
        await enter()
    except ConfigurationError as raised:
        error = raised
    subject.expect(error is not None, f"{what} was opened; a parameter nobody knows is a ConfigurationError")


async def expect_only_adapter_errors(subject: Subject, name: str, call: Callable[[], Awaitable[object]]) -> None:
    """`call` may raise an AdapterError, and nothing else, and must not hang."""
    asked = current_time()
    with anyio.move_on_after(subject.terms.patience):
        try:
            await call()
        except AdapterError:
            pass
        except Exception as raised:  # noqa: BLE001  # what leaves an adapter is the question
            subject.fail(
                f"{name} after the context had ended raised {type(raised).__name__}, no AdapterError: {raised}"
            )
    took = current_time() - asked
    subject.expect(took < subject.terms.patience, f"{name} after the context had ended hung for {took:g} s")


CHECKS: Final = (
    *clause("6", limits_and_traits_make_sense, a_call_as_large_as_the_limit_is_taken),
    *clause(
        "7",
        a_missing_source_is_said_to_be_missing,
        an_unknown_parameter_is_a_configuration_error,
        a_source_that_is_closed_raises_adapter_errors_only,
        a_source_out_of_reach_raises_adapter_errors_only,
        a_cancelled_call_leaves_the_source_usable,
    ),
)
