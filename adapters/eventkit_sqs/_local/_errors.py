"""What AWS answers instead of a result, in the words of its JSON protocol."""

from __future__ import annotations

from typing import Final

import msgspec

SQS: Final = "com.amazonaws.sqs#"
CORAL: Final = "com.amazon.coral.service#"
LEGACY: Final = "AWS.SimpleQueueService."

# Name: (`__type`, the code of the older query protocol, HTTP status). AWS sends the second as a header; SDKs show it.
_WIRE: Final = {
    "AccessDenied": (f"{CORAL}AccessDeniedException", "AccessDenied", 403),
    "ExpiredToken": (f"{CORAL}ExpiredTokenException", "ExpiredToken", 403),
    "InternalFailure": (f"{CORAL}InternalFailure", "InternalFailure", 500),
    "InvalidAction": (f"{CORAL}UnknownOperationException", "InvalidAction", 404),
    "InvalidParameterValue": (f"{CORAL}InvalidParameterValueException", "InvalidParameterValue", 400),
    "MissingAuthenticationToken": (
        f"{CORAL}MissingAuthenticationTokenException",
        "MissingAuthenticationToken",
        403,
    ),
    "MissingParameter": (f"{CORAL}MissingRequiredParameterException", "MissingParameter", 400),
    "PurgeQueueInProgress": (f"{SQS}PurgeQueueInProgress", f"{LEGACY}PurgeQueueInProgress", 403),
    "QueueDoesNotExist": (f"{SQS}QueueDoesNotExist", f"{LEGACY}NonExistentQueue", 400),
    "QueueNameExists": (f"{SQS}QueueNameExists", "QueueAlreadyExists", 400),
    "RequestThrottled": (f"{SQS}RequestThrottled", "RequestThrottled", 403),
    "ResourceNotFoundException": (f"{SQS}ResourceNotFoundException", "ResourceNotFoundException", 404),
    "SerializationException": (f"{CORAL}SerializationException", "MalformedInput", 400),
    "ServiceUnavailable": (f"{CORAL}ServiceUnavailableException", "ServiceUnavailable", 503),
    "ThrottlingException": (f"{CORAL}ThrottlingException", "ThrottlingException", 400),
} | {
    name: (f"{SQS}{name}", f"{LEGACY}{name}", 400)
    for name in (
        "BatchEntryIdsNotDistinct",
        "BatchRequestTooLong",
        "EmptyBatchRequest",
        "InvalidBatchEntryId",
        "MessageNotInflight",
        "QueueDeletedRecently",
        "TooManyEntriesInBatchRequest",
        "UnsupportedOperation",
    )
}


class SqsError(Exception):
    """An error as AWS would answer it. `name` is a shape of the service model, or a code every AWS service has."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.type, self.code, self.status = _WIRE.get(name, (f"{SQS}{name}", name, 400))
        self.message = message

    @property
    def senders_fault(self) -> bool:
        """Whether it is the client's doing."""
        return self.status < 500

    @property
    def query_error(self) -> str:
        """The header `x-amzn-query-error`: the code that older SDKs knew, and whose fault it is."""
        return f"{self.code};{'Sender' if self.senders_fault else 'Receiver'}"

    def body(self) -> bytes:
        """What the reply says."""
        return msgspec.json.encode({"__type": self.type, "message": self.message})


def invalid(name: str, value: object, reason: str) -> SqsError:
    """The value of a parameter is not one it may have."""
    return SqsError("InvalidParameterValue", f"Value {value} for parameter {name} is invalid. Reason: {reason}")


def missing(name: str) -> SqsError:
    """A parameter is not there."""
    return SqsError("MissingParameter", f"The request must contain the parameter {name}.")
