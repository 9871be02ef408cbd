"""The distribution is what a stranger installs: it holds our packages, all of them, nothing else, and runs anywhere."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGES = {
    "eventkit": "eventkit",
    "eventkit_pubsub": "adapters/eventkit_pubsub",
    "eventkit_servicebus": "adapters/eventkit_servicebus",
    "eventkit_sqlite": "adapters/eventkit_sqlite",
    "eventkit_sqs": "adapters/eventkit_sqs",
}
EXTRAS = {"all", "dynamodb", "local", "otel", "postgres", "pubsub", "redis", "servicebus", "sqs"}
SCRIPTS = "Scripts" if os.name == "nt" else "bin"

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, as an index would: what the sdist lacks, the wheel lacks."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, root, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of a new environment with the wheel and its dependencies, no extra, at the locked versions."""
    folder = tmp_path_factory.mktemp("bare")
    lock = (root / "requirements" / "dev.txt").read_text().splitlines()
    pins = folder / "constraints.txt"
    pins.write_text("\n".join(line.rstrip("\\ ") for line in lock if line[:1].isalnum()))
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / SCRIPTS / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", pins, wheel, cwd=folder)
    run(python, "-m", "pip", "check", cwd=folder)
    return python.parent


def run(*command: str | Path, cwd: Path) -> str:
    """What `command` printed; on failure, all of it is in the error."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_holds_the_intended_packages_and_nothing_else(wheel: Path, root: Path) -> None:
    """Neither a test, an example nor the word `adapters` reaches a user's environment."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {
        f"{package}/{path.relative_to(root / folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert names == sources


def test_every_adapter_of_the_repository_is_intended(root: Path) -> None:
    """A new adapter folder must be named in pyproject.toml and above."""
    assert {f"adapters/{path.parent.name}" for path in (root / "adapters").glob("*/__init__.py")} == {
        folder for folder in PACKAGES.values() if folder != "eventkit"
    }


def test_every_package_is_typed(wheel: Path) -> None:
    """Without the marker, type checkers see `Any` in users' code."""
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_says_what_it_is(wheel: Path, root: Path) -> None:
    """Licence, versions and extras, as the index and installers read them."""
    archive = zipfile.ZipFile(wheel)
    info = f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"
    metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    licence = archive.read(f"{info}/licenses/LICENSE")

    assert metadata["Name"] == "eventkit-worker"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) == EXTRAS
    assert licence == (root / "LICENSE").read_bytes()


def test_the_command_runs_from_another_folder(bare: Path, tmp_path: Path) -> None:
    """The script must not depend on the checkout, nor on any extra."""
    assert "0." in run(bare / "eventkit", "version", cwd=tmp_path)


def test_the_package_imports_from_the_environment(bare: Path, tmp_path: Path) -> None:
    """Imported from the wheel, with its version, at no cost in metadata."""
    line = "import eventkit; print(eventkit.__version__, eventkit.__file__)"
    version, file = run(bare / "python", "-c", line, cwd=tmp_path).split(maxsplit=1)

    assert version == run(bare / "eventkit", "version", cwd=tmp_path).split()[-1]
    assert Path(file).is_relative_to(bare.parent)


def test_the_adapters_of_the_wheel_are_found(bare: Path, tmp_path: Path) -> None:
    """Entry points in the wheel must name what the wheel holds; what needs no extra can be loaded."""
    line = (
        "from importlib.metadata import entry_points\n"
        "points = {point.name: point for point in entry_points(group='eventkit.adapters')}\n"
        "print(sorted(points), points['memory'].load() and points['sqlite'].load() and 'loaded')"
    )

    said = run(bare / "python", "-c", line, cwd=tmp_path).strip()
    assert said == "['memory', 'pubsub', 'servicebus', 'sqlite', 'sqs'] loaded"


@pytest.mark.parametrize("scheme", ["pubsub", "servicebus", "sqs"])
def test_an_adapter_without_its_sdk_names_the_extra(bare: Path, tmp_path: Path, scheme: str) -> None:
    """The first thing a newcomer does is to change the address."""
    command = [str(bare / "eventkit"), "send", "--type", "test", "--to", f"{scheme}://events"]
    done = subprocess.run(command, cwd=tmp_path, input="{}", capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert f'pip install "eventkit-worker[{scheme}]"' in done.stderr


def test_the_local_server_of_service_bus_stands_on_nothing_else(bare: Path, tmp_path: Path) -> None:
    """No SDK, no AMQP library: the package around it, which imports the SDK, is left out here."""
    script = """
import asyncio
import importlib.util
import sys
from types import ModuleType

package = ModuleType("eventkit_servicebus")
package.__path__ = importlib.util.find_spec("eventkit_servicebus").submodule_search_locations
sys.modules[package.__name__] = package
from eventkit_servicebus._local import serve

async def main():
    async with serve(["orders"]) as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(place.endpoint.rpartition(":")[2]))
        writer.write(b"AMQP\\0\\1\\0\\0")
        print(await reader.readexactly(8))
        writer.close()

asyncio.run(main())
"""
    assert run(bare / "python", "-c", script, cwd=tmp_path).strip() == r"b'AMQP\x00\x01\x00\x00'"


@pytest.mark.parametrize(
    ("scheme", "extras"), [("pubsub", "pubsub"), ("servicebus", "servicebus"), ("sqs", "sqs,local")]
)
def test_with_its_extras_an_adapter_serves_and_sends(
    wheel: Path, bare: Path, tmp_path: Path, scheme: str, extras: str
) -> None:
    """All that it imports must be in its extras, and not only in a developer's environment."""
    pins = bare.parent.parent / "constraints.txt"
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / SCRIPTS / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", pins, f"{wheel}[{extras}]", cwd=tmp_path)
    script = f"""
import os
import anyio
from eventkit_{scheme} import adapter
from eventkit.spi import Address, Outgoing

async def main():
    async with adapter.local(["events"]) as server:
        os.environ.update(server.environment)
        async with adapter.open_sink(Address.parse(server.address("events"))) as sink:
            print((await sink.publish([Outgoing(body=b"1")]))[0].kind.value)

anyio.run(main)
"""
    assert run(python, "-c", script, cwd=tmp_path).strip() == "done"
