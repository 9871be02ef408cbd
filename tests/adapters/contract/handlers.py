"""Handlers that tell the stage of every call, and do what the case wants."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from eventkit import Batch, BatchHandler, Batching, Event, Handler
from tests.adapters.contract.stage import Call, Stage

Data: TypeAlias = dict[str, Any]


async def succeed(_: str) -> None:
    """Nothing more to do."""


class One(Handler[Data]):
    """Does `act` with the name of each event."""

    def __init__(
        self, stage: Stage, act: Callable[[str], Awaitable[None]] = succeed, *, worker: str = "worker"
    ) -> None:
        self.stage = stage
        self.act = act
        self.worker = worker

    async def handle(self, event: Event[Data]) -> None:
        with told(self.stage, self.stage.begins(self.worker, event)):
            await self.act(event.data["name"])


class TwoAtATime(One):
    concurrency = 2


class Many(BatchHandler[Data]):
    """Does `act` with the names of the events of each batch, of up to eight."""

    concurrency = 2
    batching = Batching(max_size=8, max_wait=1.0)

    def __init__(self, stage: Stage, act: Callable[[Sequence[str]], Awaitable[None]]) -> None:
        self.stage = stage
        self.act = act

    async def handle(self, batch: Batch[Data]) -> None:
        with told(self.stage, self.stage.begins("worker", *batch)):
            await self.act([event.data["name"] for event in batch])


@contextmanager
def told(stage: Stage, calls: Sequence[Call]) -> Iterator[None]:
    """Tell the stage how these calls end."""
    try:
        yield
    except BaseException as exc:
        stage.ends(calls, type(exc).__name__)
        raise
    stage.ends(calls, "ok")
