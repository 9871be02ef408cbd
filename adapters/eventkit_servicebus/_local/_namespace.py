"""The queues, topics and subscriptions that the server stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from eventkit.spi import LocalCounts
from eventkit_servicebus._local._content import Content
from eventkit_servicebus._local._errors import AmqpError
from eventkit_servicebus._local._names import SESSIONS, Node
from eventkit_servicebus._local._pump import Pump
from eventkit_servicebus._local._queue import LocalQueue
from eventkit_servicebus._local._sessions import Sessions
from eventkit_servicebus._local._settings import Settings
from eventkit_servicebus._local._stored import Tally


class Topic:
    """Where messages are sent for several subscriptions, each of which gets its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscriptions: list[LocalQueue] = []

    def accept(self, contents: Sequence[Content], now: float) -> list[int]:
        """See `LocalQueue.accept`; the numbers are those of the first subscription."""
        for each in self.subscriptions:
            each.check(contents)
        numbers = [each.accept(contents, now) for each in self.subscriptions]
        return numbers[0] if numbers else [0] * len(contents)

    def cancel(self, sequences: Sequence[int], now: float) -> None:
        """See `LocalQueue.cancel`. Not here: each subscription has numbers of its own."""
        raise AmqpError("amqp:not-implemented", "The local server cannot cancel what is scheduled at a topic.")


class Namespace:
    """Entities by their names in lower case, each with those who wait at it."""

    def __init__(self, *, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self.now = clock
        self.wall = wall
        self._queues: dict[str, LocalQueue] = {}
        self._topics: dict[str, Topic] = {}
        self._pumps: dict[LocalQueue, Pump] = {}
        self._sessions: dict[LocalQueue, Sessions] = {}

    def create(self, name: str, settings: Settings) -> None:
        """Make a queue, or a subscription and its topic if need be, with dead letters."""
        settings = msgspec.structs.replace(settings, sessions=name.endswith(SESSIONS))
        plain = msgspec.structs.replace(settings, sessions=False)
        dead = self._add(f"{name}/$DeadLetterQueue", plain, None)
        queue = self._add(name, settings, dead)
        topic, slash, _ = name.partition("/")
        if slash:
            self._topics.setdefault(topic.lower(), Topic(topic)).subscriptions.append(queue)

    def _add(self, name: str, settings: Settings, dead_letters: LocalQueue | None) -> LocalQueue:
        queue = LocalQueue(name, settings, wall=self.wall, dead_letters=dead_letters)
        self._queues[name.lower()] = queue
        self._pumps[queue] = pump = Pump(queue, self.now)
        queue.watch(pump.ring)
        if settings.sessions:
            self._sessions[queue] = sessions = Sessions(queue, pump.ring)
            pump.on_time = sessions.tend
        return queue

    # -- finding -------------------------------------------------------------------------------

    def queue(self, node: Node) -> LocalQueue:
        """The queue, subscription or dead letters at an address. Raises AmqpError."""
        queue = self._queues.get(f"{node.entity}/$deadletterqueue" if node.dead_letters else node.entity)
        if queue is None:
            if node.entity in self._topics:
                raise AmqpError("amqp:not-allowed", f"{node.entity!r} is a topic: receive from a subscription.")
            raise _nowhere(node)
        return queue

    def target(self, node: Node) -> LocalQueue | Topic:
        """The queue or topic to send to. Raises AmqpError."""
        queue = self._queues.get(node.entity)
        topic = self._topics.get(node.entity)
        if node.dead_letters or (queue is not None and "/" in queue.name):
            raise AmqpError("amqp:not-allowed", f"Nothing can be sent to {node.entity!r}: it is no queue or topic.")
        if (found := queue or topic) is None:
            raise _nowhere(node)
        return found

    def target_or_queue(self, node: Node) -> LocalQueue | Topic:
        """What a management node belongs to. Raises AmqpError."""
        topic = self._topics.get(node.entity)
        return self.queue(node) if topic is None or node.dead_letters else topic

    def sessions(self, queue: LocalQueue) -> Sessions:
        """The sessions of `queue`. Raises AmqpError if it has none."""
        sessions = self._sessions.get(queue)
        if sessions is None:
            raise AmqpError("amqp:not-allowed", f"The entity {queue.name!r} does not require sessions.")
        return sessions

    def pump(self, queue: LocalQueue) -> Pump:
        """Those who wait at `queue`."""
        return self._pumps[queue]

    # -- the whole -----------------------------------------------------------------------------

    def counts(self) -> LocalCounts:
        """What has been done at the queues that hold no dead letters."""
        now = self.now()
        for queue, pump in self._pumps.items():
            queue.catch_up(now)
            pump.ring()
        return _sum(queue.tally() for queue in self._queues.values() if queue.dead_letters is not None)

    def end(self) -> None:
        """Let nobody wait any more."""
        for pump in self._pumps.values():
            pump.end()


def _sum(tallies: Iterable[Tally]) -> LocalCounts:
    rows = list(map(msgspec.structs.astuple, tallies))
    names = Tally.__struct_fields__
    return LocalCounts(**dict(zip(names, map(sum, zip(*rows, strict=True)), strict=False)) or dict.fromkeys(names, 0))


def _nowhere(node: Node) -> AmqpError:
    return AmqpError("amqp:not-found", f"The messaging entity {node.entity!r} could not be found.")
