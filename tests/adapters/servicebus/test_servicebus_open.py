"""Opening: what is told when it fails, and what a source and a sink say of themselves."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from eventkit_servicebus import adapter
from eventkit_servicebus._local import Call
from eventkit_servicebus._opened import Opened

from eventkit.errors import (
    AccessDenied,
    AdapterNotInstalled,
    ConfigurationError,
    ConnectionLost,
    SourceNotFound,
    Throttled,
    UnsupportedByAdapter,
)
from eventkit.spi import Address, Demand, NativeDeadLetter
from tests.adapters.servicebus.adapter_support import DEMAND, error, publish, rigged


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("nowhere", SourceNotFound, "there is no queue nowhere"),
        ("news/nobody", SourceNotFound, "there is no subscription nobody of topic news"),
        ("news", ConfigurationError, "is a topic: events are received from a subscription"),
        (
            "bills.sessions",
            ConfigurationError,
            "requires sessions, which are taken whole and in order: write ordering =",
        ),
    ],
)
async def test_a_source_that_cannot_be_opened_says_why(name: str, kind: type[Exception], told: str) -> None:
    """And what to do, without the right to manage."""
    async with rigged() as rig:
        rig.trouble.errors["read-entity"] = error("amqp:unauthorized-access")
        with pytest.raises(kind) as caught:
            async with rig.source(name):
                pass
    assert told in str(caught.value)
    assert caught.value.__cause__ is not None


async def test_a_setting_that_cannot_work_is_told_with_the_right_to_manage() -> None:
    """Before the first receive; without that right, by what a receiver is told."""
    async with rigged() as rig:
        with pytest.raises(ConfigurationError, match='session queue needs ordering="key": write ordering = "key"'):
            async with rig.source("bills.sessions"):
                pass


async def test_a_sink_without_queue_or_topic_is_told() -> None:
    """Not when the first event is published."""
    async with rigged() as rig:
        with pytest.raises(SourceNotFound, match="there is no queue nowhere"):
            async with rig.sink("nowhere"):
                pass


async def test_nobody_there_is_told_with_where_it_was_looked_for() -> None:
    """A local server that was not started is the first mistake of all."""
    address = Address.parse("servicebus://local/orders?endpoint=127.0.0.1:1")
    with pytest.raises(ConnectionLost, match=r"nobody answers at 127\.0\.0\.1:1 .*eventkit local servicebus"):
        async with adapter.open_source(address, DEMAND):
            pass


@pytest.mark.parametrize(
    ("condition", "kind"),
    [("amqp:unauthorized-access", AccessDenied), ("com.microsoft:server-busy", Throttled)],
)
async def test_a_refusal_at_start_is_of_its_kind(condition: str, kind: type[Exception]) -> None:
    """One ends the worker, the other passes."""
    async with rigged() as rig:
        rig.trouble.errors["attach"] = error(condition)
        with pytest.raises(kind):
            async with rig.source():
                pass


async def test_a_queue_delays_retries_and_dead_letters_by_itself() -> None:
    """What the core asks before it parks or publishes."""
    async with rigged() as rig, rig.source() as source:
        assert source.info.traits.max_retry_delay is None
        assert source.info.warnings == ()
        assert isinstance(source, NativeDeadLetter)


async def test_a_queue_that_may_not_be_sent_to_parks_its_retries() -> None:
    """A worker that may only listen works all the same."""

    def no_senders(call: Call) -> None:
        if call.operation == "attach" and call.detail == "sender":
            raise error("amqp:unauthorized-access")

    async with rigged() as rig:
        rig.trouble.rule = no_senders
        async with rig.source() as source:
            assert source.info.traits.max_retry_delay == 0
            [warning] = source.info.warnings
            assert "may not send" in warning


async def test_a_subscription_parks_its_retries() -> None:
    """A copy would go to every other subscription of the topic too."""
    async with rigged() as rig, rig.source("news/audit") as source:
        assert source.info.traits.max_retry_delay == 0
        assert isinstance(source, NativeDeadLetter)


async def test_dead_letters_are_a_source_that_cannot_dead_letter() -> None:
    """There is nowhere to put them."""
    async with rigged() as rig, rig.source("orders/$DeadLetterQueue") as source:
        assert not isinstance(source, NativeDeadLetter)
        assert source.info.traits.max_retry_delay == 0


async def test_receivers_are_opened_for_what_is_held_at_once() -> None:
    """Side by side: each takes half a second."""
    async with rigged() as rig, rig.source(demand=Demand(events=3_000)) as source:
        assert source.info.limits.concurrent_receives == 3
        assert rig.trouble.of("attach").count("receiver") == 3


ELSEWHERE = "Endpoint=sb://other.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=b"
ONE_ENTITY = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=b;EntityPath=bills"
HALF = "SharedAccessKeyName=a;SharedAccessKey=b"


@pytest.mark.parametrize(
    ("text", "told"),
    [(ELSEWHERE, "is for other"), (ONE_ENTITY, "is for bills only"), (HALF, "Endpoint is missing")],
)
async def test_a_connection_string_for_something_else_is_told(
    text: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would publish the orders of one shop to another."""
    monkeypatch.setenv("SERVICEBUS_CONNECTION_STRING", text)
    with pytest.raises(ConfigurationError, match=told):
        async with adapter.open_sink(Address.parse("servicebus://shop/orders")):
            pass


