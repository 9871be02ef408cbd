"""The queues of the account that the server stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from eventkit.spi import LocalCounts
from eventkit_sqs._local._attributes import bad_redrive, check, defaults
from eventkit_sqs._local._attributes import redrive as read_redrive
from eventkit_sqs._local._errors import SqsError
from eventkit_sqs._local._polls import Polls
from eventkit_sqs._local._queue import LocalQueue
from eventkit_sqs._local._stored import Taken, Tally

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
NAME_RULE: Final = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"


class Account:
    """Queues by name, each with those who wait at it. A name may be used again as soon as its queue is deleted."""

    def __init__(
        self, endpoint: str, *, region: str, id: str, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self.endpoint = endpoint
        self.region = region
        self.id = id
        self.now = clock
        self.wall = wall
        self.queues: dict[str, LocalQueue] = {}
        self._polls: dict[str, Polls] = {}
        self._past: list[tuple[Tally, int]] = []
        """What deleted queues had done, and how many of their leases had ended."""

    def create(self, name: str, attributes: Mapping[str, str], tags: Mapping[str, str]) -> LocalQueue:
        """Make a queue, or find the one that is there and is the same. Raises SqsError."""
        fifo = name.endswith(".fifo")
        if not _NAME.fullmatch(name) or (fifo and attributes.get("FifoQueue") != "true"):
            raise SqsError("InvalidParameterValue", NAME_RULE)
        if attributes.get("FifoQueue") == "true" and not fifo:
            rule = "can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix"
            raise SqsError("InvalidParameterValue", f"The name of a FIFO queue {rule} and be 1 to 80 in length.")
        check(attributes, fifo=fifo, new=True)
        self.check_redrive(attributes, fifo=fifo)
        known = self.queues.get(name)
        if known is not None:
            _require_same(known, attributes)
            return known
        queue = self._made(name)
        queue.set(attributes)
        queue.tags.update(tags)
        return queue

    def _made(self, name: str) -> LocalQueue:
        queue = LocalQueue(
            name,
            arn=f"arn:aws:sqs:{self.region}:{self.id}:{name}",
            url=f"{self.endpoint}/{self.id}/{name}",
            wall=self.wall,
            tally=Tally(),
        )

        def take(limit: int, lease: float) -> Sequence[Taken]:
            return queue.receive(limit, lease, self.now(), dead_letters=self.dead_letters(queue))

        def give_back(taken: Sequence[Taken]) -> None:
            queue.give_back(taken, self.now())

        polls = Polls(take, give_back, lambda: queue.next_due - self.now())
        queue.on_ready = polls.ring
        self.queues[name] = queue
        self._polls[name] = polls
        return queue

    def delete(self, queue: LocalQueue) -> None:
        """Delete a queue, and tell those who wait at it."""
        self._past.append((queue.tally, queue.expired(self.now())))
        del self.queues[queue.name]
        self._polls.pop(queue.name).end(_no_queue())

    def queue(self, url: str) -> LocalQueue:
        """The queue at this URL, of which only the name counts. Raises SqsError."""
        queue = self.queues.get(url.rpartition("/")[2])
        if queue is None:
            raise _no_queue()
        return queue

    def by_arn(self, arn: str) -> LocalQueue | None:
        """The queue with this ARN."""
        queue = self.queues.get(arn.rpartition(":")[2])
        return queue if queue is not None and queue.arn == arn else None

    def polls(self, queue: LocalQueue) -> Polls:
        """Those who wait at `queue`."""
        return self._polls[queue.name]

    # -- dead letters --------------------------------------------------------------------------

    def dead_letters(self, queue: LocalQueue) -> LocalQueue | None:
        """Where the dead letters of `queue` go."""
        redrive = queue.settings.redrive
        return self.by_arn(redrive.target) if redrive is not None else None

    def sources(self, queue: LocalQueue) -> list[LocalQueue]:
        """The queues whose dead letters go to `queue`."""
        return [each for each in self.queues.values() if self.dead_letters(each) is queue]

    def check_redrive(self, attributes: Mapping[str, str], *, fifo: bool) -> None:
        """A dead-letter queue must exist, and be of the same type. Raises SqsError."""
        text = attributes.get("RedrivePolicy")
        if not text:
            return
        target = self.by_arn(read_redrive(text).target)
        if target is None:
            raise bad_redrive(text, "Dead letter target does not exist")
        if target.fifo != fifo:
            raise bad_redrive(text, "Dead-letter queue must be same type of queue as the source")

    # -- the whole -----------------------------------------------------------------------------

    def counts(self) -> LocalCounts:
        """What has been done at the queues that are no dead-letter queue of another, and how many went to one."""
        now = self.now()
        targets = [queue for queue in self.queues.values() if self.sources(queue)]
        done = [(queue.tally, queue.expired(now)) for queue in self.queues.values() if queue not in targets]
        done += self._past
        return LocalCounts(
            published=sum(tally.published for tally, _ in done),
            delivered=sum(tally.delivered for tally, _ in done),
            acked=sum(tally.acked for tally, _ in done),
            nacked=sum(tally.nacked for tally, _ in done),
            expired=sum(expired for _, expired in done),
            dead=sum(tally.dead for tally, _ in done) + sum(queue.tally.published for queue in targets),
        )

    def end(self) -> None:
        """Answer all who wait, and let nobody wait any more."""
        for polls in self._polls.values():
            polls.end()


def _require_same(queue: LocalQueue, attributes: Mapping[str, str]) -> None:
    own = defaults(fifo=queue.fifo) | queue.attributes
    for name, text in attributes.items():
        if own.get(name, "") != text:
            raise SqsError(
                "QueueNameExists",
                f"A queue already exists with the same name and a different value for attribute {name}",
            )


def _no_queue() -> SqsError:
    return SqsError("QueueDoesNotExist", "The specified queue does not exist.")
