"""What is checked when a queue is opened, and what is told of it."""

from __future__ import annotations

import json
import os

import anyio
import pytest
from eventkit_sqs import adapter
from eventkit_sqs._local import SqsError

from eventkit.errors import AccessDenied, ConfigurationError, ConnectionLost, SourceNotFound, UnsupportedByAdapter
from eventkit.spi import DONE, Address, Backlog, Demand, Depth, Outgoing
from tests.adapters.sqs.adapter_support import rigged


async def test_a_queue_tells_its_limits_and_its_dead_letter_queue() -> None:
    """What its redrive policy says is what the worker is held to, and where its dead letters go by default."""
    async with rigged() as rig:
        await rig.set_attributes("orders", MessageRetentionPeriod="3600", MaximumMessageSize="2048")
        async with rig.source() as source:
            info = source.info

    assert info.traits.native_receive_limit == 100
    assert info.traits.retention == 3600
    assert info.traits.key_release == "none"
    assert info.limits.body == 2048
    assert info.dead_letters is not None
    assert ":orders-dlq?endpoint=" in info.dead_letters
    assert info.warnings == ()


async def test_a_fifo_queue_keeps_order_and_says_when_nobody_wants_it() -> None:
    """Somebody paid for order, and would not get it."""
    async with rigged() as rig:
        async with rig.source("bills.fifo") as source:
            assert source.info.traits.key_release == "followers"
            [warning] = source.info.warnings
        assert 'set ordering = "key"' in warning
        async with rig.source("bills.fifo", Demand(ordered=True)) as source:
            assert source.info.warnings == ()


async def test_dead_letters_that_are_kept_no_longer_than_events_are_a_warning() -> None:
    """What SQS moves keeps its age: it is gone before anybody looks at it."""
    async with rigged() as rig:
        await rig.set_attributes("orders-dlq", MessageRetentionPeriod="3600")
        async with rig.source() as source:
            [warning] = source.info.warnings

    assert "raise its MessageRetentionPeriod" in warning


async def test_a_dead_letter_queue_that_is_not_there_is_a_warning_and_not_used() -> None:
    """SQS drops what it cannot move only at the end of its retention; we must not start as if there were one."""
    async with rigged() as rig:
        policy = json.dumps({"deadLetterTargetArn": "arn:aws:sqs:local:000000000000:gone", "maxReceiveCount": 7})
        await rig.call("delete_queue", QueueUrl=rig.url("orders-dlq"))
        rig.trouble.errors = {}
        async with rig.source() as source:
            info = source.info

    assert info.dead_letters is None
    assert any("its dead-letter queue" in warning for warning in info.warnings), policy


async def test_a_queue_that_is_not_there_is_named_with_where_it_was_looked_for() -> None:
    """The usual reasons are a typing error, the wrong region and the wrong account."""
    async with rigged() as rig:
        with pytest.raises(SourceNotFound, match=r"no queue missing in .* at http://127.0.0.1:\d+ .*its region"):
            async with rig.source("missing"):
                pass
        with pytest.raises(SourceNotFound, match="no queue missing"):
            async with rig.sink("missing"):
                pass


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("AccessDenied", "a worker needs sqs:GetQueueUrl"),
        ("ExpiredToken", "the credentials have expired"),
        ("InvalidClientTokenId", "the credentials are wrong"),
    ],
)
async def test_credentials_that_will_not_do_are_told_with_the_mend(code: str, told: str) -> None:
    """One clear line, and no second try: nothing will change by itself."""
    async with rigged() as rig:
        rig.trouble.errors = dict.fromkeys(["GetQueueUrl", "GetQueueAttributes"], SqsError(code, "no"))
        with pytest.raises(AccessDenied, match=told):
            async with rig.source():
                pass
        assert len(rig.trouble.calls) == 1


async def test_a_sink_needs_no_permission_to_look_at_its_queue() -> None:
    """A producer that may only send is common, and good practice."""
    async with rigged() as rig:
        rig.trouble.errors = {"GetQueueAttributes": SqsError("AccessDenied", "no")}
        async with rig.sink() as sink:
            assert await sink.publish([Outgoing(body=b"{}")]) == [DONE]


async def test_without_credentials_the_ways_to_give_some_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing a newcomer meets."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    address = Address.parse("sqs://orders?region=eu-north-1&endpoint=http://127.0.0.1:9")

    with pytest.raises(AccessDenied, match=r"no credentials .*AWS_PROFILE"):
        async with adapter.open_source(address, Demand()):
            pass

    with pytest.raises(ConfigurationError, match=r"in which region\? .*\?region="):
        async with adapter.open_sink(Address.parse("sqs://orders")):
            pass


async def test_where_nobody_listens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local server that was not started, a network without a way out."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    address = Address.parse("sqs://orders?region=eu-north-1&endpoint=http://127.0.0.1:9")

    with pytest.raises(ConnectionLost, match=r"nobody answers at http://127\.0\.0\.1:9; start the local server"):
        async with adapter.open_source(address, Demand()):
            pass


def test_on_trio_it_says_that_it_cannot() -> None:
    """The SDK is made for asyncio; what it raises by itself on trio helps nobody."""

    async def main() -> None:
        async with adapter.open_source(Address.parse("sqs://orders?region=eu-north-1"), Demand()):
            pass

    with pytest.raises(UnsupportedByAdapter, match="asyncio only"):
        anyio.run(main, backend="trio")


async def test_the_backlog_counts_dead_letters_too() -> None:
    """What nobody may forget to look at."""
    async with rigged() as rig:
        await rig.publish(b"1", b"2", b"3", Outgoing(body=b"4", delay=30.0))
        await rig.publish(b"dead", queue="orders-dlq")
        async with rig.source() as source:
            assert isinstance(source, Backlog)
            [_] = await source.receive(1, 1.0)
            assert await source.depth() == Depth(ready=2, delayed=1, leased=1, dead=1)

            rig.trouble.errors = {"GetQueueAttributes": SqsError("AccessDenied", "no")}
            assert await source.depth() is None
