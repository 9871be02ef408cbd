"""The commands, their options and their help. What a command needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from eventkit._version import __version__

__all__ = ["app"]

app = typer.Typer(
    name="eventkit",
    help="Run event workers, and look at the queues they work on.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # The rich way to show help takes as long to import as everything else together.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
dlq = typer.Typer(name="dlq", help="Look at dead letters.", no_args_is_help=True)
app.add_typer(dlq)

Config = Annotated[
    Path, typer.Option("--config", "-c", help="Configuration file.", metavar="FILE", show_default="eventkit.toml")
]
Profile = Annotated[
    str | None,
    typer.Option("--profile", "-p", help="Overlay [profiles.NAME].", metavar="NAME", envvar="EVENTKIT_PROFILE"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
DEFAULT = Path("eventkit.toml")


def _version(asked: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if asked:
        typer.echo(f"eventkit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Options of eventkit itself."""


@app.command(epilog="Example: eventkit run --profile production --log-format json")
def run(
    *,
    config: Config = DEFAULT,
    profile: Profile = None,
    log_format: Annotated[
        Literal["auto", "json", "console"] | None,
        typer.Option(help="Form of the log on standard error; auto is console on a terminal, else json."),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="Least level logged.")
    ] = None,
) -> None:
    """Run the worker that eventkit.toml describes, until SIGTERM or Ctrl-C drains it.

    Ends with 0 when everything in hand was settled, with 1 when something was cut or failed, with 2 when the
    configuration cannot work. A second signal ends it at once, with 128 + the signal's number.
    """
    from eventkit.cli._config import load
    from eventkit.cli._run import run_worker

    raise typer.Exit(run_worker(load(config, profile), log_format=log_format, log_level=log_level))


@app.command(epilog="Example: echo '{\"id\": 7}' | eventkit send --type order.placed")
def send(
    *,
    file: Annotated[
        Path, typer.Argument(help="One JSON document, or JSON lines; - is standard input.", metavar="[FILE|-]")
    ] = Path("-"),
    type: Annotated[str | None, typer.Option("--type", "-t", help="Event type of plain JSON.")] = None,
    source: Annotated[str | None, typer.Option(help="CloudEvents source of plain JSON.", metavar="URI")] = None,
    key: Annotated[str | None, typer.Option(help="Ordering key.")] = None,
    delay: Annotated[float, typer.Option(help="Seconds until it is delivered.", min=0, metavar="SECONDS")] = 0.0,
    to: Annotated[
        str | None, typer.Option(help="Where to, instead of the configured source.", metavar="ADDRESS")
    ] = None,
    config: Config = DEFAULT,
    profile: Profile = None,
) -> None:
    """Publish events to the configured source: CloudEvents as they are, any other JSON as the data of one.

    Everything is read and checked before anything is sent. Ends with 1 if an event was not confirmed.
    """
    from eventkit.cli._send import Wrapping, send_file

    wrapping = Wrapping(type=type, source=source, key=key, delay=delay)
    raise typer.Exit(send_file(file, wrapping, to=to or _address(config, profile)))


@dlq.command("ls", epilog="Example: eventkit dlq ls --limit 20 --json")
def list_dead_letters(
    *,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, metavar="N")] = 100,
    json: AsJson = False,
    config: Config = DEFAULT,
    profile: Profile = None,
) -> None:
    """List the dead letters of the source, oldest first: why, what, and when. Payloads are not shown."""
    from eventkit.cli._look import show_dead_letters

    show_dead_letters(_address(config, profile), limit=limit, as_json=json)


@app.command(epilog="Example: eventkit backlog --profile production")
def backlog(*, json: AsJson = False, config: Config = DEFAULT, profile: Profile = None) -> None:
    """Show how much waits at the source."""
    from eventkit.cli._look import show_backlog

    show_backlog(_address(config, profile), as_json=json)


@app.command(epilog="Example: eventkit local sqs orders bills.fifo")
def local(
    *,
    scheme: Annotated[str, typer.Argument(help="Which provider, as in its addresses: sqs.", metavar="SCHEME")],
    queues: Annotated[
        list[str] | None, typer.Argument(help="Queues to begin with.", metavar="QUEUE", show_default="events")
    ] = None,
    port: Annotated[
        int, typer.Option(help="Port of the loopback; 0 is any that is free.", min=0, max=65535, metavar="PORT")
    ] = 4100,
) -> None:
    """Stand in for a provider on this machine, for development; each queue has a dead-letter queue.

    Shows what to write in eventkit.toml and in the environment. Nothing is kept when it stops.
    """
    from eventkit.cli._local import serve_local

    serve_local(scheme, queues or ["events"], port=port)


@app.command(epilog="Example: eventkit version")
def version() -> None:
    """Show the version."""
    typer.echo(f"eventkit {__version__}")


def _address(config: Path, profile: str | None) -> str:
    from eventkit.cli._config import load

    return load(config, profile).source
