"""What users subclass: a handler of one event, or of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, get_args, get_origin

import anyio

from eventkit._event import Batch, Event
from eventkit.errors import ConfigurationError, HandlerSignal

__all__ = ["BatchHandler", "Batching", "FailureClass", "Handler", "cleanup"]

T = TypeVar("T")

FailureClass: TypeAlias = Literal["item", "transient", "reject", "skip"]
"""What an exception means: see `Handler.failures`."""

Handled: TypeAlias = Awaitable[HandlerSignal | None] | HandlerSignal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """When a batch is full: the first of these wins. Bytes count the bodies as received."""

    max_size: int = 100
    max_wait: float = 1.0
    max_bytes: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        problems = [
            f"Batching({name}={value!r}): must be {rule}"
            for name, value, ok, rule in (
                ("max_size", self.max_size, self.max_size >= 1, "at least 1"),
                ("max_wait", self.max_wait, self.max_wait >= 0, "zero or more seconds"),
                ("max_bytes", self.max_bytes, self.max_bytes >= 1, "at least 1"),
            )
            if not ok
        ]
        if problems:
            raise ConfigurationError(*problems)


class _HandlerOptions(ABC, Generic[T]):
    """What both kinds of handler share; every option is a class attribute."""

    types: ClassVar[Sequence[str]] = ("*",)
    """Event types taken: exact (`quake.recorded`), by prefix (`quake.*`) or all (`*`)."""

    timeout: ClassVar[float | None] = None
    """Seconds one call may take; None is nine tenths of the worker's `max_processing`."""

    transient: ClassVar[Sequence[type[BaseException] | str]] = ()
    """Exceptions (classes, or qualified names such as `httpx.TransportError`) that mean an outage, not a bad event."""

    failures: ClassVar[Mapping[type[BaseException] | str, FailureClass]] = {}
    """What further exceptions mean; the first match wins, before `transient` and the default table."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Open clients and pools before the first event, close them after the last. Override it."""
        yield


class Handler(_HandlerOptions[T]):
    """Handles one event at a time, `concurrency` of them side by side.

    `T` is what the event's data is decoded and validated as: a dataclass, TypedDict, msgspec Struct, pydantic
    model, dict, str or bytes. `handle` may be `async def` or a plain `def`, which runs in a thread; a thread
    cannot be stopped, so a timeout takes effect only once it returns.

    Returning settles the event. Raise (or return) `Retry`, `Reject` or `Skip` to steer; any other exception is
    classed by `failures`, `transient` and the default table. The broker may deliver an event twice.

    Cancellation (timeout, lost lease, end of a drain) strikes at every await, clean-up included:
    wrap what must finish, such as a rollback, in `async with eventkit.cleanup()`.
    """

    concurrency: ClassVar[int] = 10

    @abstractmethod
    def handle(self, event: Event[T]) -> Handled:
        """Handle one event."""


class BatchHandler(_HandlerOptions[T]):
    """Handles events in batches. A call that raises must be safe to repeat for its unmarked events.

    When a call raises an item-shaped error, its unmarked events are tried again in halves until the bad ones stand
    alone (`on_raise = "bisect"`), singly (`"one_by_one"`), or they share the failure (`"whole"`).
    Mark single events with `batch.done`, `batch.skip` and `batch.fail`, or raise `BatchFailure`.
    """

    concurrency: ClassVar[int] = 1
    batching: ClassVar[Batching] = Batching()
    on_raise: ClassVar[Literal["bisect", "one_by_one", "whole"]] = "bisect"

    def batch_key(self, event: Event[T]) -> Hashable:
        """Events of different keys never share a batch; by default all may."""
        return None

    @abstractmethod
    def handle(self, batch: Batch[T]) -> Handled:
        """Handle one batch."""


AnyHandler: TypeAlias = Handler[Any] | BatchHandler[Any]


def data_type(handler: AnyHandler) -> Any:
    """The `T` of `Handler[T]`, as the handler's class names it. Raises ConfigurationError when it names none."""
    bound = _bound_type(type(handler))
    if _open(bound):
        name = type(handler).__name__
        kind = "BatchHandler" if isinstance(handler, BatchHandler) else "Handler"
        raise ConfigurationError(
            f"{name} names no data type: write class {name}({kind}[Order]), or {kind}[dict], {kind}[bytes]"
        )
    return bound


def _bound_type(cls: type) -> Any:
    """What stands for the `T` of `_HandlerOptions` in `cls`, as far as it says."""
    bound: Any = T
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        if origin is _HandlerOptions:
            return get_args(base)[0]
        if issubclass(origin, _HandlerOptions):
            bound = _filled(_bound_type(origin), dict(zip(origin.__parameters__, get_args(base), strict=False)))
            if not _open(bound):
                break
    return bound


def _open(bound: Any) -> bool:
    """Whether a type variable is left. A generic class that is not written out, as in `Handler[Page]`, is complete."""
    return isinstance(bound, TypeVar) or (get_origin(bound) is not None and bool(getattr(bound, "__parameters__", ())))


def _filled(bound: Any, arguments: Mapping[Any, Any]) -> Any:
    if isinstance(bound, TypeVar):
        return arguments.get(bound, bound)
    return (
        bound[tuple(arguments.get(variable, variable) for variable in bound.__parameters__)] if _open(bound) else bound
    )


@asynccontextmanager
async def cleanup(seconds: float = 5.0) -> AsyncIterator[None]:
    """Shield clean-up from cancellation for up to `seconds`, then let it be cut.

        try:
            await connection.execute(...)
        except BaseException:
            async with eventkit.cleanup():
                await connection.rollback()
            raise

    Raises TimeoutError when the clean-up itself took longer.
    """
    with anyio.fail_after(seconds, shield=True):
        yield
