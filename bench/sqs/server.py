"""The local server in this process: `python -m bench.sqs.server QUEUE …`.

Says first where it is; then, for each line on standard input, what has been done; ends with its input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import anyio
import msgspec
from anyio import to_thread
from eventkit_sqs import adapter

from eventkit.spi import LocalServer


async def main(queues: Sequence[str]) -> None:
    """Serve until standard input ends."""
    assert isinstance(adapter, LocalServer), "it brings one"
    async with adapter.local(queues) as place:
        say({"endpoint": place.endpoint, "environment": dict(place.environment)})
        while await to_thread.run_sync(sys.stdin.readline):
            say(msgspec.structs.asdict(place.counts()))


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:])
