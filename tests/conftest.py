"""What every test shares.

Asynchronous tests run on asyncio, by pytest-asyncio in auto mode: no mark needed. What must hold on trio too
runs in the simulation, which starts its own loop from a plain `def` test.
"""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a busy machine is no failure, and 20 s a test is the limit. In CI the same examples each time.
settings.register_profile("eventkit", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("eventkit")


def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: half of the time of these tests is waiting, for leases and real processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores + 2, 6)
