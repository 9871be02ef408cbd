"""Simulated time on both engines: nothing waits, nothing leaves, nothing stays changed, and order is repeatable."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

import anyio
import anyio._backends._asyncio as anyio_asyncio
import pytest
import trio._core._run as trio_run
from anyio.lowlevel import checkpoint

from eventkit.testing.simulation import Deadlock, Escaped, Livelock, VirtualLoop, _engines, _loop, run_simulated
from eventkit.testing.simulation._engines import Engine, Ordered, engine_clock

DAY = 86_400.0

on_both_engines = pytest.mark.parametrize("engine", ["asyncio", "trio"])

THREAD_START, SLEEP = threading.Thread.start, time.sleep


def state_of_the_process() -> list[object]:
    """All that a run changes for its time."""
    return [
        threading.Thread.start is THREAD_START,
        time.sleep is SLEEP,
        "set" in anyio_asyncio.__dict__,
        _engines._confined_thread,
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING,
        trio_run._r.getstate(),
    ]


@pytest.fixture(autouse=True)
def nothing_stays_changed() -> Any:
    """Whatever a run comes to, the process is as before: the next test may need a thread."""
    before = state_of_the_process()
    yield
    assert state_of_the_process() == before


# -- time ----------------------------------------------------------------------------------------


@on_both_engines
def test_a_day_of_sleeps_takes_no_time(engine: Engine) -> None:
    """What waits for a lease or a backoff of hours is tested in milliseconds."""
    woken: list[tuple[float, int]] = []

    async def sleeper(number: int) -> None:
        for hour in range(24):
            await anyio.sleep(3600 + number / 64 * (hour == 0))
        woken.append((anyio.current_time(), number))

    async def main() -> float:
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(sleeper, number)
        return engine_clock(engine)()

    began = time.perf_counter()
    assert run_simulated(main, engine) == DAY + 49 / 64
    assert woken == [(DAY + number / 64, number) for number in range(50)]
    assert time.perf_counter() - began < 10


@on_both_engines
def test_the_clock_starts_at_zero_and_moves_only_while_all_wait(engine: Engine) -> None:
    """Times in a trace mean the same in every run, and computing takes no time."""

    async def main() -> list[float]:
        times = [anyio.current_time()]
        sum(range(100_000))
        await checkpoint()
        times.append(anyio.current_time())
        with anyio.move_on_after(2.5):
            await anyio.sleep_forever()
        return [*times, anyio.current_time()]

    assert run_simulated(main, engine) == [0.0, 0.0, 2.5]


# -- what ends a run -----------------------------------------------------------------------------


@on_both_engines
def test_a_deadlock_is_raised_at_once(engine: Engine) -> None:
    """A worker that hangs would otherwise look like a slow test."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 10)
            await anyio.Event().wait()

    with pytest.raises(Deadlock, match="every task waits"):
        run_simulated(main, engine)


