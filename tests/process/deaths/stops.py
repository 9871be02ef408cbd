"""SIGSTOP for longer than the lease, then SIGCONT: what a worker settles with stale receipts is worth nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from tests.process.deaths import audit, queue_file
from tests.process.deaths.lives import Life
from tests.process.deaths.queue_file import Leased
from tests.process.deaths.rounds import PATIENCE, Round

EVENTS = 24
SLOW = 0.15
"""Seconds the second worker takes for an event it took over, at most: the first one goes on meanwhile."""

ENDS = ("effect", "retried", "dead", "lost", "stale")


def stop_round(round: Round, *, in_ack: bool) -> None:
    """Stop one worker with events in hand, let a second one take them over, and let the first go on.

    `in_ack`: stop it while its ack waits for the lock of the file, so that the stale receipts are sent for sure.
    """
    began = time.monotonic()
    round.options = replace(round.options, pace=0.03, pace_again=SLOW, lease=0.6, in_flight=16)
    round.publish(EVENTS)
    first = round.born()
    held = _stopped(round, first, in_ack=in_ack)
    if held:
        second = round.born()
        _overtake(round, first, second, held)
        _judge(round, first, second, held)
    round.finish()
    round.tally.stop_doubles += audit.doubles(round.lines())
    round.tally.stop_seconds += time.monotonic() - began


def _stopped(round: Round, life: Life, *, in_ack: bool) -> list[Leased]:
    """Stop it at a random instant at which it holds leases, and not the lock of the file; what it holds."""
    time.sleep(round.rng.uniform(0.0, 0.1))
    for _ in range(20):
        round.next_line(1.0)
        with queue_file.locked(round.folder) if in_ack else nullcontext():
            if in_ack:
                round.next_line(0.2)
            time.sleep(round.rng.uniform(0.0, 0.03))
            life.freeze()
        if life.code is not None:
            break
        if queue_file.is_locked(round.folder):
            round.tally.stops_in_transaction += 1  # nobody could take anything over: it goes on, and is stopped anew
        elif held := queue_file.leased(round.folder):
            life.stopped = True
            return held
        life.send(signal.SIGCONT)
    round.problems.append(f"worker {life.number} never held a lease")
    return []


def _overtake(round: Round, first: Life, second: Life, held: Sequence[Leased]) -> None:
    """Let the second worker take these over, and the first go on while it works at them."""
    leases_end = time.monotonic() + round.options.lease + 0.05
    events = {lease.event for lease in held}

    def begun() -> bool:
        started = {line.event for line in round.lines_of(second) if line.what == "start"}
        return bool(events & started) and time.monotonic() > leases_end

    if not round.wait_for(begun, PATIENCE):
        round.problems.append(f"worker {second.number} took none of {sorted(events)} over")
    time.sleep(round.rng.uniform(0.0, 0.1))
    first.send(signal.SIGCONT)
    if not round.wait_for(lambda: events <= _lost_by(round, first), 3.0):
        kept = sorted(events - _lost_by(round, first))
        round.problems.append(
            f"worker {first.number} counts {kept} as settled, whose leases ended while it was stopped"
        )


def _judge(round: Round, first: Life, second: Life, held: Sequence[Leased]) -> None:
    """Wait until the second worker is done with what it took over, and look at what the first one changed of it."""
    lines = reversed(round.lines_of(second))
    taken = {line.event: line.attempt for line in lines if line.what == "start"}
    before = {lease.event: lease.deliveries for lease in held}
    over = before.keys() & taken.keys()

    def ended() -> bool:
        return over <= {line.event for line in round.lines_of(second) if line.what in ENDS}

    if not round.wait_for(ended, PATIENCE):
        round.problems.append(f"worker {second.number} did not end what it took over: {sorted(over)}")
    round.tally.stops += 1
    round.tally.overtaken += len(over)
    round.tally.stale_settles += sum(line.what == "stale" for line in round.lines_of(first))
    for event in sorted(over):
        if taken[event] != before[event] + 1:
            round.problems.append(f"event {event} came as attempt {taken[event]} after {before[event]} deliveries")
    if robbed := sorted(over & _lost_by(round, second)):
        round.problems.append(f"worker {second.number} lost {robbed}, which it had taken over")


def _lost_by(round: Round, life: Life) -> set[int]:
    return {line.event for line in round.lines_of(life) if line.what in ("lost", "stale")}
