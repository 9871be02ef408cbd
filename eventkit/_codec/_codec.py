"""Which of the formats a delivery is in, and the decoder a handler needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eventkit._codec._bounds import Bounds
from eventkit._codec._content_type import ContentKind, kind_of
from eventkit._codec._data import octets, refuse_duplicate_keys, text_reader, typed_reader
from eventkit._codec._envelope import Envelope
from eventkit._codec._explain import type_name
from eventkit._codec._forms import Form, binary_or, plain, refused, structured, unstated
from eventkit._codec._options import Decoding
from eventkit.errors import ConfigurationError, DecodeError
from eventkit.spi import Delivery

__all__ = ["Codec"]

_REMEMBERED = 256


class Codec:
    """Reads the deliveries of one source. Pure: no clock, no state but which content type means what."""

    __slots__ = ("_bounds", "_decoding", "_forms", "_max_bytes", "_source")

    def __init__(self, decoding: Decoding, source_name: str) -> None:
        self._decoding = decoding
        self._max_bytes = decoding.max_bytes
        self._bounds = Bounds(decoding)
        self._source = source_name
        self._forms: dict[str | None, Form] = {}

    def read(self, delivery: Delivery) -> Envelope:
        """The envelope of `delivery`; its data is not decoded, and not parsed where there is no need.

        Raises DecodeError, whose text names the place and never a value.
        """
        if len(delivery.body) > self._max_bytes:
            raise DecodeError(f"body of {len(delivery.body)} bytes is over the limit of {self._max_bytes} (max_bytes)")
        form = self._forms.get(delivery.content_type)
        if form is None:
            form = self._form(delivery.content_type)
        return form(delivery)

    def decoder(self, data_type: Any) -> Callable[[Envelope], Any]:
        """What decodes the data of an envelope as `data_type`; it raises DecodeError, whatever the data.

        `bytes` and `str` get the data itself, everything else is read as JSON; no data reads as null.
        Make it once. Raises ConfigurationError for a type that cannot be decoded.
        """
        if data_type is bytes:
            return octets
        if data_type is str:
            return text_reader(self._bounds)
        if self._decoding.format == "raw":
            raise ConfigurationError(
                f"data type {type_name(data_type)} cannot be decoded from raw bytes (format='raw'): "
                f"take bytes or str, or set format to json or auto"
            )
        decode, explain = typed_reader(data_type)
        check = self._bounds.check
        refuse = refuse_duplicate_keys if self._decoding.duplicate_keys == "refuse" else None

        def decode_data(envelope: Envelope) -> Any:
            data = envelope.data or b"null"
            if not envelope.within_bounds:
                check(data)
            if refuse is not None:
                refuse(data)
            try:
                return decode(data)
            except Exception as exc:  # noqa: BLE001 - the type's own code runs in there, and may raise anything
                raise DecodeError(explain(exc, data)) from None

        return decode_data

    def _form(self, content_type: str | None) -> Form:
        """How bodies of this content type are read; remembered for the first few."""
        form = self._choose(kind_of(content_type))
        if len(self._forms) < _REMEMBERED and len(content_type or "") <= _REMEMBERED:
            self._forms[content_type] = form
        return form

    def _choose(self, kind: ContentKind) -> Form:
        source, bounds = self._source, self._bounds
        match self._decoding.format:
            case "json" | "raw" as named:
                return plain(source, is_json=named == "json")
            case "cloudevents":
                return structured(bounds) if kind is ContentKind.EVENT else binary_or(structured(bounds))
            case "auto":
                return _by_content_type(kind, source, bounds)


def _by_content_type(kind: ContentKind, source: str, bounds: Bounds) -> Form:
    match kind:
        case ContentKind.EVENT:
            return structured(bounds)
        case ContentKind.UNSTATED:
            return binary_or(unstated(source, bounds))
        case ContentKind.JSON:
            return binary_or(plain(source, is_json=True))
        case ContentKind.BYTES:
            return binary_or(plain(source, is_json=False))
        case ContentKind.OTHER:
            return binary_or(refused)
