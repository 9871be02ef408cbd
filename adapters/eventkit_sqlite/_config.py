"""What an address of the embedded queue says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eventkit.errors import ConfigurationError
from eventkit.spi import Address, Limits, Traits

_SYNCHRONOUS: Final = {"full": "FULL", "normal": "NORMAL"}

LIMITS: Final = Limits(receive=500, concurrent_receives=1, settle=500, extend=500, publish=500, body=16 * 1024 * 1024)
TRAITS: Final = Traits(
    delivery_count="exact",
    confirms_ack=True,
    max_retry_delay=None,
    delay_granularity=0.001,
    release_counts=True,
    key_release="hold",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One queue in one file.

    `synchronous` is SQLite's word for when the disk is told to keep a commit: FULL at each commit, so that a
    confirmed publish survives a power cut; NORMAL now and then, so that it survives a crash of the process only.
    """

    path: Path
    queue: str
    synchronous: str

    @classmethod
    def from_address(cls, address: Address) -> Place:
        """Read `address`. A relative path is taken from the working folder of now. Raises ConfigurationError."""
        options = address.options(("queue", "durability"))
        queue = options.get("queue", "default")
        if not queue:
            raise ConfigurationError(f"address {address}: the queue has no name; leave `queue` out, or name one")
        durability = options.get("durability", "full")
        if durability not in _SYNCHRONOUS:
            raise ConfigurationError(f"address {address}: durability is {durability!r}; write full or normal")
        return cls(path=_path(address), queue=queue, synchronous=_SYNCHRONOUS[durability])


def _path(address: Address) -> Path:
    if address.host:
        raise ConfigurationError(
            f"address {address} has two slashes before {address.host!r}; write three for a path from the working "
            f"folder, sqlite:///{address.host}{address.path}, or four for one from the root"
        )
    text = address.path.removeprefix("/")
    if not text or "\0" in text:
        raise ConfigurationError(f"address {address} names no file; write for example sqlite:///events.db")
    if text == ":memory:":
        raise ConfigurationError(f"address {address}: for a queue in memory write memory://events")
    return Path(text).absolute()
