"""By hand, as little as does the work: `python -m bench.sqs.raw QUEUE nothing|note`."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from aiobotocore.session import get_session

from bench.cloud.meter import peak, report, used
from bench.cloud.payload import HANDLERS, decode, late

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

RECEIVERS = 8
HANDLE = HANDLERS[sys.argv[2]]


async def main() -> None:
    """Consume until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with get_session().create_client("sqs") as client:
        url = (await client.get_queue_url(QueueName=sys.argv[1]))["QueueUrl"]
        before = used()
        receivers = [asyncio.create_task(consume(client, url)) for _ in range(RECEIVERS)]
        await stop.wait()
        for receiver in receivers:
            receiver.cancel()
        await asyncio.wait(receivers)
    report(used() - before, peak(), late=late)


async def consume(client: SQSClient, url: str) -> None:
    """Receive ten, handle each, delete ten."""
    while True:
        reply = await client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
        messages = reply.get("Messages", [])
        for message in messages:
            await HANDLE(decode(message["Body"]))
        if messages:
            await client.delete_message_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": str(position), "ReceiptHandle": message["ReceiptHandle"]}
                    for position, message in enumerate(messages)
                ],
            )


if __name__ == "__main__":
    asyncio.run(main())
