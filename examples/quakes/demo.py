"""Puts one real week of earthquakes through a real worker, and counts what became of every event.

    .venv/bin/python examples/quakes/demo.py                (`make demo` prepares .venv first)
    .venv/bin/python examples/quakes/demo.py pubsub         the same on a local server of Pub/Sub, profile `pubsub`
    .venv/bin/python examples/quakes/demo.py servicebus     of Service Bus
    .venv/bin/python examples/quakes/demo.py sqs            and of SQS

The application is `quakes.py`. This script only feeds it, watches it and checks on it.
"""

import gzip
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import anyio
from anyio import to_thread
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from eventkit.errors import EventKitError
from eventkit.spi import (
    DONE,
    Adapter,
    Address,
    Backlog,
    DeadLetterBrowser,
    Demand,
    LocalPlace,
    LocalServer,
    NativeDeadLetter,
    Outgoing,
    Source,
)

HERE = Path(__file__).resolve().parent
RUN = Path("run")
READ_MODEL, LOG = RUN / "quakes.db", RUN / "worker.log"
FEED = Path("data/usgs-all-week-2018-02-07.geojson.gz")
EVENTKIT = Path(sys.executable).with_name("eventkit")

PATIENCE = 60.0
"""Seconds the worker may take to empty the queue; it needs about two."""


@dataclass(frozen=True)
class Cloud:
    """A local server that stands in for one, and the queue there."""

    profile: str
    queue: str
    server: LocalPlace


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""


@dataclass(frozen=True)
class Tally:
    """Event ids, from five places that know nothing of each other."""

    published: Sequence[str]
    recorded: Sequence[str]
    skipped: Sequence[str]
    dead_lettered: Sequence[str]

    @property
    def lost(self) -> set[str]:
        """What was published and is nowhere."""
        return set(self.published).difference(self.recorded, self.skipped, self.dead_lettered)

    @property
    def misplaced(self) -> list[str]:
        """What did not end in exactly one place: lost, in two places, or never published."""
        published, ended = Counter(self.published), Counter([*self.recorded, *self.skipped, *self.dead_lettered])
        return sorted((published - ended) + (ended - published))

    def __str__(self) -> str:
        return (
            f"quakes: {len(self.published)} published, {len(self.recorded)} recorded, {len(self.skipped)} skipped, "
            f"{len(self.dead_lettered)} dead-lettered, {len(self.lost)} lost"
        )


async def main(profile: str) -> None:
    """Put the week through the embedded queue, or through a local server of the source that `profile` names."""
    source = prepared(profile)
    adapter: Adapter = import_module(f"eventkit_{source.scheme}").adapter
    if not profile:
        await put_through(adapter, source)
        return
    if not isinstance(adapter, LocalServer):
        raise DemoFailed(f"{source.scheme} has no local server")
    name = source.path.strip("/") or source.host
    async with adapter.local([name]) as server:
        os.environ.update(server.environment)
        await put_through(adapter, source, Cloud(profile, name, server))
        counts = server.counts()
        print(f"the server of {source.scheme} counted {counts.delivered} deliveries, {counts.acked} acks, ", end="")
        print(f"{counts.nacked} nacks, {counts.expired} expired leases, {counts.dead} dead letters")


async def put_through(adapter: Adapter, address: Address, cloud: Cloud | None = None) -> None:
    """Publish, run the worker until the queue is empty, count. Raises DemoFailed if the numbers do not add up."""
    console = Console()
    with progress(console) as bars:
        published = await publish(adapter, address, [*earthquakes(), *damaged()], bars)
        async with adapter.open_source(address, Demand(wait=1.0)) as source:
            with started_worker(cloud.profile if cloud else "") as worker:
                try:
                    with anyio.fail_after(PATIENCE):
                        await until_empty(source, cloud, worker, bars)
                        await drained(worker)
                except TimeoutError:
                    raise DemoFailed(f"the worker was not done after {PATIENCE:g} s{end_of_log()}") from None
            dead_lettered = await ids_of_dead_letters(adapter, source, cloud)
    tally = Tally(published, ids_of_recorded(), ids_of_skipped(), dead_lettered)
    console.print(strongest())
    print(tally)
    if cloud is None:
        print(where_to_look())
    if tally.misplaced:
        raise DemoFailed(f"events that did not end in exactly one place: {', '.join(tally.misplaced[:20])}")


