"""Loops on which time passes at once, for the tests of the broker: no test here waits for real."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio.testing

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike


class JumpingSelector(selectors.SelectSelector):
    """Moves the clock instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "deadlock: everybody waits, and no timer is set"
        self.now += timeout
        return super().select(0)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return super().get_map() or {}


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose clock starts at 0 and jumps to the next timer."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(backend: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run `main` on `backend`, with a clock that starts at 0 and jumps."""
    options: dict[str, Any] = (
        {"loop_factory": VirtualLoop}
        if backend == "asyncio"
        else {"clock": trio.testing.MockClock(autojump_threshold=0)}
    )
    anyio.run(main, backend=backend, backend_options=options)


def on_both_loops(test: Callable[[], Awaitable[None]]) -> Callable[[str], None]:
    """Make a test of an async function: once on asyncio, once on trio, both in virtual time."""

    @functools.wraps(test, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    def both(backend: str) -> None:
        run(backend, test)

    del both.__wrapped__  # pytest would take the signature from there
    return pytest.mark.parametrize("backend", ["asyncio", "trio"])(both)


@on_both_loops
async def test_an_hour_passes_at_once() -> None:
    """The timeout of a test is 20 s, and leases are longer."""
    start = anyio.current_time()
    await anyio.sleep(3600)
    assert anyio.current_time() - start == pytest.approx(3600, abs=1e-6)
