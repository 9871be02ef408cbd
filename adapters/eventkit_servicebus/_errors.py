"""The errors of Service Bus and of its SDK as eventkit's.

https://learn.microsoft.com/azure/service-bus-messaging/service-bus-messaging-exceptions-latest
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusCommunicationError,
    ServiceBusConnectionError,
    ServiceBusError,
    ServiceBusQuotaExceededError,
    ServiceBusServerBusyError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from eventkit.errors import (
    AccessDenied,
    AdapterError,
    ConnectionLost,
    PermanentAdapterError,
    SourceNotFound,
    Throttled,
    TransientAdapterError,
)
from eventkit.spi import LOST, UNKNOWN, Settled
from eventkit_servicebus._config import Place

SLOW_DOWN: Final = 10.0
"""Seconds to wait after Service Bus asked for less; what its makers advise."""
SOON: Final = 0.5
"""Seconds after which a link that is down may be up again."""

_DENIED: Final = (ServiceBusAuthenticationError, ServiceBusAuthorizationError, ClientAuthenticationError)
_UNANSWERED: Final = (ServiceBusConnectionError, ServiceBusCommunicationError, OperationTimeoutError)
_BUSY: Final = (ServiceBusServerBusyError, ServiceBusQuotaExceededError)
_GONE: Final = (MessageLockLostError, MessageNotFoundError, SessionLockLostError, MessageAlreadySettled)
_PERMISSIONS: Final = (
    "a worker needs the role Azure Service Bus Data Receiver (Listen) on its queue or subscription, and Data Sender "
    "(Send) on a queue whose retries are delayed, and wherever it publishes"
)


class SessionLost(TransientAdapterError):
    """Somebody else may have the session now."""


class LinkDown(Exception):
    """What the builtin ValueError of a handler that is down means: nothing was sent."""


_MEANINGS: Final[tuple[tuple[tuple[type[Exception], ...], type[AdapterError], str], ...]] = (
    (_DENIED, AccessDenied, "not allowed ({}); " + _PERMISSIONS),
    ((SessionLockLostError,), SessionLost, "the session is somebody else's now ({})"),
    (_GONE, TransientAdapterError, "a lock was lost ({})"),
    ((MessagingEntityDisabledError,), TransientAdapterError, "it is disabled ({}); enable it again"),
    ((SessionCannotBeLockedError,), TransientAdapterError, "somebody else has the session ({})"),
    ((*_UNANSWERED, OSError, TimeoutError), ConnectionLost, "{}"),
)


@contextmanager
def translated_errors(doing: str, place: Place) -> Iterator[None]:
    """Raise an AdapterError in place of the SDK's. `doing` completes "cannot … NAME": `receive from`."""
    try:
        yield
    except LinkDown as exc:
        raise ConnectionLost(f"cannot {doing} {place.address}: the connection is down") from exc.__cause__
    except (AzureError, OSError, TimeoutError) as exc:
        raise error_of(exc, f"cannot {doing} {place.address}", place) from exc


def error_of(exc: Exception, what: str, place: Place) -> AdapterError:
    """The AdapterError for an error of the SDK."""
    told, condition = _one_line(exc), condition_of(exc)
    if isinstance(exc, MessagingEntityNotFoundError):
        return SourceNotFound(f"{what}: there is no {place.shown} in {place.host} ({told})")
    if isinstance(exc, _BUSY):
        return Throttled(f"{what}: Service Bus asks for fewer calls ({told})", retry_after=SLOW_DOWN)
    for kinds, made, text in _MEANINGS:
        if isinstance(exc, kinds):
            return made(f"{what}: {text.format(told)}")
    if condition is None and (isinstance(exc, ServiceBusError) or not isinstance(exc, AzureError)):
        # "Handler failed: …", or what it wraps: an error inside the SDK, mostly of a connection that goes down.
        return ConnectionLost(f"{what}: {told}")
    if condition in {"amqp:internal-error", "com.microsoft:internal-server-error"}:
        return TransientAdapterError(f"{what}: Service Bus failed ({told})")
    return PermanentAdapterError(f"{what}: Service Bus refused it ({told})" + _mend(condition, told))


@contextmanager
def detached_errors(place: Place) -> Iterator[None]:
    """The same for a receiver that was open: whatever it was detached for, opening the next one tells what lasts."""
    try:
        with translated_errors("receive from", place):
            yield
    except PermanentAdapterError as exc:
        raise ConnectionLost(str(exc)) from exc.__cause__


def _mend(condition: str | None, told: str) -> str:
    """What to do about a refusal, where that is known."""
    if condition == "amqp:not-allowed" and "session" in told.lower():
        return "; to publish where sessions are required, write ?sessions=on after its address"
    return ""


def condition_of(exc: BaseException | None) -> str | None:
    """The condition of AMQP in an error, which the SDK shows in its text only; None where there is none."""
    condition = getattr(exc, "_condition", None)
    return None if condition is None else str(condition)


def is_answer(exc: BaseException | None) -> bool:
    """Whether Service Bus itself said so, about one message: the link that it came on is as good as before."""
    return isinstance(exc, (*_GONE, ServiceBusServerBusyError, MessageSizeExceededError))


def settled_of(exc: Exception, place: Place) -> Settled | AdapterError:
    """What became of one item whose call raised `exc`; an AdapterError if nothing is known of it."""
    if isinstance(exc, _GONE):
        return LOST
    if isinstance(exc, LinkDown):
        return Settled.retry(SOON, "the connection is down")
    error = error_of(exc, f"cannot settle in {place.address}", place)
    if isinstance(error, Throttled):
        return Settled.retry(SLOW_DOWN, str(error))
    if isinstance(error, PermanentAdapterError):
        return Settled.refused(str(error))
    return error


def refusals(exc: AdapterError, number: int) -> list[Settled]:
    """The answer for each of `number` items of a call that Service Bus did not do. Raises `exc` when it may have."""
    if isinstance(exc, Throttled):
        return [Settled.retry(exc.retry_after or 0.0, str(exc))] * number
    if isinstance(exc, PermanentAdapterError):
        return [Settled.refused(str(exc))] * number
    raise exc


def partly(results: Sequence[Settled | AdapterError]) -> list[Settled]:
    """The answers of several calls in order; of one that failed, UNKNOWN. Raises its error if all of them did."""
    errors = [result for result in results if isinstance(result, AdapterError)]
    if errors and len(errors) == len(results):
        raise errors[0]
    return [UNKNOWN if isinstance(result, AdapterError) else result for result in results]


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
