"""Data as the type a handler asks for."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, NewType, TypedDict

import msgspec
import pydantic
import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st

from eventkit._codec import Codec, Decoding
from eventkit.errors import ConfigurationError, DecodeError
from tests.unit.test_codec import CE, STRUCTURED, delivery

QUAKE = b'{"magnitude":4.5,"place":{"name":"Oslo"},"ignored":true}'


class PlaceStruct(msgspec.Struct):
    name: str


class QuakeStruct(msgspec.Struct):
    magnitude: float
    place: PlaceStruct


@dataclass
class PlaceDataclass:
    name: str


@dataclass(frozen=True, slots=True)
class QuakeDataclass:
    magnitude: float
    place: PlaceDataclass
    tags: list[str] = field(default_factory=list)


class PlaceTyped(TypedDict):
    name: str


class QuakeTyped(TypedDict):
    magnitude: float
    place: PlaceTyped


class PlaceModel(pydantic.BaseModel):
    name: str


class QuakeModel(pydantic.BaseModel):
    magnitude: float
    place: PlaceModel


@pydantic.dataclasses.dataclass
class QuakePydantic:
    magnitude: float
    place: PlaceModel


@dataclass
class QuakeMixed:
    magnitude: float
    place: PlaceModel


class QuakeTypedMixed(typing_extensions.TypedDict):
    magnitude: float
    place: PlaceModel


class Lazy(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(defer_build=True)
    magnitude: float


class Tree(pydantic.BaseModel):
    magnitude: float
    children: list[Tree] = []


class Opaque:
    """Nothing JSON could become."""


class HoldsOpaque(msgspec.Struct):
    inner: list[Opaque]


class HoldsModel(msgspec.Struct):
    place: PlaceModel


class Loop(msgspec.Struct):
    magnitude: float = 0.0
    inner: Loop | None = None


def decode(data_type: Any, data: bytes) -> Any:
    """`data` as the body of a plain delivery, and as the data of a CloudEvent: they must be the same."""
    codec = Codec(Decoding(), "quakes")
    decode_data = codec.decoder(data_type)
    plain = decode_data(codec.read(delivery(data)))
    event = msgspec.json.encode({**CE, "data": msgspec.Raw(data)})
    assert decode_data(codec.read(delivery(event, STRUCTURED))) == plain
    return plain


@pytest.mark.parametrize(
    ("data_type", "expected"),
    [
        (QuakeStruct, QuakeStruct(4.5, PlaceStruct("Oslo"))),
        (QuakeDataclass, QuakeDataclass(4.5, PlaceDataclass("Oslo"))),
        (QuakeTyped, {"magnitude": 4.5, "place": {"name": "Oslo"}}),
        (dict, {"magnitude": 4.5, "place": {"name": "Oslo"}, "ignored": True}),
        (dict[str, Any], {"magnitude": 4.5, "place": {"name": "Oslo"}, "ignored": True}),
        (Any, {"magnitude": 4.5, "place": {"name": "Oslo"}, "ignored": True}),
        (object, {"magnitude": 4.5, "place": {"name": "Oslo"}, "ignored": True}),
        (QuakeModel, QuakeModel(magnitude=4.5, place=PlaceModel(name="Oslo"))),
        (QuakePydantic, QuakePydantic(4.5, PlaceModel(name="Oslo"))),
        (QuakeMixed, QuakeMixed(4.5, PlaceModel(name="Oslo"))),
        (QuakeTypedMixed, {"magnitude": 4.5, "place": PlaceModel(name="Oslo")}),
        (Annotated[dict, "any"], {"magnitude": 4.5, "place": {"name": "Oslo"}, "ignored": True}),
        (QuakeModel | None, QuakeModel(magnitude=4.5, place=PlaceModel(name="Oslo"))),
        (NewType("Quake", QuakeModel), QuakeModel(magnitude=4.5, place=PlaceModel(name="Oslo"))),
        (Lazy, Lazy(magnitude=4.5)),
        (Tree, Tree(magnitude=4.5)),
        (Loop, Loop(4.5)),
        (bytes, QUAKE),
        (str, QUAKE.decode()),
    ],
    ids=str,
)
def test_an_object_is_decoded_as_every_kind_of_type(data_type: Any, expected: object) -> None:
    """Users bring the types they have."""
    assert decode(data_type, QUAKE) == expected


@pytest.mark.parametrize("data_type", [list, list[int], tuple[int, ...], Iterable, set[int]])
def test_an_array_is_decoded_as_every_kind_of_collection(data_type: Any) -> None:
    """An event's data need not be an object."""
    codec = Codec(Decoding(), "quakes")

    assert list(codec.decoder(data_type)(codec.read(delivery(b"[1, 2]")))) == [1, 2]


