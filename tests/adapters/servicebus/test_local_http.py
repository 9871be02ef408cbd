"""The local Service Bus server over HTTP: what the SDK's administration client asks it, and what others send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.servicebus.aio.management import ServiceBusAdministrationClient
from eventkit_servicebus._local import AmqpError, AnswerLost, ConnectionClosed, ConnectionDropped, _http
from eventkit_servicebus._local._content import DATA, Content
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._frames import AMQP_HEADER
from eventkit_servicebus._local._http import Malformed, read
from eventkit_servicebus._local._names import node
from eventkit_servicebus._local._types import Described, Symbol, Timestamp, Ulong
from eventkit_servicebus._managing import transport
from hypothesis import given
from hypothesis import strategies as st

from tests.adapters.servicebus.adapter_support import Rig, rigged
from tests.adapters.servicebus.local_support import Peer, peer_of

GET = b"GET /orders?api-version=2021-05 HTTP/1.1\r\nHost: x\r\nAuthorization: SharedAccessSignature x\r\n\r\n"


@asynccontextmanager
async def administered(*queues: str, **options: Any) -> AsyncIterator[tuple[Rig, ServiceBusAdministrationClient]]:
    """The SDK's client at a server."""
    async with (
        rigged(*queues, **options) as rig,
        ServiceBusAdministrationClient.from_connection_string(
            rig.server.connection_string, transport=transport(plain=True), retry_total=0
        ) as client,
    ):
        yield rig, client


def put(rig: Rig, name: str, delay: float = 0.0) -> None:
    namespace = rig.server._server.namespace
    when = {Symbol("x-opt-scheduled-enqueue-time"): Timestamp((namespace.wall() + delay) * 1000)}
    parts = [*([Described(Ulong(0x72), when)] if delay else []), Described(Ulong(DATA), b"x")]
    namespace.queue(node(name)).accept([Content.read(b"".join(map(encode, parts)))], namespace.now())


async def told(peer: Peer, request: bytes = b"") -> bytes:
    """All that the server answers, until it hangs up."""
    if request:
        peer.write(request)
    return await asyncio.wait_for(peer.reader.read(), 5.0)


def xml(answer: bytes) -> ET.Element:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head
    return ET.fromstring(body)


# -- the SDK ---------------------------------------------------------------------------------------------


async def test_a_queue_is_described_to_the_sdk() -> None:
    """As the unmodified SDK reads it."""
    async with administered("orders", lock=7.5, max_deliveries=3, duplicates=90.0) as (_, client):
        found = await client.get_queue("orders")
        assert (found.name, found.status, found.availability_status) == ("orders", "Active", "Available")
        assert (found.lock_duration, found.max_delivery_count) == (timedelta(seconds=7.5), 3)
        assert found.requires_duplicate_detection
        assert found.duplicate_detection_history_time_window == timedelta(seconds=90)
        assert isinstance(found.default_message_time_to_live, timedelta)
        assert found.default_message_time_to_live.days == 10_675_199
        assert found.dead_lettering_on_message_expiration
        assert (found.requires_session, found.forward_to) == (False, None)


async def test_a_queue_tells_the_sdk_what_waits() -> None:
    """What is locked is active; what is scheduled or dead is told apart."""
    async with administered() as (rig, client):
        for delay in (0.0, 0.0, 0.0, 60.0):
            put(rig, "orders", delay)
        queue = rig.server._server.namespace.queue(node("orders"))
        taken = queue.take(2, rig.clock.now())
        queue.dead_letter(taken[0].receipt, "why", "", rig.clock.now())
        queue.defer(taken[1].receipt, rig.clock.now())
        rig.skip(5.0)
        found = await client.get_queue_runtime_properties("orders")
        assert found.active_message_count == 1
        assert found.scheduled_message_count == 1
        assert found.dead_letter_message_count == 1
        assert found.total_message_count == 4
        assert (found.transfer_message_count, found.transfer_dead_letter_message_count) == (0, 0)
        assert found.created_at_utc is not None
        assert found.accessed_at_utc is not None
        assert found.accessed_at_utc - found.created_at_utc >= timedelta(seconds=5)


async def test_a_topic_and_its_subscription_are_described_to_the_sdk() -> None:
    """What is scheduled waits at the topic."""
    async with administered("news/audit.sessions", "news/mail") as (rig, client):
        put(rig, "news/mail")
        put(rig, "news/mail", 60.0)
        topic = await client.get_topic("news")
        assert (topic.name, topic.status, topic.requires_duplicate_detection) == ("news", "Active", False)
        of_topic = await client.get_topic_runtime_properties("news")
        assert (of_topic.subscription_count, of_topic.scheduled_message_count) == (2, 1)
        assert (await client.get_subscription("news", "audit.sessions")).requires_session
        mail = await client.get_subscription("news", "mail")
        assert (mail.name, mail.lock_duration, mail.max_delivery_count) == ("mail", timedelta(seconds=60), 100)
        counts = await client.get_subscription_runtime_properties("news", "mail")
        assert (counts.active_message_count, counts.total_message_count) == (1, 1)


