"""`eventkit run`, as a process."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.process.cli_support import CONFIG, HANDLER, Shell

FULL = Path("/dev/full")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.write("eventkit.toml", CONFIG)
    shell.write("orders.py", HANDLER)
    return shell


def test_it_handles_what_was_sent_and_drains_on_sigterm(shell: Shell) -> None:
    """The whole loop: send, handle, settle, end well."""
    assert shell.eventkit("send", "--type", "order.placed", input='{"n": 1}\n{"n": 2}\n').stdout == "sent 2 of 2\n"

    with shell.worker() as worker:
        assert sorted(worker.printed(lines=2)) == ["shipped 1", "shipped 2"]
        code = worker.ended(signal.SIGTERM)

    assert code == 0
    assert worker.lines()[0]["event"] == "worker_started"
    assert worker.lines()[-1].items() >= {"event": "worker_stopped", "clean": True}.items()
    assert "ready    0" in shell.eventkit("backlog").stdout


def test_a_users_own_lines_name_their_event(shell: Shell) -> None:
    """The reason to let `eventkit run` own the logging: nothing is bound by hand, and every line can be found."""
    shell.write(
        "orders.py",
        "import logging\n" + HANDLER.replace('print("', 'logging.getLogger("shop").warning("packed"); print("'),
    )
    shell.eventkit("send", "--type", "order.placed", input='{"n": 1}')

    with shell.worker() as worker:
        worker.printed()
        [packed] = worker.logged("packed")

    assert packed.items() >= {"level": "warning", "logger": "shop", "event_type": "order.placed", "attempt": 1}.items()
    assert packed["event_id"]


def test_a_handler_that_blocks_the_loop_is_named(shell: Shell) -> None:
    """A missing `await` looks like a slow network until somebody shows the line."""
    shell.write("orders.py", "import time\n" + HANDLER.replace('print("', 'time.sleep(1.5); print("'))
    shell.eventkit("send", "--type", "order.placed", input='{"n": 1}')

    with shell.worker() as worker:
        worker.printed()
        first, last = worker.logged("loop_blocked", times=2)

    assert first["frame"] == last["frame"] == "orders.py:7 in handle"
    assert first["seconds"] < 1.2 < last["seconds"]


def test_a_second_signal_ends_it_at_once(shell: Shell) -> None:
    """An operator who presses Ctrl-C twice means it; 130 says so to the shell."""
    shell.write("orders.py", "import anyio\n" + HANDLER + "        await anyio.sleep(60)\n")
    shell.eventkit("send", "--type", "order.placed", input='{"n": 1}')

    with shell.worker() as worker:
        worker.printed()
        code = worker.ended(signal.SIGTERM, signal.SIGINT)

    assert code == 128 + signal.SIGINT


def test_a_handler_cut_by_the_drain_is_exit_code_1(shell: Shell) -> None:
    """The orchestrator must see that something was left undone."""
    shell.write("eventkit.toml", "drain = 0.5\n" + CONFIG)
    shell.write("orders.py", "import anyio\n" + HANDLER + "        await anyio.sleep(60)\n")
    shell.eventkit("send", "--type", "order.placed", input='{"n": 1}')

    with shell.worker() as worker:
        worker.printed()
        code = worker.ended(signal.SIGTERM)

    assert code == 1


def test_the_level_and_the_format_of_the_log_can_be_chosen(shell: Shell) -> None:
    """A person debugging wants columns and every event, without editing a file."""
    shell.eventkit("send", "--type", "order.placed", input='{"n": 1}')

    with shell.worker("--log-format", "console", "--log-level", "debug") as worker:
        worker.printed()
        worker.ended(signal.SIGTERM)

    assert "[debug    ] event_handled" in worker.log.read_text()


# -- handlers that cannot be had -----------------------------------------------------------------


def test_a_module_that_raises_shows_the_users_traceback_and_none_of_ours(shell: Shell) -> None:
    """Forty frames of framework hide the one line that is wrong."""
    shell.write("orders.py", "def price():\n    return 1 / 0\n\nprice()\n")

    text = shell.errors("run", code=2)

    # Newer Pythons underline the place.
    assert [line for line in text.splitlines() if line.strip("~^ ")][:5] == [
        "Traceback (most recent call last):",
        f'  File "{shell.folder}/orders.py", line 4, in <module>',
        "    price()",
        f'  File "{shell.folder}/orders.py", line 2, in price',
        "    return 1 / 0",
    ]
    assert text.endswith(
        "error: eventkit.toml: handlers: orders:Ship: cannot be imported: ZeroDivisionError: division by zero\n"
    )
    assert "eventkit/cli" not in text


def test_a_module_that_does_not_parse_shows_the_place(shell: Shell) -> None:
    """The parser has no frames: what would be left is all ours."""
    shell.write("orders.py", "def price(:\n    pass\n")

    text = shell.errors("run", code=2)

    assert text.startswith(f'  File "{shell.folder}/orders.py", line 1\n    def price(:\n')
    assert "cannot be imported: SyntaxError: " in text


def test_a_missing_import_of_the_users_is_not_a_missing_module_of_ours(shell: Shell) -> None:
    """`no module named orders` would be a lie when it is orders that lacks something."""
    shell.write("orders.py", "import not_installed_anywhere\n")

    text = shell.errors("run", code=2)

    assert f'File "{shell.folder}/orders.py", line 1' in text
    assert "ModuleNotFoundError: No module named 'not_installed_anywhere'" in text


OTHERS = """
from eventkit import Event, Handler

