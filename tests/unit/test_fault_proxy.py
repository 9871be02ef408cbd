"""The proxy that breaks connections: each fault is seen at a real socket, or what stands on it proves nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import anyio
import pytest
from anyio import current_time
from anyio.abc import SocketStream

from eventkit.errors import ConfigurationError
from eventkit.testing import FaultProxy

Scenario: TypeAlias = Callable[["Rig"], Awaitable[None]]

GONE = (anyio.BrokenResourceError, anyio.EndOfStream)
"""How a stream of anyio says ECONNRESET, and the end."""


class Rig:
    """A proxy before a server that answers each line with the same line in capitals, and what that server saw."""

    def __init__(self, proxy: FaultProxy, seen: list[bytes]) -> None:
        self.proxy = proxy
        self.seen = seen

    @asynccontextmanager
    async def client(self) -> AsyncIterator[SocketStream]:
        async with await anyio.connect_tcp(self.proxy.host, self.proxy.port) as stream:
            yield stream


async def ask(stream: SocketStream, line: bytes, within: float = 5.0) -> bytes:
    """Send a line and give the whole answer. Raises TimeoutError without one."""
    await stream.send(line + b"\n")
    answer = b""
    with anyio.fail_after(within):
        while not answer.endswith(b"\n"):
            answer += await stream.receive()
    return answer.strip()


async def is_silent(stream: SocketStream, line: bytes, within: float = 0.2) -> bool:
    """Whether a line gets no answer, and no end either."""
    try:
        await ask(stream, line, within)
    except TimeoutError:
        return True
    return False


@pytest.fixture(params=["asyncio", "trio"])
def on_each_loop(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    """Run a scenario with a rig of its own."""

    def run(scenario: Scenario) -> None:
        anyio.run(_with_rig, scenario, backend=request.param)

    return run


async def _with_rig(scenario: Scenario) -> None:
    seen: list[bytes] = []

    async def serve(stream: SocketStream) -> None:
        async with stream:
            rest = b""
            try:
                while True:
                    *lines, rest = (rest + await stream.receive()).split(b"\n")
                    for line in lines:
                        seen.append(line)
                        await stream.send(line.upper() + b"\n")
            except GONE:
                seen.append(b"(end)")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        async with FaultProxy("127.0.0.1", port) as proxy:
            await scenario(Rig(proxy, seen))
        tasks.cancel_scope.cancel()


# -- without a fault -----------------------------------------------------------------------------------


def test_without_a_fault_bytes_pass_both_ways_and_are_counted(on_each_loop: Callable[[Scenario], None]) -> None:
    """What is between a client and its server must not be seen until it is asked to."""

    async def scenario(rig: Rig) -> None:
        large = b"x" * 3_000_000
        async with rig.client() as one, rig.client() as two:
            assert await ask(one, b"hello") == b"HELLO"
            assert await ask(two, large) == large.upper()
            assert rig.proxy.counts.open == 2
        counts = rig.proxy.counts
        assert (counts.connections, counts.to_upstream, counts.to_client) == (2, 3_000_007, 3_000_007)
        assert not counts.faults

    on_each_loop(scenario)


def test_the_end_of_one_side_reaches_the_other(on_each_loop: Callable[[Scenario], None]) -> None:
    """A client that closes is gone for the server too; nothing is left open."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as client:
            await ask(client, b"hello")
        with anyio.fail_after(5):
            while rig.proxy.counts.open:
                await anyio.sleep(0.01)
        assert rig.seen == [b"hello", b"(end)"]

    on_each_loop(scenario)


def test_the_proxy_ends_with_connections_open(on_each_loop: Callable[[Scenario], None]) -> None:
    """A test that ends in the middle of a request must not hang, nor leave a socket behind (warnings are errors)."""

    async def scenario(rig: Rig) -> None:
        async with FaultProxy(rig.proxy.host, rig.proxy.port) as inner:
            stream = await anyio.connect_tcp(inner.host, inner.port)
            assert await ask(stream, b"hello") == b"HELLO"
            inner.blackhole()
            await stream.send(b"never\n")
        with anyio.fail_after(5):
            assert await ended(stream)
        with pytest.raises(OSError, match="connect"):
            await anyio.connect_tcp(inner.host, inner.port)
        await stream.aclose()

    on_each_loop(scenario)


async def ended(stream: SocketStream) -> bool:
    try:
        while True:
            await stream.receive()
    except GONE:
        return True


def test_an_error_inside_leaves_the_proxy_as_it_is() -> None:
    """Not wrapped in a group, or `pytest.raises` would not know it."""

    async def main() -> None:
        async with FaultProxy("127.0.0.1", 9):
            raise LookupError("the test's own")

    with pytest.raises(LookupError):
        anyio.run(main)


