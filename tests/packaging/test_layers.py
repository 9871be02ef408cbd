"""Imports point downwards only, so that any layer can be read, tested and replaced without those above it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

import pytest

type_checking_only = ("TYPE_CHECKING", "typing.TYPE_CHECKING")

LAYERS = (
    {"errors", "_event", "_version"},
    {"spi"},
    {"_policies", "_idempotency", "_telemetry", "_codec", "_handler"},
    {"_config", "_registry"},
    {"_pipeline"},
    {"_worker"},
    {"_run"},
    {"__init__", "cli"},
    {"testing"},
)
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}

# Third-party packages the core may import, each with the places that may.
THIRD_PARTY = {
    "anyio": ("eventkit",),
    "msgspec": ("eventkit",),
    "structlog": ("eventkit._telemetry", "eventkit.cli"),
    "pydantic": ("eventkit._codec._pydantic", "eventkit._config", "eventkit.cli"),
    "pydantic_core": ("eventkit._codec._pydantic", "eventkit.cli"),
    "pydantic_settings": ("eventkit._config", "eventkit.cli"),
    "pytest": ("eventkit.testing.plugin",),
    "rich": ("eventkit.cli",),
    "trio": ("eventkit.testing.simulation",),
    "typer": ("eventkit.cli",),
}

Imports = list[tuple[str, str, int]]
"""Who imports what, on which line."""


@pytest.fixture(scope="module")
def core_imports(core: dict[str, ast.Module]) -> Imports:
    return [(importer, resolved(name, core), line) for importer, tree in core.items() for name, line in imports(tree)]


def imports(tree: ast.AST, *, typing_too: bool = False) -> Iterator[tuple[str, int]]:
    """Every dotted name imported in `tree`, inside functions too; under `if TYPE_CHECKING` only when asked for."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in type_checking_only and not typing_too:
            for other in node.orelse:
                yield from imports(other)
        else:
            yield from imports(node, typing_too=typing_too)


def resolved(name: str, modules: dict[str, ast.Module]) -> str:
    """`eventkit.spi.Source` is the module `eventkit.spi`; a name of another package stays as it is."""
    if not within(name, "eventkit"):
        return name
    while name not in modules:
        name, _, attribute = name.rpartition(".")
        assert name, f"eventkit has no module for the import that ends in {attribute}"
    return name


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def part(module: str) -> str:
    """The first name below `eventkit`: what the layers are made of."""
    return [*module.split("."), "__init__"][1]


def test_every_part_of_the_core_has_its_layer(core: dict[str, ast.Module]) -> None:
    """A part that no layer names would escape the next test."""
    assert {part(module) for module in core} <= set(LEVEL)


def test_the_core_imports_downwards(core_imports: Imports) -> None:
    """Or the policies cannot be tested without the pipeline, nor the pipeline without a worker."""
    upwards = [
        f"{importer}:{line} imports {name}"
        for importer, name, line in core_imports
        if within(name, "eventkit") and LEVEL[part(name)] > LEVEL[part(importer)]
    ]

    assert upwards == []


def test_the_core_imports_no_sdk(core_imports: Imports) -> None:
    """Nobody pays for a cloud they do not use, and the command line's libraries stay in the command line."""
    strangers = [
        f"{importer}:{line} imports {name}"
        for importer, name, line in core_imports
        if (top := name.split(".")[0]) not in sys.stdlib_module_names
        and top != "eventkit"
        and not any(within(importer, place) for place in THIRD_PARTY.get(top, ()))
    ]

    assert strangers == []


def test_the_policies_and_the_pipeline_read_no_file_and_no_environment(core_imports: Imports) -> None:
    """Configuration enters from above, the outside world through a source: what is left is a function of its input."""
    outside = [
        f"{importer}:{line} imports {name}"
        for importer, name, line in core_imports
        if part(importer) in {"_policies", "_pipeline"}
        and name.split(".")[0] in {"io", "os", "pathlib", "shutil", "socket", "sqlite3", "subprocess"}
    ]

    assert outside == []


def test_adapters_know_only_the_doors(adapters: dict[str, ast.Module]) -> None:
    """An adapter of this repository has no shortcut that another author would not have; types count here too."""
    shortcuts = [
        f"{importer}:{line} imports {name}"
        for importer, tree in adapters.items()
        for name, line in imports(tree, typing_too=True)
        if within(name, "eventkit") and not allowed_to_adapters(importer, name)
    ]

    assert shortcuts == []


def allowed_to_adapters(importer: str, name: str) -> bool:
    doors = {"eventkit.errors", "eventkit.spi"}
    if importer.split(".")[1:2] == ["_local"]:  # the local server for development stands on the in-memory broker
        doors.add("eventkit.testing")
    return any(within(name, door) for door in doors)
