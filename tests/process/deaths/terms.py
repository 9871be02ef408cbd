"""SIGTERM at any instant: exit within the drain budget, nothing lost, nothing left leased."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

from tests.process.deaths import audit, queue_file
from tests.process.deaths.lives import Life
from tests.process.deaths.rounds import Round

EVENTS_A_TERM = 40
REACTION = 2.0
"""Seconds from the signal to the beginning of the drain that pass as a busy machine."""


def term_round(round: Round, terms: int, *, cut: bool) -> None:
    """Drain `terms` workers one after another on one queue. `cut`: with handlers that outlast the drain budget."""
    began = time.monotonic()
    if cut:
        round.options = replace(round.options, pace=0.25, pace_again=0.25, drain=0.03)
    round.publish(terms * EVENTS_A_TERM)
    while round.tally.terms < terms and not round.problems:
        _drain_some(round, cut=cut)
    round.finish()
    round.tally.term_doubles += audit.doubles(round.lines())
    round.tally.term_seconds += time.monotonic() - began


def _drain_some(round: Round, *, cut: bool) -> None:
    """Start workers, tell them to end one after another, and look when all have."""
    rng = round.rng
    here = [round.born() for _ in range(round.workers)]
    if rng.random() < 0.3:
        round.next_line(0.2)
        time.sleep(rng.uniform(0.0, 0.006))
    else:
        time.sleep(rng.uniform(0.005, 0.15))
    told: dict[int, float] = {}
    for life in here:
        told[life.number] = time.monotonic()
        life.send(signal.SIGTERM)
        time.sleep(rng.uniform(0.0, 0.01))
    for life in here:
        round.drained(life, codes=(0, 1, -signal.SIGTERM) if cut else (0, -signal.SIGTERM), told=told[life.number])
        _judge(round, life, told[life.number])
    if leased := queue_file.leased(round.folder):
        round.problems.append(f"left leased by workers that drained: {[lease.event for lease in leased]}")
    round.check_lost()


def _judge(round: Round, life: Life, told: float) -> None:
    """Count it, and look whether it began to drain at once."""
    if life.code == -signal.SIGTERM:
        round.tally.terms_before_start += 1
        if not round.ended_before_start(life):
            round.problems.append(f"worker {life.number} was ended by SIGTERM instead of draining")
        return
    round.tally.terms += 1
    round.tally.terms_cut += life.code == 1
    drains = [line.at for line in round.lines_of(life) if line.what == "drain"]
    if not drains:
        round.problems.append(f"worker {life.number} ended without a drain")
        return
    reaction = drains[0] - told
    round.tally.worst_reaction = max(round.tally.worst_reaction, reaction)
    if reaction > REACTION:
        round.problems.append(f"worker {life.number} began to drain {reaction:.2f} s after SIGTERM")