def prepared(profile: str) -> Address:
    """Empty the run folder. Gives the address of the queue that the profile, or none, leads to."""
    os.chdir(HERE)  # the paths in eventkit.toml count from here
    if RUN.exists():
        shutil.rmtree(RUN)
    RUN.mkdir()
    settings = tomllib.loads(Path("eventkit.toml").read_text())
    if profile:
        settings |= settings["profiles"].get(profile, {})
    return Address.parse(settings["source"])


# -- what goes in ------------------------------------------------------------------------------


def earthquakes() -> Iterator[Outgoing]:
    """The feed as CloudEvents: the properties of each feature, and where it was."""
    with gzip.open(FEED) as file:
        features = json.load(file)["features"]
    for feature in features:
        data = feature["properties"] | {"coordinates": feature["geometry"]["coordinates"]}
        yield cloud_event(feature["id"], json.dumps(data).encode(), data["time"])


def damaged() -> Iterator[Outgoing]:
    """Three records as a failing producer would send them."""
    sound = b'{"type": "earthquake", "place": "Atlantis", "mag": 1.5, "coordinates": [-25.0, 31.0, 10.0]}'
    yield cloud_event("damaged-cut", sound[:-20])
    yield cloud_event("damaged-not-utf-8", sound.replace(b"Atlantis", b"\xff\xfeA\x00"))
    yield cloud_event("damaged-wrong-type", sound.replace(b"1.5", b'"strong"'))


def cloud_event(id: str, data: bytes, milliseconds: int = 0) -> Outgoing:
    """In binary mode: the envelope travels beside the data, so an event keeps its id when its data is damaged."""
    envelope = {
        "specversion": "1.0",
        "id": id,
        "source": "https://earthquake.usgs.gov",
        "type": "usgs.quake",
        "time": datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(),
    }
    attributes = {f"ce-{name}": value for name, value in envelope.items()}
    return Outgoing(body=data, attributes=attributes, content_type="application/json", event_id=id)


async def publish(adapter: Adapter, address: Address, messages: Sequence[Outgoing], bars: Progress) -> list[str]:
    """Publish in batches. Gives the ids that the queue confirmed to have stored."""
    confirmed: list[str] = []
    bar = bars.add_task("published", total=len(messages))
    async with adapter.open_sink(address) as sink:
        for start in range(0, len(messages), sink.limits.publish):
            batch = messages[start : start + sink.limits.publish]
            results = await sink.publish(batch)
            confirmed += [message.event_id for message, result in zip(batch, results, strict=True) if result == DONE]
            bars.update(bar, completed=len(confirmed))
    if len(confirmed) < len(messages):
        raise DemoFailed(f"the queue confirmed {len(confirmed)} of {len(messages)} events")
    return confirmed


# -- the worker --------------------------------------------------------------------------------


@contextmanager
def started_worker(profile: str) -> Iterator[subprocess.Popen[bytes]]:
    """The worker as you would start it, as a process of its own; it does not outlive this script."""
    command = [str(EVENTKIT), "run", "--config", "eventkit.toml", "--log-format", "json"]
    command += ["--profile", profile] if profile else []
    with LOG.open("wb") as log:
        worker = subprocess.Popen(command, stderr=log)
    try:
        yield worker
    finally:
        worker.kill()  # does nothing to one that has ended
        worker.wait()


async def until_empty(source: Source, cloud: Cloud | None, worker: subprocess.Popen[bytes], bars: Progress) -> None:
    """Wait until nothing waits in the queue, for a retry, or in the worker's hands."""
    total = await events_left(source, cloud)
    bar = bars.add_task("settled", total=total)
    while left := await events_left(source, cloud):
        if worker.poll() is not None:
            raise DemoFailed(f"the worker ended with code {worker.returncode} and left {left} events{end_of_log()}")
        bars.update(bar, completed=total - left)
        await anyio.sleep(0.05)
    bars.update(bar, completed=total)


