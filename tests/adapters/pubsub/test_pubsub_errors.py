"""The errors of Pub/Sub and its SDK: which are waited out, which end the worker, and what is said of each."""

# mypy: disable-error-code="no-untyped-call"
# The classes of errors of the SDK have no types.

from __future__ import annotations

import grpc
import pytest
from eventkit_pubsub._config import Place
from eventkit_pubsub._errors import answers, partly, refusals, translated_errors
from google.api_core.exceptions import GoogleAPICallError, RetryError, from_grpc_status
from google.auth.exceptions import RefreshError, TransportError
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
from eventkit.spi import DONE, LOST, UNKNOWN, Address, SettledKind

PLACE = Place.from_address(Address.parse("pubsub://shop/orders"), "subscriptions")

KINDS: dict[str, type[AdapterError]] = {
    "NOT_FOUND": SourceNotFound,
    "PERMISSION_DENIED": AccessDenied,
    "UNAUTHENTICATED": AccessDenied,
    "RESOURCE_EXHAUSTED": Throttled,
    "UNAVAILABLE": ConnectionLost,
    "DEADLINE_EXCEEDED": ConnectionLost,
    "CANCELLED": ConnectionLost,
    "UNKNOWN": ConnectionLost,
    "ABORTED": TransientAdapterError,
    "INTERNAL": TransientAdapterError,
    "INVALID_ARGUMENT": PermanentAdapterError,
    "FAILED_PRECONDITION": PermanentAdapterError,
    "OUT_OF_RANGE": PermanentAdapterError,
    "UNIMPLEMENTED": PermanentAdapterError,
    "ALREADY_EXISTS": PermanentAdapterError,
    "DATA_LOSS": PermanentAdapterError,
}
OTHERS: list[tuple[Exception, type[AdapterError]]] = [
    (RetryError("timed out", cause=None), ConnectionLost),
    (TransportError("no way to the metadata server", retryable=True), TransientAdapterError),
    (RefreshError("invalid_grant: account not found"), AccessDenied),
    (ConnectionResetError("reset"), ConnectionLost),
    (TimeoutError(), ConnectionLost),
]


def failed(code: str, message: str = "said\nso") -> GoogleAPICallError:
    found = from_grpc_status(grpc.StatusCode[code], message)
    assert isinstance(found, GoogleAPICallError)
    return found


def test_every_status_has_a_meaning() -> None:
    """One that is forgotten is answered by a guess."""
    assert {*KINDS} == {code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK}


@pytest.mark.parametrize(("code", "kind"), KINDS.items())
def test_what_pubsub_says_has_one_meaning(code: str, kind: type[AdapterError]) -> None:
    """What passes is waited out, what does not ends the worker: the other way round is a hot loop or a dead worker."""
    error = failed(code)

    with (
        pytest.raises(AdapterError, match=r"cannot receive from pubsub://shop/orders: .*said so") as raised,
        translated_errors("receive from", PLACE),
    ):
        raise error

    assert type(raised.value) is kind
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(("error", "kind"), OTHERS, ids=lambda value: type(value).__name__)
def test_what_the_sdk_says_has_one_meaning(error: Exception, kind: type[AdapterError]) -> None:
    """None of its many exceptions leaves the adapter."""
    with (
        pytest.raises(AdapterError, match="cannot ack in pubsub://shop/orders: ") as raised,
        translated_errors("ack in", PLACE),
    ):
        raise error

    assert type(raised.value) is kind
    assert raised.value.__cause__ is error


def test_a_token_that_cannot_be_had_is_no_network_that_is_down() -> None:
    """It comes as UNAVAILABLE; "nobody answers" would send people to the wrong place."""
    error = failed("UNAVAILABLE", "Getting metadata from plugin failed with error: Reauthentication is needed.")

    with (
        pytest.raises(TransientAdapterError, match=r"credentials could not be fetched .*Reauthentication") as raised,
        translated_errors("ack in", PLACE),
    ):
        raise error

    assert not isinstance(raised.value, ConnectionLost)


def test_what_is_said_of_single_ids_has_one_meaning() -> None:
    """Those that are not named were settled: with exactly-once delivery a call fails for the sake of one."""
    reasons = {
        "b": "PERMANENT_FAILURE_INVALID_ACK_ID",
        "c": "TRANSIENT_FAILURE_UNORDERED_ACK_ID",
        "d": "SOMETHING_NEW",
        "of another call": "PERMANENT_FAILURE_INVALID_ACK_ID",
    }
    error = GoogleAPICallError("some failed", details=[ErrorInfo(metadata=reasons)])

    found = answers(error, ["a", "b", "c", "d"])

    assert found is not None
    assert found[0] is DONE
    assert found[1] is LOST
    assert (found[2].kind, found[2].cause) == (SettledKind.RETRY, "TRANSIENT_FAILURE_UNORDERED_ACK_ID")
    assert (found[3].kind, found[3].cause) == (SettledKind.REFUSED, "SOMETHING_NEW")


def test_an_error_that_names_none_of_the_ids_is_one_of_the_whole_call() -> None:
    """A quota that is used up has details too, and nothing was done."""
    error = GoogleAPICallError("no", details=[ErrorInfo(metadata={"quota": "PERMANENT"})])

    assert answers(error, ["a", "b"]) is None
    assert answers(failed("UNAVAILABLE"), ["a"]) is None


def test_what_is_known_of_a_whole_call_is_an_answer() -> None:
    """And what is not known is raised: that it was done is as likely."""
    assert [answer.kind for answer in refusals(Throttled("no", retry_after=2.0), 2)] == [SettledKind.RETRY] * 2
    assert [answer.kind for answer in refusals(AccessDenied("no"), 1)] == [SettledKind.REFUSED]
    with pytest.raises(ConnectionLost):
        refusals(ConnectionLost("who knows"), 1)


def test_of_several_calls_only_those_that_failed_are_unknown() -> None:
    """Unless all did: then there is an error to show."""
    lost = ConnectionLost("who knows")

    assert partly([[DONE, LOST], lost, [DONE]], [2, 2, 1]) == [DONE, LOST, UNKNOWN, UNKNOWN, DONE]
    assert partly([], []) == []
    with pytest.raises(ConnectionLost):
        partly([lost, lost], [1, 1])
