"""Limits on JSON text, checked before any parser sees it.

Counting bytes bounds depth and elements from above, and looking at one byte in a few finds long numbers:
ordinary bodies pass on that alone. Only above a cap is the text scanned, string-aware, in linear time.

What the cheap look lets pass although it breaks a limit is never complete JSON, so the parser refuses it:
closing brackets count as bytes too.
"""

from __future__ import annotations

from itertools import accumulate

from eventkit._codec._options import Decoding
from eventkit.errors import DecodeError

__all__ = ["Bounds", "utf8"]

_IN_NUMBERS = frozenset(b"0123456789+-.eE")
_NUMBERS = bytes(ord("0") if byte in _IN_NUMBERS else ord(" ") for byte in range(256))
_KEEP_NUMBERS = bytes(byte if byte in _IN_NUMBERS else ord(" ") for byte in range(256))
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_LIST, _BACKSLASH = ord("["), ord("\\")
_RUN = 8  # so many that UUIDs, trace ids and SHA-1 sums in hexadecimal are not taken for numbers


class Bounds:
    """The limits of one `Decoding` on depth, elements and digits, and on the encoding: strict UTF-8."""

    __slots__ = ("_depth", "_digits", "_elements", "_flat", "_run", "_sparse", "_stride", "_tiny")

    def __init__(self, decoding: Decoding) -> None:
        self._depth = decoding.max_depth
        self._elements = decoding.max_elements
        self._digits = decoding.max_digits
        # A number too long by one digit shows `len(_run)` times in a row when each `_stride`-th byte is looked at.
        self._stride = max(1, (self._digits + 1) // _RUN)
        self._run = b"0" * ((self._digits + 1) // self._stride)
        # No complete JSON of at most so many bytes breaks any limit; that on elements, `[],` being three bytes for
        # two; that on depth, if it holds no list, since `{"":…}` is the shortest object around another.
        self._tiny = min(self._depth, self._elements, self._digits)
        self._sparse = 3 * self._elements // 2
        self._flat = min(5 * self._depth + 1, self._sparse)

    def check(self, body: bytes) -> None:
        """Raise DecodeError if `body` is not UTF-8, or, being complete JSON, breaks a limit."""
        if not body.isascii():
            utf8(body)
        size = len(body)
        if size <= self._tiny:
            return
        opened = body.count(b"[") if _LIST in body else 0
        if opened or size > self._flat:
            opened += body.count(b"{")
        if (
            opened > self._depth
            or (size > self._sparse and opened + body.count(b",") > self._elements)
            # `find`, not `in`: `bytes in bytes` first fails to read an integer, at twice the price.
            or body[:: self._stride].translate(_NUMBERS).find(self._run) >= 0
        ):
            self.scan(body)

    def scan(self, body: bytes) -> None:
        """The exact check, in linear time."""
        if _BACKSLASH in body:
            body = body.replace(rb"\\", b"").replace(rb"\"", b"")
        # A value brings at most two strings, its key and itself; knowing that bounds the split below.
        if body.count(b'"') > 4 * (self._elements + 1):
            raise self._too_many()
        text = b" ".join(body.split(b'"')[::2])
        opened = text.count(b"[") + text.count(b"{")
        if opened + text.count(b",") > self._elements:
            raise self._too_many()
        if opened > self._depth and _depth(text) > self._depth:
            raise DecodeError(f"JSON nested deeper than {self._depth} levels (max_depth)")
        if _digits(text, self._digits) > self._digits:
            raise DecodeError(f"a number has more than {self._digits} digits (max_digits)")

    def _too_many(self) -> DecodeError:
        return DecodeError(f"JSON has more than {self._elements} elements (max_elements)")


def utf8(data: bytes) -> str:
    """`data` as text. Raises DecodeError unless it is UTF-8; encoded surrogates are not."""
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise DecodeError(f"not UTF-8 at byte {exc.start}") from None


def _depth(text: bytes) -> int:
    return max(accumulate(_STEP[bracket] for bracket in text.translate(None, _NOT_BRACKETS)))


def _digits(text: bytes, enough: int) -> int:
    """The digits of the longest number, looked at only where it has more than `enough` characters."""
    longest = 0
    for number in text.translate(_KEEP_NUMBERS).split():
        if len(number) > enough:
            longest = max(longest, len(number.translate(None, b"+-.eE")))
    return longest
