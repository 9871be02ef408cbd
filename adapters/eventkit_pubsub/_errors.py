"""The errors of Pub/Sub and of its SDK as eventkit's.

https://cloud.google.com/pubsub/docs/reference/error-codes
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import grpc
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import GoogleAuthError
from google.rpc.error_details_pb2 import ErrorInfo

from eventkit.errors import (
    AccessDenied,
    AdapterError,
    ConnectionLost,
    PermanentAdapterError,
    SourceNotFound,
    Throttled,
    TransientAdapterError,
)
from eventkit.spi import DONE, LOST, UNKNOWN, Settled
from eventkit_pubsub._config import Place

_Code = grpc.StatusCode
_LOST_ON_THE_WAY: Final = frozenset({_Code.CANCELLED, _Code.DEADLINE_EXCEEDED, _Code.UNAVAILABLE, _Code.UNKNOWN})
_PASSING: Final = frozenset({_Code.ABORTED, _Code.INTERNAL})
_UNSIGNED: Final = "Getting metadata from plugin failed"
"""How gRPC says that it could not get a token, for a call that it did not make."""
_SLOW_DOWN: Final = 1.0
"""Seconds to wait after Pub/Sub asked for less; it names none itself."""
_PERMISSIONS: Final = (
    "a worker needs roles/pubsub.subscriber and roles/pubsub.viewer on its subscription, and roles/pubsub.publisher "
    "on the topic of its dead letters, and wherever it publishes"
)


@contextmanager
def translated_errors(doing: str, place: Place) -> Iterator[None]:
    """Raise an AdapterError in place of the SDK's. `doing` completes "cannot … NAME": `receive from`."""
    try:
        yield
    except (GoogleAPICallError, RetryError) as exc:
        raise error_of(exc, f"cannot {doing} {place.address}", place) from exc
    except GoogleAuthError as exc:
        raise _of_credentials(exc, f"cannot {doing} {place.address}") from exc
    except grpc.aio.UsageError as exc:
        raise PermanentAdapterError(f"cannot {doing} {place.address}: it is closed ({_one_line(exc)})") from exc
    except (grpc.RpcError, grpc.aio.InternalError, OSError, TimeoutError) as exc:
        raise ConnectionLost(f"cannot {doing} {place.address}: {_one_line(exc)}") from exc


def error_of(exc: GoogleAPICallError | RetryError, what: str, place: Place) -> AdapterError:
    """The AdapterError for an answer of Pub/Sub, or of gRPC where there was none."""
    code, told = code_of(exc), _one_line(getattr(exc, "message", "") or exc)
    match code:
        case _Code.NOT_FOUND:
            return SourceNotFound(f"{what}: there is no {place.kind[:-1]} {place.name} ({told})")
        case _Code.PERMISSION_DENIED:
            return AccessDenied(f"{what}: not allowed ({told}); {_PERMISSIONS}")
        case _Code.UNAUTHENTICATED:
            return AccessDenied(f"{what}: the credentials are not accepted ({told}); they may have expired")
        case _Code.RESOURCE_EXHAUSTED:
            return Throttled(f"{what}: Pub/Sub asks for fewer calls ({told})", retry_after=_SLOW_DOWN)
        case _Code.UNAVAILABLE if _UNSIGNED in told:
            return TransientAdapterError(f"{what}: credentials could not be fetched ({told})")
        case None:
            return ConnectionLost(f"{what}: {told}")
    if code in _LOST_ON_THE_WAY:
        return ConnectionLost(f"{what}: {told}")
    if code in _PASSING:
        return TransientAdapterError(f"{what}: Pub/Sub failed ({code.name}: {told})")
    return PermanentAdapterError(f"{what}: Pub/Sub refused it ({code.name}: {told})")


def _of_credentials(exc: GoogleAuthError, what: str) -> AdapterError:
    """Credentials that cannot be had now may be had later; those that are refused may not."""
    if exc.retryable:
        return TransientAdapterError(f"{what}: credentials could not be fetched ({_one_line(exc)})")
    return AccessDenied(f"{what}: the credentials are of no use ({_one_line(exc)})")


def code_of(exc: GoogleAPICallError | RetryError) -> grpc.StatusCode | None:
    """The status of a failed call; None where gRPC gave none."""
    code = getattr(exc, "grpc_status_code", None)
    return code if isinstance(code, grpc.StatusCode) else None


def answers(exc: GoogleAPICallError, ack_ids: Sequence[str]) -> list[Settled] | None:
    """The answer for each id of a call that failed for some of them; None when that is not what it says.

    Only a subscription with exactly-once delivery answers so: ids that are not named were settled.
    https://cloud.google.com/pubsub/docs/exactly-once-delivery
    """
    failures = _failures(exc)
    if not any(id in failures for id in ack_ids):
        return None
    return [_answer(failures.get(id)) for id in ack_ids]


def _failures(exc: GoogleAPICallError) -> Mapping[str, str]:
    """The reason for each id that Pub/Sub names."""
    named: dict[str, str] = {}
    for detail in exc.details or ():
        if isinstance(detail, ErrorInfo):
            named.update(detail.metadata)
    return named


def _answer(reason: str | None) -> Settled:
    if reason is None:
        return DONE
    if reason.startswith("TRANSIENT_FAILURE"):
        return Settled.retry(cause=reason)
    if reason == "PERMANENT_FAILURE_INVALID_ACK_ID":
        return LOST
    return Settled.refused(reason)


def refusals(exc: AdapterError, number: int) -> list[Settled]:
    """The answer for each of `number` items of a call that Pub/Sub did not do. Raises `exc` when it may have."""
    if isinstance(exc, Throttled):
        return [Settled.retry(exc.retry_after or 0.0, str(exc))] * number
    if isinstance(exc, PermanentAdapterError):
        return [Settled.refused(str(exc))] * number
    raise exc


def partly(results: Sequence[list[Settled] | AdapterError], sizes: Sequence[int]) -> list[Settled]:
    """The answers of several calls in order; of one that failed, UNKNOWN. Raises its error if all of them did."""
    errors = [result for result in results if isinstance(result, AdapterError)]
    if errors and len(errors) == len(results):
        raise errors[0]
    return [
        answer
        for result, size in zip(results, sizes, strict=True)
        for answer in ([UNKNOWN] * size if isinstance(result, AdapterError) else result)
    ]


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
