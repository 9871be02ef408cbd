"""What goes wrong while a queue is open, each by the real error of SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from eventkit_sqlite import _schema

from eventkit.errors import AccessDenied, PermanentAdapterError, SourceNotFound, TransientAdapterError
from eventkit.spi import DONE, Outgoing
from tests.adapters.sqlite.support import SOON, Queue, bodies, on_both_loops, receipts

ONE = [Outgoing(body=b"a")]


@contextlib.contextmanager
def _locked(queue: Queue) -> Iterator[None]:
    """Another program has the file to itself."""
    with contextlib.closing(sqlite3.connect(queue.path, isolation_level=None, check_same_thread=False)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock is waited for 0.1 s."""
    monkeypatch.setattr(_schema, "BUSY_TIMEOUT", 0.1)


@on_both_loops
async def test_a_locked_file_is_a_transient_error_in_every_verb(queue: Queue, impatient: None) -> None:
    """It passes; nothing is half done, and the same call works afterwards."""
    await queue.publish(b"a", b"b")
    async with queue.sink() as sink, queue.source() as source:
        (first,) = await source.receive(1, SOON)
        lock = _locked(queue)
        await anyio.to_thread.run_sync(lock.__enter__)
        for call in (
            lambda: sink.publish(ONE),
            lambda: source.receive(1, 0.0),
            lambda: source.ack([first.receipt]),
            lambda: source.nack([(first.receipt, 0.0)]),
            lambda: source.extend([first.receipt], 30.0),
            lambda: source.take(["1"]),
            lambda: source.put_back(["1"]),
        ):
            with pytest.raises(TransientAdapterError, match="another process holds its lock") as raised:
                await call()
            assert isinstance(raised.value.__cause__, sqlite3.OperationalError)
            assert f" {queue.path}: " in str(raised.value)
        await anyio.to_thread.run_sync(lock.__exit__, None, None, None)
        assert await source.ack([first.receipt]) == [DONE]
        assert bodies(await source.receive(9, SOON)) == [b"b"]


@on_both_loops
async def test_a_lock_that_is_let_go_soon_is_waited_for_without_blocking_the_loop(queue: Queue) -> None:
    """Processes take turns; meanwhile this one goes on with everything else."""
    async with queue.sink() as sink, anyio.create_task_group() as tasks:
        lock = _locked(queue)
        await anyio.to_thread.run_sync(lock.__enter__)

        async def let_go() -> None:
            await anyio.sleep(0.2)
            await anyio.to_thread.run_sync(lock.__exit__, None, None, None)

        tasks.start_soon(let_go)
        assert await sink.publish(ONE) == [DONE]


@on_both_loops
async def test_a_full_file_is_a_transient_error_and_loses_nothing(queue: Queue) -> None:
    """SQLite's own limit of pages stands for the disk."""
    async with queue.sink() as sink, queue.source() as source:
        session = sink._publisher._session  # type: ignore[attr-defined]
        full = [Outgoing(body=bytes(50_000), key=str(number)) for number in range(20)]
        await anyio.to_thread.run_sync(session.db.execute, "PRAGMA max_page_count = 100")
        await sink.publish(ONE)
        for _ in range(2):
            with pytest.raises(TransientAdapterError, match=r"cannot publish to .*: the disk is full; free some space"):
                await sink.publish(full)
        assert bodies(await source.receive(9, SOON)) == [b"a"]
        await anyio.to_thread.run_sync(session.db.execute, "PRAGMA max_page_count = 100000")
        assert await sink.publish(full) == [DONE] * 20
        assert len(await source.receive(99, SOON)) == 20


FILL = """
import sys
from pathlib import Path
import anyio
from eventkit.errors import TransientAdapterError
from eventkit.spi import Address, Demand, Outgoing
from eventkit_sqlite import adapter

folder = Path(sys.argv[1])
ballast = folder / "ballast"
ballast.write_bytes(bytes(8_000_000))
address = Address.parse(f"sqlite:///{folder}/q.db")

async def main():
    confirmed = 0
    async with adapter.open_sink(address) as sink, adapter.open_source(address, Demand()) as source:
        try:
            while True:
                confirmed += len(await sink.publish([Outgoing(body=bytes(10_000))] * 20))
        except TransientAdapterError as error:
            print(error)
        ballast.unlink()
        confirmed += len(await sink.publish([Outgoing(body=bytes(10_000))] * 20))
        got = 0
        while deliveries := await source.receive(10, 0.0):
            got += len(deliveries)
            await source.ack([d.receipt for d in deliveries])
    print(confirmed > 20, confirmed == got)

anyio.run(main)
"""


