"""`eventkit send`, `dlq ls`, `backlog`, `version` and the help, as processes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from eventkit_sqlite import adapter

from eventkit.spi import Address, Demand, Letter, NativeDeadLetter
from tests.process.cli_support import CONFIG, EVENTKIT, QUEUE, Shell, environment

EVENT = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.placed", "data": {"n": 1}}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path)
    shell.write("eventkit.toml", CONFIG)
    return shell


def bodies() -> list[bytes]:
    """What is ready in the queue, in order."""

    async def main() -> list[bytes]:
        async with adapter.open_source(Address.parse(QUEUE), Demand()) as source:
            return [delivery.body for delivery in await source.receive(100, 0.05)]

    return anyio.run(main)


def bury(reason: str, detail: str) -> None:
    """Dead-letter everything in the queue, as a worker of anybody's would."""

    async def main() -> None:
        async with adapter.open_source(Address.parse(QUEUE), Demand()) as source:
            assert isinstance(source, NativeDeadLetter)
            deliveries = await source.receive(100, 1)
            await source.dead_letter([Letter(receipt=d.receipt, reason=reason, detail=detail) for d in deliveries])

    anyio.run(main)


# -- send ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "events"),
    [
        ('{"n": 1}', [{"n": 1}]),
        ('{"n": 1}\n\n{"n": 2}\r\n{"n": 3}', [{"n": 1}, {"n": 2}, {"n": 3}]),
        ('{\n  "n": [\n    1,\n    2\n  ]\n}\n', [{"n": [1, 2]}]),
        ('[{"n": 1}, {"n": 2}]', [[{"n": 1}, {"n": 2}]]),
        ('\ufeff"text"\n3\nnull\n', ["text", 3, None]),
    ],
)
def test_each_document_of_the_input_becomes_an_event(shell: Shell, content: str, events: list[object]) -> None:
    """One document over any number of lines, or one a line: what files of JSON look like."""
    done = shell.eventkit("send", "-t", "order.placed", input=content)

    assert done.stdout == f"sent {len(events)} of {len(events)}\n"
    assert [json.loads(body).get("data") for body in bodies()] == events


def test_plain_json_is_wrapped_as_it_stands(shell: Shell) -> None:
    """Numbers must not be rounded on the way by a parser of ours."""
    shell.eventkit("send", "-t", "order.placed", "--source", "/shop", "--key", "customer-1", input='{"n": 1.10}')

    [body] = bodies()
    envelope = json.loads(body)
    assert b'{"n": 1.10}' in body
    assert envelope.items() >= {"specversion": "1.0", "source": "/shop", "type": "order.placed"}.items()
    assert envelope["id"]
    assert envelope["time"]


def test_a_cloud_event_is_sent_as_it_is(shell: Shell) -> None:
    """Its id is how a repeat is told, so sending it must not give it another."""
    shell.write("event.json", json.dumps(EVENT))

    assert shell.eventkit("send", "event.json").stdout == "sent 1 of 1\n"
    assert [json.loads(body) for body in bodies()] == [EVENT]


def test_one_bad_line_and_nothing_is_sent(shell: Shell) -> None:
    """Half a file in the queue can neither be sent again nor be left."""
    text = shell.errors("send", "-t", "a.b", code=2, input='{"n": 1}\n{"n": \n{"n": 3}\nNaN\n')

    assert [line.split(":")[1] for line in text.splitlines()] == [" line 2", " line 4", " nothing was sent"]
    assert bodies() == []


