"""What an address of an SQS queue says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from eventkit.errors import ConfigurationError
from eventkit.spi import Address

_OPTIONS: Final = ("endpoint", "region", "unwrap")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_ARN: Final = re.compile(r"arn:[a-z-]+:sqs:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):(?P<name>[^:/]+)")
_HOST: Final = re.compile(r"(?:sqs\.(?P<region>[a-z0-9-]+)|(?P<old_region>[a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?")
_EXAMPLES: Final = (
    "sqs://orders, sqs://arn:aws:sqs:eu-north-1:123456789012:orders or sqs://https://…/123456789012/orders"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One queue. What is None the SDK finds by itself: region, endpoint and account of the credentials."""

    address: str
    name: str
    region: str | None
    endpoint: str | None
    account: str | None = None
    url: str | None = None
    unwrap: bool = True

    @property
    def fifo(self) -> bool:
        """Whether it keeps order by group; its name says so."""
        return self.name.endswith(".fifo")

    @classmethod
    def from_address(cls, address: Address) -> Place:
        """Read `address`. Raises ConfigurationError."""
        options = address.options(_OPTIONS)
        unwrap = options.get("unwrap", "on")
        if unwrap not in {"on", "off"}:
            raise ConfigurationError(f"address {address}: unwrap is {unwrap!r}; write on or off")
        named = f"{address.host}{address.path}".strip("/")
        endpoint, region = options.get("endpoint"), options.get("region")
        if endpoint is not None and urlsplit(endpoint).scheme not in {"http", "https"}:
            raise ConfigurationError(f"address {address}: endpoint is no URL; write for example http://127.0.0.1:4100")
        account = url = None
        if (arn := _ARN.fullmatch(named)) is not None:
            name, account = arn["name"], arn["account"]
            region = _one_region(address, region, arn["region"])
        elif named.startswith(("http:", "https:")):
            url = re.sub("^(https?):/+", r"\1://", named)
            name, account, found = _read_url(address, url)
            region = _one_region(address, region, found)
            if found is None and endpoint is None:
                endpoint = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        else:
            name = named
        if _NAME.fullmatch(name) is None:
            raise ConfigurationError(
                f"address {address} names no queue: a name has up to 80 letters, digits, - and _, and may end in "
                f".fifo; write for example {_EXAMPLES}"
            )
        return cls(
            address=str(address),
            name=name,
            region=region,
            endpoint=endpoint,
            account=account,
            url=url,
            unwrap=unwrap == "on",
        )

    def other(self, arn: str) -> str:
        """The address of another queue, by its ARN, reached the same way."""
        return f"sqs://{arn}?endpoint={self.endpoint}" if self.endpoint else f"sqs://{arn}"


def _one_region(address: Address, asked: str | None, found: str | None) -> str | None:
    if asked and found and asked != found:
        raise ConfigurationError(f"address {address}: region is {asked}, and the queue is in {found}; leave region out")
    return asked or found


def _read_url(address: Address, url: str) -> tuple[str, str | None, str | None]:
    """(name, account, region) as far as a queue URL tells. Raises ConfigurationError."""
    parts = urlsplit(url)
    path = parts.path.strip("/").split("/")
    if len(path) > 2 or not parts.hostname:
        raise ConfigurationError(f"address {address} holds no queue URL, which ends in /ACCOUNT/NAME")
    host = _HOST.fullmatch(parts.hostname)
    region = (host["region"] or host["old_region"]) if host is not None else None
    return path[-1], path[0] if len(path) == 2 else None, region