class Pooled(Handler[dict]):
    def __init__(self, pool, *, size): ...
    async def handle(self, event: Event[dict]) -> None: ...

class Unfinished(Handler[dict]): ...

class Fragile(Pooled):
    def __init__(self): raise RuntimeError("no address\\nsecond line")

class Plain: ...

ready = Pooled("pool", size=1)
"""


def test_everything_wrong_with_the_handlers_is_told_at_once(shell: Shell) -> None:
    """Each with the nearest name, or with what to do instead."""
    names = ["Pooled", "Unfinished", "Fragile", "Plain", "Pold", "Wrong"]
    listed = [f"others:{name}" for name in names] + ["other:Pooled", "others.Pooled", "no.such:Thing"]
    shell.write("others.py", OTHERS)
    shell.write("eventkit.toml", f'source = "memory://x"\nhandlers = {listed}\n')

    text = shell.errors("run", code=2)

    prefix = "error: eventkit.toml: handlers: "
    lines = [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]
    assert dict(line.split(": ", 1) for line in lines) == {
        "others:Pooled": "needs arguments (pool, size), and is made without any: open what it needs in its lifespan, "
        "or name an instance that your module makes",
        "others:Unfinished": "has no method handle",
        "others:Fragile": "cannot be made: RuntimeError: no address",
        "others:Plain": "is class Plain, no subclass of eventkit's Handler or BatchHandler",
        "others:Pold": "module others has no Pold; did you mean Pooled?",
        "others:Wrong": "module others has no Wrong; handlers in it: Pooled, Fragile",
        "other:Pooled": "no module named other; did you mean others?",
        "others.Pooled": 'is not module:Class; write for example "others:Pooled"',
        "no.such:Thing": f"no module named no; it is looked up in {shell.folder}, then among what is installed",
    }
    assert "second line" in text


def test_an_instance_may_be_named(shell: Shell) -> None:
    """A handler that needs arguments is made in the user's module, where they are."""
    shell.write("others.py", OTHERS)
    shell.write("eventkit.toml", 'source = "memory://x"\nhandlers = ["others:ready"]\n')

    with shell.worker() as worker:
        [started] = worker.logged("worker_started")

    assert started["handlers"] == ["Pooled"]


def test_an_exception_in_lifespan_shows_the_users_traceback(shell: Shell) -> None:
    """A database that refuses the connection is met here first; the operator needs its text, not our stack."""
    lifespan = """
    @contextlib.asynccontextmanager
    async def lifespan(self):
        raise ConnectionRefusedError("no database at db:5432")
        yield
"""
    shell.write("orders.py", "import contextlib\n" + HANDLER + lifespan)

    text = shell.errors("run", code=1)

    traceback = text[text.index("Traceback") :]
    assert [line for line in traceback.splitlines() if line.startswith("  File ")] == [
        f'  File "{shell.folder}/orders.py", line 11, in lifespan'
    ]
    assert text.endswith("error: ConnectionRefusedError: no database at db:5432\n")


# -- what else can be wrong at the start ---------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("kafka://orders", 'no adapter for scheme "kafka"; installed: '),
        ("sqlit:///queue.db", 'did you mean "sqlite"?'),
        ("sqlite:///queue.db?quue=a", "unknown parameter 'quue'; known: durability, queue"),
        ("orders", "has no scheme; write for example sqlite:///events.db"),
        ("sqs://user:hunter2@orders", "carries credentials; remove them"),
        ("sqlite:///folder", "is a folder; name a file"),
        ("sqlite:///orders.py", "is not an SQLite file"),
    ],
)
def test_a_wrong_source_is_one_clear_line(shell: Shell, source: str, said: str) -> None:
    """No traceback, no secret; exit code 2, so that no orchestrator starts it again and again in hope."""
    (shell.folder / "folder").mkdir()
    shell.write("eventkit.toml", CONFIG.replace("sqlite:///queue.db?queue=orders", source))

    text = shell.errors("run", code=2)

    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert said in text
    assert "hunter2" not in text


def test_without_handlers_it_says_what_to_write(shell: Shell) -> None:
    """`send` and `backlog` need none; `run` does."""
    shell.write("eventkit.toml", 'source = "memory://orders"\n')

    assert 'handlers: is missing; write for example handlers = ["handlers:MyHandler"]' in shell.errors("run", code=2)


def test_a_handler_without_a_type_says_what_to_write(shell: Shell) -> None:
    """The first thing people forget."""
    shell.write("orders.py", HANDLER.replace("Handler[dict])", "Handler)").replace("Event[dict]", "Event"))

    assert "Ship names no data type: write class Ship(Handler[Order])" in shell.errors("run", code=2)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_an_unwritable_log_does_not_stop_the_worker(shell: Shell) -> None:
    """A full disk under the log must not become an outage."""
    shell.eventkit("send", "--type", "order.placed", input='{"n": 1}')

    with FULL.open("w") as full, shell.worker(stderr=full) as worker:
        assert worker.printed() == ["shipped 1"]
        assert worker.ended(signal.SIGTERM) == 0