@pytest.mark.parametrize(
    ("arguments", "input", "said"),
    [
        ([], '{"n": 1}', "line 1: is not a CloudEvent: say what it is, for example --type order.placed"),
        (["-t", "a"], json.dumps(EVENT), "line 1: is a CloudEvent already, with a type and a source"),
        ([], json.dumps(EVENT | {"id": ""}), "line 1: CloudEvent attribute id: must not be empty"),
        (["-t", "a"], "", "nothing to send: the input is empty"),
        (["-t", "a"], '{"n": ', "the input is no JSON: "),
        (["-t", "a", "no-such-file.json"], "", "no-such-file.json cannot be read: No such file or directory"),
        (["-t", "a", "--to", "kafka://x"], "1", 'no adapter for scheme "kafka"'),
    ],
)
def test_what_cannot_be_sent_is_said_before_anything_is(
    shell: Shell, arguments: list[str], input: str, said: str
) -> None:
    """Each mistake with its place, and with what to write instead."""
    assert said in shell.errors("send", *arguments, code=2, input=input)


def test_a_failed_event_is_named_and_the_rest_is_sent(shell: Shell) -> None:
    """After the checks only the sink can refuse: then each line that was not sent is told, and the exit code is 1."""
    big = json.dumps("x" * 16 * 1024 * 1024)

    done = shell.eventkit("send", "-t", "a.b", input=f"1\n{big}\n3\n")

    assert done.returncode == 1
    assert re.fullmatch(r"error: line 2: not sent: body of \d+ bytes is over the sink's limit of \d+\n", done.stderr)
    assert done.stdout == "sent 2 of 3\n"


def test_another_address_needs_no_configuration(shell: Shell) -> None:
    """A one-off to another queue is one option, not a file."""
    (shell.folder / "eventkit.toml").unlink()

    assert shell.eventkit("send", "-t", "a.b", "--to", QUEUE, input="1").stdout == "sent 1 of 1\n"
    assert len(bodies()) == 1


def test_a_delayed_event_waits(shell: Shell) -> None:
    """`--delay` reaches the sink, and `backlog` tells waiting from ready."""
    shell.eventkit("send", "-t", "a.b", "--delay", "600", input="1")
    shell.eventkit("send", "-t", "a.b", input="2")

    depth = json.loads(shell.eventkit("backlog", "--json").stdout)
    assert depth.items() >= {"source": QUEUE, "ready": 1, "delayed": 1, "leased": 0, "dead": 0}.items()


