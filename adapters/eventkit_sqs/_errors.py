"""The errors of SQS and of its SDK as eventkit's.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from eventkit.errors import (
    AccessDenied,
    AdapterError,
    ConnectionLost,
    PermanentAdapterError,
    SourceNotFound,
    Throttled,
    TransientAdapterError,
)
from eventkit.spi import DONE, LOST, Settled

_DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "KmsAccessDenied",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
    }
)
_WRONG_CREDENTIALS: Final = frozenset(
    {"InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException"}
)
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_MISSING: Final = frozenset({"NonExistentQueue", "QueueDoesNotExist"})
_THROTTLED: Final = frozenset(
    {
        "KmsThrottled",
        "OverLimit",
        "RequestLimitExceeded",
        "RequestThrottled",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_PASSING: Final = frozenset({"InternalError", "InternalFailure", "ServiceUnavailable", "ServiceUnavailableException"})
_GONE: Final = frozenset({"MessageNotInflight", "ReceiptHandleIsInvalid"})
_SLOW_DOWN: Final = 1.0
"""Seconds to wait after SQS asked for less; it names none itself."""


@contextmanager
def translated_errors(doing: str, place: str) -> Iterator[None]:
    """Raise an AdapterError in place of the SDK's. `doing` completes "cannot … QUEUE": `receive from`."""
    try:
        yield
    except ClientError as exc:
        raise _service_error(exc, f"cannot {doing} {place}") from exc
    except (NoCredentialsError, PartialCredentialsError, NoAuthTokenError) as exc:
        raise AccessDenied(
            f"cannot {doing} {place}: no credentials ({exc}); set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give this machine a role"
        ) from exc
    except CredentialRetrievalError as exc:
        raise TransientAdapterError(f"cannot {doing} {place}: credentials could not be fetched ({exc})") from exc
    except (BotoConnectionError, HTTPClientError, aiohttp.ClientError, OSError, TimeoutError) as exc:
        raise ConnectionLost(f"cannot {doing} {place}: {_one_line(exc)}") from exc
    except BotoCoreError as exc:
        raise PermanentAdapterError(f"cannot {doing} {place}: {_one_line(exc)}") from exc


def _service_error(exc: ClientError, what: str) -> AdapterError:
    code, status = _code(exc), exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    told = f"{code}: {_one_line(exc.response.get('Error', {}).get('Message', ''))}".removesuffix(": ")
    if code in _MISSING:
        return SourceNotFound(f"{what}: there is no such queue for these credentials in this region ({told})")
    if code in _WRONG_CREDENTIALS:
        return AccessDenied(f"{what}: the credentials are wrong ({told}); `aws sts get-caller-identity` shows whose")
    if code in _EXPIRED:
        return AccessDenied(f"{what}: the credentials have expired ({told}); start again with new ones")
    if code in _THROTTLED:
        return Throttled(f"{what}: SQS asks for fewer calls ({told})", retry_after=_SLOW_DOWN)
    if code in _DENIED or status == 403:
        return AccessDenied(f"{what}: not allowed ({told}); {_PERMISSIONS}")
    if code in _PASSING or status >= 500:
        return TransientAdapterError(f"{what}: SQS failed ({told})")
    return PermanentAdapterError(f"{what}: SQS refused it ({told})")


_PERMISSIONS: Final = (
    "a worker needs sqs:GetQueueUrl, GetQueueAttributes, ReceiveMessage, DeleteMessage and ChangeMessageVisibility, "
    "and sqs:SendMessage where it publishes (kms:Decrypt and kms:GenerateDataKey on an encrypted queue)"
)


def is_missing(exc: ClientError) -> bool:
    """Whether there is no such queue."""
    return _code(exc) in _MISSING


def _code(exc: ClientError) -> str:
    return _short(exc.response.get("Error", {}).get("Code", ""))


def _short(code: str) -> str:
    """Older names of errors, and those of single entries, have `AWS.SimpleQueueService.` before them."""
    return code.rpartition(".")[2]


def answers(reply: Mapping[str, Any], number: int) -> list[Settled]:
    """The answer for each of `number` entries of a batch call, whose ids are their positions."""
    results = [DONE] * number
    for failed in reply.get("Failed", ()):
        results[int(failed["Id"])] = _answer(failed)
    return results


def _answer(failed: Mapping[str, Any]) -> Settled:
    code, message = _short(failed.get("Code", "")), _one_line(failed.get("Message", ""))
    # "Value … for parameter ReceiptHandle is invalid. Reason: …": expired, deleted, or visible again.
    if code in _GONE or (code.startswith("InvalidParameterValue") and "ReceiptHandle" in message):
        return LOST
    cause = f"{code}: {message}".removesuffix(": ")
    if code in _THROTTLED:
        return Settled.retry(_SLOW_DOWN, cause)
    if code in _PASSING or not failed.get("SenderFault", True):
        return Settled.retry(cause=cause)
    return Settled.refused(cause)


def refusals(exc: AdapterError, number: int) -> list[Settled]:
    """The answer for each of `number` items of a call that SQS did not do. Raises `exc` when it may have done it."""
    if isinstance(exc, Throttled):
        return [Settled.retry(exc.retry_after or 0.0, str(exc))] * number
    if isinstance(exc, PermanentAdapterError):
        return [Settled.refused(str(exc))] * number
    raise exc


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
