"""The errors of SQS and its SDK: which are waited out, which end the worker, and what is said of each."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from eventkit_sqs._errors import answers, translated_errors

from eventkit.errors import (
    AccessDenied,
    AdapterError,
    ConnectionLost,
    PermanentAdapterError,
    SourceNotFound,
    Throttled,
    TransientAdapterError,
)
from eventkit.spi import DONE, LOST, SettledKind

SERVICE = [
    ("AWS.SimpleQueueService.NonExistentQueue", 400, SourceNotFound),
    ("QueueDoesNotExist", 400, SourceNotFound),
    ("RequestThrottled", 403, Throttled),
    ("ThrottlingException", 400, Throttled),
    ("OverLimit", 403, Throttled),
    ("AccessDenied", 403, AccessDenied),
    ("AccessDeniedException", 400, AccessDenied),
    ("InvalidClientTokenId", 403, AccessDenied),
    ("SignatureDoesNotMatch", 403, AccessDenied),
    ("ExpiredToken", 403, AccessDenied),
    ("KmsAccessDenied", 400, AccessDenied),
    ("SomethingNew", 403, AccessDenied),
    ("InternalFailure", 500, TransientAdapterError),
    ("ServiceUnavailable", 503, TransientAdapterError),
    ("SomethingNew", 502, TransientAdapterError),
    ("UnsupportedOperation", 400, PermanentAdapterError),
]
URL = {"endpoint_url": "http://127.0.0.1:9"}
SDK: list[tuple[Exception, type[AdapterError]]] = [
    (NoCredentialsError(), AccessDenied),
    (CredentialRetrievalError(provider="web identity", error_msg="timed out"), TransientAdapterError),
    (EndpointConnectionError(**URL), ConnectionLost),
    (ConnectTimeoutError(**URL), ConnectionLost),
    (ReadTimeoutError(**URL), ConnectionLost),
    (ConnectionClosedError(**URL), ConnectionLost),
    (aiohttp.ClientPayloadError("cut short"), ConnectionLost),
    (ConnectionResetError("reset"), ConnectionLost),
    (ParamValidationError(report="a bug of ours"), PermanentAdapterError),
    (BotoCoreError(), PermanentAdapterError),
]


@pytest.mark.parametrize(("code", "status", "kind"), SERVICE)
def test_what_sqs_says_has_one_meaning(code: str, status: int, kind: type[AdapterError]) -> None:
    """What passes is waited out, what does not ends the worker: the other way round is a hot loop or a dead worker."""
    response: Any = {"Error": {"Code": code, "Message": "said\nso"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = ClientError(response, "ReceiveMessage")

    with (
        pytest.raises(AdapterError, match=r"cannot receive from sqs://orders: .*said so") as raised,
        translated_errors("receive from", "sqs://orders"),
    ):
        raise error

    assert type(raised.value) is kind
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(("error", "kind"), SDK, ids=lambda value: type(value).__name__)
def test_what_the_sdk_says_has_one_meaning(error: Exception, kind: type[AdapterError]) -> None:
    """None of its many exceptions leaves the adapter."""
    with (
        pytest.raises(AdapterError, match="cannot ack in sqs://orders: ") as raised,
        translated_errors("ack in", "sqs://orders"),
    ):
        raise error

    assert type(raised.value) is kind
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("failed", "kind"),
    [
        ({"Code": "ReceiptHandleIsInvalid", "SenderFault": True}, SettledKind.LOST),
        ({"Code": "AWS.SimpleQueueService.MessageNotInflight", "SenderFault": True}, SettledKind.LOST),
        (
            {
                "Code": "InvalidParameterValue",
                "SenderFault": True,
                "Message": "Value x for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.",
            },
            SettledKind.LOST,
        ),
        (
            {
                "Code": "InvalidParameterValue",
                "SenderFault": True,
                "Message": "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]",
            },
            SettledKind.REFUSED,
        ),
        ({"Code": "InternalError", "SenderFault": False}, SettledKind.RETRY),
        ({"Code": "SomethingNew", "SenderFault": False}, SettledKind.RETRY),
        ({"Code": "RequestThrottled", "SenderFault": True}, SettledKind.RETRY),
        ({"Code": "SomethingNew", "SenderFault": True}, SettledKind.REFUSED),
    ],
    ids=lambda value: value["Code"] if isinstance(value, dict) else "",
)
def test_what_is_said_of_one_entry_has_one_meaning(failed: dict[str, Any], kind: SettledKind) -> None:
    """A lost lease is no failure, and a failure that passes no refusal."""
    found = answers({"Failed": [{"Id": "1", **failed}], "Successful": [{"Id": "0"}, {"Id": "2"}]}, 3)

    assert found[0] == found[2] == DONE
    assert found[1].kind is kind
    assert found[1] == LOST or found[1].cause
