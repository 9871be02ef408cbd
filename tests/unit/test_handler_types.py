"""What `Handler[T]` names: found through subclasses and generic classes in between."""

from __future__ import annotations

from dataclasses import dataclass
from types import new_class
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import pytest

from eventkit._event import Batch, Event
from eventkit._handler import AnyHandler, BatchHandler, Batching, Handler, cleanup, data_type
from eventkit.errors import ConfigurationError
from eventkit.spi import Delivery

T = TypeVar("T")
K = TypeVar("K")


@dataclass
class Quake:
    magnitude: float


class Plain(Handler[Quake]):
    async def handle(self, event: Event[Quake]) -> None: ...


class PlainBatch(BatchHandler[Quake]):
    async def handle(self, batch: Batch[Quake]) -> None: ...


class Child(Plain):
    pass


class Open(Handler[T]):
    async def handle(self, event: Event[T]) -> None: ...


class OpenBatch(BatchHandler[T]):
    async def handle(self, batch: Batch[T]) -> None: ...


class Filled(Open[Quake]):
    pass


class FilledBatch(OpenBatch[Quake]):
    pass


class StillOpen(Open[T]):
    pass


class FilledTwice(StillOpen[Quake]):
    pass


class ManyOf(Handler[list[T]], Generic[T]):
    async def handle(self, event: Event[list[T]]) -> None: ...


class ManyQuakes(ManyOf[Quake]):
    pass


class Keyed(Handler[T], Generic[K, T]):
    async def handle(self, event: Event[T]) -> None: ...


class KeyedQuake(Keyed[str, Quake]):
    pass


class HalfKeyed(Keyed[K, Quake]):
    pass


class FullyKeyed(HalfKeyed[str]):
    pass


class Swapped(Keyed[T, K], Generic[K, T]):
    pass


class SwappedQuake(Swapped[Quake, str]):
    pass


@dataclass
class Page(Generic[T]):
    items: list[T]


class Pages(Open[Page]):  # type: ignore[type-arg]
    pass


class QuakePages(Open[Page[Quake]]):
    pass


class Store(Generic[K]):
    pass


class WithStore(Store[str], Handler[Quake]):
    async def handle(self, event: Event[Quake]) -> None: ...


class Logged:
    pass


class WithMixin(Logged, Plain):
    pass


class GenericOverFixed(Plain, Generic[K]):
    pass


class FixedByMixin(GenericOverFixed[str]):
    pass


class Untyped(Handler):  # type: ignore[type-arg]
    async def handle(self, event: Event[Any]) -> None: ...


class UntypedFirst(Untyped, Filled):
    pass


class TwoTypes(Plain, Open[str]):  # type: ignore[misc]
    """The first base wins, as its `handle` does."""


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (Plain, Quake),
        (PlainBatch, Quake),
        (Child, Quake),
        (Filled, Quake),
        (FilledBatch, Quake),
        (FilledTwice, Quake),
        (ManyQuakes, list[Quake]),
        (KeyedQuake, Quake),
        (FullyKeyed, Quake),
        (SwappedQuake, Quake),
        (Pages, Page),
        (QuakePages, Page[Quake]),
        (WithStore, Quake),
        (WithMixin, Quake),
        (FixedByMixin, Quake),
        (UntypedFirst, Quake),
        (TwoTypes, Quake),
    ],
)
def test_the_data_type_is_found_wherever_the_class_names_it(handler: type[AnyHandler], expected: object) -> None:
    """It decides how every body is validated; a wrong one rejects all events, or lets anything through."""
    assert data_type(handler()) == expected


@pytest.mark.parametrize("named", [dict, dict[str, int], str, bytes, Any, Quake | None])
def test_any_type_can_be_named(named: object) -> None:
    """Handlers of raw bytes and of plain JSON name it the same way as those of a model."""
    handler = new_class("Named", (Open[named],))  # type: ignore[valid-type]

    assert data_type(handler()) == named


@pytest.mark.parametrize(
    ("handler", "hint"),
    [
        (Untyped, r"class Untyped\(Handler\[Order\]\)"),
        (Open, r"class Open\(Handler\[Order\]\)"),
        (StillOpen, r"class StillOpen\(Handler\[Order\]\)"),
        (OpenBatch, r"class OpenBatch\(BatchHandler\[Order\]\)"),
        (Keyed, r"class Keyed\(Handler\[Order\]\)"),
        (ManyOf, r"class ManyOf\(Handler\[Order\]\)"),
    ],
)
def test_a_handler_that_names_no_type_is_told_how_to(handler: type[AnyHandler], hint: str) -> None:
    """Without it nothing could be validated; guessing `dict` would hide the omission."""
    with pytest.raises(ConfigurationError, match=f"{handler.__name__} names no data type: write {hint}"):
        data_type(handler())


@pytest.mark.parametrize("kind", [Handler, BatchHandler])
def test_a_handler_without_handle_cannot_be_made(kind: type[AnyHandler]) -> None:
    """A misspelt `handle` is found when the worker is written, not when the first event comes."""
    forgetful = type("Forgetful", (kind,), {"handel": lambda self, event: None})

    with pytest.raises(TypeError, match="abstract"):
        forgetful()


def test_events_of_a_batch_handler_share_a_batch_unless_it_gives_them_keys() -> None:
    """The default `batch_key` is one key for all."""
    delivery = Delivery(receipt=None, body=b"", message_id="m", leased_until=0.0, key="k")
    first, second = (Event(delivery, id, "source", "type", Quake(5.1)) for id in "ab")

    assert PlainBatch().batch_key(first) == PlainBatch().batch_key(second)


async def test_the_default_lifespan_does_nothing() -> None:
    """Handlers without clients need not write one."""
    entered = False
    async with Plain().lifespan():
        entered = True

    assert entered


def test_every_wrong_option_of_a_batching_is_listed_at_once() -> None:
    """One run shows them all, each with the value and the rule."""
    with pytest.raises(ConfigurationError) as caught:
        Batching(max_size=0, max_wait=-1, max_bytes=0)

    assert list(caught.value.problems) == [
        "Batching(max_size=0): must be at least 1",
        "Batching(max_wait=-1): must be zero or more seconds",
        "Batching(max_bytes=0): must be at least 1",
    ]


@pytest.mark.parametrize("options", [{"max_size": 1}, {"max_wait": 0.0}, {"max_bytes": 1}])
def test_the_least_batching_is_allowed(options: dict[str, Any]) -> None:
    """One event a batch, without waiting: how a batch handler is tried out."""
    Batching(**options)


async def test_clean_up_is_shielded_from_cancellation() -> None:
    """A rollback that is cut at its first await leaves the connection in its transaction."""
    finished = False
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with cleanup():
            await anyio.lowlevel.checkpoint()
            finished = True

    assert finished


async def test_clean_up_that_takes_too_long_is_cut() -> None:
    """A shield without a limit would keep a drain waiting for ever."""
    with pytest.raises(TimeoutError):
        async with cleanup(0):
            await anyio.sleep_forever()