@pytest.mark.parametrize("data_type", [list[QuakeModel], dict[str, list[QuakeModel]]])
def test_pydantic_models_are_found_inside_other_types(data_type: Any) -> None:
    """To msgspec the model is a class it does not know."""
    codec = Codec(Decoding(), "quakes")
    data = b"[" + QUAKE + b"]" if data_type == list[QuakeModel] else b'{"a":[' + QUAKE + b"]}"
    found = codec.decoder(data_type)(codec.read(delivery(data)))

    assert (found["a"] if isinstance(found, dict) else found)[0].place.name == "Oslo"


def test_pydantic_constraints_on_plain_types_are_kept() -> None:
    """Metadata of others means nothing to msgspec: it would let the value pass."""
    codec = Codec(Decoding(), "quakes")
    decode_data = codec.decoder(Annotated[int, pydantic.Field(gt=3)])

    assert decode_data(codec.read(delivery(b"4"))) == 4
    with pytest.raises(DecodeError):
        decode_data(codec.read(delivery(b"3")))


@pytest.mark.parametrize(
    ("content_type", "data", "text"),
    [
        (None, b'"caf\\u00e9"', "café"),
        (None, b' "a\\nb"', "a\nb"),
        ("application/json", '"é"'.encode(), "é"),
        ("application/json", b'{"a": 1}', '{"a": 1}'),
        ("application/json", b"", ""),
        ("text/plain", b'"quoted"', '"quoted"'),
        ("application/octet-stream", "é".encode(), "é"),
        ("text/plain", b"", ""),
    ],
)
def test_text_is_what_a_json_string_says_or_the_data_itself(content_type: str | None, data: bytes, text: str) -> None:
    """A handler of str wants the text, not its quoted form."""
    codec = Codec(Decoding(), "quakes")

    assert codec.decoder(str)(codec.read(delivery(data, content_type))) == text


@pytest.mark.parametrize(
    "data", [b"\xff", b'"\xff"', b'"a', b'"\\ud800"', b'\xef\xbb\xbf"a"', b'"a" 1', b'"' + b"[" * 70]
)
def test_text_must_be_good_utf_8_and_good_json(data: bytes) -> None:
    """T6, for handlers of str."""
    codec = Codec(Decoding(), "quakes")

    with pytest.raises(DecodeError):
        codec.decoder(str)(codec.read(delivery(data, "application/json")))


def test_octets_are_handed_over_unread() -> None:
    """Lazy where nobody asks: a handler of bytes pays for no JSON, and gets what was sent, good or bad."""
    codec = Codec(Decoding(max_depth=1), "quakes")
    for body in (b"\xff\xfe[[[[", b"", b'{"a":{"b":{}}}'):
        envelope = codec.read(delivery(body, "application/json"))

        assert codec.decoder(bytes)(envelope) is envelope.data
        assert envelope.data is body or body == b""


def test_octets_of_an_event_are_its_data() -> None:
    """The data of a CloudEvent, not its envelope."""
    codec = Codec(Decoding(), "quakes")
    event = msgspec.json.encode({**CE, "data": msgspec.Raw(b'{"a": [1]}')})

    assert codec.decoder(bytes)(codec.read(delivery(event, STRUCTURED))) == b'{"a": [1]}'


def test_no_data_reads_as_null() -> None:
    """A handler says by its type whether it can do without."""
    codec = Codec(Decoding(), "quakes")
    for envelope in (
        codec.read(delivery(b"", "application/json")),
        codec.read(delivery(msgspec.json.encode(CE), STRUCTURED)),
        codec.read(delivery(b"", None, {"ce-" + name: value for name, value in CE.items()})),
    ):
        for data_type in (type(None), None, Any, QuakeStruct | None, QuakeModel | None):
            assert codec.decoder(data_type)(envelope) is None
        with pytest.raises(DecodeError, match=r"\$: expected object, got null"):
            codec.decoder(QuakeStruct)(envelope)


def test_octets_that_are_json_are_decoded_for_a_handler_of_a_type() -> None:
    """Not every publisher sets a content type: the handler's type decides."""
    codec = Codec(Decoding(), "quakes")
    event = msgspec.json.encode(CE | {"data_base64": QUAKE})
    for envelope in (codec.read(delivery(QUAKE, "application/octet-stream")), codec.read(delivery(event, STRUCTURED))):
        assert codec.decoder(QuakeStruct)(envelope).magnitude == 4.5


def test_data_in_base64_meets_the_limits_too() -> None:
    """T4: the envelope's check saw only the base64 text."""
    codec = Codec(Decoding(), "quakes")
    event = msgspec.json.encode(CE | {"data_base64": b"[" * 100 + b"]" * 100})

    with pytest.raises(DecodeError, match="nested deeper than 64"):
        codec.decoder(list)(codec.read(delivery(event, STRUCTURED)))


