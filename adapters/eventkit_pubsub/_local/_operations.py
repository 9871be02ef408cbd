"""The operations by name: what their messages are, and who answers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from eventkit_pubsub._local import _access as access
from eventkit_pubsub._local import _managing as managing
from eventkit_pubsub._local import _settling as settling
from eventkit_pubsub._local._project import Project
from eventkit_pubsub._local._publishing import publish
from eventkit_pubsub._local._raw import Raw, Subscription, Topic, iam, raw

STREAMING_PULL: Final = "/google.pubsub.v1.Subscriber/StreamingPull"
PULL: Final = "/google.pubsub.v1.Subscriber/Pull"
SETTLES: Final = frozenset({"Acknowledge", "ModifyAckDeadline"})
"""Those that can fail for some of their ack ids."""


class Operation(NamedTuple):
    """One operation that is answered at once; `act` raises PubsubError."""

    request: Raw
    act: Callable[[Project, Raw], Raw]


def operations() -> Mapping[str, Operation]:
    """Every operation but Pull and StreamingPull, by its path."""
    publisher = {
        "CreateTopic": (Topic, managing.create_topic),
        "DeleteTopic": (raw("DeleteTopicRequest"), managing.delete_topic),
        "DetachSubscription": (raw("DetachSubscriptionRequest"), managing.detach_subscription),
        "GetTopic": (raw("GetTopicRequest"), managing.get_topic),
        "ListTopicSubscriptions": (raw("ListTopicSubscriptionsRequest"), managing.list_topic_subscriptions),
        "ListTopics": (raw("ListTopicsRequest"), managing.list_topics),
        "Publish": (raw("PublishRequest"), publish),
        "UpdateTopic": (raw("UpdateTopicRequest"), managing.update_topic),
    }
    subscriber = {
        "Acknowledge": (raw("AcknowledgeRequest"), settling.acknowledge),
        "CreateSubscription": (Subscription, managing.create_subscription),
        "DeleteSubscription": (raw("DeleteSubscriptionRequest"), managing.delete_subscription),
        "GetSubscription": (raw("GetSubscriptionRequest"), managing.get_subscription),
        "ListSubscriptions": (raw("ListSubscriptionsRequest"), managing.list_subscriptions),
        "ModifyAckDeadline": (raw("ModifyAckDeadlineRequest"), settling.modify_ack_deadline),
        "ModifyPushConfig": (raw("ModifyPushConfigRequest"), managing.modify_push_config),
        "Seek": (raw("SeekRequest"), managing.seek),
        "UpdateSubscription": (raw("UpdateSubscriptionRequest"), managing.update_subscription),
    }
    policies = {
        "GetIamPolicy": (iam("GetIamPolicyRequest"), access.get_policy),
        "SetIamPolicy": (iam("SetIamPolicyRequest"), access.set_policy),
        "TestIamPermissions": (iam("TestIamPermissionsRequest"), access.test_permissions),
    }
    services: Mapping[str, Mapping[str, tuple[Raw, Callable[..., Raw]]]] = {
        "google.pubsub.v1.Publisher": publisher,
        "google.pubsub.v1.Subscriber": subscriber,
        "google.iam.v1.IAMPolicy": policies,
    }
    return {
        f"/{service}/{name}": Operation(*each)
        for service, methods in services.items()
        for name, each in methods.items()
    }
