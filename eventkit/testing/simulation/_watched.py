"""A user's handler under watch: each call is a line of the trace, each await a place where a blow may fall."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

from eventkit._event import Batch, Event
from eventkit._handler import AnyHandler

if TYPE_CHECKING:
    from eventkit.testing.simulation._life import Life
    from eventkit.testing.simulation._world import World

__all__ = ["watch"]

AWAITS = 40.0
"""So many awaits of a handler are as dangerous as a minute: faults are rare in time, and handlers are short."""


def watch(handler: AnyHandler, world: World, life: Life, rng: Random) -> None:
    """Tell `world` of the calls of this handler of `life`, and kill it at some of their awaits."""
    handle: Callable[[Any], Any] = handler.handle
    name = type(handler).__name__

    risk = world.conditions.faults.get("kill", 0.0) / AWAITS

    def strike() -> None:
        world.nemesis.ambushed(life)
        if rng.random() < risk and not world.healed and not life.dead:
            world.fired("kill")
            life.kill()

    @functools.wraps(handle)
    def plain(argument: Any) -> Any:
        world.note(life, name, "is called with", *_ids(argument))
        return handle(argument)

    @functools.wraps(handle)
    async def asynchronous(argument: Any) -> Any:
        try:
            return await _struck(plain(argument), strike)
        except anyio.get_cancelled_exc_class():
            world.note(life, name, "is cut at", *_ids(argument))
            raise

    # An instance attribute shadows the method of the class for this worker only.
    handler.__dict__["handle"] = asynchronous if inspect.iscoroutinefunction(handle) else plain


def _ids(argument: Event[Any] | Batch[Any]) -> list[str]:
    return [argument.id] if isinstance(argument, Event) else [event.id for event in argument]


@types.coroutine
def _struck(coroutine: Coroutine[Any, Any, Any], strike: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Drive a coroutine to its end; `strike` is called whenever it waits."""
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    while True:
        try:
            yielded = step(value)
        except StopIteration as stop:
            return stop.value
        strike()
        try:
            step, value = coroutine.send, (yield yielded)
        except BaseException as exc:  # noqa: BLE001 - whatever is thrown in belongs to the coroutine
            step, value = coroutine.throw, exc
