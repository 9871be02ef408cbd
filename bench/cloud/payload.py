"""The one message of these benchmarks, 200 bytes of JSON, and what is done with it by hand."""

from __future__ import annotations

import time

import msgspec

SIZE = 200


class Order(msgspec.Struct):
    """What the bytes hold. `sent` is in Unix seconds, and 0 where nobody asks."""

    id: str
    amount: float
    customer: str
    items: list[str]
    sent: float = 0.0
    note: str = ""


def body(sent: float = 0.0) -> str:
    """A message of `SIZE` bytes, sent now or never."""
    order = Order("abc123", 12.5, "cust-99", ["a" * 20, "b" * 20, "c" * 20], sent)
    order.note = "n" * (SIZE - len(msgspec.json.encode(order)))
    return msgspec.json.encode(order).decode()


decode = msgspec.json.Decoder(Order).decode

late: list[float] = []
"""How long each message was on its way, ms."""


async def nothing(order: Order) -> None:
    """Do nothing."""


async def note(order: Order) -> None:
    """Add to `late`."""
    late.append((time.time() - order.sent) * 1000)


HANDLERS = {"nothing": nothing, "note": note}
