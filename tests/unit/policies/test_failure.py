"""What an exception means: a bad event, an outage, or a wish of the handler.

Client libraries are not needed here: the default table goes by qualified names, so classes of those names will do.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventkit._policies.failure import Failure, FailurePolicy
from eventkit.errors import BatchFailure, DecodeError, HandlerTimeout, Reject, Retry, Skip

DEFAULT = FailurePolicy({}, ())


def exception_class(name: str, *bases: type[Exception], **attributes: object) -> type[Exception]:
    """A class with the qualified name `name`, as its library would define it."""
    module, _, qualname = name.rpartition(".")
    return type(qualname, bases or (Exception,), {"__module__": module, **attributes})


TRANSIENT_NAMES = [
    "httpx.TransportError",
    "httpcore.NetworkError",
    "httpcore.TimeoutException",
    "aiohttp.ClientConnectionError",
    "aiohttp.client_exceptions.ClientConnectionError",
    "redis.exceptions.ConnectionError",
    "redis.exceptions.TimeoutError",
    "psycopg.errors.AdminShutdown",
    "psycopg.errors.CannotConnectNow",
    "psycopg.errors.ConnectionDoesNotExist",
    "psycopg.errors.ConnectionException",
    "psycopg.errors.ConnectionFailure",
    "psycopg.errors.ConnectionTimeout",
    "psycopg.errors.CrashShutdown",
    "psycopg.errors.TooManyConnections",
    "psycopg_pool.PoolTimeout",
    "asyncpg.exceptions.AdminShutdownError",
    "asyncpg.exceptions.CannotConnectNowError",
    "asyncpg.exceptions.CrashShutdownError",
    "asyncpg.exceptions.PostgresConnectionError",
    "asyncpg.exceptions.TooManyConnectionsError",
    "asyncpg.exceptions._base.InterfaceError",
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.EndpointConnectionError",
    "botocore.exceptions.HTTPClientError",
]


@pytest.mark.parametrize("name", TRANSIENT_NAMES)
def test_a_client_librarys_connection_error_is_transient(name: str) -> None:
    """An outage of what the handler calls must not burn the attempts of every event in the queue."""
    assert DEFAULT.classify(exception_class(name)("down")) is Failure.TRANSIENT


@pytest.mark.parametrize("name", TRANSIENT_NAMES)
def test_a_subclass_of_a_client_librarys_connection_error_is_transient(name: str) -> None:
    """Libraries raise the subclasses: httpx.ConnectTimeout, redis' BusyLoadingError, users' own."""
    child = exception_class("app.Derived", exception_class(name))

    assert DEFAULT.classify(child("down")) is Failure.TRANSIENT


@pytest.mark.parametrize("name", ["app.TransportError", "httpx.HTTPStatusError", "redis.exceptions.ResponseError"])
def test_a_class_that_only_looks_alike_is_item_shaped(name: str) -> None:
    """The whole name decides: an error of the same last name, or of the same library, may be the event's fault."""
    assert DEFAULT.classify(exception_class(name)("bad")) is Failure.ITEM


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("x"),
        ConnectionRefusedError("x"),
        ConnectionResetError("x"),
        BrokenPipeError("x"),
        TimeoutError("x"),
        socket.gaierror(socket.EAI_NONAME, "x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_network_error_of_the_standard_library_is_transient(error: Exception) -> None:
    """A plain socket, anyio.fail_after or asyncio.timeout in user code reports an outage like this."""
    assert DEFAULT.classify(error) is Failure.TRANSIENT


@pytest.mark.parametrize(
    "name",
    [
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
    ],
)
def test_an_os_error_with_a_network_errno_is_transient(name: str) -> None:
    """Many of them have no class of their own: an unreachable host is a plain OSError."""
    number = getattr(errno, name)

    assert DEFAULT.classify(OSError(number, os.strerror(number))) is Failure.TRANSIENT


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "x"), OSError("x"), OSError(errno.ENOSPC, "x")])
def test_any_other_os_error_is_item_shaped(error: OSError) -> None:
    """A file the event names and that is not there is no outage."""
    assert DEFAULT.classify(error) is Failure.ITEM


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), ZeroDivisionError(), DecodeError("x"), Exception()])
def test_any_other_exception_is_item_shaped(error: Exception) -> None:
    """The default: a failure counts, or a poison event would live for ever."""
    assert DEFAULT.classify(error) is Failure.ITEM


