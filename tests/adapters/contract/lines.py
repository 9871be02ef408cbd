"""Lines that lead through a proxy."""

from __future__ import annotations

from collections.abc import Callable

from eventkit.testing import FaultProxy
from tests.adapters.contract.variant import Verb


class ProxyLine:
    """Loses the connections that lead through `proxy`; `lose_answer` says how a single answer is lost, if it can be."""

    def __init__(self, proxy: FaultProxy, lose_answer: Callable[[Verb], None] | None = None) -> None:
        self._proxy = proxy
        self._lose_answer = lose_answer

    async def lose(self) -> None:
        """See `Line`."""
        self._proxy.refuse()
        self._proxy.reset()

    async def heal(self) -> None:
        """See `Line`."""
        self._proxy.heal()

    def lose_answer(self, verb: Verb) -> bool:
        """See `Line`."""
        if self._lose_answer is None:
            return False
        self._lose_answer(verb)
        return True