async def test_names_are_compared_without_case() -> None:
    """As over AMQP."""
    async with administered() as (_, client):
        assert (await client.get_queue("ORDERS")).lock_duration == timedelta(seconds=60)
        assert (await client.get_subscription("News", "AUDIT")).name == "AUDIT"


async def test_what_is_not_there_is_told_as_the_service_does() -> None:
    """A list of nothing where a queue or topic is missing, 404 for a subscription."""
    async with administered() as (rig, client):
        for name in ("nowhere", "news/audit", "orders/$DeadLetterQueue", "$cbs", "a&<b>"):
            with pytest.raises(ResourceNotFoundError, match="does not exist"):
                await client.get_queue(name)
        for topic, name in (("news", "nobody"), ("nowhere", "audit"), ("orders", "audit")):
            with pytest.raises(ResourceNotFoundError) as caught:
                await client.get_subscription(topic, name)
            assert caught.value.status_code == 404
            assert "was not found" in str(caught.value)
        assert {call.operation for call in rig.trouble.calls} == {"read-entity"}


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("amqp:unauthorized-access", 401),
        ("amqp:not-allowed", 403),
        ("amqp:not-found", 404),
        ("com.microsoft:server-busy", 503),
        ("amqp:internal-error", 500),
    ],
)
async def test_a_fault_refuses_with_its_status(condition: str, status: int) -> None:
    """401 is what a worker without Manage gets."""
    async with administered() as (rig, client):
        rig.trouble.errors["read-entity"] = AmqpError(condition, "Manage,EntityRead claims required <&>.")
        with pytest.raises(HttpResponseError) as caught:
            await client.get_queue("orders")
        assert caught.value.status_code == status
        assert isinstance(caught.value, ClientAuthenticationError) == (status == 401)
        assert [(call.operation, call.entity) for call in rig.trouble.calls] == [("read-entity", "orders")]


async def test_nothing_can_be_created() -> None:
    """It is set up when it is started; the answer arrives although the question has a body."""
    async with administered() as (_, client):
        with pytest.raises(HttpResponseError) as caught:
            await client.create_queue("more")
        assert caught.value.status_code == 405
        with pytest.raises(HttpResponseError) as caught:
            await client.delete_queue("orders")
        assert caught.value.status_code == 405


# -- bytes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 10_000])
async def test_a_request_may_come_in_pieces(size: int) -> None:
    """A client says what it speaks by its first bytes, however few of them come at once."""
    async with rigged() as rig, peer_of(rig.server) as peer:
        for at in range(0, len(GET), size):
            peer.write(GET[at : at + size])
            await peer.writer.drain()
            await asyncio.sleep(0)
        answer = await told(peer)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/atom+xml;charset=utf-8\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert xml(answer).tag == "{http://www.w3.org/2005/Atom}entry"


async def test_amqp_may_come_in_pieces() -> None:
    """Its header begins as no request does."""
    async with rigged() as rig, peer_of(rig.server) as peer:
        for at in range(8):
            peer.write(AMQP_HEADER[at : at + 1])
            await asyncio.sleep(0.001)
        assert await asyncio.wait_for(peer.reader.readexactly(8), 5.0) == AMQP_HEADER
        assert len(rig.server._server.connections) == 1
        assert not rig.server._server.doors


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GETS /x HTTP/1.1\r\n\r\n", b"AMQQ\x00\x01\x00\x00"]
)
async def test_what_is_neither_is_answered_in_amqp(garbage: bytes) -> None:
    """With the header that would do, as the protocol has it: a client with TLS, say."""
    async with rigged() as rig, peer_of(rig.server) as peer:
        assert await told(peer, garbage) == AMQP_HEADER


@pytest.mark.parametrize(
    "request_",
    [
        b"GET \r\n\r\n",
        b"GET /orders\r\n\r\n",
        b"GET /orders HTTP/2.0\r\n\r\n",
        b"GET /orders  HTTP/1.1\r\n\r\n",
        b"GET orders HTTP/1.1\r\n\r\n",
        b"GET //[x/orders HTTP/1.1\r\n\r\n",
        b"GET /orders HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /orders HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET /orders HTTP/1.1\r\nA: b\r\n folded: yes\r\n\r\n",
        b"GET /" + b"x" * 17_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4_000 + b"\r\n",
    ],
)
async def test_what_is_no_request_is_told(request_: bytes) -> None:
    """400, and the end: nothing of it is kept."""
    async with rigged() as rig, peer_of(rig.server) as peer:
        answer = await told(peer, request_)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert xml(answer).findtext("Code") == "400"
        assert rig.trouble.calls == []


