"""What Pub/Sub answers instead of a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc

from eventkit_pubsub._local._raw import ErrorInfo, Raw, Status

INVALID_ACK_ID: Final = "PERMANENT_FAILURE_INVALID_ACK_ID"

_Code = grpc.StatusCode


class PubsubError(Exception):
    """An error as Pub/Sub would answer it; `code` is a `grpc.StatusCode`.

    `ack_ids` says what became of each ack id that failed, on a subscription with exactly-once delivery: the others
    of the call succeeded. [doc: Exactly-once delivery, "Ack/modack failures"]
    """

    def __init__(self, code: grpc.StatusCode, message: str, *, ack_ids: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.ack_ids = dict(ack_ids or {})

    def details(self) -> bytes:
        """The trailing metadata `grpc-status-details-bin`: a google.rpc.Status."""
        status: Raw = Status(code=self.code.value[0], message=self.message)
        info = ErrorInfo(reason="EXACTLY_ONCE_ACKID_FAILURE", domain="pubsub.googleapis.com", metadata=self.ack_ids)
        status.details.add().Pack(info)
        return bytes(status.SerializeToString())


def ack_ids_failed(ack_ids: Mapping[str, str]) -> PubsubError:
    """Some ack ids failed, and these are why [tried:emu; googleapis/nodejs-pubsub#1951]."""
    return PubsubError(
        _Code.INVALID_ARGUMENT,
        "Some acknowledgement ids in the request were invalid. This could be because the acknowledgement ids have "
        "expired or the acknowledgement ids were malformed.",
        ack_ids=ack_ids,
    )


def invalid(message: str) -> PubsubError:
    """The request is not one that can be."""
    return PubsubError(_Code.INVALID_ARGUMENT, message)


def not_found(name: str) -> PubsubError:
    """There is no topic or subscription of this name."""
    return PubsubError(_Code.NOT_FOUND, f"Resource not found (resource={name.rpartition('/')[2]}).")


def already_exists(name: str) -> PubsubError:
    """There is a topic or subscription of this name."""
    return PubsubError(
        _Code.ALREADY_EXISTS, f"Resource already exists in the project (resource={name.rpartition('/')[2]})."
    )


def wrong_state(message: str) -> PubsubError:
    """Not with a subscription like this one."""
    return PubsubError(_Code.FAILED_PRECONDITION, message)


def stopped() -> PubsubError:
    """The server goes away."""
    return PubsubError(_Code.UNAVAILABLE, "The local server has been stopped.")
