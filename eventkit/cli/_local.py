"""`eventkit local`: a stand-in for a provider, on this machine, until it is stopped."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence

import anyio
import msgspec
import typer

from eventkit._registry import adapter_for, installed_schemes
from eventkit.errors import ConfigurationError
from eventkit.spi import Address, LocalPlace, LocalServer

__all__ = ["serve_local"]


def serve_local(scheme: str, queues: Sequence[str], *, port: int) -> None:
    """Serve `queues` until SIGTERM or Ctrl-C. Raises ConfigurationError when there is nothing to serve them."""
    anyio.run(_serve, _server_for(scheme), queues, port)


async def _serve(server: LocalServer, queues: Sequence[str], port: int) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with server.local(queues, port=port) as place:
            typer.echo(_described(place, queues))
            await anext(signals)
        counts = msgspec.structs.asdict(place.counts())
    typer.echo("stopped: " + ", ".join(f"{number} {what}" for what, number in counts.items()))


def _server_for(scheme: str) -> LocalServer:
    if scheme in installed_schemes():
        adapter = adapter_for(Address(scheme))
        if isinstance(adapter, LocalServer):
            return adapter
    known = [other for other in installed_schemes() if _has_one(other)]
    raise ConfigurationError(f'no local server for "{scheme}"; there is one for: {", ".join(known) or "none"}')


def _has_one(scheme: str) -> bool:
    try:
        return isinstance(adapter_for(Address(scheme)), LocalServer)
    except ConfigurationError:  # its SDK is not there
        return False


def _described(place: LocalPlace, queues: Sequence[str]) -> str:
    """All that is needed to use it, to be copied line by line."""
    sources = [f'source = "{place.address(queue)}"' for queue in queues]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in place.environment.items()]
    return "\n".join(
        [
            f"listening at {place.endpoint}",
            "",
            "eventkit.toml" + (", one of" if len(sources) > 1 else "") + ":",
            *(f"  {line}" for line in sources),
            "",
            "dead letters arrive at:",
            *(f"  {place.dead_letters(queue)}" for queue in queues),
            "",
            "environment of whoever is to find it:",
            *(f"  {line}" for line in exports),
            "",
            "Ctrl-C stops it, and what it holds is gone.",
        ]
    )