async def test_who_shows_no_token_is_told() -> None:
    """Every token is believed, but there must be one: a client that forgets it would be surprised by the service."""
    async with rigged() as rig, peer_of(rig.server) as peer:
        answer = await told(peer, b"GET /orders HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert xml(answer).findtext("Code") == "401"


async def test_what_a_client_writes_does_not_break_the_answer() -> None:
    """Its host and path stand in the XML."""
    async with rigged() as rig:
        for target in (b"/a%3Cb%3E&x", b"/\x01\x02", b"/<\xff>?\"'&", b"http://other/orders"):
            async with peer_of(rig.server) as peer:
                head = b"GET " + target + b' HTTP/1.1\r\nHost: <x>"&\r\nAuthorization: x\r\n\r\n'
                assert xml(await told(peer, head)) is not None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_none(data: bytes) -> None:
    """Whatever comes, it ends in an answer."""
    for head in (data, b"GET " + data, b"GET / HTTP/1.1\r\n" + data, b"GET /" + data + b" HTTP/1.1"):
        try:
            request = read(head)
        except Malformed:
            continue
        assert request.path.startswith("/")


@pytest.mark.parametrize("begin", [b"", b"GE", b"AMQ", b"GET / HTTP/1.1\r\n"])
async def test_who_takes_too_long_is_hung_up_on(begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection costs a socket."""
    monkeypatch.setattr(_http, "PATIENCE", 0.05)
    async with rigged() as rig, peer_of(rig.server) as peer:
        peer.write(begin)
        assert await peer.ended()
        assert not rig.server._server.doors


async def test_who_never_stops_sending_is_answered_and_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows a request is read, or its answer might be lost, and never kept."""
    monkeypatch.setattr(_http, "_LINGER", 0.1)
    async with rigged() as rig, peer_of(rig.server) as peer:
        peer.write(GET)
        [door] = await _doors(rig)
        assert (await asyncio.wait_for(peer.reader.read(), 5.0)).startswith(b"HTTP/1.1 200")
        try:
            async with asyncio.timeout(5.0):
                while True:
                    peer.write(b"x" * 65_536)
                    await peer.writer.drain()
                    assert not door._bytes
                    await asyncio.sleep(0)
        except ConnectionError:
            pass
        assert not rig.server._server.doors


async def _doors(rig: Rig) -> list[Any]:
    while not rig.server._server.doors:
        await asyncio.sleep(0.001)
    return list(rig.server._server.doors)


async def test_who_says_that_he_is_done_is_still_answered() -> None:
    """As `nc` does; but who says nothing at all is gone."""
    async with rigged() as rig:
        release = asyncio.Event()

        class Held:
            async def before(self, call: Any) -> None:
                await release.wait()

            async def after(self, call: Any) -> None: ...

        rig.server.faults = Held()  # type: ignore[assignment]
        async with peer_of(rig.server) as peer:
            peer.write(GET)
            peer.writer.write_eof()
            await asyncio.sleep(0.02)
            release.set()
            assert (await told(peer)).startswith(b"HTTP/1.1 200")
        async with peer_of(rig.server) as peer:
            peer.writer.write_eof()
            assert await told(peer) == b""


@pytest.mark.parametrize("fault", [ConnectionDropped(), ConnectionClosed("amqp:connection:forced", "bye")])
async def test_a_fault_cuts_the_connection(fault: Exception) -> None:
    """Before the answer, and after what was asked."""
    async with rigged() as rig:
        for faults in (rig.trouble.errors, rig.trouble.lost):
            faults["read-entity"] = fault
            async with peer_of(rig.server) as peer:
                peer.write(GET)
                assert await peer.ended()
            faults.clear()


async def test_an_answer_that_is_lost_leaves_its_client_waiting() -> None:
    """Until the server hangs up on everybody, or ends."""
    async with rigged() as rig, peer_of(rig.server) as peer:
        rig.trouble.errors["read-entity"] = AnswerLost()
        peer.write(GET)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.reader.read(1), 0.05)
        rig.server.drop_connections()
        assert await peer.ended()


async def test_the_end_of_the_server_is_that_of_every_connection() -> None:
    """One that has said nothing, too."""
    async with rigged() as rig, peer_of(rig.server) as peer, peer_of(rig.server) as other:
        other.write(b"GET")
        while len(rig.server._server.doors) < 2:
            await asyncio.sleep(0.001)
        await rig.server._server.stop()
        assert await peer.ended()
        assert await other.ended()
