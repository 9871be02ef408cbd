"""A user's scenario, played in one world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from eventkit._handler import AnyHandler
from eventkit._pipeline.settler import LETTER_ATTRIBUTE
from eventkit._policies.letter import letter_id
from eventkit._telemetry.records import Record
from eventkit._worker import Worker
from eventkit.errors import ConfigurationError
from eventkit.spi import DeadLetter, Outgoing
from eventkit.testing.simulation._life import Life
from eventkit.testing.simulation._loop import Escaped
from eventkit.testing.simulation._plan import stream
from eventkit.testing.simulation._ports import QUEUE
from eventkit.testing.simulation._scenario import Publish, Scenario
from eventkit.testing.simulation._watched import watch
from eventkit.testing.simulation._witness import Witness

if TYPE_CHECKING:
    from eventkit.testing.simulation._world import World

__all__ = ["Scene", "planned"]

SPREAD = 0.5
"""Share of the events before which there is a pause, so that there is work while faults last."""

ESCAPED = f"{Escaped.__module__}.{Escaped.__qualname__}"


class Onlooker(Witness):
    """A witness that also keeps the dead letters, wherever they are stored, under the message ids of their events."""

    def __init__(self, world: World) -> None:
        super().__init__(world.conditions, world.violate, lambda: world.clock())  # noqa: PLW0108 - the clock is set when it runs
        self._source = f"{world.broker.name}://{QUEUE}"
        self._ids: dict[bytes, list[str]] = {}
        self._letters: dict[str, DeadLetter] = {}

    def expects(self, message_id: str, body: bytes) -> None:
        """An event is about to be published."""
        self._ids.setdefault(body, []).append(message_id)

    def letters_stored(self, letters: Sequence[Outgoing]) -> None:
        """See `Witness`."""
        for letter in letters:
            found = self._dead_letter(letter)
            self._letters.setdefault(found.message_id, found)

    def _dead_letter(self, letter: Outgoing) -> DeadLetter:
        detail = letter.attributes.get(LETTER_ATTRIBUTE, "{}")
        fields: dict[str, Any] = msgspec.json.decode(detail)
        reason = fields.get("reason", "")
        return DeadLetter(
            id=letter.event_id,
            reason=reason,
            detail=detail,
            message_id=self._message_of(letter, fields.get("event_id", ""), reason),
            body=letter.body,
            attributes=letter.attributes,
            content_type=letter.content_type,
            key=letter.key,
            delivery_count=None,
            enqueued_at=0.0,
            dead_at=fields.get("failed_at", 0.0),
        )

    def _message_of(self, letter: Outgoing, event_id: str, reason: str) -> str:
        """Whose letter this is: a sink knows bodies only, and two events may have the same."""
        ids = self._ids.get(letter.body, [""])
        if event_id in ids:
            return event_id
        return next((id for id in ids if letter_id(self._source, id, reason) == letter.event_id), ids[0])

    def dead_letters(self, native: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Those of the queue itself and those in the sink, in the order in which their events were published."""
        letters = {**self._letters, **{letter.message_id: letter for letter in native}}
        return [letters[id] for id in self.fates if id in letters]

    def told(self, life: Life, record: Record) -> None:
        """See `Witness`. What escapes fails in the user's handler, where it would pass for a failure of the event."""
        if getattr(record, "error", "") == ESCAPED:
            self.violate("I15", f"{ESCAPED}: {getattr(record, 'message', '')}")


class Scene:
    """See `Stage`: a scenario, its events in a row over the time of faults."""

    def __init__(self, world: World, scenario: Scenario, events: Sequence[Publish], patience: float) -> None:
        self.witness = self._onlooker = Onlooker(world)
        self.patience = patience
        self._world = world
        self._scenario = scenario
        self._events = events
        self._rng = stream(world.conditions.seed, "scene")
        self._blows = stream(world.conditions.seed, "blows")

    def worker(self, life: Life) -> Worker:
        """See `Stage`."""
        worker = self._scenario.worker()
        worker._rng = Random(f"{self._world.conditions.seed}:{life.number}")  # noqa: S311, SLF001 - chance enters here
        for handler in worker.handlers:
            watch(handler, self._world, life, self._blows)
        return worker

    async def publish(self) -> None:
        """See `Stage`."""
        conditions, rng = self._world.conditions, self._rng
        for event in self._events:
            pause = rng.uniform(0.0, 2.0 * conditions.heal_at / len(self._events))
            if rng.random() < SPREAD:
                await anyio.sleep(pause)
            self._publish(event, rng.uniform(0.0, conditions.heal_at), rng.random())

    def _publish(self, event: Publish, wait: float, toss: float) -> None:
        late = event.key is None and toss < self._world.conditions.faults.get("late", 0.0)
        if late:
            self._world.fired("late")
        body = event.body if isinstance(event.body, bytes) else msgspec.json.encode(event.body)
        self._onlooker.expects(event.id, body)
        self._world.broker.publish(
            QUEUE,
            body,
            key=event.key,
            attributes=event.attributes,
            content_type=event.content_type or (None if isinstance(event.body, bytes) else "application/json"),
            type=event.type,
            delay=event.delay + wait * late,
            message_id=event.id,
        )

    def settled(self) -> tuple[list[str], list[DeadLetter]]:
        """The message ids of what was acked and is not dead, and the dead letters."""
        letters = self._onlooker.dead_letters(self._world.broker.queue(QUEUE).dead_letters)
        dead = {letter.message_id for letter in letters}
        return [id for id, fate in self.witness.fates.items() if fate.acked and id not in dead], letters


def planned(events: Sequence[object], handlers: Sequence[AnyHandler]) -> list[Publish]:
    """The events with their ids and types. Raises ConfigurationError when two have one id."""
    type = next((name for handler in handlers for name in handler.types if not name.endswith("*")), None)
    made = [_planned(event, str(index), type) for index, event in enumerate(events)]
    twice = [id for id, number in Counter(event.id for event in made).items() if number > 1]
    if twice:
        raise ConfigurationError(f"events with the same id: {', '.join(twice[:5])}; give each an id of its own")
    return made


def _planned(event: object, id: str, type: str | None) -> Publish:
    if not isinstance(event, Publish):
        return Publish(event, id=id, type=type)
    return replace(event, id=event.id or id, type=event.type or type)
