"""What must hold, whatever happened to the workers. Pure: from what was published, written down and left."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

from eventkit._policies.letter import letter_id
from tests.process.deaths.ledger import Line
from tests.process.deaths.queue_file import Contents, Published


def lost(published: Sequence[Published], contents: Contents, lines: Sequence[Line]) -> list[int]:
    """Events that left the queue without an effect or, those that must die, without a dead letter.

    `lines` must have been read after `contents`: the effect of an event comes before its ack.
    """
    effects, dead = effects_of(lines), {letter.event for letter in contents.dead}
    return [
        event.n
        for event in published
        if event.n not in contents.waiting and event.n not in dead and (event.dies or event.n not in effects)
    ]


def at_the_end(
    published: Sequence[Published],
    contents: Contents,
    lines: Sequence[Line],
    *,
    broken: Collection[int],
    ordered: bool,
    source: str,
) -> Iterator[str]:
    """What is wrong with a round whose queue was worked off. `broken`: the lives that were killed, or stopped."""
    if contents.waiting:
        yield f"{len(contents.waiting)} events are still in the queue: {_some(contents.waiting)}"
    if contents.strays or contents.lanes:
        yield f"left in the file: {contents.strays} contents of no event, {contents.lanes} lanes"
    yield from wrong_letters(published, contents, source)
    yield from wrong_effects(published, lines)
    yield from unexplained_doubles(lines, broken)
    yield from starts_while_draining(lines)
    if ordered:
        yield from disorder(published, lines)


def effects_of(lines: Sequence[Line]) -> Counter[int]:
    """How often each event took effect."""
    return Counter(line.event for line in lines if line.what == "effect")


def doubles(lines: Sequence[Line]) -> int:
    """Effects beyond the first of each event."""
    return sum(count - 1 for count in effects_of(lines).values())


def wrong_letters(published: Sequence[Published], contents: Contents, source: str) -> Iterator[str]:
    """P4: exactly one dead letter for each event that must die, under its stable id, and none for another."""
    letters = Counter(letter.event for letter in contents.dead)
    for event in published:
        if letters[event.n] != event.dies and event.n not in contents.waiting:
            yield f"event {event.n} ({event.kind}) has {letters[event.n]} dead letters"
    for letter in contents.dead:
        if letter.id != letter_id(source, str(letter.event), letter.reason):
            yield f"the dead letter of event {letter.event} has the id {letter.id!r}, not that of its event and reason"


def wrong_effects(published: Sequence[Published], lines: Sequence[Line]) -> Iterator[str]:
    """Only what was published, and does not always fail, may take effect."""
    may = {event.n for event in published if not event.dies}
    if wrong := sorted(effects_of(lines).keys() - may):
        yield f"took effect, and cannot have: {_some(wrong)}"


def unexplained_doubles(lines: Sequence[Line], broken: Collection[int]) -> Iterator[str]:
    """P3: an event is done once more only for a worker that died or stood still with it, or lost its lease.

    A settle call that failed explains a double too: nobody knows whether it was done.
    """
    holders: defaultdict[int, set[int]] = defaultdict(set)
    excuses: Counter[int] = Counter()
    unsure = {line.life for line in lines if line.what == "unsettled"} | set(broken)
    for line in lines:
        if line.what == "start":
            holders[line.event].add(line.life)
        elif line.what in ("lost", "stale"):
            excuses[line.event] += 1
    for event, count in effects_of(lines).items():
        if count - 1 > excuses[event] + len(holders[event] & unsure):
            yield f"event {event} took effect {count} times, and no death or lost lease explains it"


def starts_while_draining(lines: Sequence[Line]) -> Iterator[str]:
    """P8: from the first line of a drain on, that worker starts nothing."""
    draining: set[int] = set()
    for line in lines:
        if line.what == "drain":
            draining.add(line.life)
        elif line.what == "start" and line.life in draining:
            yield f"worker {line.life} started event {line.event} after it had begun to drain"


def disorder(published: Sequence[Published], lines: Sequence[Line]) -> Iterator[str]:
    """P6: the first effects of a key come in the order of its events; those after a poison event, once it is dead."""
    first: dict[int, int] = {}
    last_start: dict[int, int] = {}
    for number, line in enumerate(lines):
        if line.what == "effect":
            first.setdefault(line.event, number)
        elif line.what == "start":
            last_start[line.event] = number
    excused = {line.event for line in lines if line.what in ("lost", "stale")}
    reached: dict[str, tuple[int, int]] = {}  # key -> the line that its next event must come after, and whose that is
    for event in published:
        if event.key is None:
            continue
        before, whose = reached.get(event.key, (-1, -1))
        if event.n in first and first[event.n] < before:
            yield f"event {event.n} took effect before {whose}, which comes before it in {event.key}"
        times = last_start if event.dies else first
        if event.n in times and not (event.dies and event.n in excused):
            reached[event.key] = max((before, whose), (times[event.n], event.n))


def _some(events: Collection[int]) -> str:
    listed = sorted(events)
    return ", ".join(map(str, listed[:10])) + (" …" if len(listed) > 10 else "")
