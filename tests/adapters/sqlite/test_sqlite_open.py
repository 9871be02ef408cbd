"""Opening a queue file: what is made, and what is refused with a text that helps."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from eventkit_sqlite import _schema, adapter

from eventkit.errors import AccessDenied, AdapterError, ConfigurationError, EventKitError, SourceNotFound
from eventkit.spi import Address, Demand
from tests.adapters.sqlite.support import SOON, Queue, bodies


async def _open(address: Address) -> None:
    async with adapter.open_sink(address):
        pass


def _refusal(text: str | Address) -> EventKitError:
    """The error of opening both ways, which must be the same."""
    address = Address.parse(text) if isinstance(text, str) else text
    with pytest.raises(EventKitError) as sink:
        anyio.run(_open, address)

    async def source() -> None:
        async with adapter.open_source(address, Demand()):
            pass

    with pytest.raises(type(sink.value)) as other:
        anyio.run(source)
    assert str(other.value) == str(sink.value)
    return sink.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sqlite:///q.db?queues=a", "unknown parameter 'queues'; known: durability, queue"),
        ("sqlite:///q.db?queue=", "the queue has no name"),
        ("sqlite:///q.db?durability=none", "durability is 'none'; write full or normal"),
        ("sqlite://q.db", "two slashes before 'q.db'; write three for a path from the working folder, sqlite:///q.db"),
        ("sqlite://", "names no file; write for example sqlite:///events.db"),
        ("sqlite:///", "names no file"),
        ("sqlite:///a%00b", "names no file"),
        ("sqlite:///:memory:", "for a queue in memory write memory://events"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_with_what_to_write(text: str, message: str) -> None:
    """Before any file is touched."""
    error = _refusal(text)
    assert isinstance(error, ConfigurationError)
    assert message in str(error)


def test_three_slashes_are_a_path_from_the_working_folder_and_four_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with every other library that has such addresses; the name may hold any character."""
    monkeypatch.chdir(tmp_path)
    anyio.run(_open, Address.parse("sqlite:///a%3F%20ü.db"))
    anyio.run(_open, Address.parse(f"sqlite:///{tmp_path}/b.db?queue=q&durability=normal"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a? ü.db", "b.db"]


def test_an_empty_file_is_a_new_queue(queue: Queue) -> None:
    """`mktemp` makes one."""
    queue.path.touch()
    anyio.run(_open, queue.address)
    assert queue.sql("SELECT name FROM queue") == [("default",)]


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """The folder is meant to hold the file."""
    error = _refusal(Queue(tmp_path).address)
    assert isinstance(error, ConfigurationError)
    assert str(error) == f"{tmp_path} is a folder; name a file for the queue, such as {tmp_path}/events.db"


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    """A typing mistake must not begin an empty queue somewhere."""
    error = _refusal(Queue(tmp_path / "no" / "q.db").address)
    assert isinstance(error, SourceNotFound)
    assert str(error) == f"no folder {tmp_path}/no for the queue file q.db; create it first"


def test_a_device_is_refused() -> None:
    """SQLite would take it for an empty file."""
    assert "/dev/null is a device or a socket" in str(_refusal("sqlite:////dev/null"))


@pytest.mark.parametrize("content", [b"hello", b"x" * 5000, b"SQLite format 3\0" + bytes(100), bytes(5000)])
def test_a_file_that_is_not_sqlite_is_refused_and_not_touched(queue: Queue, content: bytes) -> None:
    """It may be somebody's data."""
    queue.path.write_bytes(content)
    error = _refusal(queue.address)
    assert isinstance(error, ConfigurationError)
    assert f"{queue.path} is not an SQLite file; name another file" in str(error)
    assert queue.path.read_bytes() == content


def test_a_database_of_another_program_is_refused(queue: Queue) -> None:
    """Tables of its own, whether or not it says whose it is."""
    queue.sql("CREATE TABLE event (id)")
    error = _refusal(queue.address)
    assert isinstance(error, ConfigurationError)
    assert f"{queue.path} is a database of another program (application_id 0x0, expected 0x45564b51)" in str(error)
    queue.sql("PRAGMA application_id = 7")
    assert "application_id 0x7" in str(_refusal(queue.address))
    assert queue.sql("SELECT name FROM sqlite_master") == [("event",)]


@pytest.mark.parametrize("version", [0, 2, 99])
def test_tables_of_another_version_are_refused(queue: Queue, version: int) -> None:
    """Both versions are named, and what to do."""
    anyio.run(_open, queue.address)
    queue.sql(f"PRAGMA user_version = {version}")
    error = _refusal(queue.address)
    assert isinstance(error, ConfigurationError)
    assert f"{queue.path} has version {version} of the queue's tables, this release of eventkit reads version 1" in str(
        error
    )


async def test_what_was_published_is_there_after_everything_closed(queue: Queue) -> None:
    """And after the file was copied, with no files beside it."""
    await queue.publish(b"a")
    assert [path.name for path in queue.path.parent.iterdir()] == ["events.db"]
    async with queue.source() as source:
        assert bodies(await source.receive(1, SOON)) == [b"a"]


@pytest.mark.parametrize("case", ["file", "folder", "closed folder"])
def test_a_read_only_file_or_folder_is_refused(tmp_path: Path, case: str) -> None:
    """In a process of a plain user: to root nothing is read-only."""
    folder = tmp_path / "folder"
    folder.mkdir()
    queue = Queue(folder / "q.db")
    anyio.run(_open, queue.address)
    modes = {"file": (0o444, 0o777), "folder": (0o666, 0o555), "closed folder": (0o666, 0o000)}
    queue.path.chmod(modes[case][0])
    folder.chmod(modes[case][1])
    try:
        kind, message = _as_plain_user(queue, tmp_path)
    finally:
        folder.chmod(0o777)
    assert kind == AccessDenied.__name__
    expected = {
        "file": f"queue file {queue.path} is read-only for this user; a worker writes to it (chmod u+rw)",
        "folder": f"folder {folder} is read-only for this user; SQLite keeps two more files beside q.db",
        "closed folder": f"queue file {queue.path} is out of reach: Permission denied",
    }
    assert message == expected[case]


OPEN = """
import os, sys
import anyio
from eventkit.errors import EventKitError
from eventkit.spi import Address
from eventkit_sqlite import adapter

async def main():
    async with adapter.open_sink(Address.parse(sys.argv[1])):
        pass

if sys.argv[2] == "plain user" and os.getuid() == 0:
    anyio.run(anyio.to_thread.run_sync, int)  # everything is loaded before the interpreter is out of reach
    os.setuid(65534)
try:
    anyio.run(main)
except EventKitError as error:
    print(type(error).__name__, error, sep="|")
"""


def _as_plain_user(queue: Queue, tmp_path: Path) -> tuple[str, str]:
    if os.getuid() == 0:
        for folder in (tmp_path, *tmp_path.parents[:3]):
            if "pytest-" in str(folder):
                folder.chmod(0o755)  # pytest's own folders are private
    command = [sys.executable, "-c", OPEN, str(queue.address), "plain user"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    kind, _, message = ran.stdout.strip().partition("|")
    return kind, message


def test_a_file_that_another_process_makes_just_now_is_not_taken_for_a_strangers(tmp_path: Path) -> None:
    """Whose it is takes three questions: answered before and after it was made, they fit no file of ours."""
    path = tmp_path / "q.db"

    class Between(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql == "PRAGMA user_version" and not others:
                others.append(sqlite3.connect(path, timeout=0, isolation_level=None))
                with suppress(sqlite3.OperationalError):  # it may have to wait for us
                    _schema._check_or_create(others[0], path)
            return super().execute(sql, *parameters)

    others: list[sqlite3.Connection] = []
    with closing(sqlite3.connect(path, isolation_level=None, factory=Between)) as db:
        _schema._check_or_create(db, path)
        assert _schema._is_ours(db, path)
    others[0].close()


def test_any_number_of_processes_may_make_the_file_at_once(queue: Queue) -> None:
    """A deployment starts its workers together."""
    command = [sys.executable, "-c", OPEN, str(queue.address), "same user"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert [process.communicate(timeout=20)[0] for process in started] == [""] * 6
    assert queue.sql("SELECT name, ordered FROM queue") == [("default", 0)]


async def test_an_older_sqlite_or_a_strange_disk_without_wal_is_refused(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the log in shared memory, several processes cannot share the file."""

    def connect_by_private_files(path: Path, **options: object) -> sqlite3.Connection:
        return sqlite3.Connection(f"file:{path}?vfs=unix-none", uri=True, isolation_level=None, check_same_thread=False)

    monkeypatch.setattr("eventkit_sqlite._schema.sqlite3.connect", connect_by_private_files)
    with pytest.raises((ConfigurationError, AdapterError), match="put it on a local disk"):
        async with queue.sink():
            pass
