"""P10: what a DecodeError says may go to logs and dead letters, so it holds the place and never a value."""

from __future__ import annotations

import enum
import json
import traceback
import uuid
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pydantic_core
import pytest

from eventkit._codec import Codec, Decoding
from eventkit.errors import DecodeError
from tests.unit.test_codec import CE, EVENT, STRUCTURED, delivery

CANARY = "CANARY-7731"
NUMBER = 77317731


class Kind(enum.Enum):
    A = "a"


class Level(enum.IntEnum):
    LOW = 1


class Strange(enum.Enum):
    A = "a"

    @classmethod
    def _missing_(cls, value: object) -> Strange:
        raise ValueError(f"no {value}")


class Left(msgspec.Struct, tag="left"):
    x: int


class Right(msgspec.Struct, tag="right"):
    y: int


class One(msgspec.Struct, tag=1):
    x: int


class Two(msgspec.Struct, tag=2):
    y: int


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    a: int = 0
    inner: Strict | None = None


@dataclass
class Refuses:
    x: str

    def __post_init__(self) -> None:
        raise ValueError(f"Expected `{self.x}` - at `$.{self.x}`")


@dataclass
class Fails:
    x: str

    def __post_init__(self) -> None:
        raise RuntimeError(self.x)


class Pretends(msgspec.Struct):
    x: str

    def __post_init__(self) -> None:
        raise msgspec.ValidationError(f"Expected `int`, got `{self.x}` - at `$.{self.x}`")


class PretendsToDecode(msgspec.Struct):
    x: str

    def __post_init__(self) -> None:
        raise DecodeError(self.x)


class Typed(TypedDict):
    a: int


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Aliased(pydantic.BaseModel):
    by_alias: int = pydantic.Field(alias="byAlias")


class Paths(pydantic.BaseModel):
    deep: int = pydantic.Field(validation_alias=pydantic.AliasPath("outer", "inner"))


class Choices(pydantic.BaseModel):
    deep: int = pydantic.Field(validation_alias=pydantic.AliasChoices("first", pydantic.AliasPath("second", 0)))


class Closed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    a: int = 0


class Checked(pydantic.BaseModel):
    x: str

    @pydantic.field_validator("x")
    @classmethod
    def check(cls, value: str) -> str:
        raise ValueError(f"bad {value}")


class Asserted(pydantic.BaseModel):
    x: str

    @pydantic.field_validator("x")
    @classmethod
    def check(cls, value: str) -> str:
        assert not value, f"bad {value}"
        return value


class Custom(pydantic.BaseModel):
    x: str

    @pydantic.field_validator("x")
    @classmethod
    def check(cls, value: str) -> str:
        raise pydantic_core.PydanticCustomError(value, "bad {value}", {"value": value})


class Crashes(pydantic.BaseModel):
    x: str

    @pydantic.field_validator("x")
    @classmethod
    def check(cls, value: str) -> str:
        raise RuntimeError(value)


class CrashesInMsgspec(pydantic.BaseModel):
    x: str

    @pydantic.field_validator("x")
    @classmethod
    def check(cls, value: str) -> str:
        raise msgspec.ValidationError(f"Expected `{value}`")


@pydantic.dataclasses.dataclass
class ModelDataclass:
    a: int
    b: int = pydantic.Field(0, alias="bee")


Deep = dict[str, dict[str, list[int]]]
Trickster = f"x` - at `$.{CANARY}"