@pytest.mark.parametrize("error", [GeneratorExit(), SystemExit(1)], ids=lambda error: type(error).__name__)
def test_an_exception_outside_exception_is_item_shaped(error: BaseException) -> None:
    """A handler that calls sys.exit fails its event; it does not end the worker uncounted."""
    assert DEFAULT.classify(error) is Failure.ITEM


OPERATIONAL = exception_class("psycopg.OperationalError", sqlstate=None)


def test_a_psycopg_operational_error_without_sqlstate_is_transient() -> None:
    """The server never answered: so psycopg reports a connection that could not be made, or broke."""
    assert DEFAULT.classify(OPERATIONAL("connection refused")) is Failure.TRANSIENT


def test_a_psycopg_operational_error_with_sqlstate_is_item_shaped() -> None:
    """The server answered: a deadlock or a query out of memory may be this event's doing."""
    deadlock = exception_class("psycopg.errors.DeadlockDetected", OPERATIONAL, sqlstate="40P01")

    assert DEFAULT.classify(deadlock("deadlock detected")) is Failure.ITEM


CLIENT_ERROR = exception_class("botocore.exceptions.ClientError")


def client_error(response: object) -> Exception:
    error = CLIENT_ERROR("An error occurred")
    error.__dict__["response"] = response
    return error


@pytest.mark.parametrize(
    "code",
    [
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
    ],
)
def test_aws_throttling_is_transient(code: str) -> None:
    """The service asks for patience; that is nothing about the event."""
    assert DEFAULT.classify(client_error({"Error": {"Code": code}})) is Failure.TRANSIENT


@pytest.mark.parametrize(
    "response",
    [
        {"Error": {"Code": "ConditionalCheckFailedException"}},
        {"Error": {"Code": None}},
        {"Error": {}},
        {"Error": "Throttling"},
        {},
        None,
        "Throttling",
    ],
    ids=str,
)
def test_any_other_aws_service_error_is_item_shaped(response: object) -> None:
    """One class carries them all; an answer without a known code must not crash the classification either."""
    assert DEFAULT.classify(client_error(response)) is Failure.ITEM


def test_an_aws_client_error_without_a_response_is_item_shaped() -> None:
    """Tests and wrappers raise it bare."""
    assert DEFAULT.classify(CLIENT_ERROR("x")) is Failure.ITEM


@pytest.mark.parametrize(
    ("signal", "failure"),
    [
        (Retry(), Failure.RETRY),
        (Retry("later", after=3), Failure.RETRY),
        (Reject("bad"), Failure.REJECT),
        (Skip("old"), Failure.SKIP),
        (BatchFailure({}), Failure.ITEM),
    ],
    ids=repr,
)
def test_a_handlers_signal_means_what_it_says(signal: Exception, failure: Failure) -> None:
    """The handler knows best what becomes of its event."""
    assert DEFAULT.classify(signal) is failure


@pytest.mark.parametrize("signal", [Retry(), Reject("bad"), Skip("old"), HandlerTimeout("late")], ids=repr)
def test_no_rule_changes_a_signal_or_the_frameworks_timeout(signal: Exception) -> None:
    """A catch-all rule (`{Exception: "transient"}`) must not turn `Reject` into an endless wait."""
    policy = FailurePolicy({Exception: "transient", BaseException: "skip"}, (Exception,))

    assert policy.classify(signal) is DEFAULT.classify(signal)


def test_a_subclass_of_a_signal_is_that_signal() -> None:
    """Teams name their own: `class NotYet(Retry)`."""
    not_yet = type("NotYet", (Retry,), {})

    assert DEFAULT.classify(not_yet()) is Failure.RETRY


def test_a_handlers_own_timeout_is_transient() -> None:
    """What the handler called did not answer in time: an outage of that, most likely."""
    assert DEFAULT.classify(TimeoutError()) is Failure.TRANSIENT


def test_the_frameworks_timeout_of_a_handler_is_item_shaped() -> None:
    """An event that makes its handler hang would otherwise hang it for ever."""
    assert DEFAULT.classify(HandlerTimeout("ran longer than 540 s")) is Failure.ITEM