def test_a_full_disk_is_a_transient_error_and_loses_nothing(tmp_path: Path) -> None:
    """On a real file system of 20 MiB; skipped where none can be mounted."""
    mounted = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=20m none "$1" && shift && exec "$@"', "sh"]
    try:
        subprocess.run([*mounted, str(tmp_path), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not allowed here")
    command = [*mounted, str(tmp_path), sys.executable, "-c", FILL, str(tmp_path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith(f"cannot publish to {tmp_path}/q.db: the disk is full; free some space")
    assert lines[1] == "True True"


@on_both_loops
async def test_a_file_that_was_deleted_ends_the_worker(queue: Queue) -> None:
    """SQLite would go on in a file without a name: a confirmed publish would be lost."""
    async with queue.sink() as sink, queue.source() as source:
        await sink.publish(ONE)
        (delivery,) = await source.receive(1, SOON)
        await anyio.to_thread.run_sync(queue.path.unlink)
        with pytest.raises(SourceNotFound, match="is gone: No such file or directory"):
            await sink.publish(ONE)
        with pytest.raises(SourceNotFound):
            await source.ack([delivery.receipt])
        await queue.publish(b"in a new file")
        with pytest.raises(SourceNotFound, match="was replaced while in use"):
            await source.receive(1, SOON)


@on_both_loops
async def test_a_waiting_receive_notices_that_its_file_is_gone(queue: Queue) -> None:
    """Or a worker would wait for ever beside the new file of its publishers."""
    async with queue.source() as source, anyio.create_task_group() as tasks:

        async def receive() -> None:
            with pytest.raises(SourceNotFound):
                await source.receive(1, 30.0)

        tasks.start_soon(receive)
        await anyio.sleep(0.1)
        await anyio.to_thread.run_sync(queue.path.unlink)


async def test_a_damaged_file_ends_the_worker(queue: Queue) -> None:
    """No waiting mends it."""
    await queue.publish(*(bytes(500) for _ in range(100)))
    with queue.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * (queue.path.stat().st_size - 4096))
    with pytest.raises(PermanentAdapterError, match=r"cannot .* the file is damaged; .* restore a copy"):
        async with queue.source() as source:
            await source.receive(10, SOON)


async def test_a_row_whose_attributes_cannot_be_read_is_damage_and_is_not_leased(queue: Queue) -> None:
    """Somebody wrote to the file; silently dropping attributes would be worse."""
    await queue.publish(b"a")
    queue.sql("UPDATE content SET attributes = ?", b"{")
    async with queue.source() as source:
        with pytest.raises(PermanentAdapterError, match="attributes of a row cannot be read"):
            await source.receive(10, SOON)
        assert (await source.depth()).leased == 0


async def test_tables_changed_by_another_program_end_the_worker(queue: Queue) -> None:
    """The text says what SQLite said."""
    async with queue.sink() as sink:
        queue.sql("DROP TABLE counter")
        with pytest.raises(PermanentAdapterError, match=r"was the file changed by another program\?.*no such table"):
            await sink.publish(ONE)


async def test_a_file_that_becomes_read_only_is_no_longer_ours_to_write(queue: Queue) -> None:
    """SQLite's flag does what a remounted disk does."""
    async with queue.sink() as sink:
        sink._publisher._session.db.execute("PRAGMA query_only = ON")  # type: ignore[attr-defined]
        with pytest.raises(AccessDenied, match="this user may not write to it"):
            await sink.publish(ONE)


async def test_a_source_whose_context_ended_says_so(queue: Queue) -> None:
    """A late settle is an AdapterError as every other: clause 7."""
    await queue.publish(b"a")
    async with queue.source() as source:
        deliveries = await source.receive(1, SOON)
    with pytest.raises(PermanentAdapterError, match="closed"):
        await source.ack(receipts(deliveries))