CASES: list[tuple[Any, object, str]] = [
    (int, CANARY, "$: expected int, got str"),
    (Strict, {"a": CANARY}, "$.a: expected int, got str"),
    (Strict, {"inner": {"a": CANARY}}, "$.inner.a: expected int, got str"),
    (Typed, {"a": CANARY}, "$.a: expected int, got str"),
    (Typed, {CANARY: 1}, "$.a: required, and missing"),
    (list[Typed], [{"a": 1}, {CANARY: 1}], "$[1].a: required, and missing"),
    (Literal["x", "y"], CANARY, "$: not one of the allowed values"),
    (list[Literal[1, 2]], [1, NUMBER], "$[1]: not one of the allowed values"),
    (dict[str, Kind], {CANARY: CANARY}, "$[...]: not one of the allowed values"),
    (Level, NUMBER, "$: not one of the allowed values"),
    (Strange, CANARY, "$: not one of the allowed values"),
    (Left | Right, {"type": CANARY}, "$.type: not one of the allowed values"),
    (Left | Right, {"type": NUMBER}, "$.type: expected str"),
    (One | Two, {"type": NUMBER}, "$.type: not one of the allowed values"),
    (datetime, CANARY, "$: invalid RFC3339 encoded datetime"),
    (date, CANARY, "$: invalid RFC3339 encoded date"),
    (time, CANARY, "$: invalid RFC3339 encoded time"),
    (timedelta, CANARY, "$: invalid ISO8601 duration"),
    (timedelta, "P1Y", "$: only units 'D', 'H', 'M', and 'S' are supported when parsing ISO8601 durations"),
    (Decimal, CANARY, "$: invalid decimal string"),
    (uuid.UUID, CANARY, "$: invalid UUID"),
    (list[bytes], [CANARY], "$[0]: invalid base64 encoded string"),
    (Annotated[str, msgspec.Meta(pattern="^a$")], CANARY, "$: expected str matching regex '^a$'"),
    (Annotated[int, msgspec.Meta(le=3)], NUMBER, "$: expected int <= 3"),
    (tuple[int, str], [1], "$: expected array of length 2"),
    (Deep, {CANARY: {CANARY: [1, CANARY]}}, "$[...][...][1]: expected int, got str"),
    (dict[int, int], {CANARY: 1}, "a key of $: expected int, got str"),
    (dict[int, int], {str(NUMBER): CANARY}, "$[...]: expected int, got str"),
    (dict[str, dict[int, int]], {"a": {CANARY: 1}}, "a key of $[...]: expected int, got str"),
    (Strict, {CANARY: 1}, "$: has a field its type does not know"),
    (Strict, {"inner": {CANARY: 1}}, "$.inner: has a field its type does not know"),
    (Strict, {Trickster: 1}, "$: has a field its type does not know"),
    (Strict, {"inner": {Trickster: 1}}, "$: has a field its type does not know"),
    (list[Literal["a"]], [Trickster], "$[0]: not one of the allowed values"),
    (Refuses, {"x": CANARY}, "$: refused by the type's own check (ValueError)"),
    (list[Refuses], [{"x": CANARY}], "$[0]: refused by the type's own check (ValueError)"),
    (dict[str, Refuses], {CANARY: {"x": CANARY}}, "$[...]: refused by the type's own check (ValueError)"),
    (Fails, {"x": CANARY}, "refused by the type's own check (RuntimeError)"),
    (list[Pretends], [{"x": CANARY}], "refused by the type's own check (ValidationError)"),
    (PretendsToDecode, {"x": CANARY}, "refused by the type's own check (DecodeError)"),
    (Cat, {"kind": CANARY, "lives": CANARY}, "$.kind: not valid: literal error (and 1 more)"),
    (list[Cat], [{"kind": "cat", "lives": CANARY}], "$[0].lives: expected int"),
    (Cat, {"kind": "cat"}, "$.lives: required, and missing"),
    (Cat, CANARY, "$: expected model"),
    (dict[str, Cat], {CANARY: {"kind": "cat", "lives": CANARY}}, "$[...].lives: expected int"),
    (dict[int, Cat], {str(NUMBER): {"kind": "cat", "lives": CANARY}}, "$[...].lives: expected int"),
    (dict[int, Cat], {CANARY: {"kind": "cat", "lives": 9}}, "$[...][...]: expected int"),
    (Cat | Dog, {"kind": CANARY}, "$[...].kind: not valid: literal error (and 2 more)"),
    (
        Annotated[Cat | Dog, pydantic.Field(discriminator="kind")],
        {"kind": CANARY},
        "$: not valid: union tag invalid",
    ),
    (Aliased, {"byAlias": CANARY}, "$.byAlias: expected int"),
    (Paths, {"outer": {"inner": CANARY}}, "$.outer.inner: expected int"),
    (Choices, {"second": [CANARY]}, "$.second[0]: expected int"),
    (Closed, {CANARY: 1}, "$[...]: not valid: extra forbidden"),
    (Checked, {"x": CANARY}, "$.x: refused by the type's own check"),
    (Asserted, {"x": CANARY}, "$.x: refused by the type's own check"),
    (Custom, {"x": CANARY}, "$.x: refused by the type's own check"),
    (Crashes, {"x": CANARY}, "refused by the type's own check (RuntimeError)"),
    (ModelDataclass, {"a": 1, "bee": CANARY}, "$.bee: expected int"),
]


def refusal(data_type: Any, data: bytes, **decoding: Any) -> DecodeError:
    codec = Codec(Decoding(**decoding), "quakes")
    decode = codec.decoder(data_type)
    with pytest.raises(DecodeError) as caught:
        decode(codec.read(delivery(data, "application/json")))
    return caught.value