def test_an_upstream_that_is_not_there_resets_the_client(on_each_loop: Callable[[Scenario], None]) -> None:
    """As a load balancer does that has nobody behind it."""

    async def scenario(rig: Rig) -> None:
        rig.proxy.refuse()
        async with (
            FaultProxy(rig.proxy.host, rig.proxy.port) as outer,
            await anyio.connect_tcp(outer.host, outer.port) as stream,
        ):
            with anyio.fail_after(5):
                assert await ended(stream)

    on_each_loop(scenario)


# -- faults of all connections ---------------------------------------------------------------------------


def test_a_delay_is_added_each_way_until_healed(on_each_loop: Callable[[Scenario], None]) -> None:
    """Slow networks are the common case; healing also lets go what is on its way."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as client:
            await ask(client, b"warm")
            rig.proxy.delay(0.2)
            began = current_time()
            await ask(client, b"late")
            assert 0.4 <= current_time() - began < 1.5
            assert rig.proxy.counts.faults == {"delay": 2}

            rig.proxy.delay(60.0)
            await client.send(b"very late\n")
            await anyio.sleep(0.05)
            rig.proxy.heal()
            with anyio.fail_after(5):
                assert await client.receive() == b"VERY LATE\n"

    on_each_loop(scenario)


def test_a_slow_connection_has_its_rate(on_each_loop: Callable[[Scenario], None]) -> None:
    """A reply that trickles in keeps a call on the wire, and its client from giving up."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as client:
            rig.proxy.slow(10_000)
            began = current_time()
            assert await ask(client, b"y" * 4_000) == b"Y" * 4_000
            assert 0.5 < current_time() - began < 4.0
            rig.proxy.heal()
            began = current_time()
            await ask(client, b"y" * 100_000)
            assert current_time() - began < 2.0

    on_each_loop(scenario)


def test_a_black_hole_accepts_and_says_nothing_and_what_lost_bytes_stays_silent(
    on_each_loop: Callable[[Scenario], None],
) -> None:
    """A client sees no error, only its own timeout; no connection goes on after a gap that TCP would not have."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as old, rig.client() as idle:
            await ask(old, b"hello")
            await ask(idle, b"there")
            rig.proxy.blackhole()
            assert await is_silent(old, b"one")
            async with rig.client() as new:
                assert await is_silent(new, b"two")
            rig.proxy.heal()
            assert await is_silent(old, b"three")
            assert await ask(idle, b"four") == b"FOUR"
            async with rig.client() as after:
                assert await ask(after, b"five") == b"FIVE"
        assert not {b"one", b"two", b"three"} & set(rig.seen)
        assert rig.proxy.counts.swallowed == len(b"one\ntwo\nthree\n")
        assert rig.proxy.counts.faults["blackhole"] == 2

    on_each_loop(scenario)


def test_a_black_hole_may_end_by_itself(on_each_loop: Callable[[Scenario], None]) -> None:
    """So that a test can wait for the recovery without a hand on the proxy."""

    async def scenario(rig: Rig) -> None:
        rig.proxy.blackhole(0.3)
        async with rig.client() as client:
            assert await is_silent(client, b"one", 0.1)
        await anyio.sleep(0.3)
        async with rig.client() as client:
            assert await ask(client, b"two") == b"TWO"

    on_each_loop(scenario)


def test_a_reset_breaks_what_there_is_and_new_ones_only_when_asked(on_each_loop: Callable[[Scenario], None]) -> None:
    """An RST, not a polite end: clients that pool connections must see the error, and try another."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as client:
            await ask(client, b"hello")
            rig.proxy.reset()
            with pytest.raises(anyio.BrokenResourceError) as broken, anyio.fail_after(5):
                await client.receive()
            assert isinstance(broken.value.__cause__, ConnectionResetError)
        async with rig.client() as client:
            assert await ask(client, b"again") == b"AGAIN"
            rig.proxy.reset(new=True)
        async with rig.client() as client:
            with pytest.raises(GONE), anyio.fail_after(5):
                await ask(client, b"more")
        rig.proxy.heal()
        async with rig.client() as client:
            assert await ask(client, b"healed") == b"HEALED"
        assert rig.proxy.counts.faults == {"reset": 3}
        assert rig.seen == [b"hello", b"(end)", b"again", b"(end)", b"healed"]

    on_each_loop(scenario)


def test_a_connection_half_closed_towards_the_client_still_takes_requests(
    on_each_loop: Callable[[Scenario], None],
) -> None:
    """The client reads the end of the stream while the server goes on working for it."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as client:
            await ask(client, b"hello")
            rig.proxy.half_close("client")
            with pytest.raises(anyio.EndOfStream), anyio.fail_after(5):
                await client.receive()
            await client.send(b"still here\n")
            await until(lambda: b"still here" in rig.seen)
            assert rig.proxy.counts.faults == {"half_close": 1}

    on_each_loop(scenario)


def test_a_connection_half_closed_towards_the_server_still_brings_replies(
    on_each_loop: Callable[[Scenario], None],
) -> None:
    """The server has read the end of the requests; what it was asked before is answered."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as client:
            await ask(client, b"hello")
            rig.proxy.delay(0.2)
            await client.send(b"late\n")
            await until(lambda: b"late" in rig.seen)
            rig.proxy.half_close("upstream")
            with anyio.fail_after(5):
                assert await client.receive() == b"LATE\n"
            await until(lambda: rig.seen[-1] == b"(end)")

    on_each_loop(scenario)


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not holds():
            await anyio.sleep(0.01)


