"""From the scheme of an address to the adapter that answers for it, through entry points."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING

from eventkit.errors import AdapterNotInstalled, ConfigurationError, UnknownScheme
from eventkit.spi import Adapter, Address

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["adapter_for", "installed_schemes"]

GROUP = "eventkit.adapters"


def installed_schemes() -> list[str]:
    """The schemes that have an adapter, in alphabetical order. Loads none of them."""
    return sorted({point.name for point in _entry_points()})


def adapter_for(address: Address) -> Adapter:
    """Load the adapter for the scheme of `address`.

    Raises UnknownScheme when nobody answers for it, AdapterNotInstalled when the package its adapter stands on is
    missing, and ConfigurationError when two installed distributions answer for it.
    """
    scheme = address.scheme
    points = {point.value: point for point in _entry_points() if point.name == scheme}
    if not points:
        raise UnknownScheme(_unknown(scheme))
    if len(points) > 1:
        owners = " and ".join(f"{_distribution(point)} ({value})" for value, point in sorted(points.items()))
        raise ConfigurationError(f'two adapters for scheme "{scheme}": {owners}; uninstall one of them')
    return _load(next(iter(points.values())))


def _entry_points() -> list[EntryPoint]:
    # Dear to import, and needed only once a worker starts.
    from importlib.metadata import entry_points

    return list(entry_points(group=GROUP))


def _unknown(scheme: str) -> str:
    schemes = installed_schemes()
    near = get_close_matches(scheme, schemes, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f'no adapter for scheme "{scheme}"; installed: {", ".join(schemes) or "none"}{hint}'


def _load(point: EntryPoint) -> Adapter:
    try:
        adapter = point.load()
    except ModuleNotFoundError as exc:
        # Without a name, or with one of ours or of the adapter itself, it is a mistake in the code, not a missing SDK.
        top = (exc.name or "").partition(".")[0]
        if top in {"", "eventkit", point.module.partition(".")[0]}:
            raise
        raise AdapterNotInstalled(_not_installed(point, exc.name or "", top)) from exc
    if not (hasattr(adapter, "open_source") and hasattr(adapter, "open_sink")):
        raise ConfigurationError(
            f'the entry point "{point.name}" of {_distribution(point)} names {point.value}, which is no adapter: '
            "it has no open_source and open_sink"
        )
    found: Adapter = adapter
    return found


def _not_installed(point: EntryPoint, module: str, top: str) -> str:
    scheme, distribution = point.name, _distribution(point)
    if top in sys.stdlib_module_names:
        return f'the adapter for "{scheme}" needs the module {module}, which this Python was built without'
    extras = point.dist.metadata.get_all("Provides-Extra") if point.dist is not None else None
    if scheme in (extras or ()):
        return f'the adapter for "{scheme}" needs the package of {top}: pip install "{distribution}[{scheme}]"'
    return (
        f'the adapter for "{scheme}" needs the module {module}, which is not installed; '
        f"see what {distribution} asks for"
    )


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"
