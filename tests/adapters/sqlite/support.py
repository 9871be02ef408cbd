"""What the tests of the embedded queue share."""

from __future__ import annotations

import functools
import inspect
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from blockbuster import blockbuster_ctx
from eventkit_sqlite import adapter
from eventkit_sqlite._adapter import SqliteSource

from eventkit.spi import DONE, Address, Delivery, Demand, Outgoing, Sink

SOON: Final = 0.4
"""A wait in which anything that is due comes, seconds."""


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of an async function: on asyncio and on trio, failing if the asyncio loop is blocked."""

    @functools.wraps(test)
    def both(*, backend: str, **fixtures: Any) -> None:
        with blockbuster_ctx():
            anyio.run(functools.partial(test, **fixtures), backend=backend)

    asked = inspect.signature(test)
    parameter = inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY, annotation=str)
    both.__signature__ = asked.replace(parameters=[*asked.parameters.values(), parameter])  # type: ignore[attr-defined]
    del both.__wrapped__  # pytest-asyncio would look there
    marked: Callable[..., None] = pytest.mark.parametrize("backend", ["asyncio", "trio"])(both)
    return marked


@dataclass(frozen=True)
class Queue:
    """One queue in one file, to be opened any number of times."""

    path: Path
    name: str = "default"

    @property
    def address(self) -> Address:
        """With four slashes: the path is absolute."""
        return Address("sqlite", "", f"/{self.path}", (("queue", self.name),))

    @asynccontextmanager
    async def source(self, *, lease: float = 30.0, ordered: bool = False, **demand: Any) -> AsyncIterator[SqliteSource]:
        """A source with this demand."""
        async with adapter.open_source(self.address, Demand(lease=lease, ordered=ordered, **demand)) as source:
            assert isinstance(source, SqliteSource)
            yield source

    def sink(self) -> AbstractAsyncContextManager[Sink]:
        """A sink."""
        return adapter.open_sink(self.address)

    async def publish(self, *bodies: bytes, key: str | None = None, delay: float = 0.0) -> None:
        """Publish, in a sink of its own, and see it confirmed."""
        async with self.sink() as sink:
            messages = [Outgoing(body=body, key=key, delay=delay) for body in bodies]
            assert await sink.publish(messages) == [DONE] * len(bodies)

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement on the file, past the adapter."""
        with sqlite3.connect(self.path) as db:
            rows = db.execute(statement, parameters).fetchall()
        db.close()
        return rows


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    """What was delivered, in order."""
    return [delivery.body for delivery in deliveries]


def receipts(deliveries: Sequence[Delivery]) -> list[Any]:
    """What settles them."""
    return [delivery.receipt for delivery in deliveries]
