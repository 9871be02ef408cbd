"""What Service Bus tells over HTTP: read where it can be, None where it cannot, and never a failure."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from eventkit_servicebus._config import Place
from eventkit_servicebus._local import AmqpError, AnswerLost, ConnectionDropped
from eventkit_servicebus._local._content import DATA, Content
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._names import node
from eventkit_servicebus._local._types import Described, Symbol, Timestamp, Ulong
from eventkit_servicebus._managed import Facts, Managed
from eventkit_servicebus._secret import Secret, local
from eventkit_servicebus._setup import problems, span, unavailable, unread, warnings

from eventkit.errors import TransientAdapterError
from eventkit.spi import Address, Demand, Depth
from tests.adapters.servicebus.adapter_support import Rig, rigged

KEY = "SAS_KEY_VALUE"
PLAIN = Facts(lock=60.0, receive_limit=100)


def place_of(name: str, endpoint: str = "127.0.0.1:1") -> Place:
    return Place.from_address(Address.parse(f"servicebus://shop/{name}?endpoint={endpoint}"), "source")


def asked(rig: Rig, name: str = "orders", **options: Any) -> Managed:
    return Managed(place=place_of(name, rig.endpoint), secret=local(rig.endpoint), **options)


class Canned:
    """A server that says one thing to everybody, and notes what it was asked."""

    def __init__(self, answer: bytes, kind: str, status: str, wait: float) -> None:
        self.heads: list[str] = []
        self.port = 0
        self._wait = wait
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
        self._answer = answer if kind == "raw" else head + answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await asyncio.sleep(self._wait)
            writer.write(self._answer)
            await writer.drain()
        finally:
            writer.close()

    def managed(self, name: str = "orders", secret: Secret | None = None, **options: Any) -> Managed:
        endpoint = f"127.0.0.1:{self.port}"
        return Managed(place=place_of(name, endpoint), secret=secret or local(endpoint), **options)


@asynccontextmanager
async def canned(
    answer: bytes | str, kind: str = "application/atom+xml", status: str = "200 OK", wait: float = 0.0
) -> AsyncIterator[Canned]:
    data = answer.encode() if isinstance(answer, str) else answer
    made = Canned(data, kind, status, wait)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await asyncio.sleep(0.01)


def entry(kind: str = "QueueDescription", **fields: str) -> str:
    """An answer as the service writes it."""
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in ({"LockDuration": "PT1M"} | fields).items())
    return (
        '<entry xmlns="http://www.w3.org/2005/Atom"><title type="text">orders</title><content type="application/xml">'
        f'<{kind} xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect">{inside}</{kind}>'
        "</content></entry>"
    )


# -- facts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("orders", PLAIN),
        ("bills.sessions", replace(PLAIN, sessions=True)),
        ("news/audit", PLAIN),
        ("orders/$DeadLetterQueue", replace(PLAIN, receive_limit=None)),
        ("bills.sessions/$DeadLetterQueue", replace(PLAIN, receive_limit=None)),
    ],
)
async def test_the_facts_of_every_kind_of_source_are_read(name: str, facts: Facts) -> None:
    """With the SDK, over the wire; dead letters have neither sessions nor a limit."""
    async with rigged() as rig:
        managed = asked(rig, name)
        assert await managed.facts() == facts
        assert (managed.why, managed.denied) == ("", False)
        assert [(call.operation, call.entity) for call in rig.trouble.calls] == [
            ("read-entity", name.removesuffix("/$DeadLetterQueue"))
        ]


async def test_the_settings_of_a_queue_are_told_as_they_are() -> None:
    """Not as the local server has them by default."""
    async with rigged("orders", lock=7.5, max_deliveries=3, duplicates=90.0) as rig:
        assert await asked(rig).facts() == Facts(lock=7.5, receive_limit=3, duplicates=90.0)


async def test_what_the_local_server_cannot_be_is_read_from_an_answer_of_the_service() -> None:
    """Forwarding, a status, an end of messages: the whole of what the start-up looks at."""
    answer = entry(
        LockDuration="PT30S",
        RequiresDuplicateDetection="true",
        RequiresSession="true",
        DefaultMessageTimeToLive="P14D",
        DeadLetteringOnMessageExpiration="false",
        DuplicateDetectionHistoryTimeWindow="PT10M",
        MaxDeliveryCount="10",
        Status="ReceiveDisabled",
        ForwardTo="https://shop.servicebus.windows.net/old/bills",
        ForwardDeadLetteredMessagesTo="sb://shop.servicebus.windows.net/graves",
    )
    async with canned(answer) as server:
        assert await server.managed().facts() == Facts(
            lock=30.0,
            receive_limit=10,
            sessions=True,
            duplicates=600.0,
            status="ReceiveDisabled",
            forwards_to="old/bills",
            ttl=14 * 86_400.0,
            dead_letters_expired=False,
        )
        letters = await server.managed("orders/$DeadLetterQueue").facts()
        assert letters == Facts(lock=30.0, status="ReceiveDisabled", forwards_to="graves")


# -- depth -----------------------------------------------------------------------------------------------


def fill(rig: Rig, name: str, *delays: float) -> Any:
    """Put a message in for each of these delays; the queue."""
    namespace = rig.server._server.namespace
    queue = namespace.queue(node(name))
    for delay in delays:
        when = {Symbol("x-opt-scheduled-enqueue-time"): Timestamp((namespace.wall() + delay) * 1000)}
        parts: list[Any] = [Described(Ulong(0x72), when)] if delay else []
        queue.accept([Content.read(b"".join(map(encode, [*parts, Described(Ulong(DATA), b"x")])))], namespace.now())
    return queue


@pytest.mark.parametrize(("name", "delayed"), [("orders", 1), ("news/audit", 0)])
async def test_the_depth_counts_what_is_ready_delayed_and_dead(name: str, delayed: int) -> None:
    """What is locked is ready, as the service counts; what a topic delays is told of the topic only."""
    async with rigged() as rig:
        queue = fill(rig, name, 0.0, 0.0, 0.0, 0.0, 60.0)
        now = rig.clock.now()
        locked, dead, done = queue.take(3, now)
        assert locked
        assert queue.dead_letter(dead.receipt, "why", "", now)
        assert queue.complete(done.receipt, now)
        assert await asked(rig, name).depth() == Depth(ready=2, delayed=delayed, dead=1)
        assert await asked(rig, f"{name}/$DeadLetterQueue").depth() == Depth(ready=1)


async def test_what_was_delayed_is_ready_in_time() -> None:
    """And what has expired is not."""
    async with rigged() as rig:
        fill(rig, "orders", 60.0)
        rig.skip(61.0)
        assert await asked(rig).depth() == Depth(ready=1)


async def test_facts_and_depth_may_be_asked_for_at_once() -> None:
    """The one at a start, the other by whoever looks."""
    async with rigged() as rig:
        managed = asked(rig)
        found = await asyncio.gather(*(managed.depth() for _ in range(10)), managed.facts())
        assert found == [*[Depth(ready=0)] * 10, PLAIN]


# -- nothing is told -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_without_the_right_to_manage_nothing_is_told(status: str) -> None:
    """Most workers may only listen."""
    async with canned("<Error><Code>401</Code><Detail>Manage</Detail></Error>", "application/xml", status) as server:
        managed = server.managed()
        assert await managed.facts() is None
        assert await managed.depth() is None
        assert (managed.denied, managed.why) == (True, f"the answer was {status[:3]}")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere", "there is no queue nowhere"),
        ("news/nobody", "the answer was 404"),
        ("news", "the answer is of no queue"),
    ],
)
async def test_what_is_not_there_is_somebody_elses_business(name: str, why: str) -> None:
    """A receiver says so better: its error names what to write."""
    async with rigged() as rig:
        managed = asked(rig, name)
        assert await managed.facts() is None
        assert (managed.denied, managed.why) == (False, why)
        assert await managed.depth() is None


@pytest.mark.parametrize(
    ("answer", "kind", "status", "why"),
    [
        (b"AMQP\x00\x01\x00\x00", "raw", "", "ServiceRe"),
        (b"", "raw", "", "ServiceRe"),
        (b"<html>a proxy</html>", "text/html", "200 OK", "the answer is of no queue"),
        (b"<entry", "application/atom+xml", "200 OK", "the answer is of no queue"),
        (b"{}", "application/json", "200 OK", "there is no queue orders"),
        (entry().replace("PT1M", "soon").encode(), "application/atom+xml", "200 OK", "the answer is of no queue"),
        (entry("EventHubDescription").encode(), "application/atom+xml", "200 OK", "the answer is of no queue"),
        (b"", "text/plain", "500 Oh", "the answer was 500"),
    ],
)
async def test_an_answer_that_is_none_is_no_failure(answer: bytes, kind: str, status: str, why: str) -> None:
    """An emulator without management, a proxy, another service of the same domain."""
    async with canned(answer, kind, status) as server:
        managed = server.managed()
        assert await managed.facts() is None
        assert managed.why.startswith(why), managed.why
        assert await managed.depth() is None
        assert not managed.denied


async def test_nobody_there_is_no_failure() -> None:
    """A firewall lets AMQP through, and nothing else."""
    managed = Managed(place=place_of("orders"), secret=local("127.0.0.1:1"))
    assert await managed.facts() is None
    assert managed.why.startswith("ServiceRequestError: Cannot connect to host 127.0.0.1:1")


@pytest.mark.parametrize("fault", [AnswerLost(), ConnectionDropped(), AmqpError("com.microsoft:server-busy", "later")])
async def test_what_goes_wrong_is_not_repeated_and_does_not_hold_up_the_start(fault: Exception) -> None:
    """The SDK would ask again four times, and wait a minute each; aiohttp asks once more after a lost connection."""
    async with rigged() as rig:
        rig.trouble.errors["read-entity"] = fault
        managed = asked(rig, within=0.1)
        async with asyncio.timeout(1.0):
            assert await managed.facts() is None
        assert len(rig.trouble.calls) == 1 + isinstance(fault, ConnectionDropped)
        if isinstance(fault, AnswerLost):
            assert managed.why == "no answer within 0.1 s"


async def test_a_credential_that_takes_its_time_does_not_hold_up_the_start() -> None:
    """The chain of credentials looks in many places; a token for another host is not asked for."""

    class Slow:
        async def get_token(self, *scopes: str, **_: Any) -> Any:
            self.scopes = scopes
            await asyncio.sleep(60)

    slow = Slow()
    managed = Managed(place=replace(place_of("orders"), endpoint=None), credential=slow, within=0.1)
    assert await managed.facts() is None
    assert managed.why == "no answer within 0.1 s"
    assert slow.scopes == ("https://servicebus.azure.net//.default",)


async def test_who_is_cancelled_while_he_asks_leaves_nothing_open() -> None:
    """A worker that is stopped at its start; an open session would be a warning, which is an error here."""
    async with canned(b"", wait=60.0) as server:
        task = asyncio.create_task(server.managed().facts())
        while not server.heads:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gc.collect()


# -- secrets ---------------------------------------------------------------------------------------------


async def test_no_key_and_no_signature_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Not even by the SDK, with everything logged."""
    caplog.set_level(logging.DEBUG)
    async with canned(entry()) as server:
        managed = server.managed()
        assert await managed.facts() is not None
        assert "sig=" in server.heads[0]
        assert caplog.records
        assert not {word for word in (KEY, "sig=") if word in caplog.text + repr(managed)}