@on_both_engines
def test_a_livelock_is_raised(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that never waits, such as a receive that comes back empty at once, ends in an error."""
    monkeypatch.setattr(_loop, "MOST_TURNS", 500)
    monkeypatch.setattr(_engines, "MOST_STEPS", 500)

    async def main() -> None:
        await anyio.sleep(7)
        while True:
            await checkpoint()

    with pytest.raises(Livelock, match=r"^500 (turns|steps) of"):
        run_simulated(main, engine)


@on_both_engines
def test_many_turns_are_no_livelock_while_the_clock_moves(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long runs are what simulations are for."""
    monkeypatch.setattr(_loop, "MOST_TURNS", 500)
    monkeypatch.setattr(_engines, "MOST_STEPS", 500)

    async def main() -> float:
        for _ in range(2000):
            await anyio.sleep(1)
        return anyio.current_time()

    assert run_simulated(main, engine) == 2000


@on_both_engines
def test_an_error_of_the_code_comes_out_as_it_is(engine: Engine) -> None:
    """The run is transparent: an assertion in simulated code is a failed test."""

    async def main() -> None:
        await anyio.sleep(1)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run_simulated(main, engine)


# -- what may not leave --------------------------------------------------------------------------


async def start_a_thread() -> None:
    threading.Thread(target=print).start()


async def use_a_worker_thread() -> None:
    await anyio.to_thread.run_sync(print)


async def open_a_socket() -> None:
    socket.socket()


async def look_up_a_name() -> None:
    socket.getaddrinfo("localhost", 80)


async def connect() -> None:
    await anyio.connect_tcp("127.0.0.1", 9)


async def start_a_process() -> None:
    subprocess.Popen([sys.executable, "-V"])  # noqa: ASYNC220 - the mistake under test


async def run_a_process() -> None:
    await anyio.run_process([sys.executable, "-V"])


async def sleep_for_real() -> None:
    time.sleep(0.001)  # noqa: ASYNC251 - the mistake under test


@on_both_engines
@pytest.mark.parametrize(
    "escape",
    [
        start_a_thread,
        use_a_worker_thread,
        open_a_socket,
        look_up_a_name,
        connect,
        start_a_process,
        run_a_process,
        sleep_for_real,
    ],
    ids=lambda escape: escape.__name__,
)
def test_what_would_leave_the_simulation_is_refused(engine: Engine, escape: Callable[[], Awaitable[None]]) -> None:
    """Each of these would make a run depend on the machine, and no seed would bring it back."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - anyio may wrap it in a group
        run_simulated(escape, engine)

    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    assert isinstance(error, Escaped), repr(error)


@on_both_engines
def test_other_threads_of_the_process_are_free(engine: Engine) -> None:
    """A test runner has threads of its own, for time-outs and output."""
    inside, done = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def other() -> None:
        inside.wait(10)
        try:
            time.sleep(0)
            socket.socket().close()
            threading.Thread(target=int).start()
        except BaseException as exc:  # noqa: BLE001 - told to the test
            failures.append(exc)
        done.set()

    async def main() -> None:
        inside.set()
        assert done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        run_simulated(main, engine)
    finally:
        thread.join(10)
    assert failures == []


@on_both_engines
def test_afterwards_everything_is_allowed_again(engine: Engine) -> None:
    """The audit hook stays for ever; it must have nothing to say."""
    with pytest.raises(Escaped):
        run_simulated(sleep_for_real, engine)

    time.sleep(0)
    socket.socket().close()
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert anyio.run(lambda: anyio.to_thread.run_sync(int)) == 0


# -- order ---------------------------------------------------------------------------------------

CANCELLED = """
import sys
import anyio
from eventkit.testing.simulation import run_simulated

holes = [object() for _ in range(hash("a disturbed allocator") % 5000)][::3]
order = []

async def sleeper(number):
    with anyio.CancelScope():
        try:
            await anyio.sleep(1000)
        finally:
            order.append(number)

async def main():
    async with anyio.create_task_group() as tasks:
        for number in range(40):
            holes.append([number] * (hash(str(number)) % 50))
            tasks.start_soon(sleeper, number)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()

run_simulated(main, sys.argv[1], seed=5)
print(order)
"""


@on_both_engines
def test_tasks_are_cancelled_in_one_order_in_every_process(engine: Engine) -> None:
    """Sets of tasks are in order of addresses: without care, a failing seed would pass in the next process."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CANCELLED, engine],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "77")
    ]
    orders = [process.communicate(timeout=60)[0] for process in processes]

    assert len(orders[0].split(",")) == 40
    assert len(set(orders)) == 1


def test_anyio_keeps_scopes_and_tasks_in_sets_that_are_made_in_order() -> None:
    """A guard: a version of anyio that makes its sets in another way would undo the order without a word."""
    found: dict[str, list[str]] = {"ordered": [], "not": []}

    def look(owner: object) -> None:
        names = [*getattr(type(owner), "__slots__", ()), *getattr(owner, "__dict__", ())]
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, Ordered):
                found["ordered"].append(name)
            elif isinstance(value, set):
                found["not"].append(name)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(checkpoint)
            with anyio.CancelScope() as scope:
                look(tasks)
                look(tasks.cancel_scope)
                look(scope)
                await checkpoint()

    run_simulated(main)

    assert sorted(found["ordered"]) == ["_child_scopes", "_child_scopes", "_tasks", "_tasks", "_tasks"]
    assert found["not"] == []


def test_an_ordered_set_does_what_anyio_does_with_sets() -> None:
    """It stands in for the builtin in a whole module."""
    items = Ordered()
    items.update([3, 1])
    items.add(2)
    items.add(1)
    items.discard(9)
    items.update([5, 4])
    items.remove(3)

    assert list(items) == [1, 2, 5, 4]
    assert (bool(Ordered()), 5 in items, 3 in items, len(items)) == (False, True, False, 4)
    with pytest.raises(KeyError):
        items.remove(3)


def interleaved(seed: int, engine: Engine = "trio") -> list[int]:
    """The order in which tasks that are ready together run."""
    order: list[int] = []

    async def step(number: int) -> None:
        await checkpoint()
        order.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(step, number)

    run_simulated(main, engine, seed=seed)
    return order


def test_a_seed_decides_the_order_of_tasks_on_trio() -> None:
    """Two seeds see two interleavings, one seed the same one again: through switches that trio keeps private."""
    assert isinstance(trio_run._ALLOW_DETERMINISTIC_SCHEDULING, bool)
    assert isinstance(trio_run._r, random.Random)

    assert interleaved(1) == interleaved(1)
    assert interleaved(1) != interleaved(2)
    assert sorted(interleaved(3)) == list(range(20))


def test_asyncio_has_but_one_order() -> None:
    """Callbacks run as they were scheduled, as asyncio documents."""
    assert interleaved(1, "asyncio") == interleaved(2, "asyncio") == list(range(20))


