"""SIGKILL at any instant: while a worker starts, receives, handles, settles and drains."""

from __future__ import annotations

import signal
import time

from tests.process.deaths import audit, queue_file
from tests.process.deaths.lives import Life
from tests.process.deaths.rounds import Round

EVENTS_A_KILL = 25


def kill_round(round: Round, kills: int) -> None:
    """Kill `kills` workers one after another on one queue, then let the next ones work it off."""
    began = time.monotonic()
    round.publish(kills * EVENTS_A_KILL)
    while round.tally.kills < kills and not round.problems:
        while len(round.lives.alive) < round.workers:
            round.born()
        victim = round.rng.choice(round.lives.alive)
        draining = _strike(round, victim)
        if victim.killed:
            round.tally.kills += 1
            round.tally.kills_in_drain += draining
            round.tally.kills_at_work += _was_at_work(round, victim)
        elif victim.code != 0 and not round.ended_before_start(victim):
            round.problems.append(f"worker {victim.number} ended with {victim.code} before it was killed")
        round.check_lost()
    round.finish()
    round.tally.kill_doubles += audit.doubles(round.lines())
    round.tally.kill_seconds += time.monotonic() - began


def _strike(round: Round, victim: Life) -> bool:
    """Kill it at an instant of one of three sorts; whether it had been told to drain."""
    rng, sort = round.rng, round.rng.random()
    if sort < 0.5:
        time.sleep(rng.uniform(0.0, 0.07))
    elif sort < 0.75:
        # Just after something was done: between an effect and its ack, or in the midst of the ack.
        time.sleep(rng.uniform(0.0, 0.04))
        round.next_line(0.1)
        time.sleep(rng.uniform(0.0, 0.006))
    else:
        time.sleep(rng.uniform(0.01, 0.05))
        victim.send(signal.SIGTERM)
        time.sleep(rng.uniform(0.0, 0.015))
    victim.send(signal.SIGKILL)
    victim.ended(10.0)
    return sort >= 0.75


def _was_at_work(round: Round, victim: Life) -> bool:
    """Whether it had begun with an event that is still in the queue."""
    waiting = queue_file.look(round.folder).waiting
    return any(line.event in waiting for line in round.lines_of(victim) if line.what == "start")
