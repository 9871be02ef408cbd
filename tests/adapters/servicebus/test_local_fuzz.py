"""The local Service Bus server and clients that have gone mad, at every stage of a connection, many of them.

No sockets: a connection is told its bytes, so that whatever it raises, it raises here.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from eventkit_servicebus._local import Faults, serve
from eventkit_servicebus._local import _performatives as p
from eventkit_servicebus._local._connection import Connection
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._frames import AMQP_HEADER, EMPTY, SASL_HEADER, Stream, frame
from eventkit_servicebus._local._server import Server
from eventkit_servicebus._local._types import Array, Described, Int, Long, Symbol, Uint, Ulong

from tests.adapters.servicebus.local_support import data

QUEUES = ("orders", "bills.sessions", "news/audit")


class Wire(asyncio.Transport):
    """The end of a connection that a test holds."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self._connection = Connection(server)
        self._connection.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._connection.connection_lost(None)

    def abort(self) -> None:
        self.close()

    def say(self, data: bytes) -> None:
        """Bytes of the client's, unless the server has hung up."""
        if not self.closed:
            self._connection.data_received(data)

    def heard(self) -> list[p.Performative]:
        """What the server has said since the last time, but for headers."""
        stream = Stream()
        stream.add(bytes(self.written).replace(SASL_HEADER, b"").replace(AMQP_HEADER, b""))
        self.written.clear()
        return [p.read(got.body)[0] for got in iter(stream.frame, None) if got.body]


def link(handle: int, address: str, *, receiver: bool, session: str | None = None) -> bytes:
    asked = [] if session is None else [*[None] * 6, {Symbol("com.microsoft:session-filter"): session}]
    made = p.Attach(
        name=f"link-{handle}",
        handle=handle,
        receiver=receiver,
        source=Described(Ulong(0x28), [address, *asked]),
        target=Described(Ulong(0x29), [address]),
        initial_delivery_count=None if receiver else 0,
    )
    return frame(0, p.written(made))


def grant(handle: int, credit: int, *, drain: bool = False) -> bytes:
    return frame(0, p.written(p.Flow(0, 100, 0, 100, handle=handle, delivery_count=0, link_credit=credit, drain=drain)))


def message(handle: int, id: int, payload: bytes) -> bytes:
    return frame(0, p.written(p.Transfer(handle, id, b"0", 0)) + payload)


def request(handle: int, operation: str, body: Any, **more: Any) -> bytes:
    sections = [(0x73, ["id"]), (0x74, {"operation": operation, **more}), (0x77, body)]
    return message(handle, 90 + handle, b"".join(encode(Described(Ulong(code), value)) for code, value in sections))


TOKENS = Array(0x98, (uuid.UUID(int=1),))
HELLO = [
    SASL_HEADER,
    frame(0, p.written(p.SaslInit(Symbol("ANONYMOUS"), b"")), sasl=True),
    AMQP_HEADER,
    frame(0, p.written(p.Open("client", idle_time_out=Uint(60_000)))),
    frame(0, p.written(p.Begin(next_outgoing_id=0, incoming_window=100, outgoing_window=100))),
]
SCRIPT = [
    *HELLO,
    link(0, "$cbs", receiver=True),
    link(1, "$cbs", receiver=False),
    grant(0, 10),
    request(1, "put-token", "SharedAccessSignature", type="servicebus.windows.net:sastoken"),
    link(2, "orders", receiver=False),
    message(2, 0, data(b"a")),
    message(2, 1, encode(Described(Ulong(0x70), [None, None, Uint(60_000)])) + data(b"b")),
    frame(0, p.written(p.Transfer(2, 2, b"0", 0x80013700)) + data(data(b"c")) + data(data(b"d"))),
    EMPTY,
    link(3, "orders", receiver=True),
    grant(3, 3),
    frame(0, p.written(p.Disposition(receiver=True, first=0, state=p.ACCEPTED))),
    frame(0, p.written(p.Disposition(receiver=True, first=1, last=2, settled=True, state=p.RELEASED))),
    grant(3, 20, drain=True),
    link(4, "orders/$management", receiver=True),
    link(5, "orders/$management", receiver=False),
    grant(4, 20),
    request(5, "com.microsoft:peek-message", {"from-sequence-number": Long(1), "message-count": Int(9)}),
    request(5, "com.microsoft:renew-lock", {"lock-tokens": TOKENS}),
    request(5, "com.microsoft:schedule-message", {"messages": [{"message": data(b"later")}]}),
    request(5, "com.microsoft:update-disposition", {"disposition-status": "completed", "lock-tokens": TOKENS}),
    link(6, "bills.sessions", receiver=True, session="a"),
    grant(6, 5),
    frame(0, p.written(p.Detach(handle=3, closed=True))),
    frame(0, p.written(p.End())),
    frame(0, p.written(p.Close())),
]
"""What a client says from its first word to its last."""


