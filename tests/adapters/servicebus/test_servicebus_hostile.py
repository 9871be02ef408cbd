"""What other senders write, and what no SDK can read: everything ends somewhere, and nothing goes round and round."""

from __future__ import annotations

import uuid
from typing import Any

import anyio
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageHeader, AmqpMessageProperties
from eventkit_servicebus._local._encode import encode
from eventkit_servicebus._local._types import (
    Array,
    Byte,
    Char,
    Decimal,
    Described,
    Float,
    Int,
    Long,
    Short,
    Symbol,
    Timestamp,
    Ubyte,
    Uint,
    Ulong,
    Ushort,
)

from eventkit.errors import AdapterError
from eventkit.spi import DONE, Delivery, Extended, SettledKind
from tests.adapters.servicebus.adapter_support import (
    BILLS,
    ORDERED,
    bodies,
    foreign,
    receipts,
    received,
    rigged,
    written,
)

UNREADABLE = written(b"unreadable", properties={"n": Decimal(b"\x30" + bytes(14) + b"\x0f")})
"""A decimal of 16 bytes: the SDK's decoder overflows."""
ID = uuid.UUID(int=7)


def value(value: Any, *more: bytes) -> bytes:
    return b"".join(more) + encode(Described(Ulong(0x77), value))


def sequence(*values: list[Any]) -> bytes:
    return b"".join(encode(Described(Ulong(0x76), each)) for each in values)


def fields(*items: Any) -> bytes:
    return encode(Described(Ulong(0x73), list(items)))


def applied(properties: dict[Any, Any]) -> bytes:
    return encode(Described(Ulong(0x74), properties))


EVERY_TYPE = {
    "null": None,
    "true": True,
    "ubyte": Ubyte(200),
    "ushort": Ushort(60_000),
    "uint": Uint(2**32 - 1),
    "ulong": Ulong(2**64 - 1),
    "byte": Byte(-7),
    "short": Short(-7),
    "int": Int(-7),
    "long": Long(-(2**63)),
    "float": Float(1.5),
    "double": float("nan"),
    "timestamp": Timestamp(1_700_000_000_000),
    "far": Timestamp(2**62),
    "uuid": ID,
    "binary": b"\xff\x00",
    "string": "äöü\x00",
    "symbol": Symbol("sym"),
    "list": [Int(1), "two", [b"\xff"]],
    "map": {"a": {"b": Long(2**40)}},
    "array": Array(0x71, (Int(1), Int(2))),
    "": "nameless",
    "eventkit-key": Long(5),
    "eventkit-copy": "{no json",
    "eventkit-content-type": b"\xff",
}


async def all_of(source: Any, number: int, within: float = 8.0) -> list[Delivery]:
    """So many, whatever the receives between raise."""
    found: list[Delivery] = []
    with anyio.fail_after(within):
        while len(found) < number:
            try:
                found += await source.receive(number - len(found), 0.5)
            except AdapterError:
                await anyio.sleep(0.05)
    return found


async def test_what_other_senders_write_arrives_whatever_its_type() -> None:
    """As text or bytes, once, and settled like any other; a retry of it is the same again."""
    sent = {
        "nothing": fields("nothing"),
        "empty": fields("empty") + value(None),
        "text": fields("text") + value("äöü"),
        "binary": fields("binary") + value(b"\xff\x00"),
        "number": fields("number") + value(Long(2**40)),
        "map": fields("map") + value({"a": [Int(1), None, {"b": ID}]}),
        "list": fields("list") + sequence([Int(1), "two"], [None]),
        "sections": fields("sections") + encode(Described(Ulong(0x75), b"a")) + encode(Described(Ulong(0x75), b"b")),
        "types": fields("types") + applied(EVERY_TYPE) + encode(Described(Ulong(0x75), b"typed")),
        "keys": fields("keys") + applied({Symbol("s"): "1", b"b": "2"}) + value("keyed"),
        "large": fields("large") + applied({"huge": "x" * 100_000}) + encode(Described(Ulong(0x75), b"large")),
        "footed": fields("footed") + value("f") + encode(Described(Ulong(0x78), {Symbol("a"): "b"})),
    }
    odd_id = fields(
        Ulong(7), b"user", "to", "subject", "reply", ID, Symbol("a/b"), Symbol("gzip"), Timestamp(1), Timestamp(2)
    )
    async with rigged() as rig, rig.source() as source:
        await foreign(rig, *sent.values(), odd_id + value("odd"))
        found = {each.message_id: each for each in await received(source, 13)}
        assert found.keys() == sent.keys() | {"7"}
        assert {
            "nothing": b"",
            "empty": b"",
            "text": "äöü".encode(),
            "binary": b"\xff\x00",
            "number": b"1099511627776",
            "sections": b"ab",
            "large": b"large",
        }.items() <= {name: each.body for name, each in found.items()}.items()
        assert found["list"].body == b'[1,"two",null]'
        assert found["list"].content_type == found["map"].content_type == "application/json"
        types = found["types"]
        assert types.body == b"typed"
        assert {
            "ulong": str(2**64 - 1),
            "byte": "-7",
            "true": "true",
            "symbol": "sym",
        }.items() <= types.attributes.items()
        assert "null" not in types.attributes
        assert types.delivery_count == 1
        assert found["7"].content_type == "a/b"
        assert [type(each) for each in await source.extend(receipts([*found.values()]), 30.0)] == [Extended] * 13
        large = found.pop("large")
        rest = [*found.values()]
        assert await source.nack([(each.receipt, 10.0) for each in rest]) == [DONE] * 12
        [refused] = await source.nack([(large.receipt, 10.0)])
        assert refused.kind is SettledKind.REFUSED
        assert await source.ack([large.receipt]) == [DONE]
        rig.skip(11.0)
        again = {each.message_id: each for each in await received(source, 12)}
        for name, each in again.items():
            assert (each.body, each.attributes, each.delivery_count) == (found[name].body, found[name].attributes, 2), (
                name
            )
        assert await source.ack(receipts([*again.values()])) == [DONE] * 12

    assert rig.server.counts().acked == 12 + 12 + 1


