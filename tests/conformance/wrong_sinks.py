"""Sinks whose answers, limits, errors or contexts break the contract in one way each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from eventkit.errors import PermanentAdapterError, TransientAdapterError
from eventkit.spi import DONE, Limits, Outgoing, Settled, SettledKind
from eventkit.testing.memory import MemorySink
from tests.conformance.wrong import PassingSink, start_unowned

# -- answers ---------------------------------------------------------------------------------------------


class PublishAnswersReversed(PassingSink):
    """Answers in the order in which the provider happened to give them."""

    fails = ("publish_answers_each_message_in_its_place",)

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        return [*await super().publish(messages)][::-1]


class RefusesAnEmptyPublish(PassingSink):
    """An empty call is sent, and the provider refuses it."""

    fails = ("a_publish_of_nothing_has_no_answers",)

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        if not messages:
            raise PermanentAdapterError("EmptyBatchRequest")
        return await super().publish(messages)


class RaisesForATooLargeMessage(PassingSink):
    """Before anything is sent."""

    fails = (
        "a_refusal_names_its_cause",
        "good_messages_beside_a_bad_one_arrive",
        "publish_answers_each_message_in_its_place",
    )

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        if any(len(message.body) > self.limits.body for message in messages):
            raise ValueError("message does not fit")
        return await super().publish(messages)


class FailsTheWholeBatch(PassingSink):
    """A provider that takes all or nothing; the answers say so."""

    fails = ("good_messages_beside_a_bad_one_arrive", "publish_answers_each_message_in_its_place")

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        if any(len(message.body) > self.limits.body for message in messages):
            return [Settled.refused("the batch has a message that is too large")] * len(messages)
        return await super().publish(messages)


class DropsTheBatchOfABadOne(PassingSink):
    """The answers are right, but nothing of the batch is sent."""

    fails = ("good_messages_beside_a_bad_one_arrive",)

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        if any(len(message.body) > self.limits.body for message in messages):
            bad = Settled.refused("too large")
            return [bad if len(message.body) > self.limits.body else DONE for message in messages]
        return await super().publish(messages)


class RefusesWithoutACause(PassingSink):
    """No."""

    fails = ("a_refusal_names_its_cause",)

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        return [
            answer if answer == DONE else Settled(SettledKind.REFUSED) for answer in await super().publish(messages)
        ]


class ShowsThePayload(PassingSink):
    """For whoever reads the logs."""

    fails = ("a_refusal_names_its_cause",)

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        return [
            answer if answer == DONE else Settled.refused(f"{answer.cause}: {message.body[:40]!r}")
            for answer, message in zip(await super().publish(messages), messages, strict=True)
        ]


# -- the context, limits and errors ----------------------------------------------------------------------


class SinkLeavesATask(PassingSink):
    """A flusher that nobody owns."""

    fails = ("no_task_outlives_a_sink",)

    @classmethod
    @asynccontextmanager
    async def opened(cls, inner: MemorySink) -> AsyncIterator[Self]:
        start_unowned(anyio.sleep_forever)
        yield cls(inner)


class SinkRaisesKeyErrorWhenClosed(PassingSink):
    """Its own books are closed before its doors."""

    fails = ("a_sink_that_is_closed_raises_adapter_errors_only",)

    _closed = False

    @classmethod
    @asynccontextmanager
    async def opened(cls, inner: MemorySink) -> AsyncIterator[Self]:
        self = cls(inner)
        yield self
        self._closed = True

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        if self._closed:
            raise KeyError("link")
        return await super().publish(messages)


class SinkBreaksWhenCancelled(PassingSink):
    """A cancelled publish leaves its channel taken."""

    fails = ("a_cancelled_publish_leaves_the_sink_usable",)

    _taken = False

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        if self._taken and len(messages) == 1:
            raise TransientAdapterError("the channel is in use")
        self._taken = True
        await checkpoint()
        self._taken = False
        return await super().publish(messages)


class SinkDeclaresTooMuch(PassingSink):
    """Its provider takes a hundred, not a thousand."""

    fails = ("a_publish_as_large_as_the_limit_is_taken",)

    def __init__(self, inner: MemorySink) -> None:
        super().__init__(inner)
        self.limits = msgspec.structs.replace(inner.limits, publish=1000)


class SinkDeclaresLessThanNothing(PassingSink):
    """A limit that nobody can keep."""

    fails = ("limits_of_a_sink_make_sense",)

    def __init__(self, inner: MemorySink) -> None:
        super().__init__(inner)
        self.limits = Limits(publish=0)


class SinkDropsSideBySide(PassingSink):
    """Concurrent publishes share one buffer."""

    fails = ("publishes_side_by_side_all_arrive",)

    _running = 0

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        self._running += 1
        crowded = self._running > 1
        try:
            await checkpoint()
            return [DONE] * len(messages) if crowded else await super().publish(messages)
        finally:
            self._running -= 1
