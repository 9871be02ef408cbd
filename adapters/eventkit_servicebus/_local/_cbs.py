"""Tokens: every one is believed that looks like one."""

from __future__ import annotations

from typing import Any

from eventkit_servicebus._local._types import Int


def put_token(application: dict[Any, Any]) -> tuple[dict[str, Any], None]:
    """The answer to a client that shows its token, and no body."""
    good = application.get("operation") == "put-token"
    status, text = (202, "Accepted") if good else (400, "the only operation is put-token")
    return {"status-code": Int(status), "status-description": text}, None
