"""The operations by name: how a request is read, and who answers it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from eventkit_sqs._local import _managing as managing
from eventkit_sqs._local import _receiving as receiving
from eventkit_sqs._local import _sending as sending
from eventkit_sqs._local import _wire as wire
from eventkit_sqs._local._account import Account
from eventkit_sqs._local._errors import SqsError, missing
from eventkit_sqs._local._moves import Moves

_MISSING: Final = re.compile("Object missing required field `(?P<name>[^`]+)`")


class Operation(NamedTuple):
    """One operation; `act` raises SqsError, and only a receive is awaited."""

    decoder: msgspec.json.Decoder[Any]
    act: Callable[[Account, Any], wire.Reply | Awaitable[wire.Reply]]

    def read(self, body: bytes) -> Any:
        """The request in `body`. Raises SqsError for what is none."""
        try:
            return self.decoder.decode(body or b"{}")
        except msgspec.ValidationError as exc:
            lacking = _MISSING.match(str(exc))
            if lacking is not None:
                raise missing(lacking["name"]) from exc
            raise SqsError("SerializationException", str(exc)) from exc
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise SqsError("SerializationException", f"the request is no JSON: {exc}") from exc


def operations() -> Mapping[str, Operation]:
    """Every operation that is served."""
    moves = Moves()
    acts: dict[str, tuple[type[wire.Request], Callable[[Account, Any], Any]]] = {
        "CancelMessageMoveTask": (wire.CancelMove, moves.cancel),
        "ChangeMessageVisibility": (wire.Change, receiving.change),
        "ChangeMessageVisibilityBatch": (wire.ChangeBatch, receiving.change_batch),
        "CreateQueue": (wire.CreateQueue, managing.create_queue),
        "DeleteMessage": (wire.Delete, receiving.delete),
        "DeleteMessageBatch": (wire.DeleteBatch, receiving.delete_batch),
        "DeleteQueue": (wire.ToQueue, managing.delete_queue),
        "GetQueueAttributes": (wire.GetQueueAttributes, managing.get_attributes),
        "GetQueueUrl": (wire.GetQueueUrl, managing.get_queue_url),
        "ListDeadLetterSourceQueues": (wire.ListSources, managing.list_sources),
        "ListMessageMoveTasks": (wire.ListMoves, moves.list),
        "ListQueueTags": (wire.ToQueue, managing.list_tags),
        "ListQueues": (wire.ListQueues, managing.list_queues),
        "PurgeQueue": (wire.ToQueue, managing.purge_queue),
        "ReceiveMessage": (wire.Receive, receiving.receive),
        "SendMessage": (wire.Send, sending.send),
        "SendMessageBatch": (wire.SendBatch, sending.send_batch),
        "SetQueueAttributes": (wire.SetQueueAttributes, managing.set_attributes),
        "StartMessageMoveTask": (wire.StartMove, moves.start),
        "TagQueue": (wire.TagQueue, managing.tag_queue),
        "UntagQueue": (wire.UntagQueue, managing.untag_queue),
    }
    return {name: Operation(msgspec.json.Decoder(request), act) for name, (request, act) in acts.items()}
