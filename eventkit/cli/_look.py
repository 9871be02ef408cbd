"""`eventkit dlq ls` and `eventkit backlog`: what can be seen of a source without receiving from it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec
import typer

from eventkit._codec import Codec, Decoding
from eventkit._registry import adapter_for
from eventkit._telemetry.escape import escaped
from eventkit.errors import DecodeError, UnsupportedByAdapter
from eventkit.spi import Address, Backlog, DeadLetter, DeadLetterBrowser, Delivery, Demand, Depth, Source

__all__ = ["show_backlog", "show_dead_letters"]

PAGE = 100
TITLES = ("ID", "DIED (UTC)", "ATTEMPTS", "REASON", "TYPE", "EVENT", "DETAIL")


def show_dead_letters(address: str, *, limit: int, as_json: bool) -> None:
    """Print up to `limit` dead letters, oldest first. Raises UnsupportedByAdapter or AdapterError."""
    letters = [_described(letter, address) for letter in anyio.run(_dead_letters, Address.parse(address), limit)]
    if as_json:
        for letter in letters:
            typer.echo(msgspec.json.encode(letter))
    elif letters:
        for line in _columns([TITLES, *map(_row, letters)]):
            typer.echo(line)
    else:
        typer.echo(f"no dead letters in {address}")


def show_backlog(address: str, *, as_json: bool) -> None:
    """Print how much waits. Raises UnsupportedByAdapter or AdapterError."""
    depth = anyio.run(_depth, Address.parse(address))
    if as_json:
        typer.echo(msgspec.json.encode({"source": address, **msgspec.structs.asdict(depth)}))
        return
    typer.echo(f"source   {address}")
    for name in ("ready", "delayed", "leased", "dead"):
        typer.echo(f"{name:<8} {getattr(depth, name)}")
    if depth.oldest_age is not None:
        typer.echo(f"oldest   {depth.oldest_age:.0f} s")


@asynccontextmanager
async def _opened(address: Address) -> AsyncIterator[Source]:
    async with adapter_for(address).open_source(address, Demand()) as source:
        yield source
        source.stop()


async def _depth(address: Address) -> Depth:
    async with _opened(address) as source:
        if not isinstance(source, Backlog):
            raise UnsupportedByAdapter(f"{address}: this source cannot tell how much waits")
        depth = await source.depth()
    if depth is None:
        raise UnsupportedByAdapter(f"{address}: the credentials in use may not ask how much waits")
    return depth


def _kept_in(source: Source) -> str:
    kept_in = source.info.dead_letters
    return f"; they are messages in {kept_in}, to be looked at with the provider's own tools" if kept_in else ""


async def _dead_letters(address: Address, limit: int) -> list[DeadLetter]:
    letters: list[DeadLetter] = []
    async with _opened(address) as source:
        if not isinstance(source, DeadLetterBrowser):
            raise UnsupportedByAdapter(f"{address}: this source cannot list its dead letters{_kept_in(source)}")
        while len(letters) < limit:
            page = await source.peek(min(PAGE, limit - len(letters)), letters[-1].id if letters else None)
            if not page:
                break
            letters.extend(page)
    return letters


def _described(letter: DeadLetter, source: str) -> dict[str, Any]:
    """Everything about a dead letter but its payload."""
    detail = _detail(letter)
    event_id, event_type = detail.get("event_id"), detail.get("event_type")
    if not (event_id and event_type):
        event_id, event_type = _envelope(letter, source)
    return {
        "id": letter.id,
        "reason": letter.reason,
        "event_id": event_id,
        "event_type": event_type,
        "message_id": letter.message_id,
        "key": letter.key,
        "attempts": detail.get("attempts", letter.delivery_count),
        "enqueued_at": _when(letter.enqueued_at),
        "dead_at": _when(letter.dead_at),
        "detail": detail,
    }


def _detail(letter: DeadLetter) -> dict[str, Any]:
    """What was written beside the letter; another program may have written something else."""
    try:
        return msgspec.json.decode(letter.detail, type=dict[str, Any])
    except msgspec.DecodeError:
        return {"message": letter.detail} if letter.detail else {}


def _envelope(letter: DeadLetter, source: str) -> tuple[str, str]:
    delivery = Delivery(
        receipt=None,
        body=letter.body,
        message_id=letter.message_id,
        leased_until=0.0,
        attributes=letter.attributes,
        content_type=letter.content_type,
    )
    try:
        envelope = Codec(Decoding(), source).read(delivery)
    except DecodeError:
        return letter.attributes.get("ce-id", ""), letter.attributes.get("ce-type", "")
    return envelope.id, envelope.type


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _row(letter: dict[str, Any]) -> Sequence[str]:
    detail = letter["detail"]
    error, message = str(detail.get("error", "")).rpartition(".")[2], str(detail.get("message", ""))
    return (
        letter["id"],
        letter["dead_at"][:19].replace("T", " "),
        str(letter["attempts"]),
        letter["reason"],
        letter["event_type"] or "-",
        letter["event_id"] or letter["message_id"],
        ": ".join(part for part in (error, message) if part),
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned, and on a terminal cut to its width. What producers chose is shown without control characters."""
    clean = [[escaped(cell)[:200] for cell in row] for row in rows]
    widths = [min(40, max(map(len, column))) for column in zip(*clean, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in clean]
    if not sys.stdout.isatty():
        return lines
    width = shutil.get_terminal_size().columns
    return [line if len(line) <= width else line[: width - 1] + "…" for line in lines]
