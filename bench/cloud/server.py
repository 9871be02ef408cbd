"""A local server in this process: `python -m bench.cloud.server SCHEME QUEUE …`.

Says first where it is; then, for each line on standard input, what has been done; ends with its input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import anyio
import msgspec
from anyio import to_thread

from eventkit._registry import adapter_for
from eventkit.spi import Address, LocalServer


async def main(scheme: str, queues: Sequence[str]) -> None:
    """Serve until standard input ends."""
    adapter = adapter_for(Address(scheme))
    assert isinstance(adapter, LocalServer), "it brings one"
    async with adapter.local(queues) as place:
        addresses = {queue: place.address(queue) for queue in queues}
        say({"endpoint": place.endpoint, "environment": dict(place.environment), "addresses": addresses})
        while await to_thread.run_sync(sys.stdin.readline):
            say(msgspec.structs.asdict(place.counts()))


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2:])
