"""One worker from its start to its end, clean or not: the process of the simulation."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

import anyio

from eventkit.errors import AccessDenied, SourceNotFound

if TYPE_CHECKING:
    from eventkit._config import Options
    from eventkit._worker import Worker
    from eventkit.testing.simulation._world import World

__all__ = ["LIFE", "Killed", "Life"]


LIFE: ContextVar[Life | None] = ContextVar("eventkit_simulated_life", default=None)
"""Whose code runs: inherited by every task a worker starts."""


class Killed(BaseException):
    """What a process that is no more meets wherever it touches the world."""


class Life:
    """A worker that may die at any time.

    Once it is dead, whatever it asks of the world raises and has no effect; its own tasks unwind meanwhile,
    which no one can see.
    """

    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self.dead = False
        self.frozen = False
        self.frozen_until = 0.0
        self.source = -1
        self.signalled_at: float | None = None
        self.hurried_at: float | None = None
        self.stood_still = 0.0
        """Seconds it did since the signal."""
        self.worker: Worker | None = None
        self._world = world
        self._scope = anyio.CancelScope()

    async def live(self) -> None:
        """Run one worker to its end."""
        LIFE.set(self)
        self._world.note(self, "starts")
        how = "ends"
        with self._scope:
            try:
                self.worker = self._world.worker(self)
                await self.worker.run(abandon=self.exit)
            except (AccessDenied, SourceNotFound) as exc:
                how = f"ends: {exc}"
            except BaseException as exc:  # noqa: BLE001 - whatever a worker dies of, the world goes on
                if not self.dead:
                    self._world.violate("I15", f"worker {self.number} fell over: {type(exc).__name__}: {exc}")
        if not self.dead:
            self._world.note(self, how)
            self._drained()
            if self.signalled_at is not None:
                self._world.witness.left(self)
        self._world.witness.ended(self)
        self.dead = True

    def signal(self) -> None:
        """SIGTERM; the second ends at once."""
        if self.worker is None or self.dead:
            return
        if self.signalled_at is None:
            self.signalled_at = now = anyio.current_time()
            self.stood_still = max(0.0, self.frozen_until - now)
            self.worker.drain("SIGTERM")
        else:
            self.hurried_at = self.hurried_at or anyio.current_time()
            self.worker.stop()

    def exit(self) -> None:
        """End the process although a handler still runs, at the end of a drain."""
        if not self.dead:
            self._drained()
        self.kill("exits")

    def _drained(self) -> None:
        if self.signalled_at is not None:
            now = anyio.current_time() - self.stood_still
            hurried = None if self.hurried_at is None else now - self.hurried_at
            self._world.witness.drained(self, now - self.signalled_at, hurried)

    @property
    def options(self) -> Options:
        """Those of its worker."""
        assert self.worker is not None, "a life begins with its worker"
        return self.worker.options

    def kill(self, how: str = "is killed") -> None:
        """SIGKILL: from here on it can do nothing."""
        if not self.dead:
            self._world.note(self, how)
            self.dead = True
            self._world.witness.ended(self)
            self._scope.cancel()
            self._world.nemesis.thaw(self)

    def check(self) -> None:
        """Raise Killed if it is dead."""
        if self.dead:
            raise Killed

    async def sleep(self, seconds: float) -> None:
        """Wait. Raises Killed when it has died."""
        self.check()
        await anyio.sleep(seconds)
        self.check()
