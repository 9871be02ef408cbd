"""What an address of a Pub/Sub subscription or topic says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from eventkit.errors import ConfigurationError
from eventkit.spi import Address

Kind: TypeAlias = Literal["subscriptions", "topics"]

_OPTIONS: Final = ("endpoint", "region")
_NAME: Final = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
_PROJECT: Final = re.compile(r"(?:[a-z0-9.-]+:)?[a-z0-9][a-z0-9-]*")
_REGION: Final = re.compile("[a-z]+-[a-z]+[0-9]+")
_EXAMPLE: Final = "pubsub://my-project/orders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One subscription or topic. Without a `project` it is that of the credentials.

    `endpoint` is HOST:PORT, None for the one of the SDK; `plain` says that nothing is encrypted there.
    """

    address: str
    kind: Kind
    name: str
    project: str | None = None
    endpoint: str | None = None
    plain: bool = False
    query: str = ""

    @classmethod
    def from_address(cls, address: Address, kind: Kind) -> Place:
        """Read `address`, of a thing of this kind. Raises ConfigurationError."""
        options = address.options(_OPTIONS)
        project, name = _named(address, kind)
        endpoint, plain = _endpoint(address, options)
        if project is not None and _PROJECT.fullmatch(project) is None:
            raise ConfigurationError(f"address {address}: {project!r} is no id of a project; write {_EXAMPLE}")
        if _NAME.fullmatch(name) is None:
            raise ConfigurationError(
                f"address {address} names no {kind[:-1]}: a name has 3 to 255 letters, digits and - _ . ~ + %, begins "
                f"with a letter, and not with goog; write for example {_EXAMPLE}"
            )
        return cls(
            address=str(address),
            kind=kind,
            name=name,
            project=project,
            endpoint=endpoint,
            plain=plain,
            query="".join(f"?{name}={value}" for name, value in address.query[:1]),
        )

    def other(self, path: str) -> str:
        """The address of another thing, by its full name, reached the same way."""
        return f"pubsub://{path.removeprefix('projects/')}{self.query}"


def _named(address: Address, kind: Kind) -> tuple[str | None, str]:
    """(project, name). Raises ConfigurationError."""
    parts = [address.host, *address.path.strip("/").split("/")]
    if parts[0] == "projects" and len(parts) == 4:
        del parts[0]
    if len(parts) == 3 and parts[1] in {"subscriptions", "topics"}:
        if parts[1] != kind:
            wanted = "publish to a topic" if kind == "topics" else "receive from a subscription"
            raise ConfigurationError(f"address {address} is of one of the {parts[1]}; one can only {wanted}")
        del parts[1]
    if len(parts) != 2 or not parts[1]:
        raise ConfigurationError(f"address {address} is not pubsub://PROJECT/NAME; write for example {_EXAMPLE}")
    return parts[0] or None, parts[1]


def _endpoint(address: Address, options: dict[str, str]) -> tuple[str | None, bool]:
    """(HOST:PORT, whether nothing is encrypted there). Raises ConfigurationError."""
    endpoint, region = options.get("endpoint"), options.get("region")
    if region is not None:
        if endpoint is not None:
            raise ConfigurationError(f"address {address}: region and endpoint are two ways to say where; leave one out")
        if _REGION.fullmatch(region) is None:
            raise ConfigurationError(f"address {address}: {region!r} is no region; write for example europe-north1")
        return f"{region}-pubsub.googleapis.com:443", False
    if endpoint is None:
        return None, False
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        port = parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise ConfigurationError(
            f"address {address}: endpoint is no place to connect to; write for example "
            "europe-north1-pubsub.googleapis.com:443, or http://127.0.0.1:4100 for a local server"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}", parts.scheme == "http"