def shown(error: BaseException) -> str:
    """All that a log with a traceback shows, and the text of a dead letter."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)


def assert_silent(error: BaseException) -> None:
    for line in shown(error).splitlines():
        # Lines of source are ours.
        assert CANARY not in line
        assert str(NUMBER) not in line


@pytest.mark.parametrize(("data_type", "value", "message"), CASES, ids=lambda case: str(case)[:60])
def test_the_place_is_named_and_no_value_is(data_type: Any, value: object, message: str) -> None:
    """The place is what a developer needs; the value may be somebody's name or a token."""
    error = refusal(data_type, json.dumps(value).encode())

    assert str(error) == message
    assert_silent(error)
    assert error.__suppress_context__


def test_an_error_of_msgspec_in_a_validator_is_not_taken_for_one_of_the_data() -> None:
    """Its text is the validator's. It is a ValueError, which pydantic catches, only in later versions."""
    error = refusal(CrashesInMsgspec, json.dumps({"x": CANARY}).encode())

    assert "refused by the type's own check" in str(error)
    assert_silent(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{{"a":"{CANARY}', "not JSON: input data was truncated"),
        (f'{{"a":{CANARY}}}', "not JSON: invalid character (byte 5)"),
        (f'{{"a":1}} {CANARY}', "not JSON: trailing characters (byte 9)"),
        (f'{{"{CANARY}":1e999}}', "$[...]: number out of range"),
        (f'{{"a":"{CANARY}\\q"}}', "not JSON: invalid escape character in string (byte 19)"),
        (f'"{CANARY}\udcff"', "not UTF-8 at byte 12"),
        (f"[{'9' * 65},{NUMBER}]", "a number has more than 64 digits (max_digits)"),
        (f'{{"{CANARY}":1,"{CANARY}":2}}', "an object has the same key twice"),
    ],
)
def test_what_is_no_json_is_not_quoted_either(text: str, message: str) -> None:
    """Parsers tend to show the text around the error."""
    for data_type in (object, dict[str, Any] | list[Any] | str, Annotated[Any, pydantic.Field()]):
        error = refusal(data_type, text.encode(errors="surrogateescape"), duplicate_keys="refuse")

        assert str(error) == message
        assert_silent(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"specversion": CANARY},
        {"id": NUMBER},
        {"id": f"{CANARY}\n"},
        {"source": CANARY * 200},
        {"type": [CANARY]},
        {"time": CANARY},
        {"subject": {CANARY: CANARY}},
        {"data_base64": CANARY},
        {"data_base64": "!" + CANARY, "data": ...},
        {CANARY: {CANARY: CANARY}},
        {CANARY: CANARY * 200},
        {CANARY * 50: CANARY},
        {CANARY + "\n": CANARY},
        {f"{CANARY}{number}": CANARY for number in range(40)},
    ],
    ids=str,
)
@pytest.mark.parametrize("content_type", [STRUCTURED, None])
def test_an_envelope_is_not_quoted(changes: dict[str, object], content_type: str | None) -> None:
    """Extensions carry tokens more often than one would think."""
    members = {name: value for name, value in (EVENT | {"extra": CANARY} | changes).items() if value is not ...}
    with pytest.raises(DecodeError) as caught:
        Codec(Decoding(), "quakes").read(delivery(msgspec.json.encode(members), content_type))

    assert_silent(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"ce-specversion": CANARY},
        {"ce-id": CANARY * 200},
        {"ce-time": CANARY},
        {"ce-subject": CANARY + "\n"},
        {f"ce-{CANARY}": CANARY + "\n"},
        {f"ce-{CANARY}\n": CANARY},
        {f"ce-{CANARY}" * 50: CANARY},
        {f"ce-{CANARY}": CANARY, f"CE-{CANARY}": CANARY},
        {f"{CANARY}{number}": CANARY for number in range(40)},
    ],
    ids=str,
)
def test_attributes_are_not_quoted(changes: dict[str, str]) -> None:
    """Nor are their names, which nobody but the sender chose."""
    attributes = {f"ce-{name}": value for name, value in CE.items()} | changes
    with pytest.raises(DecodeError) as caught:
        Codec(Decoding(), "quakes").read(delivery(b"{}", CANARY, attributes))

    assert CANARY.lower() not in shown(caught.value).lower()


def test_a_content_type_is_not_quoted() -> None:
    """It is a value like any other."""
    with pytest.raises(DecodeError) as caught:
        Codec(Decoding(), "quakes").read(delivery(b"{}", CANARY))

    assert_silent(caught.value)
