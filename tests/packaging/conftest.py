"""The checkout, parsed once, for tests that judge the source rather than run it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def core() -> dict[str, ast.Module]:
    """The modules of `eventkit`, by dotted name."""
    return _modules(ROOT / "eventkit")


@pytest.fixture(scope="session")
def adapters() -> dict[str, ast.Module]:
    """The modules of every adapter, by the dotted name they are imported under."""
    packages = (path.parent for path in (ROOT / "adapters").glob("*/__init__.py"))
    return {name: tree for package in packages for name, tree in _modules(package).items()}


def _modules(package: Path) -> dict[str, ast.Module]:
    return {_name(path.relative_to(package.parent)): ast.parse(path.read_text()) for path in package.rglob("*.py")}


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")
