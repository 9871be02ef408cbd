"""Who may do what: everybody may do everything, and can be told otherwise by a fault."""

from __future__ import annotations

from typing import Final

from eventkit_pubsub._local._project import Project
from eventkit_pubsub._local._raw import Policy, Raw, iam

Granted: Final = iam("TestIamPermissionsResponse")


def test_permissions(project: Project, request: Raw) -> Raw:
    """All that was asked; nothing for what is not there [doc: TestIamPermissions]."""
    there = request.resource in project.topics or request.resource in project.subscriptions
    return Granted(permissions=request.permissions if there else ())


def get_policy(project: Project, request: Raw) -> Raw:
    """What was stored."""
    _require(project, request.resource)
    return project.policies.get(request.resource) or Policy()


def set_policy(project: Project, request: Raw) -> Raw:
    """Store a policy, which changes nothing."""
    _require(project, request.resource)
    policy = project.policies[request.resource] = request.policy
    return policy


def _require(project: Project, name: str) -> None:
    if "/subscriptions/" in name:
        project.subscription(name)
    else:
        project.topic(name)
