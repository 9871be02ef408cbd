"""HTTP in, HTTP out: the AWS JSON 1.0 protocol."""

from __future__ import annotations

from collections.abc import Awaitable
from itertools import count
from typing import Any, Final

import msgspec
from aiohttp import web

from eventkit_sqs._local import _wire as wire
from eventkit_sqs._local._account import Account
from eventkit_sqs._local._batches import failed
from eventkit_sqs._local._errors import SqsError
from eventkit_sqs._local._faults import Call, ConnectionDropped, Faults
from eventkit_sqs._local._operations import Operation, operations

_PREFIX: Final = "AmazonSQS."
_JSON: Final = "application/x-amz-json-1.0"
MAX_REQUEST: Final = 64 * 1024 * 1024
"""Bytes of a request that is read: ten messages of 1 MiB, however they are escaped, are refused with a reason."""

_encode = msgspec.json.Encoder().encode


class Front:
    """Answers requests. `faults` may be set and taken away at any time."""

    def __init__(self, account: Account) -> None:
        self.faults: Faults | None = None
        self._account = account
        self._operations = operations()
        self._numbers = count(1)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request. Nothing is awaited between the change it makes and its answer, but what `faults` waits for."""
        try:
            name, operation = self._operation(request)
            body = await request.read()
            return self._response(200, await self._reply(name, operation, body))
        except SqsError as exc:
            return self._response(exc.status, exc.body(), exc.query_error)
        except ConnectionDropped:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("a fault dropped the connection") from None

    def _operation(self, request: web.BaseRequest) -> tuple[str, Operation]:
        headers = request.headers
        target = headers.get("X-Amz-Target", "")
        operation = self._operations.get(target.removeprefix(_PREFIX))
        if operation is None or request.method != "POST":
            raise SqsError(
                "InvalidAction",
                f"{request.method} with X-Amz-Target {target!r}: this server speaks the AWS JSON protocol of SQS "
                "only (botocore >= 1.31.81, AWS CLI >= 1.29.81), and not every operation",
            )
        if "Authorization" not in headers:
            raise SqsError("MissingAuthenticationToken", "Request is missing Authentication Token")
        return target[len(_PREFIX) :], operation

    async def _reply(self, name: str, operation: Operation, body: bytes) -> bytes:
        if self.faults is not None:
            return await self._faulty(self.faults, name, operation, body)
        reply = operation.act(self._account, operation.read(body))
        if isinstance(reply, Awaitable):
            reply = await reply
        return _encode(reply)

    async def _faulty(self, faults: Faults, name: str, operation: Operation, body: bytes) -> bytes:
        request = operation.read(body)
        call = Call(operation=name, request=msgspec.json.decode(body or b"{}"))
        refused = await faults.before(call)
        reply = await self._partly(operation, request, refused)
        shown: dict[str, Any] = msgspec.json.decode(_encode(reply))
        return _encode(await faults.after(call, shown))

    async def _partly(self, operation: Operation, request: Any, refused: Any) -> wire.Reply:
        """The request without the entries that are refused, which fail."""
        entries = getattr(request, "entries", ())
        errors = [failed(entry.id, refused[entry.id]) for entry in entries if entry.id in refused]
        if errors:
            request.entries = [entry for entry in entries if entry.id not in refused]
        reply = wire.Batch() if errors and not request.entries else operation.act(self._account, request)
        if isinstance(reply, Awaitable):
            reply = await reply
        if errors and isinstance(reply, wire.Batch):
            reply.failed = [*(reply.failed or ()), *errors]
        return reply

    def _response(self, status: int, body: bytes, query_error: str | None = None) -> web.Response:
        headers = {
            "Content-Type": _JSON,
            "x-amzn-RequestId": f"00000000-0000-4000-8000-{next(self._numbers):012x}",
        }
        if query_error is not None:
            headers["x-amzn-query-error"] = query_error
        return web.Response(status=status, body=body, headers=headers)
