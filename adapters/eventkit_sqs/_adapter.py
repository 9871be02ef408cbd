"""SQS queues as sources and sinks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from eventkit.spi import Address, Demand, LocalPlace, Sink, Source


class SqsAdapter:
    """Opens SQS queues; the local server is loaded only when asked for."""

    def open_source(self, address: Address, demand: Demand) -> AbstractAsyncContextManager[Source]:
        """See `Adapter.open_source`."""
        raise NotImplementedError

    def open_sink(self, address: Address) -> AbstractAsyncContextManager[Sink]:
        """See `Adapter.open_sink`."""
        raise NotImplementedError

    def local(self, queues: Sequence[str], *, port: int = 0) -> AbstractAsyncContextManager[LocalPlace]:
        """See `LocalServer.local`."""
        from eventkit_sqs._local import serve

        return serve(queues, port=port)


adapter: Final = SqsAdapter()