async def events_left(source: Source, cloud: Cloud | None) -> int:
    if cloud is not None:  # not every one tells how much waits
        counts = cloud.server.counts()
        # Where a dead letter is published to another queue, it is acked in this one as well.
        return counts.published - counts.acked - (counts.dead if isinstance(source, NativeDeadLetter) else 0)
    assert isinstance(source, Backlog)
    depth = await source.depth()
    assert depth is not None
    return depth.ready + depth.delayed + depth.leased


async def drained(worker: subprocess.Popen[bytes]) -> None:
    """Ask the worker to finish, as an orchestrator does, and see it end well."""
    worker.send_signal(signal.SIGTERM)
    code = await to_thread.run_sync(worker.wait, abandon_on_cancel=True)
    if code != 0:
        raise DemoFailed(f"the worker ended with code {code} after SIGTERM{end_of_log()}")


def end_of_log() -> str:
    lines = LOG.read_text(errors="replace").splitlines()[-15:]
    return f"; the end of {HERE / LOG}:\n\n" + "\n".join(lines)


# -- what came out -----------------------------------------------------------------------------


def ids_of_recorded() -> list[str]:
    with closing(sqlite3.connect(READ_MODEL)) as db:
        return [id for (id,) in db.execute("SELECT id FROM quakes")]


def ids_of_skipped() -> list[str]:
    with LOG.open() as log:
        lines = [json.loads(line) for line in log]
    return sorted({line["event_id"] for line in lines if line["event"] == "event_skipped"})


async def ids_of_dead_letters(adapter: Adapter, source: Source, cloud: Cloud | None) -> list[str]:
    if cloud is None:
        assert isinstance(source, DeadLetterBrowser)
        return [id async for id in ids_of_browsed(source)]
    async with adapter.open_source(Address.parse(cloud.server.dead_letters(cloud.queue)), Demand()) as dead_letters:
        return [id async for id in ids_of_received(dead_letters)]


async def ids_of_browsed(source: DeadLetterBrowser) -> AsyncIterator[str]:
    """Of dead letters that can be looked at."""
    last = None
    while page := await source.peek(100, last):
        for letter in page:
            yield letter.attributes["ce-id"]
        last = page[-1].id


async def ids_of_received(source: Source) -> AsyncIterator[str]:
    """Of dead letters in a queue like any other; they stay in it."""
    while deliveries := await source.receive(source.info.limits.receive, 1.0):
        for delivery in deliveries:
            yield delivery.attributes["ce-id"]


def strongest() -> Table:
    """The head of the read model."""
    table = Table(title="Strongest earthquakes by place", title_justify="left", box=SIMPLE_HEAD)
    for name in ("place", "magnitude", "at (UTC)", "quakes"):
        table.add_column(name, justify="left" if name == "place" else "right")
    with closing(sqlite3.connect(READ_MODEL)) as db:
        for place, magnitude, at, quakes in db.execute("SELECT place, magnitude, at, quakes FROM strongest LIMIT 5"):
            table.add_row(place, f"{magnitude:.1f}", f"{at:.16}".replace("T", " "), str(quakes))
    return table


def where_to_look() -> str:
    """The files a run leaves, and commands that show what is in them."""
    query = "SELECT * FROM strongest LIMIT 20"
    in_python = f"import sqlite3; print(*sqlite3.connect('{READ_MODEL}').execute('{query}'), sep='\\n')"
    ask = f"sqlite3 {READ_MODEL} '{query}'" if shutil.which("sqlite3") else f'python3 -c "{in_python}"'
    return f"""
Left in {HERE / RUN}:
  queue.db      the queue, with its dead letters
  quakes.db     the read model
  worker.log    what the worker said, in JSON

Look into them:
  cd {shlex.quote(str(HERE))}
  {shlex.quote(os.path.relpath(EVENTKIT))} dlq ls
  grep event_skipped {LOG}
  {ask}"""


def progress(console: Console) -> Progress:
    """Bars on a terminal, a plain line each elsewhere."""
    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


if __name__ == "__main__":
    try:
        anyio.run(main, sys.argv[1] if len(sys.argv) > 1 else "")
    except (DemoFailed, EventKitError) as exc:
        sys.exit(f"demo: {exc}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted")
