"""What `eventkit.toml` may say. The only module that imports pydantic.

A table is made from the option class it stands for, so that neither names nor defaults nor rules are written twice.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from eventkit._codec import Decoding
from eventkit._config import FlowLimits, KeyFailure, Order, Unroutable
from eventkit._policies.backoff import Backoff
from eventkit.errors import ConfigurationError

__all__ = ["REFUSED", "Log", "Settings"]

REFUSED = "refused_by_options"
"""Type of the error for values the option class itself refuses; its context holds `problems`."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _FromTable:
    """Marks a field whose type is an option class: read a table of its fields, and let the class check the values."""

    def __get_pydantic_core_schema__(self, options: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        types = get_type_hints(options)
        columns: dict[str, Any] = {field.name: (types[field.name], field.default) for field in fields(options)}
        table = create_model(options.__name__, __base__=_Table, **columns)

        def built(read: BaseModel) -> object:
            try:
                return options(**read.model_dump())
            except ConfigurationError as exc:
                raise PydanticCustomError(REFUSED, "refused", {"problems": tuple(exc.problems)}) from exc

        return core_schema.no_info_after_validator_function(built, handler.generate_schema(table))


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Log(_Table):
    """`[log]`: how the worker logs, on standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(_Table):
    """Everything in force: the file's top level, overlaid by one profile."""

    source: Annotated[str, Field(min_length=1)]
    handlers: list[str] = Field(default_factory=list)
    dead_letter: str | None = None
    ordering: Order = "none"
    on_key_failure: KeyFailure = "block"
    unroutable: Unroutable = "reject"
    drain: Seconds = 20.0
    lease: Seconds = 30.0
    max_processing: Seconds = 600.0
    retry: Annotated[Backoff, _FromTable()] = Backoff()
    limits: Annotated[FlowLimits, _FromTable()] = FlowLimits()
    decoding: Annotated[Decoding, _FromTable()] = Decoding()
    log: Log = Log()
