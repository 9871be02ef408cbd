"""gRPC in, gRPC out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import grpc.aio

from eventkit_pubsub._local import _settling as settling
from eventkit_pubsub._local._errors import PubsubError, invalid, stopped
from eventkit_pubsub._local._faults import Call, Faults
from eventkit_pubsub._local._operations import PULL, SETTLES, STREAMING_PULL, Operation, operations
from eventkit_pubsub._local._project import Project, why_not_pulled
from eventkit_pubsub._local._raw import Raw, raw
from eventkit_pubsub._local._subscription import LocalSubscription
from eventkit_pubsub._local._waiters import Pulling, Stream, check_first

Context: TypeAlias = Any
"""A `grpc.aio.ServicerContext`: gRPC has no types."""

MAX_PULL: Final = 1_000
LONGEST_PULL: Final = 90.0
"""Seconds that a pull waits at most, whatever its client's deadline."""

_NONE: Final[Mapping[str, str]] = {}


class Front(grpc.GenericRpcHandler):
    """Answers calls. `faults` may be set and taken away at any time."""

    def __init__(self, project: Project) -> None:
        self.faults: Faults | None = None
        self._project = project
        self._handlers = {path: self._unary(path, operation) for path, operation in operations().items()}
        self._handlers[PULL] = grpc.unary_unary_rpc_method_handler(
            self._pull, request_deserializer=raw("PullRequest").FromString, response_serializer=_serialize
        )
        self._handlers[STREAMING_PULL] = grpc.stream_stream_rpc_method_handler(
            self._streaming_pull,
            request_deserializer=raw("StreamingPullRequest").FromString,
            response_serializer=_serialize,
        )

    def service(self, handler_call_details: Any) -> Any:
        """What answers calls of this method."""
        path = handler_call_details.method
        handler = self._handlers.get(path)
        return handler if handler is not None else grpc.unary_unary_rpc_method_handler(_unimplemented(path))

    # -- one request, one reply ----------------------------------------------------------------

    def _unary(self, path: str, operation: Operation) -> Any:
        name, project, act = path.rpartition("/")[2], self._project, operation.act

        async def answer(request: Raw, context: Context) -> Raw:
            try:
                if self.faults is not None:
                    return await self._faulty(self.faults, name, act, request)
                return act(project, request)
            except PubsubError as exc:
                await _abort(context, exc)

        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=operation.request.FromString, response_serializer=_serialize
        )

    async def _faulty(self, faults: Faults, name: str, act: Any, request: Raw) -> Raw:
        call = Call(operation=name, request=_copy(request))
        refused = await faults.before(call)
        reply = act(self._project, request, refused) if name in SETTLES else act(self._project, request)
        return await faults.after(call, _copy(reply))

    # -- pulling -------------------------------------------------------------------------------

    async def _pull(self, request: Raw, context: Context) -> Raw:
        try:
            call = Call(operation="Pull", request=request)
            faults = self.faults
            if faults is not None:
                await faults.before(call)
            pulled = await self._pulled(request, context)
            return pulled if faults is None else await faults.after(call, pulled)
        except PubsubError as exc:
            await _abort(context, exc)

    async def _pulled(self, request: Raw, context: Context) -> Raw:
        subscription = self._to_pull_from(request.subscription)
        if request.max_messages < 1:
            raise invalid("No max_messages specified: it must be at least 1.")
        wait = 0.0 if request.return_immediately else _wait(context.time_remaining())
        with Pulling(subscription, self._project.line(subscription), min(request.max_messages, MAX_PULL)) as pulling:
            response = await pulling.response(wait)
            pulling.sent()
            return response

    def _to_pull_from(self, name: str) -> LocalSubscription:
        if self._project.ended:
            raise stopped()
        subscription = self._project.subscription(name)
        problem = why_not_pulled(subscription)
        if problem is not None:
            raise problem
        return subscription

    # -- streaming -----------------------------------------------------------------------------

    async def _streaming_pull(self, _: object, context: Context) -> None:
        try:
            first = await context.read()
            if first is not grpc.aio.EOF:
                await self._stream(first, context)
        except PubsubError as exc:
            await _abort(context, exc)

    async def _stream(self, first: Raw, context: Context) -> None:
        call = Call(operation="StreamingPull", request=first)
        if self.faults is not None:
            await self.faults.before(call)
        check_first(first)
        subscription = self._to_pull_from(first.subscription)
        with Stream(subscription, self._project.line(subscription), first) as stream:
            settling.settle(self._project, stream, first)
            listening = asyncio.create_task(self._listen(stream, context))
            try:
                async with stream.until_end():
                    await self._speak(stream, call, context)
            finally:
                listening.cancel()
                with suppress(asyncio.CancelledError):
                    await listening

    async def _listen(self, stream: Stream, context: Context) -> None:
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                stream.hear(request)
                settling.settle(self._project, stream, request)
        except PubsubError as exc:
            stream.end(exc)
        finally:
            stream.close()

    async def _speak(self, stream: Stream, call: Call, context: Context) -> None:
        while (response := await stream.next()) is not None:
            if self.faults is not None:
                response = await self.faults.streaming(call, response)
            stream.sent()
            if response is not None:
                await context.write(response)


def _serialize(message: Raw) -> bytes:
    return message.SerializeToString()  # type: ignore[no-any-return]


def _copy(message: Raw) -> Raw:
    """What a fault may look at and change: some requests and replies are the server's own state."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _wait(remaining: float | None) -> float:
    """Seconds to wait for messages, so that an empty answer arrives before the client gives up."""
    if remaining is None:
        return LONGEST_PULL
    return min(max(0.0, remaining - min(1.0, remaining / 5)), LONGEST_PULL)


async def _abort(context: Context, error: PubsubError) -> NoReturn:
    details = (("grpc-status-details-bin", error.details()),) if error.ack_ids else ()
    await context.abort(error.code, error.message, trailing_metadata=details)
    raise AssertionError("abort returned")


def _unimplemented(path: str) -> Any:
    async def answer(_: bytes, context: Context) -> bytes:
        service, method = path.strip("/").split("/", maxsplit=1)
        await _abort(
            context, PubsubError(grpc.StatusCode.UNIMPLEMENTED, f"The local server has no {method} of {service}.")
        )

    return answer
