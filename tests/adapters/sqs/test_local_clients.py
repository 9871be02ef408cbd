"""The local SQS server through the clients that people use: aiobotocore, boto3 and the AWS command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import get_session
from botocore.exceptions import ClientError
from eventkit_sqs._local import LocalSqs

from tests.adapters.sqs.local_support import local_sqs

AWS = Path(sys.executable).with_name("aws")
ATTRIBUTES: dict[str, Any] = {
    "text": {"DataType": "String", "StringValue": "é"},
    "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
}


def options(place: LocalSqs) -> dict[str, Any]:
    return {
        "endpoint_url": place.environment["AWS_ENDPOINT_URL_SQS"],
        "region_name": place.environment["AWS_REGION"],
        "aws_access_key_id": place.environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": place.environment["AWS_SECRET_ACCESS_KEY"],
    }


async def test_aiobotocore_finds_it_by_the_environment_and_is_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter's own client, configured by nothing but what the server says; it checks digests itself."""
    async with local_sqs() as wire:
        for name, value in wire.place.environment.items():
            monkeypatch.setenv(name, value)
        async with get_session().create_client("sqs") as sqs:
            url = (await sqs.get_queue_url(QueueName="orders"))["QueueUrl"]
            entries: Any = [{"Id": str(n), "MessageBody": f"é {n}", "MessageAttributes": ATTRIBUTES} for n in range(3)]
            assert "Failed" not in await sqs.send_message_batch(QueueUrl=url, Entries=entries)
            waiting = sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5, MessageAttributeNames=["All"]
            )
            messages = (await waiting)["Messages"]
            assert [message["Body"] for message in messages] == ["é 0", "é 1", "é 2"]
            assert messages[0]["MessageAttributes"] == ATTRIBUTES

            settle: Any = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
            changes: Any = [{**entry, "VisibilityTimeout": 60} for entry in settle]
            assert len((await sqs.change_message_visibility_batch(QueueUrl=url, Entries=changes))["Successful"]) == 3
            assert len((await sqs.delete_message_batch(QueueUrl=url, Entries=settle))["Successful"]) == 3

            await sqs.send_message(QueueUrl=url, MessageBody="x")
            [again] = (await sqs.receive_message(QueueUrl=url, VisibilityTimeout=0))["Messages"]
            handle = again["ReceiptHandle"]
            with pytest.raises(sqs.exceptions.MessageNotInflight):
                await sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=9)
            with pytest.raises(sqs.exceptions.QueueDoesNotExist) as caught:
                await sqs.get_queue_url(QueueName="nobody")
            assert caught.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"
            pages = [page async for page in sqs.get_paginator("list_queues").paginate(PaginationConfig={"PageSize": 3})]
            assert [len(page["QueueUrls"]) for page in pages] == [3, 1]


async def test_boto3_works_as_at_aws() -> None:
    """What producers beside the worker use, with its resources on top."""
    boto3: Any = pytest.importorskip("boto3")

    def use(place: LocalSqs) -> None:
        session = boto3.session.Session()
        sqs = session.resource("sqs", **options(place))
        queue = sqs.create_queue(QueueName="bills2.fifo", Attributes={"FifoQueue": "true"})
        queue.send_message(
            MessageBody="x", MessageGroupId="a", MessageDeduplicationId="1", MessageAttributes=ATTRIBUTES
        )
        [message] = queue.receive_messages(MessageAttributeNames=["All"], AttributeNames=["All"], WaitTimeSeconds=1)
        assert (message.body, message.message_attributes) == ("x", ATTRIBUTES)
        assert message.attributes["MessageGroupId"] == "a"
        message.change_visibility(VisibilityTimeout=10)
        message.delete()
        with pytest.raises(ClientError, match="InvalidParameterValue"):
            queue.send_message(MessageBody="x", MessageGroupId="a")
        assert {found.url.rpartition("/")[2] for found in sqs.queues.filter(QueueNamePrefix="bills2")} == {
            "bills2.fifo"
        }
        queue.delete()

    async with local_sqs() as wire:
        await asyncio.to_thread(use, wire.place)


def aws(place: LocalSqs, *arguments: str) -> Any:
    """One command of `aws sqs`; what it printed."""
    environment = {"PATH": os.environ["PATH"], "AWS_PAGER": "", "AWS_DEFAULT_OUTPUT": "json", **place.environment}
    done = subprocess.run(
        [AWS, "sqs", *arguments], env=environment, capture_output=True, text=True, timeout=15, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


@pytest.mark.skipif(not AWS.exists(), reason="the AWS command line is not installed")
async def test_the_aws_command_line_works_with_the_exported_environment() -> None:
    """What one types to look into a queue; the lines that `eventkit local sqs` prints are all it needs."""
    async with local_sqs() as wire:

        async def run(*arguments: str) -> Any:
            return await asyncio.to_thread(aws, wire.place, *arguments)

        url = (await run("create-queue", "--queue-name", "new"))["QueueUrl"]
        assert url in (await run("list-queues"))["QueueUrls"]
        sent = await run("send-message", "--queue-url", url, "--message-body", '{"id": 7}')
        assert sent["MessageId"]
        [message] = (await run("receive-message", "--queue-url", url, "--attribute-names", "All"))["Messages"]
        assert message["Body"] == '{"id": 7}'
        await run("delete-message", "--queue-url", url, "--receipt-handle", message["ReceiptHandle"])
        assert wire.place.counts().acked == 1
