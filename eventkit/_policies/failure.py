"""What an exception means: a bad event, an outage, or a wish of the handler."""

from __future__ import annotations

import enum
import errno
from collections.abc import Mapping, Sequence

from eventkit.errors import BatchFailure, HandlerTimeout, Reject, Retry, Skip

__all__ = ["Failure", "FailurePolicy"]


class Failure(enum.Enum):
    """The classes a failure falls into."""

    ITEM = "item"
    TRANSIENT = "transient"
    REJECT = "reject"
    SKIP = "skip"
    RETRY = "retry"


_NETWORK_ERRNOS = frozenset(
    number
    for name in [
        "ECONNABORTED",
        "ECONNREFUSED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETRESET",
        "ENETUNREACH",
        "ENOBUFS",
        "ENOTCONN",
        "EPIPE",
        "ESHUTDOWN",
        "ETIMEDOUT",
    ]
    if (number := getattr(errno, name, None)) is not None
)

# Matched by qualified name in the MRO, so that no client library is imported here.
_TRANSIENT_NAMES = frozenset(
    {
        "builtins.ConnectionError",
        "builtins.TimeoutError",
        "socket.gaierror",
        "httpx.TransportError",
        "httpcore.NetworkError",
        "httpcore.TimeoutException",
        "aiohttp.client_exceptions.ClientConnectionError",
        "aiohttp.ClientConnectionError",
        "redis.exceptions.ConnectionError",
        "redis.exceptions.TimeoutError",
        "psycopg.errors.ConnectionDoesNotExist",
        "psycopg.errors.ConnectionException",
        "psycopg.errors.ConnectionFailure",
        "psycopg.errors.ConnectionTimeout",
        "psycopg.errors.AdminShutdown",
        "psycopg.errors.CrashShutdown",
        "psycopg.errors.CannotConnectNow",
        "psycopg.errors.TooManyConnections",
        "psycopg_pool.PoolTimeout",
        "asyncpg.exceptions.PostgresConnectionError",
        "asyncpg.exceptions.CannotConnectNowError",
        "asyncpg.exceptions.TooManyConnectionsError",
        "asyncpg.exceptions.AdminShutdownError",
        "asyncpg.exceptions.CrashShutdownError",
        "asyncpg.exceptions._base.InterfaceError",
        "botocore.exceptions.EndpointConnectionError",
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.HTTPClientError",
    }
)

# botocore raises one class for every service error; the code inside tells throttling from the rest.
_THROTTLING_CODES = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


class FailurePolicy:
    """Classes exceptions: the handler's own rules in their order, then its `transient`, then the default table.

    A `psycopg.OperationalError` counts as an outage only when it carries no SQLSTATE: that is how psycopg
    reports a connection that could not be made or broke.
    """

    def __init__(
        self,
        failures: Mapping[type[BaseException] | str, str],
        transient: Sequence[type[BaseException] | str],
    ) -> None:
        self._rules = [(_name(rule), Failure(meaning)) for rule, meaning in failures.items()]
        self._rules += [(_name(rule), Failure.TRANSIENT) for rule in transient]

    def classify(self, error: BaseException) -> Failure:
        """The class of `error`, raised by a handler or given to `batch.fail`."""
        match error:
            case Retry():
                return Failure.RETRY
            case Reject():
                return Failure.REJECT
            case Skip():
                return Failure.SKIP
            case HandlerTimeout() | BatchFailure():
                return Failure.ITEM
        names = [_name(cls) for cls in type(error).__mro__]
        for rule, failure in self._rules:
            if rule in names:
                return failure
        if isinstance(error, BaseExceptionGroup):
            return self._of_group(error)
        return Failure.TRANSIENT if _looks_like_an_outage(error, names) else Failure.ITEM

    def _of_group(self, group: BaseExceptionGroup[BaseException]) -> Failure:
        """A group is an outage only when everything in it is."""
        transient = all(self.classify(error) is Failure.TRANSIENT for error in group.exceptions)
        return Failure.TRANSIENT if transient else Failure.ITEM


def _name(rule: type[BaseException] | str) -> str:
    return rule if isinstance(rule, str) else f"{rule.__module__}.{rule.__qualname__}"


def _looks_like_an_outage(error: BaseException, names: Sequence[str]) -> bool:
    if not _TRANSIENT_NAMES.isdisjoint(names):
        return True
    if isinstance(error, OSError) and error.errno in _NETWORK_ERRNOS:
        return True
    if "psycopg.OperationalError" in names:
        return getattr(error, "sqlstate", None) is None
    if "botocore.exceptions.ClientError" in names:
        response = getattr(error, "response", None)
        details = response.get("Error") if isinstance(response, Mapping) else None
        return isinstance(details, Mapping) and details.get("Code") in _THROTTLING_CODES
    return False
