"""From a scheme to its adapter, with real distributions on `sys.path`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventkit._registry import adapter_for, installed_schemes
from eventkit.errors import AdapterNotInstalled, ConfigurationError, UnknownScheme
from eventkit.spi import Address

Install = Callable[..., None]

ADAPTER = """
class Adapter:
    def open_source(self, address, demand): ...
    def open_sink(self, address): ...

adapter = Adapter()
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with one adapter on the path, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(
        scheme: str, code: str, *, distribution: str = "acme-adapters", extra: str = "", module: str = ""
    ) -> None:
        module = module or f"acme_{scheme}"
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        provides = f"Provides-Extra: {extra}\n" if extra else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n{provides}")
        (info / "entry_points.txt").write_text(f"[eventkit.adapters]\n{scheme} = {module}:adapter\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def failure(scheme: str, kind: type[Exception] = ConfigurationError) -> str:
    with pytest.raises(kind) as caught:
        adapter_for(Address.parse(f"{scheme}://here"))
    return str(caught.value)


def test_an_adapter_is_found_by_its_scheme(install: Install) -> None:
    """An adapter of another author needs nothing but an entry point."""
    install("acme", ADAPTER)

    found: Any = adapter_for(Address.parse("acme://here"))

    assert type(found).__name__ == "Adapter"


def test_listing_loads_no_adapter(install: Install) -> None:
    """An error message about one scheme must not fail on the SDK of another."""
    install("broken", "raise RuntimeError('loaded')")

    assert "broken" in installed_schemes()
    assert "acme_broken" not in sys.modules


def test_an_unknown_scheme_names_those_there_are(install: Install) -> None:
    """Whoever reads it learns what can be written instead."""
    install("acme", ADAPTER)

    text = failure("kafka", UnknownScheme)

    assert text.startswith('no adapter for scheme "kafka"; installed: ')
    assert "acme" in text
    assert "did you mean" not in text


def test_a_misspelt_scheme_is_met_with_the_nearest(install: Install) -> None:
    """Typing errors are the usual case."""
    install("acme", ADAPTER)

    assert failure("acm", UnknownScheme).endswith('; did you mean "acme"?')


def test_a_missing_sdk_names_the_extra(install: Install) -> None:
    """The reader copies the command; the distribution declares an extra by the name of the scheme."""
    install("acme", "import missing_sdk.client", extra="acme")

    text = failure("acme", AdapterNotInstalled)

    assert text == 'the adapter for "acme" needs the package of missing_sdk: pip install "acme-adapters[acme]"'


def test_a_missing_sdk_without_an_extra_names_module_and_distribution(install: Install) -> None:
    """We do not know what another author calls the package: whoever wrote the adapter does."""
    install("acme", "import missing_sdk.client")

    text = failure("acme", AdapterNotInstalled)

    assert "needs the module missing_sdk" in text
    assert "acme-adapters" in text


def test_a_python_without_a_standard_module_is_told_apart(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """No extra brings back the `_sqlite3` a Python was built without."""
    install("acme", "raise ModuleNotFoundError('no _sqlite3', name='_sqlite3')", extra="acme")

    text = failure("acme", AdapterNotInstalled)

    assert text.endswith("_sqlite3, which this Python was built without")


@pytest.mark.parametrize("name", ["acme_acme.typo", "eventkit.typo"])
def test_a_wrong_import_inside_the_adapter_is_no_missing_sdk(install: Install, name: str) -> None:
    """Installing an extra would not mend a bug, so its traceback must be seen."""
    install("acme", f"import {name}", extra="acme")

    with pytest.raises(ModuleNotFoundError):
        adapter_for(Address.parse("acme://here"))


def test_two_distributions_for_one_scheme_are_an_error(install: Install) -> None:
    """Which one wins would depend on the order of the path."""
    install("acme", ADAPTER)
    install("acme", ADAPTER, distribution="other-adapters", module="other_acme")

    text = failure("acme")

    assert "acme-adapters (acme_acme:adapter)" in text
    assert "other-adapters (other_acme:adapter)" in text


def test_an_entry_point_that_is_no_adapter_is_named(install: Install) -> None:
    """The author of an adapter sees the mistake where it is, not an AttributeError in a worker."""
    install("acme", "adapter = 3")

    assert "acme_acme:adapter, which is no adapter" in failure("acme")
