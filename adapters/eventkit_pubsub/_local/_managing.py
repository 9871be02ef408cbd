"""The operations on topics and subscriptions as such."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from eventkit_pubsub._local._errors import invalid
from eventkit_pubsub._local._names import check_project
from eventkit_pubsub._local._project import Project
from eventkit_pubsub._local._raw import Empty, Raw, raw, seconds_of
from eventkit_pubsub._local._settings import complete, merged, updated

_PAGE: Final = 1_000

ListTopics: Final = raw("ListTopicsResponse")
ListSubscriptions: Final = raw("ListSubscriptionsResponse")
ListTopicSubscriptions: Final = raw("ListTopicSubscriptionsResponse")
SeekResponse: Final = raw("SeekResponse")
Detached: Final = raw("DetachSubscriptionResponse")


# -- topics ----------------------------------------------------------------------------------


def create_topic(project: Project, request: Raw) -> Raw:
    """Make a topic."""
    return project.create_topic(request).config


def get_topic(project: Project, request: Raw) -> Raw:
    """What a topic is set to."""
    return project.topic(request.topic).config


def update_topic(project: Project, request: Raw) -> Raw:
    """Change a topic."""
    topic = project.topic(request.topic.name)
    fixed = frozenset({"name", "state"})
    topic.config = merged(topic.config, request.topic, request.update_mask, fixed=fixed, kind="Topic")
    return topic.config


def list_topics(project: Project, request: Raw) -> Raw:
    """The topics of a project."""
    names, token = _page_of(project.topics, request)
    return ListTopics(topics=[project.topics[name].config for name in names], next_page_token=token)


def list_topic_subscriptions(project: Project, request: Raw) -> Raw:
    """The names of the subscriptions of a topic."""
    names = [subscription.name for subscription in project.topic(request.topic).subscriptions]
    page, token = _page(names, request)
    return ListTopicSubscriptions(subscriptions=page, next_page_token=token)


def delete_topic(project: Project, request: Raw) -> Raw:
    """Delete a topic; its subscriptions stay."""
    project.delete_topic(request.topic)
    return Empty()


# -- subscriptions ---------------------------------------------------------------------------


def create_subscription(project: Project, request: Raw) -> Raw:
    """Make a subscription."""
    return project.create_subscription(request).config


def get_subscription(project: Project, request: Raw) -> Raw:
    """What a subscription is set to."""
    return project.subscription(request.subscription).config


def update_subscription(project: Project, request: Raw) -> Raw:
    """Change a subscription."""
    subscription = project.subscription(request.subscription.name)
    config = updated(subscription.config, request)
    complete(config)
    project.check(config)
    project.update_subscription(subscription, config)
    return config


def modify_push_config(project: Project, request: Raw) -> Raw:
    """Make a subscription one that is pulled from; it can be made a push subscription by an update only."""
    subscription = project.subscription(request.subscription)
    if request.push_config.ByteSize():
        raise invalid("This server pushes nothing: push_config can only be emptied.")
    config = type(subscription.config)()
    config.CopyFrom(subscription.config)
    config.push_config.Clear()
    project.update_subscription(subscription, config)
    return Empty()


def list_subscriptions(project: Project, request: Raw) -> Raw:
    """The subscriptions of a project."""
    names, token = _page_of(project.subscriptions, request)
    return ListSubscriptions(
        subscriptions=[project.subscriptions[name].config for name in names], next_page_token=token
    )


def delete_subscription(project: Project, request: Raw) -> Raw:
    """Delete a subscription with all that it holds."""
    project.delete_subscription(request.subscription)
    return Empty()


def detach_subscription(project: Project, request: Raw) -> Raw:
    """Take a subscription away from its topic."""
    project.detach(project.subscription(request.subscription))
    return Detached()


def seek(project: Project, request: Raw) -> Raw:
    """Let what was published before a time be acked, and what was published since be unacked."""
    subscription = project.subscription(request.subscription)
    match request.WhichOneof("target"):
        case "time":
            subscription.seek(seconds_of(request.time), project.now())
        case "snapshot":
            raise invalid("This server has no snapshots: seek to a time.")
        case _:
            raise invalid("No target was specified in the SeekRequest. Must specify either a time or a snapshot.")
    return SeekResponse()


# -- pages -----------------------------------------------------------------------------------


def _page_of(names: Iterable[str], request: Raw) -> tuple[list[str], str]:
    check_project(request.project)
    return _page([name for name in names if name.startswith(f"{request.project}/")], request)


def _page(names: Sequence[str], request: Raw) -> tuple[list[str], str]:
    """A page of names in order, and what to ask the next one with: the last name."""
    size = min(request.page_size or _PAGE, _PAGE)
    if size < 0:
        raise invalid(f"Invalid page_size ({size}).")
    rest = sorted(name for name in names if name > request.page_token)
    return rest[:size], rest[size - 1] if len(rest) > size else ""
