"""A server for development and tests that stands in for SQS: `eventkit local sqs`. Needs the extra `local`.

    async with serve(["orders", "bills.fifo"]) as place:
        os.environ.update(place.environment)
        ...

It speaks the JSON protocol of SQS on a loopback port, over the in-memory broker of `eventkit.testing`: receipts,
visibility timeouts, FIFO groups and limits are as strict as the service documents them, or stricter. It is kinder in
these: counts are exact, nothing is delivered twice without a reason, a queue can be made again at once after it was
deleted and purged at any time, messages in flight have no limit, and nobody's permissions are looked at.
"""

from __future__ import annotations

from eventkit.errors import AdapterNotInstalled

try:
    import aiohttp as _aiohttp
except ModuleNotFoundError as exc:
    raise AdapterNotInstalled(
        'the local server of "sqs" needs the package aiohttp: pip install "eventkit-worker[local]"'
    ) from exc

from eventkit_sqs._local._errors import SqsError
from eventkit_sqs._local._faults import Call, ConnectionDropped, Faults
from eventkit_sqs._local._server import LocalSqs, serve

del _aiohttp

__all__ = ["Call", "ConnectionDropped", "Faults", "LocalSqs", "SqsError", "serve"]
