"""Acknowledge and ModifyAckDeadline, alone or on a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from eventkit_pubsub._local._errors import INVALID_ACK_ID, ack_ids_failed, invalid
from eventkit_pubsub._local._project import Project
from eventkit_pubsub._local._raw import Empty, Raw
from eventkit_pubsub._local._settings import MAX_DEADLINE
from eventkit_pubsub._local._subscription import LocalSubscription
from eventkit_pubsub._local._waiters import Stream

MAX_REQUEST: Final = 512 * 1024
"""Bytes of a request. [doc: Quotas and limits, Acknowledge and ModifyAckDeadline]"""

AckIds: TypeAlias = Mapping[str, int]
"""Ack ids, each with the receipt in it."""
Failed: TypeAlias = Mapping[str, str]
"""Ack ids, each with the reason why it failed."""
_NONE: Final[Failed] = {}


def acknowledge(project: Project, request: Raw, refused: Failed = _NONE) -> Raw:
    """End deliveries as done; those in `refused` fail instead."""
    subscription, ack_ids = _checked(project, request)
    failed = _acked(project, subscription, _without(ack_ids, refused, subscription))
    return _reply(subscription, ack_ids, failed, refused)


def modify_ack_deadline(project: Project, request: Raw, refused: Failed = _NONE) -> Raw:
    """Let deliveries be over later, or now; those in `refused` fail instead."""
    subscription, ack_ids = _checked(project, request)
    seconds = request.ack_deadline_seconds
    _check_seconds(seconds)
    failed = _modified(project, subscription, _without(ack_ids, refused, subscription), seconds)
    return _reply(subscription, ack_ids, failed, refused)


def settle(project: Project, stream: Stream, request: Raw) -> None:
    """What a request on a stream settles. Raises PubsubError, which ends the stream."""
    subscription = stream.subscription
    acked, modified, seconds = request.ack_ids, request.modify_deadline_ack_ids, request.modify_deadline_seconds
    if len(modified) != len(seconds):
        raise invalid("ack IDs and deadlines must have the same size.")
    to_ack, to_modify = subscription.receipts(acked), subscription.receipts(modified)
    for each in seconds:
        _check_seconds(each)
    not_acked = _acked(project, subscription, to_ack)
    not_modified: dict[str, str] = {}
    for ack_id, each in dict(zip(modified, seconds, strict=True)).items():
        not_modified |= _modified(project, subscription, {ack_id: to_modify[ack_id]}, each)
    if subscription.settings.exactly_once and (acked or modified):
        response = stream.reply()
        _confirm(response.acknowledge_confirmation, to_ack, not_acked)
        _confirm(response.modify_ack_deadline_confirmation, to_modify, not_modified)


def _confirm(confirmation: Raw, ack_ids: AckIds, failed: Failed) -> None:
    confirmation.ack_ids.extend(ack_id for ack_id in ack_ids if ack_id not in failed)
    confirmation.invalid_ack_ids.extend(ack_id for ack_id in ack_ids if ack_id in failed)


def _checked(project: Project, request: Raw) -> tuple[LocalSubscription, AckIds]:
    subscription = project.subscription(request.subscription)
    if not request.ack_ids:
        raise invalid("No ack ids specified.")
    if request.ByteSize() > MAX_REQUEST:
        raise invalid(f"Request payload size exceeds the limit: {MAX_REQUEST} bytes.")
    return subscription, subscription.receipts(request.ack_ids)


def _check_seconds(seconds: int) -> None:
    if not 0 <= seconds <= MAX_DEADLINE:
        raise invalid(f"Invalid ack deadline given (ack_deadline_seconds={seconds}): from 0 to 600 s are possible.")


def _without(ack_ids: AckIds, refused: Failed, subscription: LocalSubscription) -> AckIds:
    if not refused or not subscription.settings.exactly_once:
        return ack_ids
    return {ack_id: receipt for ack_id, receipt in ack_ids.items() if ack_id not in refused}


def _acked(project: Project, subscription: LocalSubscription, ack_ids: AckIds) -> dict[str, str]:
    return _failed(ack_ids, subscription.ack(list(ack_ids.values()), project.now()))


def _modified(project: Project, subscription: LocalSubscription, ack_ids: AckIds, seconds: int) -> dict[str, str]:
    receipts, now = list(ack_ids.values()), project.now()
    return _failed(
        ack_ids, subscription.extend(receipts, seconds, now) if seconds else subscription.nack(receipts, now)
    )


def _failed(ack_ids: AckIds, done: Sequence[bool]) -> dict[str, str]:
    return {ack_id: INVALID_ACK_ID for ack_id, was_done in zip(ack_ids, done, strict=True) if not was_done}


def _reply(subscription: LocalSubscription, ack_ids: AckIds, failed: Failed, refused: Failed) -> Raw:
    """Without exactly-once delivery, an ack id that came too late is no error."""
    if subscription.settings.exactly_once:
        failed = {**failed, **{ack_id: refused[ack_id] for ack_id in ack_ids if ack_id in refused}}
        if failed:
            raise ack_ids_failed(failed)
    return Empty()