async def test_a_token_does_not_follow_a_redirect() -> None:
    """It is good for the whole namespace."""
    async with canned(b"") as thief:
        status = f"302 Found\r\nLocation: http://127.0.0.1:{thief.port}/orders"
        async with canned(b"", status=status) as server:
            managed = server.managed()
            assert await managed.facts() is None
            assert managed.why == "the answer was 302"
        assert thief.heads == []


async def test_a_local_server_is_not_looked_for_at_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which cannot reach it, and would be shown the token."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with canned(entry()) as server:
        assert await server.managed().facts() is not None


async def test_a_signature_is_sent_as_it_is() -> None:
    """The SDK would make a bearer token of it, which the service refuses."""
    async with canned(entry()) as server:
        signature = "SharedAccessSignature sr=sb%3a%2f%2fshop&sig=abc&se=9999999999&skn=ops"
        text = f"Endpoint=sb://127.0.0.1:{server.port};SharedAccessSignature={signature};UseDevelopmentEmulator=true"
        assert await server.managed(secret=Secret.parse(text)).facts() is not None
        assert f"\r\nAuthorization: {signature}\r\n" in server.heads[0]
        assert server.heads[0].startswith("GET /orders?enrich=false&api-version=")


def test_nothing_of_http_is_imported_before_it_is_asked_for() -> None:
    """A fifth of a second at the start of who does not need it."""
    code = (
        "import sys, eventkit_servicebus, eventkit_servicebus._managed, eventkit_servicebus._setup;"
        "print(*({'aiohttp', 'azure.servicebus.aio.management'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


# -- what it means ---------------------------------------------------------------------------------------

QUEUE = Place(address="servicebus://shop/orders", host="shop.servicebus.windows.net", name="orders")
LETTERS = replace(QUEUE, address="servicebus://shop/orders/$DeadLetterQueue", dead_letters=True)
AUDIT = replace(QUEUE, address="servicebus://shop/news/audit", name="news", subscription="audit")
FREE, KEYED = Demand(), Demand(ordered=True)


def test_a_queue_as_one_makes_it_for_a_worker_says_nothing() -> None:
    """Nobody reads warnings that always come."""
    for place in (QUEUE, LETTERS, AUDIT):
        assert [*problems(PLAIN, FREE, place), *warnings(PLAIN, FREE, place)] == []
        assert unavailable(PLAIN, place) is None
    keyed = replace(PLAIN, sessions=True)
    assert [*problems(keyed, KEYED, QUEUE), *warnings(keyed, KEYED, QUEUE)] == []


def test_problems_say_what_to_write() -> None:
    """All of them at once."""
    facts = replace(PLAIN, forwards_to="bills", sessions=True)
    assert list(problems(facts, FREE, QUEUE)) == [
        (
            "servicebus://shop/orders forwards its messages to bills, and cannot be received from: receive from bills, "
            "or take its ForwardTo away"
        ),
        (
            'servicebus://shop/orders requires sessions, and a session queue needs ordering="key": write '
            'ordering = "key", or receive from one without sessions'
        ),
    ]
    assert len(list(problems(facts, KEYED, AUDIT))) == 1


@pytest.mark.parametrize("status", ["Disabled", "ReceiveDisabled"])
def test_a_queue_that_is_disabled_may_be_enabled_again(status: str) -> None:
    """The worker tries again; dead letters may be open all the same."""
    error = unavailable(replace(PLAIN, status=status), QUEUE)
    assert isinstance(error, TransientAdapterError)
    assert str(error) == (
        f"servicebus://shop/orders is disabled (its status is {status}), and cannot be received from: enable it "
        "again, status Active"
    )
    assert unavailable(replace(PLAIN, status=status), LETTERS) is None


@pytest.mark.parametrize(
    ("change", "demand", "place", "told"),
    [
        (
            {},
            KEYED,
            QUEUE,
            (
                "servicebus://shop/orders has no sessions: the service keeps no order per key, nor does it for a "
                "retry; create it again with RequiresSession, which cannot be changed later"
            ),
        ),
        (
            {"lock": 14.9},
            FREE,
            QUEUE,
            (
                "servicebus://shop/orders: its locks last 14.9 s, and one extension may take 10 s: leases are lost "
                "when the service is slow; raise its LockDuration to 15 s or more, the default is 1 min"
            ),
        ),
        (
            {"forwards_to": "graves"},
            FREE,
            LETTERS,
            (
                "servicebus://shop/orders/$DeadLetterQueue: its dead letters are forwarded to graves "
                "(ForwardDeadLetteredMessagesTo), and nothing new arrives here: receive from there"
            ),
        ),
        (
            {"status": "SendDisabled"},
            FREE,
            QUEUE,
            (
                "servicebus://shop/orders takes no messages (its status is SendDisabled): nothing new comes, and what "
                "is to be retried later waits in the worker, under its lock"
            ),
        ),
        (
            {"ttl": 14 * 86_400.0, "dead_letters_expired": False},
            FREE,
            AUDIT,
            (
                "servicebus://shop/news/audit: a message that waits longer than 14 days (DefaultMessageTimeToLive) is "
                "gone, and nobody is told: switch DeadLetteringOnMessageExpiration on"
            ),
        ),
        (
            {"duplicates": 600.0},
            FREE,
            QUEUE,
            (
                "servicebus://shop/orders detects duplicates: what is published again within 10 min with the same id, "
                "source and body is dropped, and told as published; the copies by which retries are delayed are not, "
                "each has an id of its own"
            ),
        ),
    ],
)
def test_warnings_say_what_will_surprise(change: dict[str, Any], demand: Demand, place: Place, told: str) -> None:
    """One each, and nothing that stops a start."""
    facts = replace(PLAIN, **change)
    assert list(warnings(facts, demand, place)) == [told]
    assert list(problems(facts, demand, place)) == []


@pytest.mark.parametrize(
    "change",
    [{"lock": 15.0}, {"ttl": 60.0}, {"dead_letters_expired": False}, {"status": "Active"}],
)
def test_what_is_at_the_limit_is_no_warning(change: dict[str, Any]) -> None:
    """The last value that works."""
    assert list(warnings(replace(PLAIN, **change), FREE, QUEUE)) == []


def test_what_could_not_be_read_is_told_with_what_to_do() -> None:
    """Only who is refused needs the right."""
    begin = (
        "servicebus://shop/orders: its settings cannot be read, so that MaxDeliveryCount, time to live and lock "
        "duration are not checked: "
    )
    assert unread(QUEUE, "the answer was 401", denied=True) == (
        begin + "grant these credentials Azure Service Bus Data Owner (Manage) to have them looked at"
    )
    assert unread(QUEUE, "no answer within 3 s", denied=False) == begin + "no answer within 3 s"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(5.0, "5 s"), (7.5, "7.5 s"), (90.0, "90 s"), (120.0, "2 min"), (7_200.0, "2 h"), (86_400.0, "1 day")],
)
def test_seconds_are_told_in_the_largest_whole_unit(seconds: float, told: str) -> None:
    """1209600 s is nothing that anybody knows."""
    assert span(seconds) == told
