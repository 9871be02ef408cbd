"""How a queue or subscription is set up."""

from __future__ import annotations

import math

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Times are in seconds. `duplicates` is the window of duplicate detection, 0 for none.

    `ttl` is the most that a message's own time to live may be; `dead_letter_expired` says what becomes of it then.
    """

    lock: float = 60.0
    max_deliveries: int = 100
    ttl: float = math.inf
    dead_letter_expired: bool = True
    duplicates: float = 0.0
    sessions: bool = False