def torn(rng: random.Random) -> bytes:
    """The script, with a few things wrong."""
    parts = list(SCRIPT)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(parts))
        part = bytearray(parts[place])
        match rng.randrange(9):
            case 0:
                parts[place] = rng.randbytes(rng.randrange(40))
            case 1:
                parts[place] = frame(rng.choice((0, 1)), rng.randbytes(rng.randrange(40)), sasl=rng.random() < 0.2)
            case 2:
                del parts[place]
            case 3:
                parts.insert(rng.randrange(len(parts)), parts[place])
            case 4:
                other = rng.randrange(len(parts))
                parts[place], parts[other] = parts[other], parts[place]
            case 5:
                parts[place] = bytes(part[: rng.randrange(len(part) + 1)])
            case _ if part:  # most often: the length is right, and something in it is not
                for _ in range(rng.randrange(1, 4)):
                    part[rng.randrange(min(8, len(part) - 1), len(part))] = rng.choice(
                        (0, 0x40, 0xFF, rng.randrange(256))
                    )
                parts[place] = bytes(part)
    whole = b"".join(parts)
    return whole[: rng.randrange(len(whole))] if rng.random() < 0.2 else whole


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with serve(QUEUES) as place:
        yield place._server
    assert not failures


def held_by_nobody(server: Server) -> bool:
    """Whether no one waits at a queue, or holds a session."""
    namespace = server.namespace
    takers = [taker for pump in namespace._pumps.values() for taker in pump._takers]
    holders = [lock for sessions in namespace._sessions.values() for lock in sessions._locks]
    waiting = [owner for sessions in namespace._sessions.values() for owner in sessions._waiting]
    return not (takers or holders or waiting or server.connections)


async def works(server: Server) -> bool:
    """Whether an honest client can send, receive and complete."""
    wire = Wire(server)
    wire.say(b"".join([*HELLO, link(2, "news", receiver=False), message(2, 0, data(b"x"))]))
    assert [answer for answer in wire.heard() if isinstance(answer, p.Disposition) and answer.state == p.ACCEPTED]
    wire.say(link(3, "news/Subscriptions/audit", receiver=True) + grant(3, 1))
    while not any(isinstance(answer, p.Transfer) for answer in wire.heard()):
        await asyncio.sleep(0)
    wire.say(frame(0, p.written(p.Disposition(receiver=True, first=0, state=p.ACCEPTED))))
    [done] = wire.heard()
    wire.close()
    return isinstance(done, p.Disposition) and done.state == p.ACCEPTED


async def test_the_script_is_one_that_a_client_in_its_right_mind_says(server: Server) -> None:
    """Or what is torn would be nonsense from the start."""
    wire = Wire(server)
    answers: list[p.Performative] = []
    for part in SCRIPT:
        wire.say(part)
        await asyncio.sleep(0.002 if part[:4] != b"AMQP" else 0)
        answers += wire.heard()
    kinds = [type(answer) for answer in answers]
    assert kinds[-2:] == [p.End, p.Close]
    assert answers[-1] == p.Close()
    attached = [answer for answer in answers if isinstance(answer, p.Attach)]
    assert len(attached) == 7
    assert all(answer.source is not None for answer in attached)
    assert kinds.count(p.Transfer) == 11  # the token, three messages, the two released and the fourth, four answers
    assert held_by_nobody(server)


@pytest.mark.parametrize("faults", [None, Faults()], ids=["", "faults"])
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_a_client_says_nothing_breaks_and_nothing_is_left(
    server: Server, seed: int, faults: Faults | None
) -> None:
    """In pieces of any size; when it is gone, nobody waits for it, and the next client is served."""
    server.faults = faults
    for number in range(150):
        rng = random.Random(seed * 1_000 + number)
        said = torn(rng)
        wire = Wire(server)
        while said:
            size = rng.choice((1, 7, 64, 10_000))
            wire.say(said[:size])
            said = said[size:]
            if rng.random() < 0.1:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        wire.close()
        await asyncio.sleep(0)
        assert held_by_nobody(server), f"seed {seed}, number {number}"
    server.faults = None
    assert await works(server)
