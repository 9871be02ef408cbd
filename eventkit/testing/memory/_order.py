"""What is delivered next, and to whom: arrival order, and order per key."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal, TypeAlias

from eventkit.testing.memory._values import Message

Rule: TypeAlias = Literal["followers", "hold", "redelivers", "none"]

IDLE = -1
"""The `seat` of a lane that stands in no line."""
SHARED = 0
"""The `seat` of a lane in the line that every source is served from; other seats are numbers of sources."""


class Lane:
    """The events of one key. Those waiting are all deliverable in order, or the first of them blocks the rest.

    `waiting` is in the order of the key, with the events nacked with a delay in their place (`delayed` of
    them); `out` is what is leased, by receipt. `owner` is the number of the source that holds what is out,
    `turn` the receive that took from the lane last. `acked` is what was acked while an event before it was
    out, where that one would bring it back.
    """

    __slots__ = ("acked", "delayed", "key", "out", "owner", "seat", "turn", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.waiting: deque[Message] = deque()
        self.out: dict[int, Message] = {}
        self.acked: list[Message] = []
        self.delayed = 0
        self.owner = 0
        self.seat = IDLE
        self.turn = 0

    def put(self, message: Message) -> None:
        """Let `message` wait in its place."""
        waiting = self.waiting
        if not waiting or waiting[-1].place < message.place:
            waiting.append(message)
            return
        for index, other in enumerate(waiting):
            if other.place > message.place:
                waiting.insert(index, message)
                return

    def open(self, rule: Rule, turn: int) -> bool:
        """Whether an event can be delivered now, to the owner if there is one, in the receive `turn`."""
        if not self.waiting:
            return False
        if rule == "followers":
            # An SQS FIFO group: nothing while one is in flight or held back, but one receive may take several.
            return not self.delayed and (not self.out or self.turn == turn)
        return not self.waiting[0].due

    def forget(self) -> None:
        """Drop what was acked and can come back no more, as nothing before it is out."""
        first = min((message.place for message in self.out.values()), default=None)
        self.acked = [message for message in self.acked if first is not None and message.place > first]


class Order:
    """The events of a queue that wait, in the order of their delivery under the rule for keys.

    Events without a key come in the order in which they became deliverable: one that went back stands at the
    end. Those of a key come in the order of their key, and keys take turns, one event each.
    """

    def __init__(self, rule: Rule, *, redelivers_acked: bool) -> None:
        self._rule = rule
        self._redelivers_acked = redelivers_acked and rule == "redelivers"
        self._line: deque[Message | Lane] = deque()
        self._own_lines: dict[int, deque[Lane]] = {}
        self._lanes: dict[str, Lane] = {}
        self._places = 0
        self._turn = 0

    def join(self, source: int) -> None:
        """Source number `source` will take from here."""
        self._own_lines[source] = deque()

    def leave(self, source: int) -> None:
        """Source number `source` takes no more; what it holds is still its own."""
        self._own_lines.pop(source, None)

    def waiting(self) -> Iterator[Message]:
        """Everything that waits and is not held back, in no useful order."""
        yield from (item for item in self._line if isinstance(item, Message))
        for lane in self._lanes.values():
            yield from (message for message in lane.waiting if not message.due)

    def add(self, message: Message) -> None:
        """Let `message` wait. One with `due` keeps its place and lets no other of its key pass."""
        if message.key is None or self._rule == "none":
            self._line.append(message)
            return
        lane = self._lanes.get(message.key)
        if lane is None:
            lane = self._lanes[message.key] = Lane(message.key)
        if not message.place:
            self._places += 1
            message.place = self._places
        if message.due:
            lane.delayed += 1
        lane.put(message)
        self._offer(lane)

    def due(self, message: Message) -> None:
        """`message`, added with `due`, is held back no more."""
        message.due = 0.0
        lane = self._lane(message)
        lane.delayed -= 1
        self._offer(lane)

    def remove(self, message: Message) -> None:
        """`message`, which waits, is no longer wanted."""
        if message.place:
            lane = self._lane(message)
            lane.waiting.remove(message)
            self._changed(lane)
        else:
            self._line.remove(message)

    # -- taking: `begin`, then `next` until it gives None, each followed by `out` or `skip` --------

    def begin(self) -> None:
        """A new receive takes from here."""
        self._turn += 1

    def next(self, source: int) -> Message | None:
        """The next event for source number `source`."""
        own, line = self._own_lines.get(source), self._line
        while own:
            lane = own.popleft()
            if lane.seat == source:  # else it has moved to the other line since
                message = self._next_of(lane, source)
                if message is not None:
                    return message
        while line:
            item = line.popleft()
            if isinstance(item, Message):
                return item
            message = self._next_of(item, source)
            if message is not None:
                return message
        return None

    def _next_of(self, lane: Lane, source: int) -> Message | None:
        if not lane.open(self._rule, self._turn):
            lane.seat = IDLE
            return None
        if lane.owner not in {0, source} and self._rule != "followers":
            lane.seat = lane.owner
            if lane.owner in self._own_lines:
                self._own_lines[lane.owner].append(lane)
            return None
        message = lane.waiting.popleft()
        lane.seat = SHARED if lane.waiting else IDLE
        if lane.waiting:
            self._line.append(lane)
        return message

    def out(self, receipt: int, message: Message, source: int) -> None:
        """`message`, which has a place, is delivered."""
        lane = self._lane(message)
        lane.out[receipt] = message
        lane.owner = source
        lane.turn = self._turn

    def skip(self, message: Message) -> None:
        """`message`, just given by `next`, is not delivered and not wanted."""
        if message.place:
            self._changed(self._lane(message))

    # -- what was out ----------------------------------------------------------------------------

    def recalled(self, receipt: int, message: Message) -> list[tuple[int, Message]]:
        """(receipt, message) of what comes back together with `message`; receipt 0: it was acked already."""
        if self._rule != "redelivers":
            return []
        lane = self._lane(message)
        later = [(receipt, other) for receipt, other in lane.out.items() if other.place > message.place]
        acked = [(0, other) for other in lane.acked if other.place > message.place]
        lane.acked = [other for other in lane.acked if other.place < message.place]
        return later + acked

    def ended(self, receipt: int, message: Message, *, acked: bool = False) -> None:
        """The delivery of `message`, which has a place, is over. What goes back is added before."""
        lane = self._lane(message)
        del lane.out[receipt]
        if acked and self._redelivers_acked:
            lane.acked.append(message)
        self._changed(lane)

    def _lane(self, message: Message) -> Lane:
        return self._lanes[message.key or ""]

    def _changed(self, lane: Lane) -> None:
        if lane.acked:
            lane.forget()
        if not lane.out:
            if lane.owner and lane.seat == lane.owner:
                lane.seat = IDLE  # it stood in its owner's line, and is everybody's now
            lane.owner = 0
            if not lane.waiting:
                del self._lanes[lane.key]
                return
        self._offer(lane)

    def _offer(self, lane: Lane) -> None:
        """Put `lane` in line if it has something to deliver and stands in none."""
        if lane.seat == IDLE and lane.open(self._rule, 0):
            lane.seat = SHARED
            self._line.append(lane)
