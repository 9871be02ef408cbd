"""Message move tasks: dead letters back to where they came from, or elsewhere. Each is over at once."""

from __future__ import annotations

from uuid import uuid4

from eventkit_sqs._local import _wire as wire
from eventkit_sqs._local._account import Account
from eventkit_sqs._local._errors import SqsError, invalid
from eventkit_sqs._local._queue import LocalQueue


class Moves:
    """The moves since the server started."""

    def __init__(self) -> None:
        self._moves: dict[str, wire.Move] = {}

    def start(self, account: Account, request: wire.StartMove) -> wire.MoveStarted:
        """Move what can be received: a message starts anew, under another id, and what is in flight stays.

        As at AWS, one that was not moved in by a RedrivePolicy has no way back, and the task ends there as failed.
        """
        source = _known(account, request.source_arn, "SourceArn")
        if not account.sources(source):
            raise SqsError("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
        target = None
        if request.destination_arn is not None:
            target = _known(account, request.destination_arn, "DestinationArn")
        rate = request.max_number_of_messages_per_second
        if rate is not None and not 1 <= rate <= 500:
            raise invalid("MaxNumberOfMessagesPerSecond", rate, "Must be between 1 and 500, if provided.")
        handle = uuid4().hex
        self._moves[handle] = _moved(account, request, source, target)
        return wire.MoveStarted(task_handle=handle)

    def cancel(self, account: Account, request: wire.CancelMove) -> wire.Reply:
        """There is never one to stop. Raises SqsError."""
        if request.task_handle in self._moves:
            raise SqsError("UnsupportedOperation", "Only active tasks can be cancelled.")
        raise SqsError("ResourceNotFoundException", "Task does not exist.")

    def list(self, account: Account, request: wire.ListMoves) -> wire.Moves:
        """The newest moves from a queue, the newest first."""
        source = _known(account, request.source_arn, "SourceArn")
        if not 1 <= request.max_results <= 10:
            raise invalid("MaxResults", request.max_results, "Must be between 1 and 10, if provided.")
        moves = [move for move in self._moves.values() if move.source_arn == source.arn]
        return wire.Moves(results=moves[: -request.max_results - 1 : -1] or None)


def _known(account: Account, arn: str, name: str) -> LocalQueue:
    queue = account.by_arn(arn)
    if queue is None:
        problem = f"The resource that you specified for the {name} parameter doesn't exist."
        raise SqsError("ResourceNotFoundException", problem)
    return queue


def _moved(account: Account, request: wire.StartMove, source: LocalQueue, target: LocalQueue | None) -> wire.Move:
    now = account.now()
    messages = source.take_out(now)
    move = wire.Move(
        source_arn=source.arn,
        destination_arn=request.destination_arn,
        per_second=request.max_number_of_messages_per_second,
        status="COMPLETED",
        started=int(account.wall() * 1000),
        moved=0,
        to_move=len(messages),
    )
    for message in messages:
        to = target or account.by_arn(message.dead_from or "")
        if to is None or move.failure_reason is not None:
            move.status, move.failure_reason = "FAILED", "CouldNotDetermineMessageSource"
            source.adopt(message, now, source=message.dead_from, aged=True)
            continue
        message.message_id, message.count, message.first_received = to.new_id(), 0, 0
        to.adopt(message, now, source=None, aged=False)
        move.moved += 1
    return move