def test_a_group_of_nothing_but_transient_errors_is_transient() -> None:
    """Handlers with task groups of their own raise groups; nested ones too."""
    group = ExceptionGroup("x", [ConnectionError(), ExceptionGroup("y", [TimeoutError(), ConnectionResetError()])])

    assert DEFAULT.classify(group) is Failure.TRANSIENT


@pytest.mark.parametrize("other", [ValueError(), Retry(), HandlerTimeout(), ExceptionGroup("y", [ValueError()])])
def test_a_group_with_anything_else_in_it_is_item_shaped(other: Exception) -> None:
    """Something went wrong that waiting does not mend."""
    assert DEFAULT.classify(ExceptionGroup("x", [ConnectionError(), other])) is Failure.ITEM


def test_a_rule_may_name_a_group_itself() -> None:
    """The rules of the handler come before the look inside."""
    policy = FailurePolicy({ExceptionGroup: "reject"}, ())

    assert policy.classify(ExceptionGroup("x", [ConnectionError()])) is Failure.REJECT


def test_the_errors_in_a_group_are_classed_by_the_handlers_rules() -> None:
    """`transient = (MyError,)` holds for a MyError in a task group as well."""
    policy = FailurePolicy({}, (LookupError,))

    assert policy.classify(ExceptionGroup("x", [KeyError(), ConnectionError()])) is Failure.TRANSIENT


@pytest.mark.parametrize(
    ("meaning", "failure"),
    [
        ("item", Failure.ITEM),
        ("transient", Failure.TRANSIENT),
        ("reject", Failure.REJECT),
        ("skip", Failure.SKIP),
    ],
)
@pytest.mark.parametrize("rule", [LookupError, "builtins.LookupError"], ids=["class", "name"])
def test_a_handlers_rule_gives_a_class_and_its_subclasses_a_meaning(
    rule: type[BaseException] | str, meaning: str, failure: Failure
) -> None:
    """Rules are written with the class, or with its name where importing it is dear."""
    assert FailurePolicy({rule: meaning}, ()).classify(KeyError("x")) is failure


RULES = {KeyError: "reject", LookupError: "skip", Exception: "item"}


@given(st.permutations(list(RULES.items())), st.sampled_from([KeyError(), IndexError(), ValueError()]))
def test_the_first_rule_that_matches_wins(rules: list[tuple[type[Exception], str]], error: Exception) -> None:
    """The order is the writer's; the nearest class is not looked for."""
    expected = next(meaning for cls, meaning in rules if isinstance(error, cls))

    assert FailurePolicy(dict(rules), ()).classify(error).value == expected


def test_the_handlers_rules_come_before_its_transient_and_the_default_table() -> None:
    """`failures` is how a user overrides what is taken for an outage."""
    rules: Mapping[type[BaseException] | str, Any] = {ConnectionError: "item", TimeoutError: "reject"}
    policy = FailurePolicy(rules, (OSError, TimeoutError))

    assert policy.classify(ConnectionResetError()) is Failure.ITEM
    assert policy.classify(TimeoutError()) is Failure.REJECT


@pytest.mark.parametrize("rule", [LookupError, "builtins.LookupError"], ids=["class", "name"])
def test_transient_adds_to_the_default_table(rule: type[BaseException] | str) -> None:
    """A team's own client has its own outage."""
    policy = FailurePolicy({}, (rule,))

    assert policy.classify(KeyError("x")) is Failure.TRANSIENT
    assert policy.classify(ConnectionError("x")) is Failure.TRANSIENT
    assert policy.classify(ValueError("x")) is Failure.ITEM


def test_an_unknown_meaning_is_refused_when_the_policy_is_made() -> None:
    """A typing error in `failures` must not surface at the first failure in production."""
    with pytest.raises(ValueError, match="permanent"):
        FailurePolicy({ValueError: "permanent"}, ())


def test_a_nested_class_goes_by_its_qualified_name() -> None:
    """Rules by name are written as the class prints itself."""

    class Client:
        class Down(Exception):
            pass

    name = f"{__name__}.{Client.Down.__qualname__}"

    assert FailurePolicy({name: "transient"}, ()).classify(Client.Down()) is Failure.TRANSIENT
