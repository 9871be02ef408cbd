"""What happens to workers as processes: killed, asked to end, stopped for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from random import Random
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from eventkit.testing.simulation._life import LIFE, Life
from eventkit.testing.simulation._loop import VirtualLoop

if TYPE_CHECKING:
    from eventkit.testing.simulation._world import World

__all__ = ["Nemesis"]

MOST_TURNS = 25
"""Turns of the loop between the time of a blow and the blow, so that it falls between any two steps."""


class Nemesis:
    """Strikes at workers at random times until `heal`: half of the blows fall in the middle of a call."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._healed = False
        self._ambush: Callable[[Life], None] | None = None
        self._calls_left = 0
        self._frozen: list[Life] = []
        self._context = Context()

    def heal(self) -> None:
        """Strike no more; what is frozen goes on."""
        self._healed = True
        self._ambush = None
        self.thaw(*self._frozen)

    async def rage(self) -> None:
        """Strike by the plan."""
        self._context = copy_context()
        for at, name in self._blows():
            await anyio.sleep(max(0.0, at - anyio.current_time()))
            if self._healed:
                return
            await self._strike(name)

    def _blows(self) -> list[tuple[float, str]]:
        plan, now = self._world.conditions, anyio.current_time()
        blows = []
        for name in ("kill", "sigterm", "second_signal", "freeze", "block"):
            rate = plan.faults.get(name, 0.0)
            expected = rate * plan.workers * plan.heal_at / 60.0
            number = int(expected) + (self._rng.random() < expected % 1.0)
            blows += [(now + self._rng.uniform(0.0, plan.heal_at), name) for _ in range(number)]
        return sorted(blows)

    async def _strike(self, name: str) -> None:
        blow = {"kill": self._kill, "sigterm": self._signal, "freeze": self._freeze}.get(name)
        if blow is not None and self._rng.random() < 0.5:
            self._ambush, self._calls_left = blow, self._rng.randrange(1, 12)
            return
        for _ in range(self._rng.randrange(MOST_TURNS)):
            await checkpoint()
        begun = [life for life in self._world.lives if life.worker is not None]
        if self._healed or not begun:
            return
        life = self._rng.choice(begun)
        if name == "block":
            self._block()
        elif name == "second_signal":
            self._signal(life)
            await anyio.sleep(self._rng.uniform(0.0, life.options.drain))
            self._world.fired("second_signal")
            self._world.note(life, "is asked to end at once")
            life.signal()
        elif blow is not None:
            blow(life)

    def ambushed(self, life: Life) -> None:
        """A call of this life has come to a place where a blow may fall."""
        if self._ambush is None or life.dead:
            return
        self._calls_left -= 1
        if self._calls_left <= 0:
            blow, self._ambush = self._ambush, None
            blow(life)

    def _kill(self, life: Life) -> None:
        self._world.fired("kill")
        life.kill()

    def _signal(self, life: Life) -> None:
        self._world.fired("sigterm")
        self._world.note(life, "is asked to end")
        life.signal()

    def _block(self) -> None:
        """The loop runs nothing for longer than a lease."""
        self._world.fired("block")
        self._stand_still(self._rng.uniform(0.5, 2.0) * self._world.conditions.lease)

    def _stand_still(self, seconds: float) -> None:
        self._world.note(None, "stands still for", seconds)
        for life in self._world.lives:
            life.stood_still += seconds
        if self._world.conditions.engine == "asyncio":
            _loop().block(seconds)
        else:
            from trio.lowlevel import current_clock
            from trio.testing import MockClock

            clock = current_clock()
            assert isinstance(clock, MockClock)
            clock.jump(seconds)

    def _freeze(self, life: Life) -> None:
        """SIGSTOP, and SIGCONT after its leases have ended. On trio everything stops, not one worker."""
        self._world.fired("freeze")
        seconds = self._rng.uniform(0.5, 2.5) * self._world.conditions.lease
        if self._world.conditions.engine == "trio":
            self._stand_still(seconds)
            return
        if life.frozen:
            return
        self._world.note(life, "is stopped for", seconds)
        life.frozen, life.frozen_until = True, anyio.current_time() + seconds
        life.stood_still += seconds
        self._frozen.append(life)
        loop = _loop()
        loop.frozen = _is_frozen
        loop.call_at(loop.time() + seconds, self.thaw, life, context=self._context)

    def thaw(self, *lives: Life) -> None:
        """SIGCONT."""
        thawed = [life for life in lives if life.frozen]
        for life in thawed:
            self._world.note(life, "goes on")
            life.frozen, life.frozen_until = False, 0.0
            self._frozen.remove(life)
        if thawed:
            loop = _loop()
            loop.frozen = _is_frozen if self._frozen else None
            loop.release()


def _is_frozen(context: Context) -> bool:
    life = context.get(LIFE)
    return life is not None and life.frozen


def _loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), "asyncio is simulated by its own loop"
    return loop
