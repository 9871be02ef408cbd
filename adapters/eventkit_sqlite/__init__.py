"""The embedded queue: events in one SQLite file, shared by any number of processes on one machine.

Address: `sqlite:///quakes.db?queue=quakes` (three slashes: a path from the working folder; four: from the root).
"""

from eventkit_sqlite._adapter import adapter

__all__ = ["adapter"]