def test_a_refusing_proxy_keeps_its_connections_and_listens_on_the_same_port_again(
    on_each_loop: Callable[[Scenario], None],
) -> None:
    """A server that restarts: clients have the old address and must find it again."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as old:
            await ask(old, b"hello")
            rig.proxy.refuse()
            with pytest.raises(OSError, match="connect"):
                await anyio.connect_tcp(rig.proxy.host, rig.proxy.port)
            assert await ask(old, b"still") == b"STILL"
            rig.proxy.refuse()
            rig.proxy.heal()
            async with rig.client() as new:
                assert await ask(new, b"back") == b"BACK"

    on_each_loop(scenario)


# -- faults of one reply -----------------------------------------------------------------------------------


def test_a_lost_reply_is_of_a_request_that_was_done(on_each_loop: Callable[[Scenario], None]) -> None:
    """The hardest answer for a settlement: done, and nobody knows. It strikes once."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as client:
            await ask(client, b"hello")
            rig.proxy.lose_reply()
            with pytest.raises(anyio.BrokenResourceError), anyio.fail_after(5):
                await ask(client, b"delete 7")
        assert b"delete 7" in rig.seen
        async with rig.client() as client:
            assert await ask(client, b"delete 7") == b"DELETE 7"
        assert rig.proxy.counts.faults == {"lose_reply": 1}

    on_each_loop(scenario)


def test_only_the_verb_that_is_named_loses_its_reply(on_each_loop: Callable[[Scenario], None]) -> None:
    """Receives and extensions pass by the same proxy: a test of acks must hit an ack, in whatever pieces it comes."""

    async def scenario(rig: Rig) -> None:
        rig.proxy.lose_reply(when=b"delete")
        async with rig.client() as client, rig.client() as other:
            assert await ask(client, b"receive") == b"RECEIVE"
            await client.send(b"please del")
            assert await ask(other, b"ete") == b"ETE"  # not on one connection: no match
            await anyio.sleep(0.05)
            with pytest.raises(anyio.BrokenResourceError), anyio.fail_after(5):
                await ask(client, b"ete 7")
            assert await ask(other, b"delete 8") == b"DELETE 8"
        assert b"please delete 7" in rig.seen

    on_each_loop(scenario)


def test_a_reply_to_what_went_by_before_is_not_lost(on_each_loop: Callable[[Scenario], None]) -> None:
    """The bytes of a request that was forwarded before the fault was set do not count."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as client:
            await ask(client, b"delete 1")
            rig.proxy.lose_reply(when=b"delete")
            rig.proxy.lose_reply(when=b"a longer match, so that more is kept")
            assert await ask(client, b"receive") == b"RECEIVE"
            rig.proxy.heal()
            assert await ask(client, b"delete 2") == b"DELETE 2"
        assert not rig.proxy.counts.faults

    on_each_loop(scenario)


def test_a_lost_reply_may_linger(on_each_loop: Callable[[Scenario], None]) -> None:
    """For protocols that say other things in between: the connection is silent for a while, then broken."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as client:
            rig.proxy.lose_reply(linger=0.3)
            began = current_time()
            with pytest.raises(anyio.BrokenResourceError), anyio.fail_after(5):
                await ask(client, b"delete 7")
            assert current_time() - began >= 0.3

    on_each_loop(scenario)


def test_a_truncated_reply_ends_after_so_many_bytes(on_each_loop: Callable[[Scenario], None]) -> None:
    """Half a document must be an error to its reader, never a short list of messages."""

    async def scenario(rig: Rig) -> None:
        async with rig.client() as client:
            assert await ask(client, b"first") == b"FIRST"
            rig.proxy.truncate(4, when=b"second")
            await client.send(b"second\n")
            got = b""
            with anyio.fail_after(5), suppress(anyio.BrokenResourceError):
                while True:
                    got += await client.receive()
            assert got == b"SECO"
        assert rig.proxy.counts.faults == {"truncate": 1}

    on_each_loop(scenario)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda proxy: proxy.delay(-1.0),
        lambda proxy: proxy.delay(float("nan")),
        lambda proxy: proxy.blackhole(float("inf")),
        lambda proxy: proxy.slow(0),
        lambda proxy: proxy.truncate(0),
        lambda proxy: proxy.lose_reply(linger=-1.0),
        lambda proxy: proxy.lose_reply(when=b"x" * 2000),
    ],
)
def test_a_fault_that_cannot_be_is_an_error(wrong: Callable[[FaultProxy], None]) -> None:
    """A fault that silently does nothing would let a test pass that tests nothing."""
    with pytest.raises(ConfigurationError):
        wrong(FaultProxy("127.0.0.1", 9))
