"""`eventkit send`: events from a file or standard input to a sink."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import msgspec
import typer

from eventkit._codec import CloudEvent, Codec, Decoding, encode
from eventkit._registry import adapter_for
from eventkit._telemetry.escape import escaped
from eventkit.cli._report import FAILED, say
from eventkit.errors import AdapterError, ConfigurationError, DecodeError
from eventkit.spi import Address, Delivery, Outgoing, Settled, SettledKind, Sink

__all__ = ["Wrapping", "send_file"]

EVENT = "application/cloudevents+json"
TRIES = 4
LONGEST_PAUSE = 5.0
SHOWN = 20
"""Most mistakes or failures shown one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping:
    """What the messages get besides their content; `type` and `source` are for JSON that is no CloudEvent yet."""

    type: str | None = None
    source: str | None = None
    key: str | None = None
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON document, and where it stands."""

    place: str
    text: bytes


def send_file(file: Path, wrapping: Wrapping, *, to: str) -> int:
    """Publish every document of `file`, or none if one is bad; `-` is standard input. Gives the exit code.

    Raises ConfigurationError for what cannot be read as events.
    """
    address = Address.parse(to)
    documents = documents_of(_read(file))
    messages = outgoing(documents, wrapping)
    settled = anyio.run(_publish, address, messages)
    failed = [(place.place, result) for place, result in zip(documents, settled, strict=True) if not _is_done(result)]
    for place, result in failed[:SHOWN]:
        say(f"{place}: {_explained(result)}")
    if len(failed) > SHOWN:
        counts = Counter(result.kind.value for _, result in failed[SHOWN:])
        say(f"and {len(failed) - SHOWN} more: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    typer.echo(f"sent {len(messages) - len(failed)} of {len(messages)}")
    return FAILED if failed else 0


def documents_of(content: bytes) -> list[Document]:
    """The JSON documents in `content`: one, over any number of lines, or one a line. Raises ConfigurationError."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if not lines:
        raise ConfigurationError("nothing to send: the input is empty")
    wrong = {number: mistake for number, line in lines if (mistake := _mistake(line))}
    if not wrong:
        return [Document(f"line {number}", line.strip()) for number, line in lines]
    whole = _mistake(content)
    if not whole:
        return [Document("the document", content.strip())]
    if len(wrong) == len(lines):  # not JSON lines: a broken document
        raise ConfigurationError(f"the input is no JSON: {whole}; nothing was sent")
    raise ConfigurationError(*_listed([f"line {number}: {mistake}" for number, mistake in wrong.items()]))


def outgoing(documents: Sequence[Document], wrapping: Wrapping) -> list[Outgoing]:
    """The message for each document. Raises ConfigurationError with every document that cannot be an event."""
    codec = Codec(Decoding(format="cloudevents"), "")
    messages: list[Outgoing] = []
    problems: list[str] = []
    for document in documents:
        try:
            messages.append(_message(document, wrapping, codec))
        except (DecodeError, ValueError) as exc:
            problems.append(f"{document.place}: {exc}")
    if problems:
        raise ConfigurationError(*_listed(problems))
    return messages


def _read(file: Path) -> bytes:
    if str(file) != "-":
        try:
            return file.read_bytes()
        except OSError as exc:
            raise ConfigurationError(f"{file} cannot be read: {exc.strerror}") from exc
    if sys.stdin.isatty():
        typer.echo("reading JSON from the terminal; Ctrl-D ends it", err=True)
    return sys.stdin.buffer.read()


def _mistake(text: bytes) -> str:
    """Why `text` is not one JSON document; empty if it is."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError) as exc:
        return str(exc)
    return ""


def _message(document: Document, wrapping: Wrapping, codec: Codec) -> Outgoing:
    members: Any = msgspec.json.decode(document.text)
    if not (isinstance(members, dict) and "specversion" in members):
        return _wrapped(document, wrapping)
    if wrapping.type or wrapping.source:
        raise ValueError("is a CloudEvent already, with a type and a source: leave out --type and --source")
    delivery = Delivery(receipt=None, body=document.text, message_id="", leased_until=0.0, content_type=EVENT)
    return Outgoing(
        body=document.text,
        content_type=EVENT,
        key=wrapping.key,
        delay=wrapping.delay,
        event_id=codec.read(delivery).id,
    )


def _wrapped(document: Document, wrapping: Wrapping) -> Outgoing:
    if not wrapping.type:
        raise ValueError("is not a CloudEvent: say what it is, for example --type order.placed")
    event = CloudEvent(
        id=str(uuid4()),
        source=wrapping.source or "eventkit-send",
        type=wrapping.type,
        time=datetime.now(UTC),
        data=msgspec.Raw(document.text),
    )
    return encode(event, key=wrapping.key, delay=wrapping.delay)


def _listed(problems: Sequence[str]) -> list[str]:
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return [*problems[:SHOWN], *more, "nothing was sent"]


async def _publish(address: Address, messages: Sequence[Outgoing]) -> list[Settled]:
    async with adapter_for(address).open_sink(address) as sink:
        return [result async for result in _results(sink, messages)]


async def _results(sink: Sink, messages: Sequence[Outgoing]) -> AsyncIterator[Settled]:
    limits = sink.limits
    for start in range(0, len(messages), limits.publish):
        batch = messages[start : start + limits.publish]
        fitting = [message for message in batch if len(message.body) <= limits.body]
        results = iter(await _confirmed(sink, fitting))
        for message in batch:
            size = len(message.body)
            too_big = Settled.refused(f"body of {size} bytes is over the sink's limit of {limits.body}")
            yield too_big if size > limits.body else next(results)


async def _confirmed(sink: Sink, messages: Sequence[Outgoing]) -> list[Settled]:
    """Publish one batch; what the sink asks to be tried again is, a few times."""
    results = [Settled.retry()] * len(messages)
    for left in range(TRIES - 1, -1, -1):
        again = [place for place, result in enumerate(results) if result.kind is SettledKind.RETRY]
        if not again:
            break
        try:
            answers = await sink.publish([messages[place] for place in again])
        except AdapterError as exc:
            # Whatever it is, nobody knows what became of these (clause 2 of `Source`).
            answers = [Settled(SettledKind.UNKNOWN, cause=str(exc))] * len(again)
        for place, answer in zip(again, answers, strict=True):
            results[place] = answer
        pauses = [result.after for result in results if result.kind is SettledKind.RETRY]
        if pauses and left:
            await anyio.sleep(min(max(0.1, *pauses), LONGEST_PAUSE))
    return results


def _is_done(result: Settled) -> bool:
    return result.kind is SettledKind.DONE


def _explained(result: Settled) -> str:
    cause = f": {escaped(result.cause)}" if result.cause else ""
    match result.kind:
        case SettledKind.UNKNOWN:
            return f"perhaps sent: not confirmed{cause}"
        case SettledKind.RETRY:
            return f"not sent, the sink was busy to the end{cause}"
        case _:
            return f"not sent{cause}"
