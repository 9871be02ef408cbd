"""What a consumer says of itself when it ends. Celery's environment imports this too: standard library only."""

from __future__ import annotations

import json
import resource
from typing import Any


def used(who: int = resource.RUSAGE_SELF) -> float:
    """Seconds of CPU, user and system."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def peak(who: int = resource.RUSAGE_SELF) -> float:
    """Most memory it ever had, MiB; of children, that of the largest."""
    return resource.getrusage(who).ru_maxrss / 1024


def report(cpu: float, memory: float, **more: Any) -> None:
    """The one line on standard output."""
    print(json.dumps({"cpu": cpu, "peak": memory, **more}), flush=True)
