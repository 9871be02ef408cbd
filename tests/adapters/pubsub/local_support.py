"""The local Pub/Sub server with a clock of the test's own, and a client that says exactly what the test wants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from eventkit_pubsub._local import LocalPubsub, serve
from google.iam.v1 import iam_policy_pb2
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

QUEUES = ("orders", "bills.ordered", "once.exactly-once", "both.ordered.exactly-once")
PROJECT = "eventkit-local"
ONCE: dict[str, Any] = {"retry": None, "timeout": 10.0}


def topic(name: str) -> str:
    return name if "/" in name else f"projects/{PROJECT}/topics/{name}"


def sub(name: str) -> str:
    return name if "/" in name else f"projects/{PROJECT}/subscriptions/{name}"


class Clock:
    """Real time, and as much more as the test skips."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def now(self) -> float:
        return time.monotonic() + self.skipped

    def wall(self) -> float:
        return time.time() + self.skipped


class Failure(Exception):
    """How a call failed, as it was on the wire."""

    def __init__(self, error: Any) -> None:
        call = getattr(error, "errors", None) or [error]
        raw = call[0]
        self.code: str = raw.code().name
        self.message: str = raw.details()
        trailing = dict(raw.trailing_metadata() or ())
        self.ack_ids: dict[str, str] = {}
        if "grpc-status-details-bin" in trailing:
            status = Status.FromString(trailing["grpc-status-details-bin"])
            assert (status.code, status.message) == (raw.code().value[0], self.message)
            for detail in status.details:
                info = ErrorInfo()
                assert detail.Unpack(info)
                assert (info.reason, info.domain) == ("EXACTLY_ONCE_ACKID_FAILURE", "pubsub.googleapis.com")
                self.ack_ids = dict(info.metadata)
        super().__init__(self.code, self.message, self.ack_ids)


@asynccontextmanager
async def failures() -> AsyncIterator[None]:
    """Raise a Failure in place of what gRPC or the SDK raise."""
    try:
        yield
    except grpc.aio.AioRpcError as exc:
        raise Failure(exc) from exc
    except Exception as exc:
        if getattr(exc, "grpc_status_code", None) is None:
            raise
        raise Failure(exc) from exc


