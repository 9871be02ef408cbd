"""What ends of a connection tell each other, and the bytes of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, ClassVar, Final

import msgspec

from eventkit_servicebus._local._decode import decode
from eventkit_servicebus._local._encode import as_list, encode
from eventkit_servicebus._local._errors import AmqpError, CodecError
from eventkit_servicebus._local._types import Array, Described, Symbol, Ubyte, Uint, Ulong, Ushort


class Performative(msgspec.Struct, gc=False):
    """A list with a descriptor. A field that is not there is None; `types` are those that its fields may have."""

    code: ClassVar[int]
    types: ClassVar[tuple[Any, ...]]
    required: ClassVar[int] = 0
    """So many fields of the first must be there."""


class Open(Performative):
    """The first word of each end."""

    code = 0x10
    types = (str, str, Uint, Ushort, Uint, object, object, object, object, dict)
    required = 1
    container: str
    hostname: str | None = None
    max_frame_size: int | None = None
    channel_max: int | None = None
    idle_time_out: int | None = None
    outgoing_locales: Any = None
    incoming_locales: Any = None
    offered: Any = None
    desired: Any = None
    properties: dict[Any, Any] | None = None


class Begin(Performative):
    """A session begins."""

    code = 0x11
    types = (Ushort, Uint, Uint, Uint, Uint, object, object, dict)
    remote_channel: int | None = None
    next_outgoing_id: int | None = None
    incoming_window: int | None = None
    outgoing_window: int | None = None
    handle_max: int | None = None
    offered: Any = None
    desired: Any = None
    properties: dict[Any, Any] | None = None


class Attach(Performative):
    """A link is attached. `receiver` is the role of the one who says it."""

    code = 0x12
    types = (
        *(str, Uint, bool, Ubyte, Ubyte, Described, Described, dict, bool, Uint, Ulong),
        *(object, object, dict),
    )
    required = 3
    name: str
    handle: int
    receiver: bool
    snd_settle_mode: int | None = None
    rcv_settle_mode: int | None = None
    source: Described | None = None
    target: Described | None = None
    unsettled: dict[Any, Any] | None = None
    incomplete_unsettled: bool | None = None
    initial_delivery_count: int | None = None
    max_message_size: int | None = None
    offered: Any = None
    desired: Any = None
    properties: dict[Any, Any] | None = None


class Flow(Performative):
    """How much more may come: in a session, and with a handle on a link."""

    code = 0x13
    types = (Uint, Uint, Uint, Uint, Uint, Uint, Uint, Uint, bool, bool, dict)
    next_incoming_id: int | None = None
    incoming_window: int | None = None
    next_outgoing_id: int | None = None
    outgoing_window: int | None = None
    handle: int | None = None
    delivery_count: int | None = None
    link_credit: int | None = None
    available: int | None = None
    drain: bool | None = None
    echo: bool | None = None
    properties: dict[Any, Any] | None = None


class Transfer(Performative):
    """A part of a message, or all of it; the bytes stand after it in the frame."""

    code = 0x14
    types = (Uint, Uint, bytes, Uint, bool, bool, Ubyte, Described, bool, bool, bool)
    required = 1
    handle: int
    delivery_id: int | None = None
    delivery_tag: bytes | None = None
    message_format: int | None = None
    settled: bool | None = None
    more: bool | None = None
    rcv_settle_mode: int | None = None
    state: Described | None = None
    resume: bool | None = None
    aborted: bool | None = None
    batchable: bool | None = None


class Disposition(Performative):
    """What has become of deliveries."""

    code = 0x15
    types = (bool, Uint, Uint, bool, Described, bool)
    required = 2
    receiver: bool
    first: int
    last: int | None = None
    settled: bool | None = None
    state: Described | None = None
    batchable: bool | None = None


class Detach(Performative):
    """A link ends."""

    code = 0x16
    types = (Uint, bool, Described)
    required = 1
    handle: int
    closed: bool | None = None
    error: Described | None = None


class End(Performative):
    """A session ends."""

    code = 0x17
    types = (Described,)
    error: Described | None = None


class Close(Performative):
    """The last word of each end."""

    code = 0x18
    types = (Described,)
    error: Described | None = None


class SaslMechanisms(Performative):
    """How a client may say who it is."""

    code = 0x40
    types = (object,)
    mechanisms: Any = None


class SaslInit(Performative):
    """Who the client says it is."""

    code = 0x41
    types = (Symbol, bytes, str)
    required = 1
    mechanism: str
    initial_response: bytes | None = None
    hostname: str | None = None


class SaslOutcome(Performative):
    """Whether it is believed."""

    code = 0x44
    types = (Ubyte, bytes)
    required = 1
    result: int
    additional: bytes | None = None


_ALL: Final = (
    *(Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close),
    *(SaslMechanisms, SaslInit, SaslOutcome),
)
_KINDS: Final[dict[int, tuple[type[Performative], tuple[tuple[type, ...], ...], bytes]]] = {
    kind.code: (
        kind,
        tuple((type, NoneType) if place >= kind.required else (type,) for place, type in enumerate(kind.types)),
        bytes((0x00, 0x53, kind.code)),
    )
    for kind in _ALL
}


def read(body: bytes) -> tuple[Performative, int]:
    """The performative that a frame begins with, and where its payload begins. Raises CodecError."""
    value, end = decode(body)
    if not isinstance(value, Described) or not isinstance(value.value, list):
        raise CodecError("a frame that holds no performative")
    known = _KINDS.get(value.descriptor) if isinstance(value.descriptor, Ulong) else None
    if known is None:
        raise CodecError("a frame with a performative that AMQP does not have")
    kind, types, _ = known
    fields = value.value
    if not kind.required <= len(fields) <= len(types):
        raise CodecError(f"{kind.__name__} with {len(fields)} fields")
    for field, allowed in zip(fields, types, strict=False):
        if not isinstance(field, allowed):
            raise CodecError(f"{kind.__name__} with a {type(field).__name__} in the wrong place")
    return kind(*fields), end


def written(performative: Performative) -> bytes:
    """Its bytes, with every field, null or not: some clients look for them at their place.

    Numbers are given the type that the field has.
    """
    kind = type(performative)
    fields = [
        encode(value if value is None or type(value) is wanted or wanted is object else wanted(value))
        for value, wanted in zip(msgspec.structs.astuple(performative), kind.types, strict=True)
    ]
    return _KINDS[kind.code][2] + as_list(b"".join(fields), len(fields))


def confirmed(id: int, *, receiver: bool) -> bytes:
    """A disposition that says of one delivery that it is accepted and settled: the one that is said most."""
    fields = (b"\x41" if receiver else b"\x42") + encode(Uint(id)) + b"\x40\x41\x00\x53\x24\x45\x40"
    return b"\x00\x53\x15" + as_list(fields, 6)


# -- what stands in their fields -------------------------------------------------------------------

ACCEPTED: Final = Described(Ulong(0x24), [])
RELEASED: Final = Described(Ulong(0x26), [])
MODIFIED: Final = Described(Ulong(0x27), [])


def error(refusal: AmqpError) -> Described:
    """Why something ends: always three fields, which clients count on."""
    return Described(Ulong(0x1D), [Symbol(refusal.condition), refusal.description, None])


def rejected(refusal: AmqpError | None) -> Described:
    """The outcome of what was refused; without a reason, that of what was dead-lettered as asked."""
    return Described(Ulong(0x25), [error(refusal)] if refusal is not None else [])


def fields(value: Described | None, code: int) -> list[Any] | None:
    """The fields of a described list, if it has this descriptor, by number or by name's end."""
    if value is None or value.descriptor != code or not isinstance(value.value, list):
        return None
    return value.value


def field(items: list[Any], place: int, kind: Any) -> Any:
    """The field at `place`, None if it is not there. Raises CodecError if it is no `kind`."""
    value = items[place] if place < len(items) else None
    if value is not None and not isinstance(value, kind):
        raise CodecError(f"a {type(value).__name__} in the wrong place")
    return value


def symbols(*names: str) -> Array:
    """An array of symbols."""
    return Array(0xA3, tuple(map(Symbol, names)))


def properties(values: Mapping[str, Any]) -> dict[Any, Any]:
    """A map with symbols as keys."""
    return {Symbol(name): value for name, value in values.items()}
