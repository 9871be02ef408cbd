"""A TCP proxy that breaks what passes through it: for tests of adapters against a server of their own.

    async with FaultProxy("127.0.0.1", 9324) as proxy:
        ...  # a client of proxy.host, proxy.port
        proxy.lose_reply(when=b"AmazonSQS.DeleteMessage")  # the next one is done, and nobody hears of it
        proxy.reset()
        proxy.heal()

It knows bytes and no protocol: TLS passes through, but then there is nothing in it to match.
"""

from eventkit.testing.proxy._counts import ProxyCounts
from eventkit.testing.proxy._proxy import FaultProxy

__all__ = ["FaultProxy", "ProxyCounts"]
