"""The connection string in the environment: what is wrong with it is told without its key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from eventkit.errors import ConfigurationError

VARIABLE: Final = "SERVICEBUS_CONNECTION_STRING"

_PARTS: Final = {
    "endpoint": "Endpoint",
    "sharedaccesskeyname": "SharedAccessKeyName",
    "sharedaccesskey": "SharedAccessKey",
    "sharedaccesssignature": "SharedAccessSignature",
    "entitypath": "EntityPath",
    "usedevelopmentemulator": "UseDevelopmentEmulator",
}
_EXAMPLE: Final = "Endpoint=sb://my-namespace.servicebus.windows.net/;SharedAccessKeyName=…;SharedAccessKey=…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A connection string that can be used. `entity` is the only queue or topic it is for, if it names one."""

    text: str = field(repr=False)
    host: str
    entity: str | None = None
    emulator: bool = False

    @classmethod
    def parse(cls, text: str) -> Secret:
        """Read `text`. Raises ConfigurationError, with every mistake and no value of a key."""
        parts, problems = _read(text)
        host = _host_in(parts.get("endpoint", ""))
        if "endpoint" not in parts:
            problems.append("Endpoint is missing")
        elif not host:
            problems.append("Endpoint is no URL that begins with sb://")
        problems += _of_keys(parts)
        word = parts.get("usedevelopmentemulator", "false")
        if word.lower() not in {"true", "false"}:
            problems.append("UseDevelopmentEmulator is neither true nor false")
        if problems:
            raise ConfigurationError(*(f"{VARIABLE}: {each}; it looks like {_EXAMPLE}" for each in problems))
        emulator = word.lower() == "true"
        # The SDK knows this word in lower case only, and tries TLS at the emulator with any other.
        wire = ";".join(
            f"{_PARTS[name]}={value.lower() if name == 'usedevelopmentemulator' else value}"
            for name, value in parts.items()
        )
        return cls(text=wire, host=host.lower(), entity=parts.get("entitypath") or None, emulator=emulator)


def _read(text: str) -> tuple[dict[str, str], list[str]]:
    """(parts by name in lower case, what is wrong with them)."""
    parts: dict[str, str] = {}
    problems: list[str] = []
    for position, piece in enumerate(text.strip().strip(";").split(";"), 1):
        name, equals, value = piece.strip().partition("=")
        known = _PARTS.get(name.strip().lower())
        if not equals or known is None:
            # What has no known name may be a piece of a key: its text is not shown.
            problems.append(f"part {position} is none of {', '.join(_PARTS.values())}")
        elif not value.strip():
            problems.append(f"{known} is empty")
        elif known.lower() in parts:
            problems.append(f"{known} stands there twice")
        else:
            parts[known.lower()] = value.strip()
    return parts, problems


def _host_in(endpoint: str) -> str:
    try:
        return urlsplit(endpoint).netloc
    except ValueError:
        return ""


def _of_keys(parts: dict[str, str]) -> list[str]:
    name, key, signature = (
        part in parts for part in ("sharedaccesskeyname", "sharedaccesskey", "sharedaccesssignature")
    )
    if signature and (key or name):
        return ["SharedAccessKey and SharedAccessSignature are two ways to say who calls; leave one out"]
    if signature:
        return []
    missing = [_PARTS[part] for part in ("sharedaccesskeyname", "sharedaccesskey") if part not in parts]
    return [f"{each} is missing" for each in missing]


def local(endpoint: str) -> Secret:
    """That of a local server, or of Microsoft's emulator, at HOST:PORT: its key is public."""
    return Secret.parse(
        f"Endpoint=sb://{endpoint};SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;"
        "UseDevelopmentEmulator=true"
    )
