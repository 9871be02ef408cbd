"""`eventkit local`, as a process."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest

from tests.process.cli_support import HANDLER, PATIENCE, Shell, serving


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[str, str, float]:
    """What it says after a signal, and how long that takes. Its exit code is 0."""
    started = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out, err, time.monotonic() - started


def post(endpoint: str, operation: str, body: str) -> bytes:
    headers = {"X-Amz-Target": f"AmazonSQS.{operation}", "Authorization": "AWS4-HMAC-SHA256 whatever"}
    request = urllib.request.Request(endpoint, body.encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        found: bytes = reply.read()
        return found


def test_it_says_what_to_write_and_counts_at_the_end() -> None:
    """Every line is there to be copied; a long poll that hangs must not hold up Ctrl-C."""
    with serving("sqs", "orders", "bills.fifo", "--port", "0") as (process, lines):
        text = "\n".join(lines)
        exports = dict(re.findall(r"export (\w+)=(\S+)", text))
        endpoint = exports["AWS_ENDPOINT_URL_SQS"]
        assert lines[0] == f"listening at {endpoint}"
        assert exports.keys() >= {"AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
        sources = [tomllib.loads(line.strip())["source"] for line in lines if "source = " in line]
        assert sources == ["sqs://orders", "sqs://bills.fifo"]
        at = lines.index("dead letters arrive at:")
        assert lines[at + 1 : at + 3] == ["  sqs://orders-dlq", "  sqs://bills-dlq.fifo"]

        url = f"{endpoint}/000000000000/orders"
        post(endpoint, "SendMessage", f'{{"QueueUrl": "{url}", "MessageBody": "x"}}')
        post(endpoint, "ReceiveMessage", f'{{"QueueUrl": "{url}"}}')
        with socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2]))) as hanging:
            body = f'{{"QueueUrl": "{url}", "WaitTimeSeconds": 20}}'
            head = "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: x\r\nX-Amz-Target: AmazonSQS.ReceiveMessage\r\n"
            hanging.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            time.sleep(0.3)
            out, err, seconds = ended(process, signal.SIGINT)
    assert out == "stopped: 1 published, 1 delivered, 0 acked, 0 nacked, 0 expired, 0 dead\n"
    assert err == ""
    assert seconds < 3


def test_a_worker_needs_no_more_than_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied line by line: an address, and a variable whose value a shell would cut at its semicolons."""
    shell = Shell(tmp_path)
    shell.write("orders.py", HANDLER)
    with serving("servicebus", "orders", "orders.sessions", "events/audit", "--port", "0") as (process, lines):
        place = "servicebus://eventkit-local"
        sources = [f"{place}/orders", f"{place}/orders.sessions", f"{place}/events/audit"]
        at = lines.index("eventkit.toml, one of:")
        assert [tomllib.loads(line)["source"] for line in lines[at + 1 : at + 4]] == sources
        at = lines.index("dead letters arrive at:")
        assert lines[at + 1 : at + 4] == [f"  {source}/$DeadLetterQueue" for source in sources]
        [export] = [line for line in lines if line.startswith("  export ")]
        _, assignment = shlex.split(export)
        name, _, value = assignment.partition("=")
        assert lines[0].removeprefix("listening at ") in value

        monkeypatch.setenv(name, value)
        shell.write("eventkit.toml", f'source = "{sources[2]}"\nhandlers = ["orders:Ship"]\n')
        sent = shell.eventkit("send", "--type", "order.placed", "--to", f"{place}/events", input='{"n": 1}')
        assert (sent.returncode, sent.stdout) == (0, "sent 1 of 1\n"), sent.stderr
        with shell.worker() as worker:
            assert worker.printed() == ["shipped 1"]
            assert worker.ended(signal.SIGTERM) == 0
        out, err, _ = ended(process, signal.SIGINT)
    assert out == "stopped: 1 published, 1 delivered, 1 acked, 0 nacked, 0 expired, 0 dead\n"
    assert err == ""


@pytest.mark.parametrize(
    ("scheme", "source"),
    [
        ("sqs", "sqs://events"),
        ("pubsub", "pubsub://eventkit-local/events"),
        ("servicebus", "servicebus://eventkit-local/events"),
    ],
)
def test_it_serves_one_queue_when_none_is_named_and_ends_at_sigterm(scheme: str, source: str) -> None:
    """What a process manager sends, and the shortest thing to type."""
    with serving(scheme, "--port", "0") as (process, lines):
        assert f'  source = "{source}"' in lines
        out, _, _ = ended(process, signal.SIGTERM)
    assert out.startswith("stopped: ")


@pytest.mark.parametrize("scheme", ["sqs", "pubsub", "servicebus"])
def test_a_port_that_is_taken_is_one_clear_error(tmp_path: Path, scheme: str) -> None:
    """The same fixed port each time, so the second start meets the first."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = Shell(tmp_path).errors("local", scheme, "orders", "--port", str(port), code=2)
    assert said == (
        f"error: port {port} of 127.0.0.1 is taken: stop what listens there, or choose another one with --port "
        "(0 is any free one)\n"
    )


@pytest.mark.parametrize("scheme", ["memory", "kafka"])
def test_a_scheme_without_a_local_server_lists_those_with_one(tmp_path: Path, scheme: str) -> None:
    """Whether there is an adapter for it or not."""
    said = Shell(tmp_path).errors("local", scheme, code=2)
    assert said == f'error: no local server for "{scheme}"; there is one for: pubsub, servicebus, sqs\n'


def test_each_name_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    """All of them at once, before anything listens."""
    said = Shell(tmp_path).errors("local", "servicebus", "a b", "orders", "news", "news/audit", code=2)
    named, taken = said.splitlines()
    assert named.startswith("error: queue 'a b': a name has letters, digits")
    assert taken == "error: queue 'news': there is a topic of that name"


def test_the_port_is_the_same_each_time(tmp_path: Path) -> None:
    """So that the environment and the configuration can stay."""
    done = Shell(tmp_path).eventkit("local", "--help")
    assert re.search(r"--port.*default: 4100", done.stdout, re.DOTALL)
