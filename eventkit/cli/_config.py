"""From `eventkit.toml` and the name of a profile to checked settings, or to every mistake at once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from eventkit.errors import ConfigurationError

if TYPE_CHECKING:
    from eventkit.cli._settings import Settings

__all__ = ["Configuration", "load"]

Table: TypeAlias = Mapping[str, Any]

EXAMPLE = """
    source = "sqlite:///events.db?queue=events"
    handlers = ["handlers:MyHandler"]    # module:Class, looked up beside this file
"""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Checked settings, and the file they came from."""

    settings: Settings
    path: Path

    @property
    def source(self) -> str:
        """Address of the source."""
        return self.settings.source


def load(path: Path, profile: str | None) -> Configuration:
    """Read `path`, overlay `[profiles.PROFILE]` and check the result. Raises ConfigurationError."""
    top = dict(_read(path))
    profiles = top.pop("profiles", {})
    overlay = _profile(path, profiles, profile) if profile else {}
    return Configuration(_checked(path, merged(top, overlay), overlay, profile or ""), path)


def merged(below: Table, above: Table) -> dict[str, Any]:
    """`above` laid over `below`: tables are merged key by key, every other value replaces."""
    result = dict(below)
    for key, value in above.items():
        old = below.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        where = path if path.is_absolute() else path.absolute()
        raise ConfigurationError(
            f"there is no {path.name} in {where.parent}; write one, or name another with --config:\n{EXAMPLE}"
        ) from exc
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path} is not UTF-8 text (byte {exc.start})") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{path} is not TOML: {exc}") from exc


def _profile(path: Path, profiles: object, name: str) -> Table:
    if not isinstance(profiles, dict):
        raise ConfigurationError(f"{path}: profiles: must be tables, [profiles.NAME]")
    if name not in profiles:
        near = get_close_matches(name, profiles, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        known = ", ".join(profiles) or f"none; write [profiles.{name}]"
        raise ConfigurationError(f'{path}: no profile "{name}"; profiles: {known}{hint}')
    overlay = profiles[name]
    if not isinstance(overlay, dict):
        raise ConfigurationError(f"{path}: profiles.{name}: must be a table, [profiles.{name}]")
    return overlay


def _checked(path: Path, table: Table, overlay: Table, profile: str) -> Settings:
    from pydantic import ValidationError

    from eventkit.cli._mistakes import mistakes
    from eventkit.cli._settings import Settings

    try:
        return Settings.model_validate(table)
    except ValidationError as exc:
        lines = mistakes(exc.errors(include_url=False), table, Settings)
        problems = []
        for key, text in lines:
            prefix = f"profiles.{profile}." if _stated(overlay, key) else ""
            problems.append(f"{path}: {prefix}{'.'.join(key)}: {text}")
        raise ConfigurationError(*problems) from exc


def _stated(table: Table, key: tuple[str, ...]) -> bool:
    """Whether `table` itself holds `key`."""
    for part in key:
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return bool(key)
