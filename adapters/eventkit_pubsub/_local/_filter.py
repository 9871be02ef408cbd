"""The filter of a subscription: which messages it wants, by their attributes.

[doc: Filter messages from a subscription]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec

from eventkit_pubsub._local._errors import PubsubError, invalid

Filter: TypeAlias = Callable[[Mapping[str, str]], bool]

_MOST: Final = 256
_TOKEN: Final = re.compile(r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>\w[\w-]*)|(?P<sign>!=|[=:.,()-]))', re.ASCII)
_WORD: Final = re.compile(r"\w[\w-]*", re.ASCII)
_STEERING: Final = frozenset({"AND", "OR", "NOT"})


def parsed(text: str) -> Filter | None:
    """Read a filter; None if it is empty. Raises PubsubError."""
    if not text.strip():
        return None
    if len(text.encode()) > _MOST:
        raise invalid(f"Invalid filter: {len(text.encode())} bytes, the limit is {_MOST}.")
    try:
        return _Parser(text).whole()
    except ValueError as exc:
        raise _unreadable(text, str(exc)) from exc


def _unreadable(text: str, problem: str) -> PubsubError:
    return invalid(f"Invalid filter {text!r}: {problem}.")


class _Parser:
    """Recursive descent; AND and OR stand beside each other only in parentheses. Raises ValueError."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    def whole(self) -> Filter:
        found = self._either()
        if self._next:
            raise ValueError(f"{self._next} is not expected")
        return found

    @property
    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        token = self._next
        if wanted and token not in wanted:
            raise ValueError(f"{' or '.join(wanted)} expected, not {token or 'the end'}")
        self._at += 1
        return token

    def _either(self) -> Filter:
        parts, operator = [self._single()], self._next
        while operator in {"AND", "OR"} and self._next == operator:
            self._take()
            parts.append(self._single())
        if self._next in {"AND", "OR"}:
            raise ValueError("AND and OR are combined with parentheses")
        if len(parts) == 1:
            return parts[0]
        decide = all if operator == "AND" else any
        return lambda attributes: decide(part(attributes) for part in parts)

    def _single(self) -> Filter:
        match self._next:
            case "NOT" | "-":
                self._take()
                inner = self._single()
                return lambda attributes: not inner(attributes)
            case "(":
                self._take()
                inner = self._either()
                self._take(")")
                return inner
            case "hasPrefix":
                return self._prefix()
        return self._comparison()

    def _prefix(self) -> Filter:
        self._take()
        self._take("(")
        name = self._name(".")
        self._take(",")
        text = self._text()
        self._take(")")
        return lambda attributes: attributes.get(name, "").startswith(text) and name in attributes

    def _comparison(self) -> Filter:
        start = self._at
        self._take("attributes")
        if self._take(":", ".") == ":":
            present = self._word()
            return lambda attributes: present in attributes
        self._at = start
        name = self._name(".")
        equal = self._take("=", "!=") == "="
        text = self._text()
        return lambda attributes: (attributes.get(name) == text) is equal

    def _name(self, mark: str) -> str:
        self._take("attributes")
        self._take(mark)
        return self._word()

    def _word(self) -> str:
        if self._next.startswith('"'):
            return self._text()
        token = self._take()
        if not _WORD.fullmatch(token) or token in _STEERING:
            raise ValueError(f"the name of an attribute expected, not {token or 'the end'}")
        return token

    def _text(self) -> str:
        token = self._take()
        if not token.startswith('"'):
            raise ValueError(f"a text in double quotes expected, not {token or 'the end'}")
        try:
            return msgspec.json.decode(token, type=str)
        except msgspec.DecodeError as exc:
            raise ValueError(f"{token} is no text") from exc


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    rest = text.rstrip()
    while at < len(rest):
        found = _TOKEN.match(rest, at)
        if found is None:
            raise ValueError(f"{rest[at:].strip()!r} cannot be read")
        tokens.append(found[0].strip())
        at = found.end()
    return tokens