@pytest.mark.parametrize(
    ("data_type", "named"),
    [
        (Opaque, "Opaque"),
        (HoldsOpaque, "HoldsOpaque cannot be decoded: nothing in JSON becomes Opaque"),
        (HoldsModel, "HoldsModel cannot be decoded: nothing in JSON becomes PlaceModel"),
        (list[Opaque], "Opaque"),
        (dict[str, list[Opaque]], "Opaque"),
        (int | Opaque, "Opaque"),
        (Callable[[], int], "Callable"),
        (complex, "complex"),
        (QuakeStruct | QuakeDataclass, "QuakeStruct"),
        ("Quake", "Quake"),
        (list["Unknown"], "Unknown"),  # type: ignore[name-defined]  # noqa: F821
        (5, "5"),
        (dict[str, PlaceModel | Opaque], "Opaque"),
        (tuple[QuakeModel, QuakeStruct], "QuakeStruct"),
    ],
    ids=str,
)
def test_a_type_that_cannot_be_decoded_is_an_error_at_start(data_type: Any, named: str) -> None:
    """Not one dead letter after the other."""
    with pytest.raises(ConfigurationError) as caught:
        Codec(Decoding(), "quakes").decoder(data_type)

    assert "cannot be decoded" in str(caught.value)
    assert named in str(caught.value)


def test_a_name_that_cannot_be_resolved_is_an_error_at_start() -> None:
    """The usual mistake with `from __future__ import annotations` and an import under TYPE_CHECKING."""

    class Broken(msgspec.Struct):
        inner: Missing  # type: ignore[name-defined]  # noqa: F821

    class BrokenModel(pydantic.BaseModel):
        inner: Missing  # type: ignore[name-defined]  # noqa: F821

    @dataclass
    class BrokenDataclass:
        inner: Missing  # type: ignore[name-defined]  # noqa: F821

    for data_type in (Broken, BrokenModel, BrokenDataclass, list[Broken]):
        with pytest.raises(ConfigurationError, match=r"Broken.* cannot be decoded: .*Missing"):
            Codec(Decoding(), "quakes").decoder(data_type)


def test_raw_gives_bytes_or_text_only() -> None:
    """Whoever says raw says that nothing is parsed."""
    codec = Codec(Decoding(format="raw"), "quakes")
    envelope = codec.read(delivery(b'"a"', "application/json"))

    assert codec.decoder(bytes)(envelope) == b'"a"'
    assert codec.decoder(str)(envelope) == '"a"'
    with pytest.raises(ConfigurationError, match="QuakeStruct cannot be decoded from raw bytes"):
        codec.decoder(QuakeStruct)


class Kind(enum.Enum):
    QUAKE = "quake"


class Whole(msgspec.Struct):
    text: str
    when: datetime
    kind: Kind
    many: dict[str, list[int]]
    octets: bytes


@given(
    st.builds(
        Whole,
        st.text(),
        st.datetimes(timezones=st.just(UTC)),
        st.just(Kind.QUAKE),
        st.dictionaries(st.text(), st.lists(st.integers(-(2**63), 2**63 - 1))),
        st.binary(),
    )
)
def test_what_msgspec_wrote_is_read_back(whole: Whole) -> None:
    """No limit or check stands in the way of ordinary data."""
    codec = Codec(Decoding(), "quakes")

    assert codec.decoder(Whole)(codec.read(delivery(msgspec.json.encode(whole)))) == whole


TYPES = [
    QuakeStruct,
    QuakeDataclass,
    QuakeTyped,
    QuakeModel,
    QuakePydantic,
    QuakeMixed,
    dict,
    Any,
    str,
    bytes,
    Loop,
    Tree,
]
CODECS = [
    Codec(Decoding(max_depth=8, max_elements=100), "quakes"),
    Codec(Decoding(format="cloudevents"), "quakes"),
    Codec(Decoding(format="json", max_digits=5), "quakes"),
]
DECODERS = [(codec, [codec.decoder(data_type) for data_type in TYPES]) for codec in CODECS]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["magnitude", "place", "name", "inner", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)
members = st.fixed_dictionaries(
    {"specversion": st.just("1.0") | json_values},
    optional={
        name: st.text(max_size=5) | json_values
        for name in ("id", "source", "type", "subject", "time", "datacontenttype", "data", "data_base64", "x")
    },
)


@given(
    st.binary() | st.text('[]{}",:\\ud8e-1.a').map(str.encode) | (json_values | members).map(msgspec.json.encode),
    st.sampled_from([None, "application/json", STRUCTURED, "text/plain", "image/png"]) | st.text(max_size=9),
    st.dictionaries(st.sampled_from(["type", *("ce-" + name for name in CE)]) | st.text(), st.text(), max_size=5),
)
def test_nothing_but_decode_error_comes_out(body: bytes, content_type: str, attributes: dict[str, str]) -> None:
    """P9: whatever the bytes, an event is rejected with a reason, and the worker lives."""
    for codec, decoders in DECODERS:
        try:
            envelope = codec.read(delivery(body, content_type, attributes))
        except DecodeError:
            continue
        for decode_data in decoders:
            with suppress(DecodeError):
                decode_data(envelope)