async def test_the_environment_leads_to_an_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever namespace the address names, so that it need not be changed for development."""
    async with rigged() as rig:
        monkeypatch.setenv("SERVICEBUS_CONNECTION_STRING", rig.server.connection_string)
        async with adapter.open_sink(Address.parse("servicebus://shop/orders")) as sink:
            assert sink.limits.body > 200_000


async def test_what_is_opened_is_closed() -> None:
    """Every connection costs the namespace one of its 5,000."""
    async with rigged() as rig:
        async with rig.source(demand=Demand(events=2_000)), rig.sink():
            assert len(rig.server._server.connections) == 4
        assert not rig.server._server.connections


async def test_what_a_queue_says_of_itself_is_what_the_core_goes_by() -> None:
    """Its own limit of deliveries is compared with the attempts of the worker."""
    async with rigged(max_deliveries=7) as rig, rig.source() as source:
        assert source.info.traits.native_receive_limit == 7
        assert source.info.warnings == ()


async def test_settings_that_cannot_be_read_are_told_and_nothing_more() -> None:
    """A worker that may not manage is the usual one."""
    async with rigged() as rig:
        rig.trouble.errors["read-entity"] = error("amqp:unauthorized-access")
        async with rig.source() as source:
            assert source.info.traits.native_receive_limit is None
            [warning] = source.info.warnings
            assert "settings cannot be read" in warning
            assert await source.depth() is None


async def test_a_source_tells_how_much_waits() -> None:
    """For who may manage."""
    async with rigged() as rig, rig.both() as (source, sink):
        await publish(sink, b"a", b"b")
        depth = await source.depth()

    assert depth is not None
    assert depth.ready == 2


async def test_a_version_of_the_sdk_that_is_built_differently_is_told() -> None:
    """Not by an AttributeError, in the middle of the night."""
    with pytest.raises(UnsupportedByAdapter, match=r"is not built as 7\.15 is.*azure-servicebus==7\.15"):
        await Opened(SimpleNamespace()).open()  # type: ignore[type-var]


async def test_without_azure_identity_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of this distribution: the package index has another one called eventkit."""
    monkeypatch.delenv("SERVICEBUS_CONNECTION_STRING", raising=False)
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)
    with pytest.raises(AdapterNotInstalled, match=r'pip install "eventkit-worker\[servicebus\]"'):
        async with adapter.open_sink(Address.parse("servicebus://shop/orders")):
            pass
