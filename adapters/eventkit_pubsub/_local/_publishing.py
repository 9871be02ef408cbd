"""Publish, and what can be published."""

from __future__ import annotations

from typing import Final

from eventkit_pubsub._local._errors import invalid
from eventkit_pubsub._local._project import Project
from eventkit_pubsub._local._raw import Raw, raw

MAX_REQUEST: Final = 10_000_000
MAX_MESSAGES: Final = 1_000
_MAX_ATTRIBUTES: Final = 100
_MAX_NAME: Final = 256
_MAX_VALUE: Final = 1_024
_MAX_KEY: Final = 1_024
# Bytes and numbers. [doc: Quotas and limits, Resource limits]

_PublishResponse: Final = raw("PublishResponse")


def publish(project: Project, request: Raw) -> Raw:
    """Publish messages to a topic, all or none."""
    topic, messages = project.topic(request.topic), request.messages
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise invalid(f"{len(messages)} messages to publish: from 1 to {MAX_MESSAGES} are possible.")
    if request.ByteSize() > MAX_REQUEST:
        raise invalid(f"Request payload size exceeds the limit: {MAX_REQUEST} bytes.")
    key = messages[0].ordering_key
    for number, message in enumerate(messages):
        if message.attributes or not message.data or message.ordering_key:
            _check(message, number)
        if message.ordering_key != key:
            raise invalid(
                "In a single publish request, all messages must have no ordering key or they must all have "
                "the same ordering key."
            )
    topic.published += len(messages)
    return _PublishResponse(message_ids=project.publish(topic, messages))


def _check(message: Raw, number: int) -> None:
    attributes = message.attributes
    if not message.data and not attributes:
        raise invalid(f"Some messages are empty: number {number} has neither data nor attributes.")
    if len(message.ordering_key.encode()) > _MAX_KEY:
        raise invalid(f"The ordering key of message {number} is longer than {_MAX_KEY} bytes.")
    if len(attributes) > _MAX_ATTRIBUTES:
        raise invalid(f"Message {number} has {len(attributes)} attributes: the limit is {_MAX_ATTRIBUTES}.")
    for name, value in attributes.items():
        if not name or len(name.encode()) > _MAX_NAME:
            raise invalid(f"The name of an attribute of message {number} has {len(name.encode())} bytes, not 1 to 256.")
        if name.startswith("goog"):
            raise invalid(f"The name of an attribute of message {number} starts with goog: {name}.")
        if len(value.encode()) > _MAX_VALUE:
            raise invalid(f"The attribute {name} of message {number} has more than {_MAX_VALUE} bytes.")