def test_a_profile_from_the_environment_is_used(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployments choose by EVENTKIT_PROFILE, not by rewriting commands; what is typed wins."""
    shell.write("eventkit.toml", CONFIG + '[profiles.a]\nsource = "sqlite:///a.db"\n[profiles.b]\nlease = 9\n')
    monkeypatch.setenv("EVENTKIT_PROFILE", "a")

    assert "sqlite:///a.db" in shell.eventkit("backlog").stdout
    assert QUEUE in shell.eventkit("backlog", "--profile", "b").stdout


# -- dlq ls --------------------------------------------------------------------------------------


def test_dead_letters_are_listed_with_what_the_worker_wrote(shell: Shell) -> None:
    """Why, what and when, and never the payload."""
    shell.eventkit("send", input=json.dumps(EVENT | {"data": "secret payload"}))
    bury("attempts", json.dumps({"error": "shop.OutOfStock", "message": "none left", "attempts": 5}))

    listed = shell.eventkit("dlq", "ls").stdout
    [letter] = [json.loads(line) for line in shell.eventkit("dlq", "ls", "--json").stdout.splitlines()]

    head, row = listed.splitlines()
    assert head.split() == ["ID", "DIED", "(UTC)", "ATTEMPTS", "REASON", "TYPE", "EVENT", "DETAIL"]
    assert re.fullmatch(r"1 +[-0-9]+ [:0-9]+ +5 +attempts +order\.placed +7 +OutOfStock: none left", row)
    assert letter.items() >= {"id": "1", "reason": "attempts", "event_id": "7", "attempts": 5}.items()
    assert letter["detail"]["error"] == "shop.OutOfStock"
    assert "secret payload" not in listed + json.dumps(letter)


def test_what_others_wrote_beside_a_dead_letter_is_shown_safely(shell: Shell) -> None:
    """The detail is anybody's text: it must not drive the terminal of whoever looks."""
    shell.eventkit("send", "-t", "order.placed", input="1")
    bury("why\x1b[2J", "not JSON\nat all")

    rows = shell.eventkit("dlq", "ls").stdout.splitlines()

    assert len(rows) == 2
    assert "why\\x1b[2J" in rows[1]
    assert rows[1].endswith("not JSON\\nat all")


def test_a_limit_shows_the_oldest(shell: Shell) -> None:
    """Ten thousand dead letters are looked at from the first."""
    shell.eventkit("send", "-t", "a.b", input="\n".join(map(str, range(120))))
    bury("attempts", "{}")
    bury("attempts", "{}")

    assert len(shell.eventkit("dlq", "ls", "--limit", "110").stdout.splitlines()) == 111
    assert shell.eventkit("dlq", "ls", "--limit", "1").stdout.splitlines()[1].startswith("1 ")


def test_a_terminal_gets_lines_of_its_width(shell: Shell) -> None:
    """Rows that wrap are not columns; piped, nothing is cut."""
    shell.eventkit("send", "-t", "a.b", input="1")
    bury("attempts", json.dumps({"message": "long " * 30}))

    shown = on_a_terminal(shell, "dlq", "ls", columns=60)

    assert [len(line) for line in shown.splitlines()] == [60, 60]
    assert max(map(len, shell.eventkit("dlq", "ls").stdout.splitlines())) > 150


def test_no_dead_letters_is_said(shell: Shell) -> None:
    """Nothing at all would look like a failure."""
    assert shell.eventkit("dlq", "ls").stdout == f"no dead letters in {QUEUE}\n"
    assert shell.eventkit("dlq", "ls", "--json").stdout == ""


# -- the command itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["run"], ["send"], ["dlq", "ls"], ["backlog"], ["version"]])
def test_every_command_helps_with_an_example(shell: Shell, arguments: list[str]) -> None:
    """People read the example, not the options."""
    text = shell.eventkit(*arguments, "--help").stdout

    assert f"Example: {'echo' if arguments == ['send'] else 'eventkit ' + ' '.join(arguments)}" in text
    assert len(text.splitlines()) < 25


def test_the_version_is_told_either_way(shell: Shell) -> None:
    """`--version` is what everybody types first."""
    from eventkit import __version__

    assert shell.eventkit("version").stdout == shell.eventkit("--version").stdout == f"eventkit {__version__}\n"


def test_a_command_imports_only_what_it_needs() -> None:
    """Start-up is felt on every call, and in every shell completion."""
    code = (
        "import sys\nsys.argv = ['eventkit', 'version']\nfrom eventkit.cli import main\n"
        "try: main()\nexcept SystemExit: print(*sys.modules)"
    )

    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())

    # Not pydantic: recent versions of typer import it themselves.
    assert not loaded & {"structlog", "pydantic_settings", "sqlite3", "eventkit_sqlite", "rich", "asyncio"}
    assert {name for name in loaded if name.startswith("eventkit.cli")} == {"eventkit.cli", "eventkit.cli._app"}


@pytest.mark.parametrize("arguments", [["version"], ["--help"], ["run", "--help"]])
def test_it_starts_at_once(shell: Shell, arguments: list[str]) -> None:
    """Under 300 ms on an idle machine; the bound is for a busy one."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        shell.eventkit(*arguments)
        took.append(time.monotonic() - began)

    assert min(took) < 1


def on_a_terminal(shell: Shell, *arguments: str, columns: int) -> str:
    """What a command prints on a terminal of that width."""
    main, terminal = pty.openpty()
    env = environment() | {"COLUMNS": str(columns)}
    with subprocess.Popen([EVENTKIT, *arguments], cwd=shell.folder, env=env, stdout=terminal) as process:
        os.close(terminal)
        printed = b""
        try:
            while part := os.read(main, 4096):
                printed += part
        except OSError:  # Linux says so when the other end has closed
            pass
        finally:
            os.close(main)
    assert process.returncode == 0
    return printed.decode().replace("\r\n", "\n")
