"""What a proxy has seen and done."""

from __future__ import annotations

from collections import Counter

import msgspec


class ProxyCounts(msgspec.Struct, kw_only=True):
    """What a `FaultProxy` has seen since it was made; `open` is how many connections there are now.

    `to_upstream` and `to_client` are bytes forwarded, `swallowed` those that were not. `faults` counts how often
    each fault has struck, by the name of its method: `delay`, `slow` and `blackhole` once a piece of data, the
    others once a connection. A connection that was refused cannot be seen.
    """

    connections: int = 0
    open: int = 0
    to_upstream: int = 0
    to_client: int = 0
    swallowed: int = 0
    faults: Counter[str] = msgspec.field(default_factory=Counter)