def test_the_switches_of_trio_are_on_inside_and_as_before_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that simulates now and then must not lose the randomness of its other loops."""
    monkeypatch.setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", False)
    state = trio_run._r.getstate()

    async def main() -> None:
        assert trio_run._ALLOW_DETERMINISTIC_SCHEDULING
        assert trio_run._r.getstate() != state
        raise LookupError

    with pytest.raises(LookupError):
        run_simulated(main, "trio", seed=4)
    assert not trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    assert trio_run._r.getstate() == state


# -- the loop of asyncio -------------------------------------------------------------------------


@pytest.fixture
def loop() -> Any:
    loop = VirtualLoop()
    yield loop
    loop.close()


def test_an_error_in_a_callback_ends_the_run() -> None:
    """Left to itself, asyncio would log it and go on."""

    async def main() -> None:
        asyncio.get_running_loop().call_later(1, divmod, 1, 0)
        await anyio.sleep(2)

    with pytest.raises(ZeroDivisionError):
        run_simulated(main)


def test_a_message_to_the_exception_handler_ends_the_run(loop: VirtualLoop) -> None:
    """So does what asyncio only complains of, such as a task that is destroyed while it waits."""
    with pytest.raises(RuntimeError, match="destroyed"):
        loop.call_exception_handler({"message": "Task was destroyed but it is pending!"})


def test_cancelled_timers_are_swept(loop: VirtualLoop) -> None:
    """Each call sets a time-out that hardly ever comes: they must not pile up over simulated days."""
    fired: list[float] = []
    for number in range(1000):
        timer = loop.call_later(DAY + number, lambda: fired.append(loop.time()))
        if number % 100:
            timer.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    assert len(loop._scheduled) == 10

    loop.run_until_complete(asyncio.sleep(2 * DAY))
    assert fired == [DAY + number for number in range(0, 1000, 100)]


def test_few_cancelled_timers_are_passed_over(loop: VirtualLoop) -> None:
    """The clock must not stop at a time at which nothing happens any more."""
    for delay in (1, 2, 3):
        loop.call_later(delay, lambda: None).cancel()
    loop.run_until_complete(asyncio.sleep(10))

    assert loop.time() == 10
    assert loop._scheduled == []


def test_time_passes_while_the_loop_is_blocked(loop: VirtualLoop) -> None:
    """Timers are late then, and fire in order."""
    seen: list[tuple[str, float]] = []
    loop.call_at(1.0, loop.block, 5.0)
    loop.call_at(3.0, lambda: seen.append(("later", loop.time())))
    loop.call_at(2.0, lambda: seen.append(("sooner", loop.time())))
    loop.run_until_complete(asyncio.sleep(4))

    assert seen == [("sooner", 6.0), ("later", 6.0)]


OWNER: ContextVar[str] = ContextVar("owner", default="")


def of(owner: str) -> Context:
    context = copy_context()
    context.run(OWNER.set, owner)
    return context


def test_what_is_frozen_waits_and_then_goes_on_in_order(loop: VirtualLoop) -> None:
    """A stopped process runs nothing, loses nothing, and does nothing in another order when it goes on."""
    frozen = {"one", "two"}
    loop.frozen = lambda context: context[OWNER] in frozen if OWNER in context else False
    ran: list[str] = []
    one, two, free = of("one"), of("two"), of("free")
    for number in range(3):
        loop.call_soon(ran.append, f"one {number}", context=one)
        loop.call_soon(ran.append, f"two {number}", context=two)
        loop.call_soon(ran.append, f"free {number}", context=free)
    loop.call_at(1.0, ran.append, "one 3", context=one)
    loop.run_until_complete(asyncio.sleep(2))
    assert ran == ["free 0", "free 1", "free 2"]

    frozen.discard("one")
    loop.release()
    loop.run_until_complete(asyncio.sleep(0))
    assert ran[3:] == ["one 0", "one 1", "one 2", "one 3"]

    frozen.clear()
    loop.release()
    loop.run_until_complete(asyncio.sleep(0))
    assert ran[7:] == ["two 0", "two 1", "two 2"]


def test_a_timer_cancelled_while_frozen_does_not_run(loop: VirtualLoop) -> None:
    """What a stopped process would do is undone by those who still run, such as a test that cancels it."""
    loop.frozen = lambda context: OWNER in context
    ran: list[str] = []
    handle = loop.call_soon(ran.append, "late", context=of("one"))
    loop.run_until_complete(asyncio.sleep(1))
    handle.cancel()
    loop.frozen = None
    loop.release()
    loop.run_until_complete(asyncio.sleep(1))

    assert ran == []


@pytest.mark.parametrize("verb", ["add_signal_handler", "call_soon_threadsafe", "run_in_executor", "subprocess_exec"])
def test_the_loop_has_no_door_to_the_outside(loop: VirtualLoop, verb: str) -> None:
    """Whatever uses one would not be simulated."""
    with pytest.raises(Escaped, match="run such code inline"):
        getattr(loop, verb)(None, print)