async def test_what_the_sdk_itself_can_write_arrives() -> None:
    """Messages of values and of sequences, with a header and annotations of their own."""
    header = AmqpMessageHeader(time_to_live=60_000, priority=9, durable=True)
    made = [
        AmqpAnnotatedMessage(value_body={"a": 1}, header=header, application_properties={"n": 1.5, "id": ID}),
        AmqpAnnotatedMessage(sequence_body=[[1, "a"], [None]], annotations={"x-opt-mine": 5}),
        AmqpAnnotatedMessage(data_body=[b"a", b"b"], properties=AmqpMessageProperties(message_id="3", group_id="g")),
        AmqpAnnotatedMessage(value_body=None),
    ]
    async with rigged() as rig, rig.source() as source:
        async with (
            ServiceBusClient.from_connection_string(rig.server.connection_string, retry_total=0) as client,
            client.get_queue_sender("orders") as sender,
        ):
            await sender.send_messages(made)
        found = await received(source, 4)
        assert bodies(found) == [b'{"a":1}', b'[1,"a",null]', b"ab", b""]
        assert (found[0].attributes["n"], found[2].key) == ("1.5", "g")
        assert await source.ack(receipts(found)) == [DONE] * 4


async def test_a_message_that_nobody_can_read_is_a_dead_letter_and_nothing_else_is() -> None:
    """The SDK's decoder raises for it, which left alone ends the receiver, with all that came beside it."""
    odd = [
        UNREADABLE,
        written(b"c", properties={"c": Char("c")}),
        written(b"d", properties={"d": Decimal(b"\x22" * 4)}),
        written(b"in several frames" * 8_000, properties={"c": Char("c")}),
    ]
    good = [b"%d" % n for n in range(20)]
    async with rigged(max_deliveries=3) as rig, rig.source() as source:
        await foreign(rig, written(b"a"), *odd, *[written(each) for each in good])
        found = await all_of(source, 21)
        assert await source.ack(receipts(found)) == [DONE] * 21
        assert sorted(bodies(found)) == sorted([b"a", *good])
        assert rig.trouble.of("attach").count("receiver") == 1
        assert rig.trouble.of("settle").count("dead-letter") == rig.server.counts().dead == len(odd)
        async with rig.source("orders/$DeadLetterQueue") as letters:
            assert await letters.receive(10, 0.5) == [], "nobody can read them there either"


async def test_a_session_with_a_message_that_nobody_can_read_goes_on() -> None:
    """Left to its lock, it would be given again as if it had never been delivered, for ever."""
    async with rigged(max_deliveries=2) as rig, rig.source(BILLS, ORDERED) as source:
        broken = written(b"x", session="bad", properties={"n": Decimal(b"\x30" + bytes(14) + b"\x0f")})
        await foreign(rig, broken, written(b"bad1", session="bad"), written(b"good", session="good"), queue=BILLS)
        found = await all_of(source, 2)
        await source.ack(receipts(found))
        assert sorted(bodies(found)) == [b"bad1", b"good"]
        assert rig.server.counts().dead == 1


async def test_bytes_that_are_no_message_stop_nobody() -> None:
    """Nor do they come for ever."""
    rubbish = [
        b"\xff\xff\xff",
        b"\x00\x53\x75\xb0\xff\xff\xff\xff",
        b"\x00\x53\x74\xc1\x05\x04",
        encode(Described(Ulong(0x99), "?")),
    ]
    async with rigged(max_deliveries=2) as rig, rig.source() as source:
        taken = 0
        for each in rubbish:
            try:
                await foreign(rig, each)
                taken += 1
            except (AssertionError, EOFError):
                pass
        await foreign(rig, written(b"good"))
        found = await all_of(source, 1)
        while b"good" not in bodies(found):
            found += await all_of(source, 1)
        await source.ack(receipts(found))
        assert rig.trouble.of("attach").count("receiver") <= 1 + taken
