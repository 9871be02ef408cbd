"""What an address of a Service Bus queue, topic or subscription says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from eventkit.errors import ConfigurationError
from eventkit.spi import Address

Kind: TypeAlias = Literal["source", "sink"]

DOMAIN: Final = "servicebus.windows.net"
MOST_AHEAD: Final = 1_000
"""Messages that may be fetched ahead by one receiver: their leases run, and nobody extends them."""

_OPTIONS: Final = {"source": ("endpoint", "prefetch", "sessions"), "sink": ("endpoint", "sessions")}
MOST_SESSIONS: Final = 100
SESSIONS: Final = 8
"""Sessions that a source has at a time: a receiver and a connection each."""
_DEAD: Final = re.compile(r"/\$deadletterqueue$", re.IGNORECASE)
_NAMESPACE: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,48}[A-Za-z0-9]")
_HOST: Final = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9_])?")
_ENDPOINT: Final = re.compile(r"(?:sb://)?([A-Za-z0-9._-]+:\d{1,5})/?")
_EXAMPLES: Final = "servicebus://my-namespace/orders or servicebus://my-namespace/orders/subscriptions/audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One queue or topic, or with `subscription` one of a topic's; of its dead letters, if `dead_letters`.

    `endpoint` is HOST:PORT of a local server or emulator, without TLS; None for the real thing.
    """

    address: str
    host: str
    name: str
    subscription: str | None = None
    dead_letters: bool = False
    endpoint: str | None = None
    prefetch: int = 0
    sessions: int | None = None
    """How many sessions to have at a time, or that what is published is of a session; None if nothing was said."""

    @property
    def entity(self) -> str:
        """Its path within the namespace, without that of its dead letters."""
        return self.name if self.subscription is None else f"{self.name}/Subscriptions/{self.subscription}"

    @property
    def shown(self) -> str:
        """What it is, for people: `queue orders`."""
        if self.subscription is not None:
            return f"subscription {self.subscription} of topic {self.name}"
        return f"queue {self.name}"

    @classmethod
    def from_address(cls, address: Address, kind: Kind) -> Place:
        """Read `address`, of a thing of this kind. Raises ConfigurationError."""
        options = address.options(_OPTIONS[kind])
        path, dead_letters = _DEAD.subn("", address.path.strip("/"))
        name, subscription = _named(address, path, kind)
        if dead_letters and kind == "sink":
            raise ConfigurationError(f"address {address}: nothing can be published to dead letters; name the queue")
        return cls(
            address=str(address),
            host=_host(address),
            name=name,
            subscription=subscription,
            dead_letters=bool(dead_letters),
            endpoint=_endpoint(address, options.get("endpoint")),
            prefetch=_prefetch(address, options.get("prefetch", "0")),
            sessions=_sessions(address, options.get("sessions")),
        )


def _named(address: Address, path: str, kind: Kind) -> tuple[str, str | None]:
    """(queue or topic, subscription). Raises ConfigurationError.

    A name may hold slashes: then TOPIC/subscriptions/NAME says where the topic ends. Two parts are topic and
    subscription where one receives, and a name where one publishes.
    """
    topic, word, subscription = _partition(path)
    if not word and kind == "source" and path.count("/") == 1:
        topic, word, subscription = path.partition("/")
    if word and kind == "sink":
        raise ConfigurationError(
            f"address {address} is of a subscription; publish to its topic: servicebus://{address.host}/{topic}"
        )
    wrong = [part for part in (topic, *([subscription] if word else [])) if _NAME.fullmatch(part) is None]
    if wrong or "//" in topic or "/" in subscription:
        raise ConfigurationError(
            f"address {address} names no queue, topic or subscription: a name has letters, digits and . - _, and "
            f"begins and ends with a letter or digit; write for example {_EXAMPLES}"
        )
    return topic, subscription if word else None


def _partition(path: str) -> tuple[str, str, str]:
    parts = re.split("/subscriptions/", path, maxsplit=1, flags=re.IGNORECASE)
    return (parts[0], "/", parts[1]) if len(parts) == 2 else (path, "", "")


def _host(address: Address) -> str:
    """The full name of the namespace's host. Raises ConfigurationError."""
    host = address.host.rstrip(".")
    if _NAMESPACE.fullmatch(host) is not None:
        return f"{host}.{DOMAIN}".lower()
    if _HOST.fullmatch(host) is not None:
        return host.lower()
    raise ConfigurationError(
        f"address {address} names no namespace: it has letters, digits and -, with .{DOMAIN} after it or without; "
        f"write for example {_EXAMPLES}"
    )


def _endpoint(address: Address, text: str | None) -> str | None:
    if text is None:
        return None
    found = _ENDPOINT.fullmatch(text)
    if found is None:
        raise ConfigurationError(
            f"address {address}: endpoint is no place of a local server; write for example 127.0.0.1:5672"
        )
    return found[1]


def _prefetch(address: Address, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > MOST_AHEAD:
        raise ConfigurationError(f"address {address}: prefetch is {text!r}; write a number from 0 to {MOST_AHEAD:,}")
    return int(text)


def _sessions(address: Address, text: str | None) -> int | None:
    if text is None or text == "off":
        return None
    if text == "on":
        return SESSIONS
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= MOST_SESSIONS:
        raise ConfigurationError(
            f"address {address}: sessions is {text!r}; write on, off, or from 1 to {MOST_SESSIONS} to have at a time"
        )
    return int(text)