class Stream:
    """One StreamingPull: what is said on it, and what comes."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self._left: list[Any] = []
        self._reading: asyncio.Future[Any] | None = None

    async def say(self, **request: Any) -> None:
        await self.call.write(types.StreamingPullRequest.pb()(**request))

    async def _read(self, within: float) -> Any:
        """A read outlives the wait for it: to cancel it would end the stream."""
        self._reading = self._reading or asyncio.ensure_future(self.call.read())
        await asyncio.wait([self._reading], timeout=within)
        if not self._reading.done():
            raise TimeoutError
        reading, self._reading = self._reading, None
        return reading.result()

    async def response(self, within: float = 5.0) -> Any:
        """The next response. Raises Failure, EOFError at a good end, TimeoutError."""
        async with failures():
            response = await self._read(within)
        if response is grpc.aio.EOF:
            if await self.call.code() is grpc.StatusCode.OK:
                raise EOFError
            raise Failure(await _status(self.call))
        return response

    async def messages(self, number: int = 1, within: float = 5.0) -> list[Any]:
        """This many messages, of as many responses as it takes."""
        while len(self._left) < number:
            self._left += (await self.response(within)).received_messages
        taken, self._left = self._left[:number], self._left[number:]
        return taken

    @property
    def waiting(self) -> int:
        """How many messages have come and were not asked for."""
        return len(self._left)

    async def bodies(self, number: int = 1) -> list[str]:
        return bodies(await self.messages(number))

    async def silent(self, seconds: float = 0.04) -> bool:
        """Whether nothing comes for a while."""
        try:
            self._left += (await self.response(seconds)).received_messages
        except TimeoutError:
            return not self._left
        return False

    async def end(self) -> str:
        """The status with which the stream ends, within a second."""
        try:
            async with asyncio.timeout(1.0):
                while True:
                    self._left += (await self.response()).received_messages
        except EOFError:
            return "OK"
        except Failure as failure:
            return failure.code

    async def leave(self) -> None:
        """Cancel it, unless it is over."""
        self.call.cancel()
        if self._reading is not None:
            await asyncio.wait([self._reading])


async def _status(call: Any) -> grpc.aio.AioRpcError:
    metadata = await call.initial_metadata(), await call.trailing_metadata()
    return grpc.aio.AioRpcError(await call.code(), *metadata, details=await call.details())


def bodies(messages: Iterable[Any]) -> list[str]:
    return [received.message.data.decode() for received in messages]


def ids(messages: Iterable[Any]) -> list[str]:
    return [received.ack_id for received in messages]


class Wire:
    """The SDK's generated clients, without retries, and a few words for what is done often."""

    def __init__(self, place: LocalPubsub, clock: Clock, channel: Any) -> None:
        self.place = place
        self.clock = clock
        self.channel = channel
        self.publisher = PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=channel))
        self.subscriber = SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel))

    def skip(self, seconds: float) -> None:
        """Let time pass, and let the server see it."""
        self.clock.skipped += seconds
        self.place.counts()

    async def call(self, client: str, method: str, **request: Any) -> Any:
        """One call; a protobuf message comes back. Raises Failure."""
        async with failures():
            reply = await getattr(getattr(self, client), method)(request=request, **ONCE)
        return type(reply).pb(reply) if hasattr(type(reply), "pb") else reply

    async def pub(self, method: str, **request: Any) -> Any:
        return await self.call("publisher", method, **request)

    async def sub(self, method: str, **request: Any) -> Any:
        return await self.call("subscriber", method, **request)

    async def error(self, client: str, method: str, **request: Any) -> Failure:
        """How a call fails."""
        try:
            reply = await self.call(client, method, **request)
        except Failure as failure:
            return failure
        raise AssertionError(f"{method} succeeded: {reply}")

    async def publish(self, queue: str, *bodies: str, key: str = "", **attributes: str) -> list[str]:
        messages = [{"data": body.encode(), "ordering_key": key, "attributes": attributes} for body in bodies]
        return list((await self.pub("publish", topic=topic(queue), messages=messages)).message_ids)

    async def pull(self, queue: str, most: int = 10, *, wait: bool = False) -> list[Any]:
        """What there is at once, which the SDK would warn about; or the first that comes, without a deadline."""
        method = self.channel.unary_unary(
            "/google.pubsub.v1.Subscriber/Pull",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=types.PullResponse.pb().FromString,
        )
        request = types.PullRequest.pb()(subscription=sub(queue), max_messages=most, return_immediately=not wait)
        async with failures():
            return list((await method(request, timeout=None if wait else 10)).received_messages)

    async def bodies(self, queue: str, most: int = 10) -> list[str]:
        return bodies(await self.pull(queue, most))

    async def ack(self, queue: str, messages: Iterable[Any]) -> Mapping[str, str]:
        """The ack ids that failed, and why."""
        return await self._settle("acknowledge", subscription=sub(queue), ack_ids=ids(messages))

    async def modack(self, queue: str, messages: Iterable[Any], seconds: int) -> Mapping[str, str]:
        """The ack ids that failed, and why."""
        request = {"subscription": sub(queue), "ack_ids": ids(messages), "ack_deadline_seconds": seconds}
        return await self._settle("modify_ack_deadline", **request)

    async def _settle(self, method: str, **request: Any) -> Mapping[str, str]:
        try:
            await self.sub(method, **request)
        except Failure as failure:
            if failure.ack_ids:
                return failure.ack_ids
            raise
        return {}

    @asynccontextmanager
    async def stream(self, queue: str = "orders", **first: Any) -> AsyncIterator[Stream]:
        """A stream, cancelled at the end unless it is over."""
        request = {"subscription": sub(queue), "stream_ack_deadline_seconds": 10, **first}
        async with self.silent_stream() as stream:
            await stream.say(**request)
            yield stream

    @asynccontextmanager
    async def silent_stream(self) -> AsyncIterator[Stream]:
        """A stream on which nothing was said."""
        method = self.channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=types.StreamingPullResponse.pb().FromString,
        )
        stream = Stream(method())
        try:
            yield stream
        finally:
            await stream.leave()

    async def make(self, name: str, on: str | None = None, **settings: Any) -> None:
        """A subscription of one's own, on a topic of its own unless another is named."""
        if on is None:
            await self.pub("create_topic", name=topic(name))
        await self.sub("create_subscription", name=sub(name), topic=topic(on or name), **settings)

    async def change(self, queue: str, **settings: Any) -> None:
        await self.sub(
            "update_subscription",
            subscription={"name": sub(queue), **settings},
            update_mask={"paths": list(settings)},
        )

    async def test_permissions(self, resource: str, permissions: Sequence[str]) -> list[str]:
        request = iam_policy_pb2.TestIamPermissionsRequest(resource=resource, permissions=permissions)
        return list((await self.subscriber.test_iam_permissions(request=request, **ONCE)).permissions)


@asynccontextmanager
async def local_pubsub(queues: Sequence[str] = QUEUES, **options: Any) -> AsyncIterator[Wire]:
    """A server with the queues above, and a client."""
    clock = Clock()
    async with serve(queues, clock=clock.now, wall=clock.wall, **options) as place, channel_to(place) as channel:
        yield Wire(place, clock, channel)
    # What gRPC has still to say of calls that were cancelled must not meet the next test's loop.
    await asyncio.sleep(0.002)


@asynccontextmanager
async def channel_to(place: LocalPubsub) -> AsyncIterator[Any]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    channel = grpc.aio.insecure_channel(place.environment["PUBSUB_EMULATOR_HOST"], options=options)
    try:
        yield channel
    finally:
        await channel.close()
